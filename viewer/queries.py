"""Reads from Firestore: each query has a limit, a deadline and its index in deploy/firestore.indexes.json."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from google.api_core.exceptions import (
    FailedPrecondition,
    GoogleAPICallError,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    RetryError,
)
from google.auth.exceptions import GoogleAuthError
from google.cloud.firestore import AsyncClient, Query
from google.cloud.firestore_v1.base_query import FieldFilter

from viewer.documents import Found, read
from viewer.model import Event, read_event

DEVICES = 10_000  # the most devices that are read
PAGE = 500  # documents of one query of devices
RECENT = 200  # events in one poll
WITHOUT_DEVICES = 2_000  # events in which devices are looked for where there is no collection of devices
HISTORY = 5_000  # events of one type of a sensor
QUARANTINE = 50
QUARANTINED = ("receivedAt", "backfilledAt")  # when a body came: from the function, or from backfill and repair
_SECONDS = 10.0  # for one query
_AHEAD = timedelta(minutes=5)  # by which a sender's clock may be fast
EPOCH = datetime.fromtimestamp(0, UTC)
_REASONS = {
    PermissionDenied: "Google Cloud refuses to read: the account needs the role roles/datastore.viewer.",
    FailedPrecondition: "Firestore lacks the index of this query: ./deploy.sh creates it.",
    NotFound: "The database does not exist: check --project and --database.",
    ResourceExhausted: "The quota of reads is used up.",
}


class StoreError(Exception):
    """Raised if Firestore does not answer a query; the text is for the page."""


@dataclass(frozen=True, slots=True)
class Source:
    """Which Firestore is read; `devices` is the collection of the newest states, or None."""

    project: str
    database: str
    collection: str
    devices: str | None

    @property
    def is_local(self) -> bool:
        """Whether it is an emulator or the embedded store, which need no index."""
        return bool(os.environ.get("FIRESTORE_EMULATOR_HOST"))

    def __str__(self) -> str:
        """Return a description for the page."""
        where = f"{os.environ['FIRESTORE_EMULATOR_HOST']}, " if self.is_local else ""
        database = "" if self.database == "(default)" else f", database {self.database}"
        return f"{where}project {self.project}{database}, collection {self.collection}"


class Queries:
    """Reads documents, and counts them as Firestore bills them: at least one for each query."""

    def __init__(self, source: Source) -> None:
        """Connect at the first query."""
        self.source = source
        self.reads = 0
        self._client: AsyncClient | None = None
        # receivedAt has no index in the cloud, where it would limit the rate of writes.
        self._clock = "receivedAt" if source.is_local else "timestamp"

    async def recent(self, limit: int) -> list[Event]:
        """Return the newest events, the newest first."""
        events = self._collection(self.source.collection)
        return _events(await self._get(events.order_by("timestamp", direction=Query.DESCENDING).limit(limit)))

    async def since(self, position: datetime) -> list[Event]:
        """Return the events after a position, the newest first."""
        query = self._collection(self.source.collection).where(filter=FieldFilter(self._clock, ">", position))
        query = query.where(filter=FieldFilter(self._clock, "<=", datetime.now(UTC) + _AHEAD))
        return _events(await self._get(query.order_by(self._clock, direction=Query.DESCENDING).limit(RECENT)))

    def position(self, event: Event) -> datetime:
        """Return where `since` finds an event: its `receivedAt` in a local Firestore, its `timestamp` in the cloud."""
        at = event.received_at if self._clock == "receivedAt" else event.at
        return at if at and at <= datetime.now(UTC) + _AHEAD else EPOCH

    async def devices(self, since: datetime = EPOCH) -> AsyncIterator[list[dict[str, Any]]]:
        """Yield the documents of the devices that were seen since a time, the last seen first, in pages."""
        query = self._collection(self.source.devices or "").where(filter=FieldFilter("lastSeen", ">=", since))
        query = query.order_by("lastSeen", direction=Query.DESCENDING)
        query = query.order_by("__name__", direction=Query.DESCENDING).limit(PAGE)
        for _ in range(DEVICES // PAGE):
            page = await self._get(query)
            yield [found.fields for found in page]
            if len(page) < PAGE:
                return
            query = query.start_after({"lastSeen": page[-1].fields["lastSeen"], "__name__": page[-1].key})

    async def of_sensor(self, target: str) -> list[Event]:
        """Return the newest events of a sensor of all types."""
        query = self._collection(self.source.collection).where(filter=FieldFilter("targetName", "==", target))
        return _events(await self._get(query.order_by("timestamp", direction=Query.DESCENDING).limit(50)))

    async def history(self, target: str, event_type: str, since: datetime) -> list[Event]:
        """Return the events of a sensor of one type since a time, and the last one before, the newest first."""
        query = self._collection(self.source.collection).where(filter=FieldFilter("targetName", "==", target))
        query = query.where(filter=FieldFilter("eventType", "==", event_type))
        later = query.where(filter=FieldFilter("timestamp", ">=", since))
        before = query.where(filter=FieldFilter("timestamp", "<", since))
        found = _events(await self._get(later.order_by("timestamp", direction=Query.DESCENDING).limit(HISTORY)))
        return found + _events(await self._get(before.order_by("timestamp", direction=Query.DESCENDING).limit(1)))

    async def quarantine(self, limit: int = QUARANTINE) -> list[tuple[str, dict[str, Any]]]:
        """Return the newest quarantine documents with their keys, the newest first."""
        documents = self._collection(f"{self.source.collection}_quarantine")
        found: list[tuple[str, dict[str, Any]]] = []
        for clock in QUARANTINED:
            found += await self._get(documents.order_by(clock, direction=Query.DESCENDING).limit(limit))
        return sorted(found, key=lambda each: quarantined_at(each[1]), reverse=True)[:limit]

    async def document(self, key: str) -> dict[str, Any] | None:
        """Return the document of an event, or None."""
        reference = self._collection(self.source.collection).document(key)
        snapshot = await self._bounded(reference.get(retry=None, timeout=_SECONDS))
        self.reads += 1
        found: dict[str, Any] | None = snapshot.to_dict()
        return found

    def _collection(self, name: str) -> Any:
        if self._client is None:
            self._client = AsyncClient(project=self.source.project, database=self.source.database)
        return self._client.collection(name)

    async def _get(self, query: Any) -> list[Found]:
        found: list[Found] = await self._bounded(read(query, _SECONDS))
        self.reads += max(1, len(found))
        return found

    async def _bounded(self, call: Any) -> Any:
        try:
            async with asyncio.timeout(_SECONDS):
                return await call
        except (GoogleAPICallError, RetryError, GoogleAuthError, TimeoutError) as error:
            self._client = None  # gRPC would wait for up to two minutes before it connects again
            text = next((text for kind, text in _REASONS.items() if isinstance(error, kind)), None)
            raise StoreError(text or f"Firestore does not answer ({type(error).__name__}).") from error


def quarantined_at(document: Mapping[str, Any]) -> datetime:
    """Return when a quarantine document was created."""
    return next((time for name in QUARANTINED if isinstance(time := document.get(name), datetime)), EPOCH)


def _events(found: list[Found]) -> list[Event]:
    return [read_event(each.key, each.fields) for each in found]
