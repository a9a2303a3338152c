"""Queries whose documents are kept up to date."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from google.api_core.exceptions import GoogleAPICallError, MethodNotImplemented
from google.auth.exceptions import GoogleAuthError

from viewer.connection import Connection
from viewer.documents import Found, found
from viewer.listener import listen


class LiveQuery:
    """What a query finds: sent by Firestore while it listens, else read again at each look.

    Attributes:
        listening_since: None while Firestore does not listen.
    """

    def __init__(self, connection: Connection, query: Callable[[], Any]) -> None:
        """Begin at the first look.

        Args:
            connection: to Firestore.
            query: returns the `AsyncQuery`, which may be another one each time.
        """
        self._connection, self._query = connection, query
        self.listening_since: datetime | None = None
        self._stream: asyncio.Task[None] | None = None
        self._sent: dict[tuple[str, int], Found] = {}  # by name and time of update
        self._newest: list[Found] | None = None  # of a poll: one, or none; None before the first
        self._polled: list[Found] = []

    async def look(self) -> list[Found]:
        """Return what the query finds, in any order.

        Raises:
            StoreError: Firestore does not answer.
        """
        if self._connection.listens and (self._stream is None or self._stream.done()):
            await self._listen()
        if self._connection.listens:
            return list(self._sent.values())
        return await self._poll()

    def close(self) -> None:
        """Stop listening; the next look begins again."""
        if self._stream:
            self._stream.cancel()
        self._stream = self.listening_since = self._newest = None

    async def _listen(self) -> None:
        stream = listen(self._query())
        self._sent = {}
        try:
            self._keep(await self._connection.bounded(anext(stream)))
        except MethodNotImplemented:
            self._connection.listens = False
        else:
            self._connection.reads += not self._sent
            self.listening_since = datetime.now(UTC)
            self._stream = asyncio.create_task(self._follow(stream))

    async def _follow(self, stream: AsyncGenerator[dict[str, Any], None]) -> None:
        with suppress(GoogleAPICallError, GoogleAuthError):  # the next look begins again, or tells why it cannot
            async for documents in stream:
                self._keep(documents)

    def _keep(self, documents: dict[str, Any]) -> None:
        """Keep what a stream sent; a local Firestore sends all documents again at each change."""
        known = self._sent
        versions = {(name, each.update_time.ToNanoseconds()): each for name, each in documents.items()}
        self._sent = {version: known.get(version) or found(each) for version, each in versions.items()}
        self._connection.reads += len(self._sent.keys() - known.keys())

    async def _poll(self) -> list[Found]:
        """Read one document, and all if that one is another than before."""
        newest = await self._connection.read(self._query().limit(1))
        if newest != self._newest:
            self._polled = await self._connection.read(self._query()) if newest else []
            self._newest = newest
        return self._polled
