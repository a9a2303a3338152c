"""What is read from Firestore: each query has a limit, and its index in deploy/firestore.indexes.json."""

from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from google.cloud.firestore import Query
from google.cloud.firestore_v1.base_query import FieldFilter

from viewer.connection import Connection, Source
from viewer.documents import Found
from viewer.live import LiveQuery
from viewer.model import Event, read_event

DEVICES = 10_000  # the most devices that are read
PAGE = 500  # documents of one query of devices
RECENT = 200  # events
_OF_EMULATOR = 50  # events of a listener, all of which an emulator sends again at each change
WITHOUT_DEVICES = 2_000  # events in which devices are looked for where there is no collection of devices
HISTORY = 5_000  # events of one type of a sensor
QUARANTINE = 50
QUARANTINED = ("receivedAt", "backfilledAt")  # when a body came: from the function, or from backfill and repair
AHEAD = timedelta(minutes=20)  # by which a sender's clock may be fast
LATE = timedelta(minutes=2)  # by which an event may come after one with a later timestamp
EPOCH = datetime.fromtimestamp(0, UTC)


class Queries:
    """The reads of one Firestore."""

    def __init__(self, source: Source) -> None:
        """Connect at the first query."""
        self.source = source
        self.connection = Connection(source)
        # receivedAt has no index in the cloud, where it would limit the rate of writes.
        self._clock = "receivedAt" if source.is_local else "timestamp"

    async def recent(self, limit: int) -> list[Event]:
        """Return the newest events, the newest first."""
        return await self._newest(self._events(), limit)

    @property
    def window(self) -> int:
        """How many events `new_events` finds at most."""
        return _OF_EMULATOR if self.source.is_local and self.connection.supports_listeners else RECENT

    def new_events(self, position: Callable[[], datetime]) -> LiveQuery:
        """Return the query of the newest events after a position, as it is when the query begins."""
        return LiveQuery(self.connection, lambda: self._since(position()))

    def _since(self, position: datetime) -> Any:
        after = position - LATE if self.connection.supports_listeners else position
        query = self._events().where(filter=FieldFilter(self._clock, ">", after))
        query = query.where(filter=FieldFilter(self._clock, "<=", datetime.now(UTC) + AHEAD))
        return query.order_by(self._clock, direction=Query.DESCENDING).limit(self.window)

    def position(self, event: Event) -> datetime:
        """Return a time for `new_events`: `receivedAt` in a local Firestore, `timestamp` in the cloud, at most now."""
        at = event.received_at if self._clock == "receivedAt" else event.at
        now = datetime.now(UTC)
        return min(at, now) if at and at <= now + AHEAD else EPOCH

    async def devices(self, since: datetime = EPOCH) -> AsyncIterator[list[dict[str, Any]]]:
        """Yield the documents of the devices that were seen since a time, the last seen first, in pages."""
        query = self.connection.collection(self.source.devices or "").where(filter=FieldFilter("lastSeen", ">=", since))
        query = query.order_by("lastSeen", direction=Query.DESCENDING)
        query = query.order_by("__name__", direction=Query.DESCENDING).limit(PAGE)
        for _ in range(DEVICES // PAGE):
            page = await self.connection.read(query)
            yield [found.fields for found in page]
            if len(page) < PAGE:
                return
            query = query.start_after({"lastSeen": page[-1].fields["lastSeen"], "__name__": page[-1].key})

    async def of_sensor(self, target: str) -> list[Event]:
        """Return the newest events of a sensor of all types."""
        return await self._newest(self._events().where(filter=FieldFilter("targetName", "==", target)), 50)

    async def history(self, target: str, event_type: str, since: datetime) -> list[Event]:
        """Return the events of a sensor of one type since a time, and the last one before, the newest first."""
        query = self._events().where(filter=FieldFilter("targetName", "==", target))
        query = query.where(filter=FieldFilter("eventType", "==", event_type))
        later = await self._newest(query.where(filter=FieldFilter("timestamp", ">=", since)), HISTORY)
        return later + await self._newest(query.where(filter=FieldFilter("timestamp", "<", since)), 1)

    def quarantine(self) -> list[LiveQuery]:
        """Return the queries of the newest quarantine documents, one for each of `QUARANTINED`."""
        return [LiveQuery(self.connection, partial(self._quarantined, clock)) for clock in QUARANTINED]

    def _quarantined(self, clock: str) -> Any:
        documents = self.connection.collection(f"{self.source.collection}_quarantine")
        return documents.order_by(clock, direction=Query.DESCENDING).limit(QUARANTINE)

    async def document(self, key: str) -> dict[str, Any] | None:
        """Return the document of an event, or None."""
        return await self.connection.document(self.source.collection, key)

    def _events(self) -> Any:
        return self.connection.collection(self.source.collection)

    async def _newest(self, query: Any, limit: int) -> list[Event]:
        return events(await self.connection.read(query.order_by("timestamp", direction=Query.DESCENDING).limit(limit)))


def quarantined_at(document: Mapping[str, Any]) -> datetime:
    """Return when a quarantine document was created."""
    return next((time for name in QUARANTINED if isinstance(time := document.get(name), datetime)), EPOCH)


def events(found: list[Found]) -> list[Event]:
    """Return the events of documents."""
    return [read_event(each.key, each.fields) for each in found]
