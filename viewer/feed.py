"""What all open pages share: the sensors and the latest events, read once and kept up to date by polling."""

import asyncio
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

from viewer.model import Event, Sensors
from viewer.queries import EPOCH, RECENT, WITHOUT_DEVICES, Queries, StoreError

POLL = 1.0  # seconds
_STALE = timedelta(seconds=30)  # without a poll, before the documents of devices are read again


class Feed:
    """Polls while a page is open.

    Attributes:
        sensors: all that are known.
        events: the latest ones, the newest last.
        quarantine: keys and documents that are not resolved, the newest first; kept up to date while
            `quarantine_pages` is not 0.
        quarantine_pages: how many open pages show the quarantine.
        loaded: whether the first read is complete.
        error: why Firestore does not answer; None if it does.
        version: rises with each change of the others.
    """

    def __init__(self, queries: Queries, watched: Callable[[], bool]) -> None:
        """Poll while `watched` returns True."""
        self.queries = queries
        self.sensors = Sensors()
        self.events: deque[Event] = deque(maxlen=RECENT)
        self.quarantine: list[tuple[str, dict[str, Any]]] = []
        self.quarantine_pages = 0
        self.loaded = False
        self.error: str | None = None
        self.version = 0
        self._newest_quarantined: list[tuple[str, dict[str, Any]]] | None = None  # one, or none; None: not read
        self._watched = watched
        self._position = EPOCH  # of the newest event
        self._seen: set[str] = set()
        self._polled_at: datetime | None = None

    async def run(self) -> NoReturn:
        """Poll until cancelled."""
        while True:
            if self._watched():
                await self._step()
            await asyncio.sleep(POLL)

    async def _step(self) -> None:
        try:
            if not self.loaded:
                await self._load()
            await self._poll()
            if self.quarantine_pages:
                await self._read_quarantine()
            else:
                self._newest_quarantined = None
        except StoreError as error:
            changed, self.error = str(error) != self.error, str(error)
        else:
            changed, self.error = self.error is not None, None
        self.version += changed

    async def _load(self) -> None:
        limit = RECENT if self.queries.source.devices else WITHOUT_DEVICES
        for event in reversed(await self.queries.recent(limit)):
            self._add(event)
        self.version += 1
        if self.queries.source.devices:
            await self._read_devices()
        self.loaded = True
        self.version += 1

    async def _read_devices(self, **since: datetime) -> None:
        async for page in self.queries.devices(**since):
            for document in page:
                self.sensors.add_device(document)
            self.version += 1

    async def _poll(self) -> None:
        found = await self.queries.since(self._position)
        before, self._polled_at = self._polled_at, datetime.now(UTC)
        new = [event for event in reversed(found) if event.event_id not in self._seen]
        for event in new:
            self._add(event)
        self.version += bool(new)
        gap = len(found) == RECENT and before is not None and self._polled_at - before > _STALE
        if gap and before and self.queries.source.devices:
            await self._read_devices(since=before - _STALE)

    def _add(self, event: Event) -> None:
        if event.event_id in self._seen:
            return
        self.sensors.add_event(event)
        self.events.append(event)
        self._seen = {event.event_id for event in self.events}
        self._position = max(self._position, self.queries.position(event))

    async def _read_quarantine(self) -> None:
        newest = await self.queries.quarantine(1)
        if newest == self._newest_quarantined:  # to read all of them each time would cost up to 50 times as much
            return
        found = [each for each in await self.queries.quarantine() if not each[1].get("resolvedAt")]
        self._newest_quarantined = newest
        if found != self.quarantine:
            self.quarantine = found
            self.version += 1
