"""What all open pages share: the sensors and the latest events, read once and kept up to date while a page is open."""

import asyncio
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

from viewer.connection import StoreError
from viewer.model import Event, Sensors
from viewer.queries import EPOCH, QUARANTINE, RECENT, WITHOUT_DEVICES, Queries, events, quarantined_at

LOOK = 1.0  # seconds
_RENEW = timedelta(minutes=15)  # less than queries.AHEAD
_FEW = 50  # documents that a local Firestore may send again at each change
_STALE = timedelta(seconds=30)  # without a look, before the documents of devices are read again


class Feed:
    """Looks for changes while a page is open.

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
        """Look for changes while `watched` returns True."""
        self.queries = queries
        self.sensors = Sensors()
        self.events: deque[Event] = deque(maxlen=RECENT)
        self.quarantine: list[tuple[str, dict[str, Any]]] = []
        self.quarantine_pages = 0
        self.loaded = False
        self.error: str | None = None
        self.version = 0
        self._watched = watched
        self._position = EPOCH  # of the newest event
        self._seen: set[str] = set()  # ids of the latest events, and of those that the query still finds
        self._looked_at: datetime | None = None
        self._new_events = queries.new_events(lambda: self._position)
        self._quarantine = queries.quarantine()

    async def run(self) -> NoReturn:
        """Look until cancelled."""
        while True:
            if self._watched():
                await self._step()
            else:
                self._stop()
            await asyncio.sleep(LOOK)

    async def _step(self) -> None:
        try:
            if not self.loaded:
                await self._load()
            await self._look()
            await self._look_at_quarantine()
        except StoreError as error:
            changed, self.error = str(error) != self.error, str(error)
        else:
            changed, self.error = self.error is not None, None
        self.version += changed

    def _stop(self) -> None:
        for query in (self._new_events, *self._quarantine):
            query.close()

    async def _load(self) -> None:
        limit = RECENT if self.queries.source.devices else WITHOUT_DEVICES
        self._add(await self.queries.recent(limit))
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

    async def _look(self) -> None:
        found = events(await self._new_events.look())
        before, self._looked_at = self._looked_at, datetime.now(UTC)
        self.version += self._add(found)
        self._renew(len(found), self._looked_at)
        gap = len(found) == RECENT and before is not None and self._looked_at - before > _STALE
        if gap and before and self.queries.source.devices:
            await self._read_devices(since=before - _STALE)

    def _renew(self, found: int, now: datetime) -> None:
        """Begin after the newest event, since the end of a query is fixed while Firestore listens."""
        since = self._new_events.listening_since
        if since and (now - since > _RENEW or (self.queries.source.is_local and found > _FEW)):
            self._new_events.close()

    def _add(self, found: list[Event]) -> bool:
        """Add the events that are new, and return whether there were any."""
        new = [event for event in found if event.event_id not in self._seen]
        for event in sorted(new, key=self.queries.position):
            self.sensors.add_event(event)
            self.events.append(event)
            self._position = max(self._position, self.queries.position(event))
        self._seen = {event.event_id for event in (*found, *self.events)}
        return bool(new)

    async def _look_at_quarantine(self) -> None:
        if not self.quarantine_pages:
            for query in self._quarantine:
                query.close()
            return
        found = {key: fields for query in self._quarantine for key, fields in await query.look()}
        newest = sorted(found.items(), key=lambda each: quarantined_at(each[1]), reverse=True)[:QUARANTINE]
        shown = [each for each in newest if not each[1].get("resolvedAt")]
        if shown != self.quarantine:
            self.quarantine = shown
            self.version += 1
