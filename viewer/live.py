"""Queries whose documents are kept up to date."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from google.api_core.exceptions import DataLoss, GoogleAPICallError, MethodNotImplemented
from google.auth.exceptions import GoogleAuthError

from viewer.connection import Connection, StoreError
from viewer.documents import Found, found
from viewer.listener import listen

_UNSUPPORTED = (MethodNotImplemented, DataLoss)  # DataLoss comes from an emulator under load; polls are not affected


class LiveQuery:
    """What a query finds: sent by Firestore to a listener; where it supports none, read again at each look."""

    def __init__(self, connection: Connection, query: Callable[[], Any]) -> None:
        """Begin at the first look.

        Args:
            connection: to Firestore.
            query: returns the `AsyncQuery`, which may be another one each time.
        """
        self._connection, self._query = connection, query
        self._began_at: datetime | None = None
        self._stream: asyncio.Task[None] | None = None
        self._sent: dict[tuple[str, int], Found] = {}  # by name and time of update
        self._replaced: dict[tuple[str, int], Found] = {}  # since the last look
        self._newest: list[Found] | None = None  # of a poll: one, or none; None before the first
        self._polled: list[Found] = []

    @property
    def began_at(self) -> datetime | None:
        """When the listener began; None while there is none."""
        return self._began_at if self._stream and not self._stream.done() else None

    async def look(self) -> list[Found]:
        """Return what the query finds, and before that what it found since the last look and no longer finds.

        Raises:
            StoreError: Firestore does not answer.
        """
        if self._connection.supports_listeners and self.began_at is None:
            await self._listen()
        if self._connection.supports_listeners:
            replaced, self._replaced = self._replaced, {}
            return [*replaced.values(), *self._sent.values()]
        if self._stream:
            self.close()
        return await self._poll()

    def close(self) -> None:
        """End the listener; the next look begins again."""
        if self._stream:
            self._stream.cancel()
        self._stream = self._newest = None

    async def _listen(self) -> None:
        stream = listen(self._query())
        self._sent, self._replaced = {}, {}
        try:
            self._keep(await self._connection.bounded(anext(stream)))
        except StoreError as error:
            if not isinstance(error.__cause__, _UNSUPPORTED):
                raise
            self._connection.supports_listeners = False
        else:
            self._connection.reads += not self._sent
            self._began_at = datetime.now(UTC)
            self._stream = asyncio.create_task(self._follow(stream))

    async def _follow(self, stream: AsyncGenerator[dict[str, Any], None]) -> None:
        with suppress(GoogleAPICallError, GoogleAuthError):  # the next look begins again, or tells why it cannot
            async for documents in stream:
                self._keep(documents)

    def _keep(self, documents: dict[str, Any]) -> None:
        """Keep what a stream sent; an emulator sends all documents again at each change."""
        known = self._sent
        versions = {(name, each.update_time.ToNanoseconds()): each for name, each in documents.items()}
        self._sent = {version: known.get(version) or found(each) for version, each in versions.items()}
        self._connection.reads += len(self._sent.keys() - known.keys())
        self._replaced |= {version: each for version, each in known.items() if version not in self._sent}

    async def _poll(self) -> list[Found]:
        """Read one document, and all if that one is another than before."""
        newest = await self._connection.read(self._query().limit(1))
        if newest != self._newest:
            self._polled = await self._connection.read(self._query()) if newest else []
            self._newest = newest
        return self._polled
