"""A gRPC proxy in front of a Firestore that records the queries which clients send, and forwards every call."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.cloud.firestore_v1.types import ListenRequest, RunAggregationQueryRequest, RunQueryRequest, StructuredQuery

_SERVICE = "/google.firestore.v1.Firestore/"
_WITHOUT_QUERY = {f"{_SERVICE}{method}" for method in ("BatchGetDocuments", "BatchWrite", "Commit", "GetDocument")}
_THREADS = 16


class QueryRecorder(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """Records the queries of reads, aggregations and listeners as they are on the wire.

    Attributes:
        host: `HOST:PORT` of the proxy.
        queries: those that were sent, in order.
        unknown: names of methods of which is not known whether they hold a query.
    """

    def __init__(self, target: str) -> None:
        """Listen on a free port of the loopback interface.

        Args:
            target: `HOST:PORT` of the Firestore.
        """
        self.queries: list[StructuredQuery] = []
        self.unknown: set[str] = set()
        self._channel = grpc.insecure_channel(target)
        self._server = grpc.server(ThreadPoolExecutor(_THREADS))
        self._server.add_generic_rpc_handlers((self,))
        self.host = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def stop(self) -> None:
        """End all calls and stop listening."""
        self._server.stop(grace=None).wait()
        self._channel.close()

    def service(self, handler_call_details: Any) -> Any:
        """Return the handler of any method; on the wire, a unary call is a stream of one message."""
        method: str = handler_call_details.method
        call = self._channel.stream_stream(method, request_serializer=None, response_deserializer=None)

        def handle(requests: Iterable[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            answers = call(self._record(method, requests), metadata=_forwarded(context))
            context.add_callback(answers.cancel)
            try:
                yield from answers
            except grpc.RpcError as error:
                context.abort(error.code(), error.details() or "")

        return grpc.stream_stream_rpc_method_handler(handle)

    def _record(self, method: str, requests: Iterable[bytes]) -> Iterator[bytes]:
        for request in requests:
            if method == f"{_SERVICE}RunQuery":
                self.queries.append(RunQueryRequest.deserialize(request).structured_query)
            elif method == f"{_SERVICE}RunAggregationQuery":
                aggregation = RunAggregationQueryRequest.deserialize(request).structured_aggregation_query
                self.queries.append(aggregation.structured_query)
            elif method == f"{_SERVICE}Listen":
                self.queries.append(ListenRequest.deserialize(request).add_target.query.structured_query)
            elif method not in _WITHOUT_QUERY:
                self.unknown.add(method)
            yield request


def _forwarded(context: grpc.ServicerContext) -> tuple[tuple[str, str | bytes], ...]:
    names = ("authorization", "google-", "x-goog")
    return tuple((name, value) for name, value in context.invocation_metadata() if name.startswith(names))
