"""What all open pages share: the sensors and the latest events, read once and kept up to date while a page is open."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

from viewer.connection import StoreError
from viewer.model import Event, Sensors
from viewer.queries import EPOCH, LATE, QUARANTINE, RECENT, WITHOUT_DEVICES, Queries, events, quarantined_at

LOOK = 1.0  # seconds
_RENEW = timedelta(minutes=15)  # less than queries.AHEAD
_GAPS = timedelta(seconds=30)  # at least, between two reads of the devices whose events were missed
_REMEMBERED = 2_000  # events that are not new if the query finds them again

_LOG = logging.getLogger(__name__)


class Feed:
    """Looks for changes while a page is open.

    Attributes:
        sensors: all that are known.
        events: the latest ones, the newest last.
        quarantine: keys and documents that are not resolved, the newest first; kept up to date while
            `quarantine_pages` is not 0; None before the first read.
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
        self.quarantine: list[tuple[str, dict[str, Any]]] | None = None
        self.quarantine_pages = 0
        self.loaded = False
        self.error: str | None = None
        self.version = 0
        self._watched = watched
        self._position = EPOCH  # of the newest event
        self._seen: dict[str, None] = {}  # ids of events, those that were found last at the end
        self._gap: datetime | None = None  # after which events were missed
        self._filled_at = EPOCH
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
            self._say(str(error))
        except Exception as error:  # noqa: BLE001 - the pages must not stand still without a word
            if self._say(f"The viewer has failed ({type(error).__name__}); its output says more."):
                _LOG.exception("The viewer has failed.")
        else:
            self._say(None)

    def _say(self, error: str | None) -> bool:
        """Set the error, and return whether it is another one than before."""
        changed, self.error = error != self.error, error
        self.version += changed
        return changed

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
        try:
            found = events(await self._new_events.look())
        except StoreError:
            self._stop()  # a listener that stays would keep a connection that is lost
            raise
        before, now = self._position, datetime.now(UTC)
        new = self._add(found)
        self.version += bool(new)
        if new >= self.queries.window:
            self._gap = self._gap or before
        began_at = self._new_events.began_at
        if began_at and now - began_at > _RENEW:  # the end of a query is fixed while there is a listener
            self._new_events.close()
        await self._fill_gap(now)

    async def _fill_gap(self, now: datetime) -> None:
        """Bring the sensors up to date whose events may have been missed, because too many came at once."""
        if self._gap and self.queries.source.devices and now - self._filled_at > _GAPS:
            await self._read_devices(since=self._gap - LATE)
            self._gap, self._filled_at = None, now

    def _add(self, found: list[Event]) -> int:
        """Add the events that are new, and return how many there were."""
        new = {event.event_id: event for event in found if event.event_id not in self._seen}  # the last version of each
        for event in sorted(new.values(), key=self.queries.position):
            self.sensors.add_event(event)
            self.events.append(event)
            self._position = max(self._position, self.queries.position(event))
        if not new:
            return 0
        ids = dict.fromkeys(event.event_id for event in found)
        known = [each for each in self._seen if each not in ids]
        self._seen = dict.fromkeys([*known, *ids][-_REMEMBERED:])
        return len(new)

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
