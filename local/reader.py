"""Reads stored events from Firestore with the public client."""

from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from google.cloud.firestore import AsyncClient, DocumentSnapshot

_Item = TypeVar("_Item")

BATCH = 300  # documents in one request


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads documents of one collection."""

    database: AsyncClient
    collection: str

    async def read(self, keys: Collection[str]) -> dict[str, dict[str, Any]]:
        """Return the fields of those documents that exist, by id."""
        return {snapshot.id: snapshot.to_dict() or {} async for snapshot in self._snapshots(keys) if snapshot.exists}

    async def problems(self, keys: Sequence[str]) -> list[str]:
        """Check that each event is stored once.

        Args:
            keys: the ids of the sent events.

        Returns:
            A line for each event that is missing, was written again after its creation, or was sent more than once.
        """
        found = [f"event {key} was sent {number} times" for key, number in Counter(keys).items() if number > 1]
        async for snapshot in self._snapshots(keys):
            if not snapshot.exists:
                found.append(f"event {snapshot.id} is missing")
            elif snapshot.create_time != snapshot.update_time:
                found.append(f"event {snapshot.id} was written more than once")
        return found

    async def _snapshots(self, keys: Collection[str]) -> AsyncIterator[DocumentSnapshot[Any]]:
        for batch in batches(list(dict.fromkeys(keys))):
            references = [self.database.collection(self.collection).document(key) for key in batch]
            async for snapshot in self.database.get_all(references):
                yield snapshot


def batches(items: Sequence[_Item]) -> Iterator[Sequence[_Item]]:
    """Split a sequence into parts of at most `BATCH` items."""
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]
