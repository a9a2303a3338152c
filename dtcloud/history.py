"""DT's REST API as far as history needs it: the devices of a project, and the pages of a device's events.

DT's own package signs in, sends, and repeats what fails; it would however collect a device's whole history before it
hands out the first event, hence the paging here.
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
PAUSES: tuple[float, ...] = (2.0, 8.0)  # seconds, between rounds of the package's own three retries

_TIMEOUT = 30  # seconds without a byte
_REFUSALS: dict[type[Exception], str] = {
    errors.BadRequest: "DT refuses the request: check --event-type, and the ids of the project and the device",
    errors.Unauthorized: f"DT refuses the service account: check {', '.join(VARIABLES)}",
    errors.Forbidden: "the service account may not read this project: give it a role there, in DT Studio",
    errors.NotFound: "DT knows no such project or device, or the service account has no role there",
}
_FAILURES: dict[type[Exception], str] = {
    errors.TooManyRequests: "DT goes on to answer that these are too many requests",
    errors.ServerError: "DT answers with an error of its own",
    errors.ConnectionError: "DT cannot be reached, or does not answer",
}


class HistoryError(Exception):
    """Raised if DT's API does not give what was asked for, though asked several times; the text says why."""


class Refused(HistoryError):
    """Raised if DT's API refuses what was asked for: asking again would not help."""


@dataclass(frozen=True, slots=True)
class Device:
    """A device as it is now.

    Attributes:
        id: DT's id of it.
        envelope: what a Data Connector posts around its events: `labels` and `metadata`.
    """

    id: str
    envelope: Mapping[str, Any]

    def body(self, event: Any) -> bytes:
        """Return the body in which a Data Connector would have posted the event.

        In ASCII, so that even text that is no Unicode comes as far as the quarantine.
        """
        return json.dumps({"event": event, **self.envelope}, separators=(",", ":")).encode()


class History:
    """A project's history."""

    def __init__(self, project: str, environ: Mapping[str, str]) -> None:
        """Sign in with the service account that the environment names; nothing is sent yet.

        Args:
            project: DT's id of the project.
            environ: the process's environment.

        Raises:
            MissingError: a credential is missing.
        """
        sign_in(environ)
        disruptive.request_timeout = _TIMEOUT
        self._project = f"/projects/{project}"
        self._threads = ThreadPoolExecutor(DEVICES_AT_ONCE)

    async def devices(self, ids: Sequence[str], labels: frozenset[str] | None) -> list[Device]:
        """List devices.

        Args:
            ids: of those wanted; none wants all of the project.
            labels: the keys of the labels that events carry; None takes every label.

        Returns:
            The devices.

        Raises:
            HistoryError: DT's API does not name them.
        """
        if ids:
            found = [await self._ask(f"/devices/{device_id}", {}) for device_id in dict.fromkeys(ids)]
        else:
            found = [raw async for page in self._pages("/devices", "devices", {}) for raw in page]
        return [_device(raw, labels) for raw in found]

    def events(
        self, device: Device, since: datetime, until: datetime, event_types: Sequence[str]
    ) -> AsyncIterator[list[Any]]:
        """Return the pages of a device's history, newest first, one in memory at a time.

        Args:
            device: the device.
            since: the beginning, in UTC.
            until: the end, in UTC.
            event_types: those wanted; none wants all.

        Yields:
            The events of a page, as DT's API has them.

        Raises:
            HistoryError: DT's API does not give a page.
        """
        params: dict[str, Any] = {
            "startTime": since.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "endTime": until.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "pageSize": PAGE_SIZE,
        }
        if event_types:
            params["eventTypes"] = list(event_types)
        return self._pages(f"/devices/{device.id}/events", "events", params)

    async def _pages(self, path: str, key: str, params: dict[str, Any]) -> AsyncIterator[list[Any]]:
        while True:
            answer = await self._ask(path, params)
            if not isinstance(answer.get(key), list):
                raise HistoryError(f"DT's answer holds no list of {key}")
            yield answer[key]
            token = answer.get("nextPageToken")
            if not token:
                return
            if token == params.get("pageToken"):
                raise HistoryError("DT's answer names itself as the next page")
            params = {**params, "pageToken": token}

    async def _ask(self, path: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Ask until DT answers or refuses: also after what the package does not repeat, as a page that breaks off."""
        loop = asyncio.get_running_loop()
        for pause in (*PAUSES, None):
            try:
                answer: Any = await loop.run_in_executor(self._threads, _get, self._project + path, dict(params))
            except tuple(_REFUSALS) as error:
                raise Refused(_REFUSALS[type(error)]) from None
            except (errors.DTApiError, requests.RequestException, ValueError, KeyError) as error:
                if pause is None:
                    raise HistoryError(_why(error)) from None
                await asyncio.sleep(pause)
            else:
                return answer if isinstance(answer, dict) else {}
        raise AssertionError  # the last round returned or raised


def _get(url: str, params: dict[str, Any]) -> Any:
    try:
        return DTRequest.get(url, params=params)
    except errors.Unauthorized:  # the package repeats a request with the very token that was refused
        disruptive.default_auth.refresh()
        return DTRequest.get(url, params=params)


def _why(error: Exception) -> str:
    known = (words for kind, words in _FAILURES.items() if isinstance(error, kind))
    return next(known, f"DT's answer cannot be read ({type(error).__name__})")


def _device(raw: Mapping[str, Any], labels: frozenset[str] | None) -> Device:
    try:
        _, project_id, _, device_id = raw["name"].split("/")
        kept = {key: value for key, value in raw["labels"].items() if labels is None or key in labels}
        metadata = {
            "deviceId": device_id,
            "projectId": project_id,
            "deviceType": raw["type"],
            "productNumber": raw.get("productNumber", ""),
        }
    except (KeyError, ValueError, AttributeError):
        raise HistoryError("DT's answer holds no device of the known form") from None
    return Device(device_id, {"labels": kept, "metadata": metadata})
