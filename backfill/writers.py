"""Writers of a page of history: one creates documents in Firestore, the one of a dry run only looks for them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from google.cloud.firestore_v1.types import MapValue

from backfill.database import FAILURES, open_database, reason
from backfill.markers import Markers
from backfill.rate_limit import RateLimit
from backfill.results import ADDED, ALREADY_STORED, DIFFERENT, FAILED, MISSING, QUARANTINED, Record, Results
from receiver.batching import Outcome
from receiver.devices import Devices
from receiver.errors import Unavailable, Unprocessable
from receiver.event import Event, parse_event
from receiver.settings import Settings
from receiver.store import Store, new_deadline
from receiver.values import fill_fields

Create = Callable[[Event, float], Awaitable[Outcome]]

IN_FLIGHT = 100
LOOKUP_SECONDS = 30.0
STAMP = "backfilledAt"  # in place of receivedAt: the function never received the event
PAUSES: tuple[float, ...] = (1.0, 2.0, 4.0)  # seconds, between attempts that each take up to several seconds

_LOOKUP_DOCUMENTS = 300  # in one request
_EXISTENCE = ["eventId"]  # one small field, where only the existence of the document matters


class Writer(Protocol):
    """Writes the events of a page."""

    async def write(self, records: Sequence[Record]) -> None:
        """Write each record of a device and count its outcome."""


def creator(store: Store, settings: Settings) -> Create:
    """Return what creates an event in a store, and keeps the devices' documents up to date where they are kept."""
    return Devices(settings.devices_collection, store).create if settings.devices_collection else store.create


async def _not_forgotten(records: Sequence[Record], markers: Markers, results: Results) -> list[Record]:
    """Return the records without those of a device that was forgotten, and count these.

    Raises:
        One of `backfill.database.FAILURES`: Firestore does not return the markers.
    """
    if not records:
        return []
    forgotten = await markers.forgotten(records[0].device_id, [record.time for record in records])
    results.forgotten += sum(forgotten)
    return [record for record, is_forgotten in zip(records, forgotten, strict=True) if not is_forgotten]


class DocumentWriter:
    """Creates the documents that do not exist yet, up to `IN_FLIGHT` at a time."""

    def __init__(self, store: Store, settings: Settings, rate_limit: RateLimit, results: Results) -> None:
        """Write to `store`, which `settings` describe, no faster than `rate_limit` admits."""
        self._create_event = creator(store, settings)
        self._store = store
        self._markers = Markers(settings)
        self._rate_limit = rate_limit
        self._results = results
        self._in_flight = asyncio.Semaphore(IN_FLIGHT)
        self._failures_in_a_row = 0

    async def write(self, records: Sequence[Record]) -> None:
        """Write each record and count its outcome; many failures in a row stop the backfill."""
        try:
            records = await _not_forgotten(records, self._markers, self._results)
        except FAILURES as error:
            self._results.stopped = reason(error)
        async with asyncio.TaskGroup() as tasks:
            for record in records:
                tasks.create_task(self._write(record))

    async def _write(self, record: Record) -> None:
        async with self._in_flight:
            outcome = FAILED if self._results.stopped else await self._try_several_times(record)
        if outcome:
            self._results.count(record, outcome)

    async def _try_several_times(self, record: Record) -> str | None:
        """Return the outcome; None if the device was forgotten since the page was read."""
        for pause in (*PAUSES, None):
            await self._rate_limit.wait()
            try:
                # The page may have waited for minutes; `forget` waits no longer than for markers and one attempt.
                if not await _not_forgotten([record], self._markers, self._results):
                    return None
                outcome = await self._create(record.body)
            except FAILURES as error:
                self._results.stopped = reason(error)
                return FAILED
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
    """Looks up which documents exist and, for a check, whether they hold the fields of DT's event; writes nothing."""

    def __init__(self, settings: Settings, results: Results, *, compare: bool = False) -> None:
        """Read from the collection that `settings` names."""
        self._client = open_database(settings)
        self._collection = self._client.collection(settings.collection)
        self._markers = Markers(settings)
        self._results = results
        self._fields = None if compare else _EXISTENCE

    async def write(self, records: Sequence[Record]) -> None:
        """Count each record by the state of its document; a failed lookup stops the backfill."""
        try:
            records = await _not_forgotten(records, self._markers, self._results)
            parsed = [(record, self._parse(record)) for record in records]
            wanted = sorted({event.event_id for _, event in parsed if event})
            parts = [wanted[start : start + _LOOKUP_DOCUMENTS] for start in range(0, len(wanted), _LOOKUP_DOCUMENTS)]
            found = await asyncio.gather(*map(self._existing, parts))
        except FAILURES as error:
            self._results.stopped = reason(error)
            return
        stored = {event_id: fields for part in found for event_id, fields in part.items()}
        for record, event in parsed:
            self._results.count(record, self._outcome(record, event, stored) if event else QUARANTINED)

    def _parse(self, record: Record) -> Event | None:
        """Return the event of a record; None if it belongs in the quarantine."""
        try:
            event = parse_event(record.body)
            fill_fields(MapValue.pb()().fields, event.fields)
        except Unprocessable:
            return None
        return event

    def _outcome(self, record: Record, event: Event, stored: dict[str, dict[str, Any]]) -> str:
        if event.event_id not in stored:
            return MISSING
        if self._fields:
            return ALREADY_STORED
        document = stored[event.event_id]
        # The labels and metadata of a device may have changed since; only the event itself must be equal.
        compared = event.fields.keys() - {"labels", "metadata", "receivedAt", "expireAt", STAMP}
        different = sorted(name for name in compared if name not in document or document[name] != event.fields[name])
        if not different:
            return ALREADY_STORED
        self._results.note_difference(record, event.event_id, different)
        return DIFFERENT

    async def _existing(self, event_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        references: list[Any] = [self._collection.document(event_id) for event_id in event_ids]
        snapshots = self._client.get_all(references, field_paths=self._fields)
        async with asyncio.timeout(LOOKUP_SECONDS):  # the client's own timeout bounds only a single attempt
            return {snapshot.id: snapshot.to_dict() or {} async for snapshot in snapshots if snapshot.exists}
