"""The connection to Firestore: each call has a deadline, and is counted as Firestore bills it."""

import asyncio
import os
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, TypeVar

from google.api_core.exceptions import (
    FailedPrecondition,
    GoogleAPICallError,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    RetryError,
)
from google.auth.exceptions import GoogleAuthError
from google.cloud.firestore import AsyncClient

from viewer.documents import Found, read

_T = TypeVar("_T")
_SECONDS = 10.0  # for one query
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


class Connection:
    """Reads documents.

    Attributes:
        reads: how many documents were read, at least one for each query.
        supports_listeners: False once Firestore was found not to.
    """

    def __init__(self, source: Source) -> None:
        """Connect at the first query."""
        self.reads = 0
        self.supports_listeners = True
        self._source = source
        self._client: AsyncClient | None = None

    def collection(self, name: str) -> Any:
        """Return the reference of a collection.

        Raises:
            StoreError: there are no credentials.
        """
        if self._client is None:
            try:
                self._client = AsyncClient(project=self._source.project, database=self._source.database)
            except GoogleAuthError as error:
                raise StoreError(f"There are no usable Google Cloud credentials ({type(error).__name__}).") from error
        return self._client.collection(name)

    async def read(self, query: Any) -> list[Found]:
        """Return what a query finds.

        Raises:
            StoreError: Firestore does not answer.
        """
        documents = await self.bounded(read(query, _SECONDS))
        self.reads += max(1, len(documents))
        return documents

    async def document(self, collection: str, key: str) -> dict[str, Any] | None:
        """Return the fields of a document, or None.

        Raises:
            StoreError: Firestore does not answer.
        """
        reference = self.collection(collection).document(key)
        snapshot = await self.bounded(reference.get(retry=None, timeout=_SECONDS))
        self.reads += 1
        fields: dict[str, Any] | None = snapshot.to_dict()
        return fields

    async def bounded(self, call: Awaitable[_T]) -> _T:
        """Await a call of Firestore within a time limit.

        Raises:
            StoreError: Firestore does not answer.
        """
        try:
            async with asyncio.timeout(_SECONDS):
                return await call
        except (GoogleAPICallError, RetryError, GoogleAuthError, TimeoutError) as error:
            self._client = None  # gRPC would wait for up to two minutes before it connects again
            text = next((text for kind, text in _REASONS.items() if isinstance(error, kind)), None)
            raise StoreError(text or f"Firestore does not answer ({type(error).__name__}).") from error
