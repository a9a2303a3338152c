"""Markers of devices whose documents were deleted on request: their history must not come back."""

import asyncio
import time
from collections.abc import Iterable
from datetime import UTC, datetime

from google.api_core.exceptions import Aborted
from google.cloud import firestore

from backfill import database
from backfill.database import open_database
from receiver.settings import Settings

REFRESH_SECONDS = 30.0  # how long a program may use the markers that it has read

_PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0)  # seconds, between attempts; the client itself does not repeat ABORTED


class Markers:
    """The collection `{events}_forgotten`: by device id, until which time the device's events were deleted."""

    def __init__(self, settings: Settings) -> None:
        """Read from the database that `settings` names."""
        self._collection = open_database(settings).collection(f"{settings.collection}_forgotten")
        self._before: dict[str, datetime] = {}
        self._read_at: float | None = None
        self._reading: asyncio.Task[None] | None = None

    async def forgotten(self, device_id: str, times: Iterable[datetime | None]) -> list[bool]:
        """Tell for each time of a device's event whether the event was deleted on request; no time counts as deleted.

        Raises:
            One of `backfill.database.FAILURES`: Firestore does not return the markers.
        """
        if self._read_at is None or time.monotonic() - self._read_at > REFRESH_SECONDS:
            if self._reading is None or self._reading.done():
                self._reading = asyncio.create_task(self._refresh())
            await self._reading  # all who wait share one attempt, and its failure
        before = self._before.get(device_id)
        return [before is not None and (at is None or at < before) for at in times]

    async def add(self, device_id: str, before: datetime) -> datetime:
        """Mark a device's events before a time as deleted; a later time that is already marked stays.

        Returns:
            The time that is marked.
        """
        document = self._collection.document(device_id)
        present = ((await document.get()).to_dict() or {}).get("before")
        before = max(before, present) if isinstance(present, datetime) else before
        await document.set({"before": before, "forgottenAt": firestore.SERVER_TIMESTAMP})
        return before

    async def _refresh(self) -> None:
        read_at = time.monotonic()  # the answer may not have what was written since
        self._before = await self._read()
        self._read_at = read_at

    async def _read(self) -> dict[str, datetime]:
        for pause in (*_PAUSES, None):
            try:
                async with asyncio.timeout(database.CALL_SECONDS):
                    found = [
                        (marker.id, (marker.to_dict() or {}).get("before"))
                        async for marker in self._collection.stream()
                    ]
            except Aborted:
                if pause is None:
                    raise
                await asyncio.sleep(pause)
            else:
                latest = datetime.max.replace(tzinfo=UTC)  # of a marker that others have spoilt
                return {name: before if isinstance(before, datetime) else latest for name, before in found}
        raise AssertionError  # the last attempt returned or raised
