"""Listens to a query: Firestore sends what it finds, and then each change.

Firestore's own client listens in threads, and does not tell when Firestore no longer answers.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

import grpc
from google.api_core.exceptions import from_grpc_error, from_grpc_status
from google.cloud.firestore_v1.types import ListenResponse, TargetChange

_CHANGE = TargetChange.TargetChangeType


async def listen(query: Any) -> AsyncGenerator[dict[str, Any], None]:
    """Yield the protobuf documents that a query finds, by their full names: at first, and after each change.

    Args:
        query: an `AsyncQuery`.

    Raises:
        MethodNotImplemented: this Firestore does not support listeners.
        DataLoss: a message could not be read.
        GoogleAPICallError, GoogleAuthError: the stream has ended.
    """
    client = query._client  # noqa: SLF001
    # The API class's own method would wait for ever once the connection is known to have failed.
    stream = client._firestore_api.transport.listen(metadata=client._rpc_metadata)  # noqa: SLF001
    sent, result = asyncio.create_task(_send(stream, query)), Result()
    try:
        while (response := await stream.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]
            if response is None:  # the emulator sends such messages if a write comes while a listener begins
                raise from_grpc_status(grpc.StatusCode.DATA_LOSS, "A message could not be read.")
            if result.add(ListenResponse.pb(response)):
                yield result.documents
        raise from_grpc_status(grpc.StatusCode.UNAVAILABLE, "The stream has ended.")
    except grpc.aio.AioRpcError as error:
        raise from_grpc_error(error) from error
    finally:
        sent.cancel()
        stream.cancel()


async def _send(stream: Any, query: Any) -> None:
    parent, _ = query._parent._parent_info()  # noqa: SLF001
    target = {"parent": parent, "structured_query": query._to_protobuf()}  # noqa: SLF001
    database = query._client._database_string  # noqa: SLF001
    with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # the response tells why
        await stream.write({"database": database, "add_target": {"query": target, "target_id": 1}})


class Result:
    """What a query finds, by the messages of a `Listen` stream with one target.

    Attributes:
        documents: protobuf documents by their full names; complete when `add` returns True.
    """

    def __init__(self) -> None:
        """Begin without documents."""
        self.documents: dict[str, Any] = {}
        self._is_current = False

    def add(self, message: Any) -> bool:
        """Apply a protobuf `ListenResponse`, and return whether the documents are all as they are at one time.

        Raises:
            GoogleAPICallError: Firestore refuses the query, or does not name all documents that were deleted.
        """
        kind = message.WhichOneof("response_type")
        if kind is None:  # a kind that this version of the client does not know
            return False
        content = getattr(message, kind)
        if kind == "target_change":
            return self._change(content)
        if kind == "filter" and content.count != len(self.documents):
            raise from_grpc_status(grpc.StatusCode.ABORTED, "Firestore does not name all documents that were deleted.")
        if kind == "document_change" and not content.removed_target_ids:
            self.documents[content.document.name] = content.document
        elif kind == "document_change":
            self.documents.pop(content.document.name, None)
        elif kind in ("document_delete", "document_remove"):
            self.documents.pop(content.document, None)
        return False

    def _change(self, change: Any) -> bool:
        kind = change.target_change_type
        if kind == _CHANGE.REMOVE:
            raise from_grpc_status(change.cause.code, change.cause.message)
        if kind == _CHANGE.RESET:
            self.documents, self._is_current = {}, False
        self._is_current |= kind == _CHANGE.CURRENT
        return self._is_current and kind == _CHANGE.NO_CHANGE and not change.target_ids
