"""Where the events of a page go: into Firestore, or, in a dry run, no further than the question what is there."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

from google.api_core.exceptions import GoogleAPICallError, RetryError
from google.auth.exceptions import GoogleAuthError
from google.cloud import firestore
from google.cloud.firestore_v1.types import MapValue

from backfill.rate_limit import Pace
from backfill.tally import ADDED, FAILED, MISSING, QUARANTINED, THERE, Record, Tally
from receiver.errors import Unavailable, Unstorable
from receiver.event import parse_event
from receiver.settings import Settings
from receiver.store import Store, time_limit
from receiver.values import fill_fields

IN_FLIGHT = 100
_LOOKUP_DOCUMENTS = 300  # in one request
LOOK_UP_SECONDS = 30.0
PAUSES: tuple[float, ...] = (1.0, 2.0, 4.0)  # seconds, between attempts that each try for several seconds


class Writer:
    """Creates the documents that are not there, and looks at each single result."""

    def __init__(self, store: Store, pace: Pace, tally: Tally) -> None:
        """Take where to write, how fast, and where to count."""
        self._store = store
        self._pace = pace
        self._tally = tally
        self._in_flight = asyncio.Semaphore(IN_FLIGHT)
        self._failures_in_a_row = 0

    async def take(self, records: Sequence[Record]) -> None:
        """Settle each record of a page; once nothing succeeds any more, the tally is told to stop."""
        async with asyncio.TaskGroup() as group:
            for record in records:
                group.create_task(self._settle(record))

    async def _settle(self, record: Record) -> None:
        async with self._in_flight:
            outcome = FAILED if self._tally.stopped else await self._outcome(record.body)
        self._tally.count(record, outcome)

    async def _outcome(self, body: bytes) -> str:
        for pause in (*PAUSES, None):
            await self._pace.turn()
            try:
                outcome = await self._write(body)
            except Unavailable as error:
                if pause is None:
                    return self._failed(error.reason)
                await asyncio.sleep(pause)
            else:
                self._failures_in_a_row = 0
                return outcome
        raise AssertionError  # the last attempt returned

    async def _write(self, body: bytes) -> str:
        async with time_limit():
            try:
                return ADDED if await self._store.create(parse_event(body)) else THERE
            except Unstorable as error:
                await self._store.quarantine(body, error.reason)
                return QUARANTINED

    def _failed(self, reason: str) -> str:
        self._tally.reasons[reason] += 1
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= IN_FLIGHT:
            self._tally.stopped = reason
        return FAILED


class Lookup:
    """Asks which documents are there, and writes nothing."""

    def __init__(self, settings: Settings, tally: Tally) -> None:
        """Take where to look, and where to count."""
        self._client = firestore.AsyncClient(project=settings.project, database=settings.database)
        self._collection = self._client.collection(settings.collection)
        self._tally = tally

    async def take(self, records: Sequence[Record]) -> None:
        """Count each record of a page as there or missing."""
        storable = [(record, event_id) for record in records if (event_id := self._event_id(record))]
        event_ids = sorted({event_id for _, event_id in storable})
        try:
            found = await asyncio.gather(*(self._there(part) for part in _batches(event_ids)))
        except (GoogleAPICallError, RetryError, GoogleAuthError, TimeoutError) as error:
            self._tally.stopped = f"Firestore does not answer ({type(error).__name__})"
            return
        there = set().union(*found)
        for record, event_id in storable:
            self._tally.count(record, THERE if event_id in there else MISSING)

    def _event_id(self, record: Record) -> str | None:
        """Return the key under which the event is, or would be; None when it would go to the quarantine."""
        try:
            event = parse_event(record.body)
            fill_fields(MapValue.pb()().fields, event.fields)
        except Unstorable:
            self._tally.count(record, QUARANTINED)
            return None
        return event.event_id

    async def _there(self, event_ids: Sequence[str]) -> set[str]:
        references: list[Any] = [self._collection.document(event_id) for event_id in event_ids]
        # One small field, since it is only asked whether the document exists.
        snapshots = self._client.get_all(references, field_paths=["eventId"])
        async with asyncio.timeout(LOOK_UP_SECONDS):  # the package's own time-out bounds a single one of its attempts
            return {snapshot.id async for snapshot in snapshots if snapshot.exists}


def _batches(event_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(event_ids), _LOOKUP_DOCUMENTS):
        yield event_ids[start : start + _LOOKUP_DOCUMENTS]
