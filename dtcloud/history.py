"""Reads the history of events from DT's REST API: the devices of a project, and the events of a device page by page.

The `disruptive` package signs in, sends requests and repeats failed ones. Its own reader of history collects all pages
before it returns the first event; this one holds a single page in memory.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import disruptive
import requests
from disruptive import errors
from disruptive.requests import DTRequest

from dtcloud.account import VARIABLES, sign_in

DEVICES_AT_ONCE = 4
PAGE_SIZE = 1000  # events
PAUSES: tuple[float, ...] = (2.0, 8.0)  # seconds, between rounds of the package's own three attempts

_TIMEOUT = 30  # seconds without a byte
_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"
_REFUSED: dict[type[Exception], str] = {
    errors.BadRequest: "DT refuses the request: check --event-type, and the ids of the project and the device",
    errors.Unauthorized: f"DT refuses the service account: check {', '.join(VARIABLES)}",
    errors.Forbidden: "the service account may not read this project: give it a role in the project, in DT Studio",
    errors.NotFound: "DT does not know the project or device, or the service account has no role in the project",
}
_FAILED: dict[type[Exception], str] = {
    errors.TooManyRequests: "DT still answers that there are too many requests",
    errors.ServerError: "DT answers with a server error",
    errors.ConnectionError: "DT cannot be reached, or does not answer",
}


class HistoryError(Exception):
    """Raised if DT's API does not return the requested data after several attempts; the text gives the reason."""


class RequestRefused(HistoryError):
    """Raised if DT's API refuses the request, so that another attempt would not help."""


@dataclass(frozen=True, slots=True)
class Device:
    """A device as DT's API describes it at present.

    Attributes:
        id: DT's device id.
        envelope: the `labels` and `metadata` that a Data Connector sends with each event.
    """

    id: str
    envelope: Mapping[str, Any]

    def body(self, event: Any) -> bytes:
        """Return the request body in which a Data Connector sends the event.

        It is in ASCII, so that text with lone surrogates can be encoded and reaches the quarantine.
        """
        return json.dumps({"event": event, **self.envelope}, separators=(",", ":")).encode()


class History:
    """The history of a project, 31 days of which DT documents."""

    def __init__(self, project: str, environ: Mapping[str, str]) -> None:
        """Sign in with the service account named by the environment; sends nothing.

        Raises:
            MissingCredentials: a credential is missing.
        """
        sign_in(environ)
        disruptive.request_timeout = _TIMEOUT
        self._project = f"/projects/{project}"
        self._threads = ThreadPoolExecutor(DEVICES_AT_ONCE)

    async def devices(self, ids: Sequence[str], labels: frozenset[str] | None) -> list[Device]:
        """List devices.

        Args:
            ids: the devices to list; empty for all devices of the project.
            labels: the keys of the labels in the envelope; None for all labels.

        Raises:
            HistoryError: DT's API does not return the devices.
        """
        if ids:
            found = [await self._get(f"/devices/{device_id}", {}) for device_id in dict.fromkeys(ids)]
        else:
            found = [raw async for page in self._pages("/devices", "devices", {}) for raw in page]
        return [_device(raw, labels) for raw in found]

    def events(
        self, device: Device, since: datetime, until: datetime, event_types: Sequence[str]
    ) -> AsyncIterator[list[Any]]:
        """Iterate over the pages of a device's history, newest event first.

        Args:
            device: the device.
            since: the beginning, in UTC.
            until: the end, in UTC.
            event_types: the types to return; empty for all types.

        Yields:
            The events of a page, as DT's API returns them.

        Raises:
            HistoryError: DT's API does not return a page.
        """
        params = {"startTime": since.strftime(_TIME), "endTime": until.strftime(_TIME), "pageSize": PAGE_SIZE}
        types = {"eventTypes": list(event_types)} if event_types else {}
        return self._pages(f"/devices/{device.id}/events", "events", params | types)

    async def _pages(self, path: str, key: str, params: dict[str, Any]) -> AsyncIterator[list[Any]]:
        while True:
            answer = await self._get(path, params)
            if not isinstance(answer.get(key), list):
                raise HistoryError(f"DT's answer has no list of {key}")
            yield answer[key]
            token = answer.get("nextPageToken")
            if not token:
                return
            if token == params.get("pageToken"):
                raise HistoryError("DT's answer names itself as the next page")
            params = {**params, "pageToken": token}

    async def _get(self, path: str, params: dict[str, Any]) -> dict[str, Any]:
        """Send a request, and repeat it after failures that the package does not repeat, such as a truncated page."""
        loop = asyncio.get_running_loop()
        for pause in (*PAUSES, None):
            try:
                answer = await loop.run_in_executor(self._threads, _request, self._project + path, params)
            except tuple(_REFUSED) as error:
                raise RequestRefused(_REFUSED[type(error)]) from None
            except (errors.DTApiError, requests.RequestException, ValueError, KeyError) as error:
                if pause is None:
                    raise HistoryError(_reason(error)) from None
                await asyncio.sleep(pause)
            else:
                return answer if isinstance(answer, dict) else {}
        raise AssertionError  # the last attempt returned or raised


def _request(url: str, params: dict[str, Any]) -> Any:
    try:
        return DTRequest.get(url, params=dict(params))
    except errors.Unauthorized:  # the package repeats a request with the same token that was refused
        disruptive.default_auth.refresh()
        return DTRequest.get(url, params=dict(params))


def _reason(error: Exception) -> str:
    known = (text for kind, text in _FAILED.items() if isinstance(error, kind))
    return next(known, f"DT's answer cannot be read ({type(error).__name__})")


def _device(raw: Mapping[str, Any], labels: frozenset[str] | None) -> Device:
    try:
        _, project_id, _, device_id = raw["name"].split("/")
        chosen = {key: value for key, value in raw["labels"].items() if labels is None or key in labels}
        metadata = {"deviceId": device_id, "projectId": project_id, "deviceType": raw["type"]}
        metadata["productNumber"] = raw.get("productNumber", "")
    except (KeyError, ValueError, AttributeError):
        raise HistoryError("DT's answer describes a device in an unknown form") from None
    return Device(device_id, {"labels": chosen, "metadata": metadata})
