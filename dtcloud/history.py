"""Reads the history of events from DT's REST API: the devices of a project, and the events of a device page by page.

The reader of history in the `disruptive` package collects all pages before it returns the first event; this one holds
a single page in memory.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

from dtcloud.rest import REQUESTS_AT_ONCE, Api, ApiError, RequestRefused

DEVICES_AT_ONCE = REQUESTS_AT_ONCE
PAGE_SIZE = 1000  # events
PAUSES: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)  # seconds, between the attempts of a request

HistoryError = ApiError

_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"
# Where a page walk starts again: it is not documented whether endTime itself is included.
_OVERLAP = timedelta(milliseconds=1)
# DT's documentation does not say how it answers a page token that has expired.
_EXPIRED = (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.GONE)


class _PageTokenRefused(RequestRefused):
    """Raised if DT refuses a request for a further page; the page token may have expired."""


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
    """The history of a project, 31 days of which DT documents.

    Attributes:
        api: DT's REST API.
    """

    def __init__(self, project: str, environ: Mapping[str, str]) -> None:
        """Read the service account that the environment names; sends nothing.

        Raises:
            MissingCredentials: a credential is missing.
        """
        self.api = Api(environ, PAUSES)
        self._project = f"/projects/{project}"

    async def devices(self, ids: Sequence[str], labels: frozenset[str] | None) -> list[Device]:
        """List devices.

        Args:
            ids: the devices to list; empty for all devices of the project.
            labels: the keys of the labels in the envelope; None for all labels.

        Raises:
            HistoryError: DT's API does not return the devices.
        """
        if ids:
            found = [await self.api.get(f"{self._project}/devices/{device_id}") for device_id in dict.fromkeys(ids)]
        else:
            found = [raw async for page in self._pages("/devices", "devices", {}) for raw in page]
        return [_device(raw, labels) for raw in found]

    async def events(
        self, device: Device, since: datetime, until: datetime, event_types: Sequence[str], page_size: int = PAGE_SIZE
    ) -> AsyncGenerator[list[Any], None]:
        """Iterate over the pages of a device's history, newest event first.

        When DT refuses a page token, for example because it has expired, the walk starts again at the oldest event
        that came.

        Args:
            device: the device.
            since: the beginning, in UTC.
            until: the end, in UTC.
            event_types: the types to return; empty for all types.
            page_size: events on a page.

        Yields:
            The events of a page, as DT's API returns them.

        Raises:
            HistoryError: DT's API does not return a page.
        """
        params: dict[str, Any] = {"startTime": since.strftime(_TIME), "pageSize": page_size}
        if event_types:
            params["eventTypes"] = list(event_types)
        page: list[Any] = []
        while True:
            before = page
            pages = self._pages(f"/devices/{device.id}/events", "events", params | {"endTime": until.strftime(_TIME)})
            try:
                async for page in pages:
                    yield _without(page, before)
            except _PageTokenRefused as error:
                oldest = _oldest(page)
                if oldest is None or oldest + _OVERLAP >= until:
                    raise RequestRefused(str(error), error.status) from None
                until = oldest + _OVERLAP
            else:
                return

    async def _pages(self, path: str, key: str, params: dict[str, Any]) -> AsyncIterator[list[Any]]:
        while True:
            answer = await self._page(self._project + path, params)
            if not isinstance(answer.get(key), list):
                raise HistoryError(f"DT's answer has no list of {key} ({path})")
            yield answer[key]
            token = answer.get("nextPageToken")
            if not token:
                return
            if token == params.get("pageToken"):
                raise HistoryError(f"DT's answer names itself as the next page ({path})")
            params = {**params, "pageToken": token}

    async def _page(self, path: str, params: dict[str, Any]) -> dict[str, Any]:
        try:
            return await self.api.get(path, params)
        except RequestRefused as error:
            if "pageToken" in params and error.status in _EXPIRED:
                raise _PageTokenRefused(str(error), error.status) from None
            raise


def event_time(event: Any) -> datetime | None:
    """Return the timestamp of an event in UTC, to the microsecond; None if it has none."""
    with suppress(TypeError, KeyError, AttributeError, ValueError, OverflowError):
        return datetime.fromisoformat(event["timestamp"].upper()).astimezone(UTC)
    return None


def _oldest(events: Sequence[Any]) -> datetime | None:
    return min(filter(None, map(event_time, events)), default=None)


def _without(events: list[Any], before: Sequence[Any]) -> list[Any]:
    """Return the events without those that came on the last page before the walk started again."""
    known = {event["eventId"] for event in before if isinstance(event, dict) and isinstance(event.get("eventId"), str)}
    return [event for event in events if not (isinstance(event, dict) and event.get("eventId") in known)]


def _device(raw: Mapping[str, Any], labels: frozenset[str] | None) -> Device:
    try:
        _, project_id, _, device_id = raw["name"].split("/")
        chosen = {key: value for key, value in raw["labels"].items() if labels is None or key in labels}
        metadata = {"deviceId": device_id, "projectId": project_id, "deviceType": raw["type"]}
        metadata["productNumber"] = raw.get("productNumber", "")
    except (KeyError, ValueError, AttributeError):
        raise HistoryError("DT's answer describes a device in an unknown form") from None
    return Device(device_id, {"labels": chosen, "metadata": metadata})
