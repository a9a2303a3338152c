"""A gRPC proxy in front of a Firestore that injects faults: real storage that fails on demand."""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
from google.cloud.firestore_v1 import types

_THREADS = 256  # a delayed call occupies one


@dataclass(frozen=True, slots=True)
class Forward:
    """Forwards the call to Firestore when called, and returns the answer.

    Attributes:
        request: as received, serialized.
        send: sends this or another request.
    """

    request: bytes
    send: Callable[[bytes], bytes]

    def __call__(self) -> bytes:
        """Send the request as received."""
        return self.send(self.request)


Fault = Callable[[Forward, grpc.ServicerContext], bytes]


def forward_only(forward: Forward, _context: grpc.ServicerContext) -> bytes:
    """Forward the call unchanged."""
    return forward()


def answer(code: grpc.StatusCode) -> Fault:
    """Answer with an error and commit nothing."""

    def fault(_forward: Forward, context: grpc.ServicerContext) -> bytes:
        context.abort(code, "faulted by the proxy, with a text that must not reach the sender")

    return fault


def refuse_every_other(code: grpc.StatusCode) -> Fault:
    """Refuse the first, third, … write of a BatchWrite and commit the others; forward a single write unchanged."""

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
        serialized: bytes = response.SerializeToString()
        return serialized

    return fault


def commit_then(code: grpc.StatusCode) -> Fault:
    """Commit, then answer with an error."""

    def fault(forward: Forward, context: grpc.ServicerContext) -> bytes:
        forward()
        context.abort(code, "the answer is lost")

    return fault


def delay(seconds: float) -> Fault:
    """Commit after a delay, even if the caller's deadline has passed by then."""

    def fault(forward: Forward, _context: grpc.ServicerContext) -> bytes:
        time.sleep(seconds)
        return forward()

    return fault


def before_commit(act: Callable[[], None]) -> Fault:
    """Call `act` when the call arrives, and commit nothing."""

    def fault(_forward: Forward, context: grpc.ServicerContext) -> bytes:
        act()
        context.abort(grpc.StatusCode.UNAVAILABLE, "never forwarded")

    return fault


def during_commit(act: Callable[[], None]) -> Fault:
    """Call `act` while the commit is under way."""

    def fault(forward: Forward, _context: grpc.ServicerContext) -> bytes:
        threading.Thread(target=act).start()
        return forward()

    return fault


def after_commit(act: Callable[[], None]) -> Fault:
    """Call `act` after the commit and before its answer."""

    def fault(forward: Forward, _context: grpc.ServicerContext) -> bytes:
        result = forward()
        act()
        return result

    return fault


class Proxy(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """Forwards every unary call to a Firestore; each call gets the next of `faults`, or else what `otherwise` returns.

    Args:
        target: `HOST:PORT` of the Firestore.

    Attributes:
        host: `HOST:PORT` of the proxy.
        faults: of the next calls, in order.
        otherwise: chooses the fault of a call when `faults` is empty.
        calls: the number of calls.
        faulted: the number of calls that were not just forwarded.
        released: set it to let the calls that hang return.
    """

    def __init__(self, target: str, tls: grpc.ServerCredentials | None = None) -> None:
        """Listens on a free port of the loopback interface, with TLS if `tls` is given."""
        self._tls = tls
        self.faults: deque[Fault] = deque()
        self.otherwise: Callable[[], Fault] = lambda: forward_only
        self.calls = self.faulted = 0
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
        """Whether no call is in progress."""
        return self._under_way == 0

    def hang(self, _forward: Forward, context: grpc.ServicerContext) -> bytes:
        """Do not answer before `released` is set."""
        self.released.wait()
        context.abort(grpc.StatusCode.CANCELLED, "released")

    def service(self, handler_call_details: Any) -> Any:
        """Return the handler of any method; it does not deserialize messages."""
        method, metadata = handler_call_details.method, handler_call_details.invocation_metadata
        kept = (
            *(pair for pair in metadata if pair[0].startswith(("google-", "x-goog-request"))),
            ("authorization", "Bearer owner"),  # the emulator accepts no access token of Google's
        )
        call = self._channel.unary_unary(method, request_serializer=None, response_deserializer=None)

        def handle(request: bytes, context: grpc.ServicerContext) -> bytes:
            def send(request: bytes) -> bytes:
                under_way = call.future(request, metadata=kept)
                context.add_callback(under_way.cancel)  # a call that its caller cancelled
                result: bytes = under_way.result()
                return result

            fault = self._begin()
            try:
                return fault(Forward(request, send), context)
            except grpc.RpcError as error:
                context.abort(error.code(), error.details() or "")
            except (grpc.FutureCancelledError, ValueError):  # ValueError: the channel has been closed
                context.abort(grpc.StatusCode.CANCELLED, "the call was cancelled")
            finally:
                self._end()

        return grpc.unary_unary_rpc_method_handler(handle)

    def _begin(self) -> Fault:
        with self._counting:
            fault = self.faults.popleft() if self.faults else self.otherwise()
            self.calls += 1
            self.faulted += fault is not forward_only
            self._under_way += 1
        return fault

    def _end(self) -> None:
        with self._counting:
            self._under_way -= 1

    def drop_connections(self) -> None:
        """Close every connection, cancelling its calls, and listen again on the same port."""
        self._server.stop(grace=None).wait()
        self._server, _ = self._serve(int(self.host.rpartition(":")[2]))

    def turn_to(self, target: str) -> None:
        """Forward to another Firestore, at `HOST:PORT`, from now on."""
        before, self._channel = self._channel, grpc.insecure_channel(target)
        before.close()

    def stop(self) -> None:
        """Release the calls that hang and stop the server."""
        self.released.set()
        self._server.stop(grace=None).wait()
        self._channel.close()
