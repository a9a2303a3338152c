"""A stand-in for Firestore that acknowledges writes and keeps none: at once, or after a delay like a real one's.

Only for measuring: it shows the function's own ceiling, which a real store's work would hide.
"""

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from google.cloud.firestore_v1.types import BatchWriteRequest, BatchWriteResponse, CommitResponse, WriteResult
from google.protobuf.timestamp_pb2 import Timestamp

_SERVICE = "google.firestore.v1.Firestore"
_TIME = Timestamp(seconds=1_800_000_000)
_RESULT = WriteResult.pb()(update_time=_TIME)
_COMMITTED: bytes = CommitResponse.pb()(write_results=[_RESULT], commit_time=_TIME).SerializeToString()
# Protobuf messages, one behind the other, are one message that holds the repeated fields of all.
_WRITTEN: bytes = BatchWriteResponse.pb()(write_results=[_RESULT], status=[{}]).SerializeToString()

Handler = Callable[[Any, object], Awaitable[bytes]]


def handlers(delay: float) -> dict[str, Handler]:
    """Return Firestore's methods, each of which answers after `delay` seconds."""

    async def commit(_request: bytes, _context: object) -> bytes:
        if delay:
            await asyncio.sleep(delay)
        return _COMMITTED

    async def batch_write(request: Any, _context: object) -> bytes:
        if delay:
            await asyncio.sleep(delay)
        return _WRITTEN * len(request.writes)

    return {"Commit": commit, "BatchWrite": batch_write}


async def serve(port: int, delay: float) -> None:
    """Answer at a TCP port of 127.0.0.1 until the process is ended.

    Args:
        port: where to listen.
        delay: seconds before each answer.
    """
    server = grpc.aio.server()
    methods = {
        name: grpc.unary_unary_rpc_method_handler(
            handler, request_deserializer=BatchWriteRequest.pb().FromString if name == "BatchWrite" else None
        )
        for name, handler in handlers(delay).items()
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, methods),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.instant",
        description=__doc__,
        epilog="example:\n  python -m benchmarks.instant --port 8086 --delay 20",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--port", type=int, required=True, metavar="P", help="TCP port of 127.0.0.1")
    parser.add_argument("--delay", type=float, default=0, metavar="MS", help="before each answer; default: 0")
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.port, arguments.delay / 1000))
