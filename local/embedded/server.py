"""The gRPC service google.firestore.v1.Firestore, as far as this project uses it.

gRPC answers all other calls with UNIMPLEMENTED.
"""

import signal
import socket
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from google.cloud.firestore_v1 import types
from google.protobuf.message import DecodeError

from local.embedded.document import (
    Name,
    StatusError,
    invalid,
    masked,
    parse_database,
    parse_name,
    parse_parent,
    unimplemented,
)
from local.embedded.query import Scan, plan
from local.embedded.storage import Storage
from local.embedded.writes import apply_write, check_write

THREADS = 16


class Service:
    """The calls that are answered."""

    def __init__(self, storage: Storage) -> None:
        """Serve the documents of a storage."""
        self._storage = storage

    def commit(self, request: Any) -> Any:
        """Apply all writes, or none."""
        parse_database(request.database)
        if request.transaction:
            raise invalid("There is no such transaction.")
        names = [check_write(write) for write in request.writes]
        writes = list(zip(names, request.writes, strict=True))
        _refuse_repeats([name for name, write in writes if _creates(write)])
        with self._storage.transaction() as now:
            results = [apply_write(self._storage, name, write, now) for name, write in writes]
        return types.CommitResponse.pb()(write_results=results, commit_time=now)

    def batch_write(self, request: Any) -> Any:
        """Apply each write independently of the others."""
        parse_database(request.database)
        names = [check_write(write) for write in request.writes]
        _refuse_repeats(names)
        response = types.BatchWriteResponse.pb()()
        with self._storage.transaction() as now:
            for name, write in zip(names, request.writes, strict=True):
                result, status = response.write_results.add(), response.status.add()
                try:
                    result.CopyFrom(apply_write(self._storage, name, write, now))
                except StatusError as error:
                    status.code, status.message = error.code.value[0], str(error)
        return response

    def batch_get_documents(self, request: Any) -> Iterator[Any]:
        """Yield each document once, or that it is missing."""
        _refuse_snapshots(request)
        names = {name: parse_name(name) for name in request.documents}
        with self._storage.transaction() as now:
            stored = {name: self._storage.get(key) for name, key in names.items()}
        for name, document in stored.items():
            found = masked(document, request.mask.field_paths) if document and request.HasField("mask") else document
            content = {"found": found} if document else {"missing": name}
            yield types.BatchGetDocumentsResponse.pb()(read_time=now, **content)

    def run_query(self, request: Any) -> Iterator[Any]:
        """Yield the documents that a query finds, then a last response without a document."""
        query, response = request.structured_query, types.RunQueryResponse.pb()
        paths = [field.field_path for field in query.select.fields]
        with self._storage.find(*_scan(request, query)) as (documents, now):
            for document in documents:
                found = masked(document, paths) if query.HasField("select") else document
                yield response(document=found, read_time=now)
        yield response(read_time=now, done=True)

    def run_aggregation_query(self, request: Any) -> Iterator[Any]:
        """Yield the number of documents that a query finds."""
        query = request.structured_aggregation_query
        if any(not part.HasField("count") or part.count.HasField("up_to") for part in query.aggregations):
            raise unimplemented("aggregations other than count without up_to")
        number, now = self._storage.count(*_scan(request, query.structured_query))
        response = types.RunAggregationQueryResponse.pb()(read_time=now)
        for position, aggregation in enumerate(query.aggregations, 1):
            response.result.aggregate_fields[aggregation.alias or f"field_{position}"].integer_value = number
        yield response


def _creates(write: Any) -> bool:
    condition = write.current_document
    return bool(condition.HasField("exists") and not condition.exists)


def _refuse_repeats(names: list[Name]) -> None:
    if len(set(names)) < len(names):
        raise invalid("One document is written more than once.")


def _scan(request: Any, query: Any) -> tuple[Name, Scan]:
    """Return the collection of a query, and the scan that answers it."""
    _refuse_snapshots(request)
    parent, scan = parse_parent(request.parent), plan(query)
    return parent._replace(path=f"{parent.path}/{query.from_[0].collection_id}".lstrip("/")), scan


def _refuse_snapshots(request: Any) -> None:
    if selector := request.WhichOneof("consistency_selector"):
        raise unimplemented(f"reads with {selector}")


def handlers(service: Service) -> "grpc.GenericRpcHandler[Any, Any]":
    """Return the gRPC handlers of a service."""
    methods = {
        "Commit": _unary(types.CommitRequest, service.commit),
        "BatchWrite": _unary(types.BatchWriteRequest, service.batch_write),
        "BatchGetDocuments": _stream(types.BatchGetDocumentsRequest, service.batch_get_documents),
        "RunQuery": _stream(types.RunQueryRequest, service.run_query),
        "RunAggregationQuery": _stream(types.RunAggregationQueryRequest, service.run_aggregation_query),
        "Listen": grpc.stream_stream_rpc_method_handler(_refuse_to_listen),
    }
    return grpc.method_handlers_generic_handler("google.firestore.v1.Firestore", methods)


def _unary(request_type: Any, answer: Callable[[Any], Any]) -> Any:
    def handle(data: bytes, context: grpc.ServicerContext) -> Any:
        with _errors_as_statuses(context):
            return answer(request_type.pb().FromString(data))

    return grpc.unary_unary_rpc_method_handler(handle, response_serializer=_serialize)


def _stream(request_type: Any, answer: Callable[[Any], Iterator[Any]]) -> Any:
    def handle(data: bytes, context: grpc.ServicerContext) -> Iterator[Any]:
        with _errors_as_statuses(context):
            yield from answer(request_type.pb().FromString(data))

    return grpc.unary_stream_rpc_method_handler(handle, response_serializer=_serialize)


def _refuse_to_listen(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
    next(requests, None)  # a client whose request meets the end of the stream reports INTERNAL
    with _errors_as_statuses(context):
        raise unimplemented("listeners")
    yield  # makes this a generator


@contextmanager
def _errors_as_statuses(context: grpc.ServicerContext) -> Iterator[None]:
    try:
        yield
    except StatusError as error:
        context.abort(error.code, str(error))
    except DecodeError:  # also for a nesting beyond protobuf's own limit
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "The request cannot be parsed, or is nested too deep.")
    except sqlite3.OperationalError as error:  # the disk is full, another program has locked the file
        context.abort(grpc.StatusCode.UNAVAILABLE, f"SQLite: {error}")


def _serialize(message: Any) -> bytes:
    content: bytes = message.SerializeToString()
    return content


def serve(port: int, file: Path) -> None:
    """Serve the documents of a file on 127.0.0.1 until SIGTERM or SIGINT.

    Args:
        port: the TCP port; 0 for a free one.
        file: the SQLite file; created if it does not exist.

    Raises:
        OSError: the port is in use.
        sqlite3.Error: the file cannot be opened, or is not an SQLite file.
    """
    socket.create_server(("127.0.0.1", port)).close()  # fails with a shorter message than gRPC's
    # Block the signals, also in threads to come, and wait for them: a handler could run while this thread holds a lock.
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    storage = Storage(file)
    server = grpc.server(ThreadPoolExecutor(THREADS), options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((handlers(Service(storage)),))
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    print(f"listening on 127.0.0.1:{port}", flush=True)
    signal.sigwait(ends)
    server.stop(grace=1).wait()
    storage.close()
