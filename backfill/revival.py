"""Reads the state of the Data Connector, and switches it on again once the endpoint answers a delivery.

The proof is a delivery as DT Cloud makes it: the newest event of DT's history, signed with the connector's own secret.
It needs no secret of the repair's own, and it leaves nothing behind that would have to be removed: the event's document
is wanted anyway. For a connector without a secret only DT can sign, with its private key. Then an unsigned delivery
must be refused in the function's own words: this shows that the function runs, but not that it accepts DT's signature.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing
from http import HTTPStatus
from typing import Any

import requests

from backfill.markers import Markers
from backfill.time_window import TimeWindow
from dtcloud import signature
from dtcloud.connector import SYSTEM_DISABLED, DataConnector
from dtcloud.connector_state import enable, find_connector, read_metrics
from dtcloud.history import Device, History, HistoryError, event_time
from receiver.settings import Settings

_TIMEOUT = 15.0  # seconds; DT waits for 10
_NOT_VERIFIED = "Could not verify request."  # the function's answer to a delivery that it does not accept
_MOST_ASKED = 50  # devices, for the newest event


async def read_connector(history: History, project: str, endpoint: str) -> tuple[DataConnector | None, dict[str, Any]]:
    """Return the Data Connector that delivers to an endpoint, and what the report says of it.

    Raises:
        HistoryError: DT's API does not return the connector.
    """
    connector = await find_connector(history.api, project, endpoint)
    if connector is None:
        return None, {"status": "none", "problem": "no Data Connector of the project delivers to the endpoint"}
    try:
        metrics = await read_metrics(history.api, connector)
    except HistoryError as error:  # the repair can do without them
        metrics = {"problem": str(error)}
    return connector, {"name": connector.name, "status": connector.status, **metrics}


async def revive(history: History, connector: DataConnector, endpoint: str, body: bytes | None) -> dict[str, Any]:
    """Switch a connector on that DT has switched off, if the endpoint answers; never one that a user switched off.

    Args:
        history: has DT's API.
        connector: the connector.
        endpoint: its URL.
        body: an event as the connector sends it; None if the history has none.

    Returns:
        What the report says of it.

    Raises:
        HistoryError: DT's API does not switch it on.
    """
    if connector.status != SYSTEM_DISABLED:
        return {}
    problem = await asyncio.to_thread(_deliver, endpoint, body, connector.secret)
    if problem:
        return {"problem": problem}
    return {"status": await enable(history.api, connector), "revived": True}


async def newest_body(
    history: History, devices: Sequence[Device], window: TimeWindow, connector: DataConnector, settings: Settings
) -> bytes | None:
    """Return the newest event of the first device that has one in a time window, as the connector sends it.

    An event that `forget` has deleted is left out. Its markers are read anew for each event: `forget` waits only for
    what is stored within 40 seconds after a program read them, and a delivery can take most of that.

    Raises:
        HistoryError: DT's API does not return it.
        One of `backfill.database.FAILURES`: Firestore does not return the markers.
    """
    for device in devices[:_MOST_ASKED]:
        pages = history.events(device, window.since, window.until, connector.event_types, page_size=1)
        async with aclosing(pages):
            page: list[Any] = await anext(pages, [])
        if page and not (await Markers(settings).forgotten(device.id, [event_time(page[0])]))[0]:
            return device.body(page[0])
    return None


def _deliver(endpoint: str, body: bytes | None, secret: str) -> str:
    """Deliver once, as DT Cloud does; return why the endpoint does not accept it, or an empty string."""
    signed = body is not None and bool(secret)
    headers = {"Content-Type": "application/json"}
    if body is not None and secret:
        headers[signature.HEADER] = signature.sign(body, secret, now=time.time())
    try:
        response = requests.post(endpoint, data=body or b"{}", headers=headers, timeout=_TIMEOUT, allow_redirects=False)
    except requests.RequestException as error:
        return f"the endpoint does not answer ({type(error).__name__})"
    verified = response.text.strip() != _NOT_VERIFIED
    # A signed body that is not a valid document is answered with 400 too, in other words.
    if response.status_code == HTTPStatus.BAD_REQUEST and verified is signed:
        return ""
    if response.status_code == HTTPStatus.OK and signed:
        return ""
    kind = "a delivery that is signed with the connector's secret" if signed else "an unsigned delivery"
    return f"the endpoint answered {response.status_code} to {kind}"
