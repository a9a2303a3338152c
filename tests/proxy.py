"""A small gRPC proxy before a Firestore, which bends answers: real storage, misbehaving on demand."""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
from google.cloud.firestore_v1 import types

_THREADS = 256  # each call that is delayed holds one


@dataclass(frozen=True, slots=True)
class Forward:
    """Sends a call on to the Firestore, when it is called, and returns the answer.

    Attributes:
        request: as it came, serialised.
        send: sends the same or another request.
    """

    request: bytes
    send: Callable[[bytes], bytes]

    def __call__(self) -> bytes:
        """Send the request as it came."""
        return self.send(self.request)


Fault = Callable[[Forward, grpc.ServicerContext], bytes]


def forward_only(forward: Forward, _context: grpc.ServicerContext) -> bytes:
    """Let the call through as it is."""
    return forward()


def answer(code: grpc.StatusCode) -> Fault:
    """Answer with an error and commit nothing."""

    def fault(_forward: Forward, context: grpc.ServicerContext) -> bytes:
        context.abort(code, "bent by the proxy, with words that must not reach the sender")

    return fault


def refuse_every_other(code: grpc.StatusCode) -> Fault:
    """Refuse the first, third, … write of a BatchWrite, and commit the others; a write that is alone is let through."""

    def fault(forward: Forward, _context: grpc.ServicerContext) -> bytes:
        request = types.BatchWriteRequest.pb().FromString(forward.request)
        if len(request.writes) == 1:
            return forward()
        others = types.BatchWriteRequest.pb()(database=request.database, writes=request.writes[1::2])
        committed = types.BatchWriteResponse.pb().FromString(forward.send(others.SerializeToString()))
        response = types.BatchWriteResponse.pb()()
        for number in range(len(request.writes)):
            result, status = response.write_results.add(), response.status.add(code=code.value[0])
            if number % 2:
                result.CopyFrom(committed.write_results[number // 2])
                status.CopyFrom(committed.status[number // 2])
        bent: bytes = response.SerializeToString()
        return bent

    return fault


def commit_then(code: grpc.StatusCode) -> Fault:
    """Commit, and lose the answer on its way back."""

    def fault(forward: Forward, context: grpc.ServicerContext) -> bytes:
        forward()
        context.abort(code, "the answer is lost")

    return fault


def delay(seconds: float) -> Fault:
    """Commit later, even if the caller has given up by then."""

    def fault(forward: Forward, _context: grpc.ServicerContext) -> bytes:
        time.sleep(seconds)
        return forward()

    return fault


def before_commit(act: Callable[[], None]) -> Fault:
    """Do something when the call arrives, and commit nothing."""

    def fault(_forward: Forward, context: grpc.ServicerContext) -> bytes:
        act()
        context.abort(grpc.StatusCode.UNAVAILABLE, "never forwarded")

    return fault


def during_commit(act: Callable[[], None]) -> Fault:
    """Do something at the same time as the commit."""

    def fault(forward: Forward, _context: grpc.ServicerContext) -> bytes:
        threading.Thread(target=act).start()
        return forward()

    return fault


def after_commit(act: Callable[[], None]) -> Fault:
    """Do something when the commit is done and its answer is still to come."""

    def fault(forward: Forward, _context: grpc.ServicerContext) -> bytes:
        result = forward()
        act()
        return result

    return fault


class Proxy(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """Forwards every unary call to a Firestore; each call takes the next of `faults`, else what `otherwise` returns.

    Attributes:
        host: where it listens.
        faults: what the next calls meet, in order.
        otherwise: chooses what a call meets when `faults` is empty.
        calls: how many calls there were.
        bent: how many of them were not simply let through.
        released: set it, and the calls that hang return.
    """

    def __init__(self, target: str, tls: grpc.ServerCredentials | None = None) -> None:
        """Listen on a free port of the loopback interface.

        Args:
            target: `HOST:PORT` of the Firestore.
            tls: credentials of the proxy, if it is to use TLS.
        """
        self._tls = tls
        self.faults: deque[Fault] = deque()
        self.otherwise: Callable[[], Fault] = lambda: forward_only
        self.calls = self.bent = 0
        self.released = threading.Event()
        self._under_way = 0
        self._counting = threading.Lock()
        self._channel = grpc.insecure_channel(target)
        self._server, port = self._serve(0)
        self.host = f"127.0.0.1:{port}"

    def _serve(self, port: int) -> tuple[grpc.Server, int]:
        server = grpc.server(ThreadPoolExecutor(_THREADS))
        server.add_generic_rpc_handlers((self,))
        address = f"127.0.0.1:{port}"
        port = server.add_secure_port(address, self._tls) if self._tls else server.add_insecure_port(address)
        server.start()
        return server, port

    @property
    def idle(self) -> bool:
        """Whether no call is under way."""
        return self._under_way == 0

    def hang(self, _forward: Forward, context: grpc.ServicerContext) -> bytes:
        """Never answer (until `released`)."""
        self.released.wait()
        context.abort(grpc.StatusCode.CANCELLED, "released")

    def service(self, handler_call_details: Any) -> Any:
        """Return the handler of any method: bytes in, bytes out."""
        method, metadata = handler_call_details.method, handler_call_details.invocation_metadata
        kept = tuple(pair for pair in metadata if pair[0].startswith(("google-", "x-goog-request", "authoriz")))
        call = self._channel.unary_unary(method, request_serializer=None, response_deserializer=None)

        def handle(request: bytes, context: grpc.ServicerContext) -> bytes:
            def send(request: bytes) -> bytes:
                under_way = call.future(request, metadata=kept)
                context.add_callback(under_way.cancel)  # a caller that is gone burdens Firestore no longer
                result: bytes = under_way.result()
                return result

            fault = self._begin()
            try:
                return fault(Forward(request, send), context)
            except grpc.RpcError as error:
                context.abort(error.code(), error.details() or "")
            except (grpc.FutureCancelledError, ValueError):  # the latter: the channel was closed a moment ago
                context.abort(grpc.StatusCode.CANCELLED, "the call was cancelled")
            finally:
                self._end()

        return grpc.unary_unary_rpc_method_handler(handle)

    def _begin(self) -> Fault:
        with self._counting:
            fault = self.faults.popleft() if self.faults else self.otherwise()
            self.calls += 1
            self.bent += fault is not forward_only
            self._under_way += 1
        return fault

    def _end(self) -> None:
        with self._counting:
            self._under_way -= 1

    def drop_connections(self) -> None:
        """Cut every connection, whatever is under way on it, and listen again at the same port."""
        self._server.stop(grace=None).wait()
        self._server, _ = self._serve(int(self.host.rpartition(":")[2]))

    def turn_to(self, target: str) -> None:
        """Forward to another Firestore from now on.

        Args:
            target: its `HOST:PORT`.
        """
        before, self._channel = self._channel, grpc.insecure_channel(target)
        before.close()

    def stop(self) -> None:
        """Release what hangs and close."""
        self.released.set()
        self._server.stop(grace=None).wait()
        self._channel.close()
