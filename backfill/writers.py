"""Writers of a page of history: one creates documents in Firestore, the one of a dry run only looks for them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from google.api_core.exceptions import GoogleAPICallError, RetryError
from google.auth.exceptions import GoogleAuthError
from google.cloud import firestore
from google.cloud.firestore_v1.types import MapValue

from backfill.rate_limit import RateLimit
from backfill.results import ADDED, ALREADY_STORED, FAILED, MISSING, QUARANTINED, Record, Results
from receiver.batching import Outcome
from receiver.errors import Unavailable, Unprocessable
from receiver.event import Event, parse_event
from receiver.settings import Settings
from receiver.store import Store, new_deadline
from receiver.values import fill_fields

Create = Callable[[Event, float], Awaitable[Outcome]]

IN_FLIGHT = 100
LOOKUP_SECONDS = 30.0
PAUSES: tuple[float, ...] = (1.0, 2.0, 4.0)  # seconds, between attempts that each take up to several seconds

_LOOKUP_DOCUMENTS = 300  # in one request


class Writer(Protocol):
    """Writes the events of a page."""

    async def write(self, records: Sequence[Record]) -> None:
        """Write each record and count its outcome."""


class DocumentWriter:
    """Creates the documents that do not exist yet, up to `IN_FLIGHT` at a time."""

    def __init__(self, store: Store, create: Create, rate_limit: RateLimit, results: Results) -> None:
        """Write by `create`, and to the quarantine of `store`, no faster than `rate_limit` admits."""
        self._create_event = create
        self._store = store
        self._rate_limit = rate_limit
        self._results = results
        self._in_flight = asyncio.Semaphore(IN_FLIGHT)
        self._failures_in_a_row = 0

    async def write(self, records: Sequence[Record]) -> None:
        """Write each record and count its outcome; many failures in a row stop the backfill."""
        async with asyncio.TaskGroup() as tasks:
            for record in records:
                tasks.create_task(self._write(record))

    async def _write(self, record: Record) -> None:
        async with self._in_flight:
            outcome = FAILED if self._results.stopped else await self._try_several_times(record.body)
        self._results.count(record, outcome)

    async def _try_several_times(self, body: bytes) -> str:
        for pause in (*PAUSES, None):
            await self._rate_limit.wait()
            try:
                outcome = await self._create(body)
            except Unavailable as error:
                if pause is None:
                    return self._fail(error.reason)
                await asyncio.sleep(pause)
            else:
                self._failures_in_a_row = 0
                return outcome
        raise AssertionError  # the last attempt returned

    async def _create(self, body: bytes) -> str:
        end = new_deadline()
        try:
            outcome = await self._create_event(parse_event(body), end)
        except Unprocessable as error:
            await self._store.quarantine(body, error.reason, end)
            return QUARANTINED
        return ADDED if outcome is Outcome.STORED else ALREADY_STORED

    def _fail(self, reason: str) -> str:
        self._results.reasons[reason] += 1
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= IN_FLIGHT:
            self._results.stopped = reason
        return FAILED


class DryRunWriter:
    """Looks up which documents exist, and writes nothing."""

    def __init__(self, settings: Settings, results: Results) -> None:
        """Read from the collection that `settings` names."""
        self._client = firestore.AsyncClient(project=settings.project, database=settings.database)
        self._collection = self._client.collection(settings.collection)
        self._results = results

    async def write(self, records: Sequence[Record]) -> None:
        """Count each record as already stored, missing or quarantined; a failed lookup stops the backfill."""
        storable = [(record, event_id) for record in records if (event_id := self._event_id(record))]
        wanted = sorted({event_id for _, event_id in storable})
        parts = [wanted[start : start + _LOOKUP_DOCUMENTS] for start in range(0, len(wanted), _LOOKUP_DOCUMENTS)]
        try:
            found = set().union(*await asyncio.gather(*map(self._existing, parts)))
        except (GoogleAPICallError, RetryError, GoogleAuthError, TimeoutError) as error:
            self._results.stopped = f"Firestore does not answer ({type(error).__name__})"
            return
        for record, event_id in storable:
            self._results.count(record, ALREADY_STORED if event_id in found else MISSING)

    def _event_id(self, record: Record) -> str | None:
        """Return the id of the event's document; None, after counting the event, if it belongs in the quarantine."""
        try:
            event = parse_event(record.body)
            fill_fields(MapValue.pb()().fields, event.fields)
        except Unprocessable:
            self._results.count(record, QUARANTINED)
            return None
        return event.event_id

    async def _existing(self, event_ids: Sequence[str]) -> set[str]:
        references: list[Any] = [self._collection.document(event_id) for event_id in event_ids]
        # One small field, since only the existence of the document matters.
        snapshots = self._client.get_all(references, field_paths=["eventId"])
        async with asyncio.timeout(LOOKUP_SECONDS):  # the client's own timeout bounds only a single attempt
            return {snapshot.id async for snapshot in snapshots if snapshot.exists}
