"""A small gRPC proxy before a Firestore, which bends single answers: real storage, misbehaving on demand."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

Forward = Callable[[], bytes]
Fault = Callable[[Forward, grpc.ServicerContext], bytes]


def answer(code: grpc.StatusCode) -> Fault:
    """Answer with an error and commit nothing."""

    def fault(_forward: Forward, context: grpc.ServicerContext) -> bytes:
        context.abort(code, "bent by the proxy, with words that must not reach the sender")

    return fault


def commit_then(code: grpc.StatusCode) -> Fault:
    """Commit, and lose the answer on its way back."""

    def fault(forward: Forward, context: grpc.ServicerContext) -> bytes:
        forward()
        context.abort(code, "the answer is lost")

    return fault


class Proxy(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """Forwards every unary call to `target`; each call takes the next of `faults`, if there is one.

    Attributes:
        host: where it listens.
        faults: what the next calls meet, in order.
        calls: how many calls there were.
        released: set it, and the calls that hang return.
    """

    def __init__(self, target: str) -> None:
        """Listen on a free port of the loopback interface."""
        self.faults: deque[Fault] = deque()
        self.calls = 0
        self.released = threading.Event()
        self._channel = grpc.insecure_channel(target)
        self._server = grpc.server(ThreadPoolExecutor(64))
        self._server.add_generic_rpc_handlers((self,))
        self.host = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def hang(self, _forward: Forward, context: grpc.ServicerContext) -> bytes:
        """Never answer (until the test is over)."""
        self.released.wait()
        context.abort(grpc.StatusCode.CANCELLED, "released")

    def service(self, handler_call_details: Any) -> Any:
        """Return the handler of any method: bytes in, bytes out."""
        method, metadata = handler_call_details.method, handler_call_details.invocation_metadata
        kept = tuple(pair for pair in metadata if pair[0].startswith(("google-", "x-goog-request", "authoriz")))
        call = self._channel.unary_unary(method, request_serializer=None, response_deserializer=None)

        def handle(request: bytes, context: grpc.ServicerContext) -> bytes:
            self.calls += 1
            fault = self.faults.popleft() if self.faults else _pass
            try:
                return fault(lambda: call(request, metadata=kept), context)
            except grpc.RpcError as error:
                context.abort(error.code(), error.details() or "")

        return grpc.unary_unary_rpc_method_handler(handle)

    def stop(self) -> None:
        """Release what hangs and close."""
        self.released.set()
        self._server.stop(grace=None).wait()
        self._channel.close()


def _pass(forward: Forward, _context: grpc.ServicerContext) -> bytes:
    return forward()
