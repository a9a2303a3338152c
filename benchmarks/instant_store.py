"""A Firestore that acknowledges every write and finds no document, at once or after a fixed delay.

It shows how much the function itself can do, which the work of a real store would hide. Run it as
`python -m benchmarks.instant_store PORT DELAY`, with the delay in milliseconds.
"""

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
from google.cloud.firestore_v1.types import (
    BatchGetDocumentsRequest,
    BatchGetDocumentsResponse,
    BatchWriteRequest,
    BatchWriteResponse,
    CommitResponse,
    WriteResult,
)
from google.protobuf.timestamp_pb2 import Timestamp

_SERVICE = "google.firestore.v1.Firestore"
_TIME = Timestamp(seconds=1_800_000_000)
_RESULT = WriteResult.pb()(update_time=_TIME)
_COMMITTED: bytes = CommitResponse.pb()(write_results=[_RESULT], commit_time=_TIME).SerializeToString()
# Serialized protobuf messages, concatenated, parse as one message with the repeated fields of all of them.
_WRITTEN: bytes = BatchWriteResponse.pb()(write_results=[_RESULT], status=[{}]).SerializeToString()


def _missing(request: Any) -> bytes:
    """Return the answer to a read of one document; on the wire, a stream of one message is a message."""
    answer: bytes = BatchGetDocumentsResponse.pb()(missing=request.documents[0], read_time=_TIME).SerializeToString()
    return answer


async def serve(port: int, delay: float) -> None:
    """Answer on a TCP port of 127.0.0.1, each call after `delay` seconds, until the process ends."""

    def handler(answer: Callable[[Any], bytes], **options: Any) -> "grpc.RpcMethodHandler[Any, bytes]":
        async def handle(request: Any, _context: object) -> bytes:
            if delay:
                await asyncio.sleep(delay)
            return answer(request)

        return grpc.unary_unary_rpc_method_handler(handle, **options)

    methods = {
        "Commit": handler(lambda _: _COMMITTED),
        "BatchWrite": handler(
            lambda request: _WRITTEN * len(request.writes), request_deserializer=BatchWriteRequest.pb().FromString
        ),
        "BatchGetDocuments": handler(_missing, request_deserializer=BatchGetDocumentsRequest.pb().FromString),
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, methods),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2]) / 1000))
