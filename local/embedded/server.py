"""An embedded stand-in for Firestore, for one machine where the official emulator cannot be had; never deployed.

It speaks as much of the gRPC service google.firestore.v1.Firestore as this project uses, on one SQLite file. Its table
`documents` holds each document twice: `fields` is JSON for people, `document` the protobuf message itself.
Everything else of the service is answered with UNIMPLEMENTED.
"""

import argparse
import json
import signal
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from google.cloud.firestore_v1 import types
from google.protobuf.message import DecodeError

from local.embedded import query
from local.embedded.document import (
    MAX_DEPTH,
    Document,
    Name,
    RefusalError,
    check_fields,
    check_size,
    get_field,
    invalid,
    masked,
    parse_database,
    parse_field_path,
    parse_name,
    parse_parent,
    rfc3339,
    set_field,
    to_json,
)

THREADS = 16
_REQUEST_TIME = types.DocumentTransform.FieldTransform.ServerValue.REQUEST_TIME
_Value, _WriteResult = types.Value.pb(), types.WriteResult.pb()
_EXAMPLES = """
examples:
  python -m local.embedded --port 8686 --file events.sqlite3
  export FIRESTORE_EMULATOR_HOST=127.0.0.1:8686
  sqlite3 events.sqlite3 "SELECT path, fields FROM documents ORDER BY update_time DESC LIMIT 5"
"""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS documents (
    project TEXT NOT NULL,
    database TEXT NOT NULL,
    path TEXT NOT NULL,        -- collection and document ids in turn: events/c9a8b7
    collection TEXT NOT NULL,  -- the path without the last id: events
    create_time TEXT NOT NULL, -- RFC 3339, UTC, microseconds
    update_time TEXT NOT NULL,
    fields TEXT NOT NULL,      -- JSON
    document BLOB NOT NULL,    -- google.firestore.v1.Document
    PRIMARY KEY (project, database, path)
);
CREATE INDEX IF NOT EXISTS by_collection ON documents (project, database, collection);
"""


class Storage:
    """The documents in their SQLite file, behind one lock: one transaction at a time, on disk before it is answered."""

    def __init__(self, file: Path) -> None:
        """Open the file, or make it.

        Raises:
            sqlite3.Error: it cannot be opened, or is something else.
        """
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        self._connection.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;" + _SCHEMA)
        self._last = 0

    def close(self) -> None:
        """Close the file, after what is under way."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """Hold the file for reads and writes that happen at once, and all or none.

        Yields:
            The commit time, a protobuf Timestamp: later than any before.
        """
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._tick()
                self._connection.execute("COMMIT")
            except BaseException:
                self._connection.rollback()
                raise

    def _tick(self) -> Any:
        self._last = max(self._last + 1, time.time_ns() // 1000)
        now = _Value().timestamp_value
        now.FromMicroseconds(self._last)
        return now

    def get(self, name: Name) -> Any:
        """Return a protobuf Document or None; only within a transaction."""
        sql = "SELECT document FROM documents WHERE project = ? AND database = ? AND path = ?"
        row = self._connection.execute(sql, name).fetchone()
        return Document.FromString(row[0]) if row else None

    def put(self, name: Name, document: Any) -> None:
        """Store a document in place of what was there; only within a transaction."""
        times = rfc3339(document.create_time), rfc3339(document.update_time)
        fields = json.dumps(to_json(document.fields), ensure_ascii=False)
        row = (*name, name.path.rpartition("/")[0], *times, fields, document.SerializeToString())
        self._connection.execute("INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)

    def delete(self, name: Name) -> None:
        """Forget a document, if it is there; only within a transaction."""
        sql = "DELETE FROM documents WHERE project = ? AND database = ? AND path = ?"
        self._connection.execute(sql, name)

    def collection(self, parent: Name, source: Any, narrowing: tuple[str, list[str]]) -> Iterator[Any]:
        """Return the documents of a collection below a document or the database; only within a transaction.

        Args:
            parent: where the collection is.
            source: a protobuf CollectionSelector: its last id, and whether it may be however far below.
            narrowing: an SQL condition on the documents, and its parameters.
        """
        if source.all_descendants:
            where = "instr(path, ?) = 1 AND substr('/' || collection, -length(?)) = ?"
            tail = f"/{source.collection_id}"
            chosen = [f"{parent.path}/".lstrip("/"), tail, tail]
        else:
            where, chosen = "collection = ?", [f"{parent.path}/{source.collection_id}".lstrip("/")]
        condition, parameters = narrowing
        where = f"project = ? AND database = ? AND {where} AND {condition}"
        sql = "SELECT document FROM documents WHERE " + where  # noqa: S608 - its parts are fixed, its values bound
        rows = self._connection.execute(sql, [*parent[:2], *chosen, *parameters]).fetchall()
        return (Document.FromString(row[0]) for row in rows)


def check_write(write: Any) -> Name:
    """Return the name of the document that a write is about, after a look at all that needs no stored document.

    Raises:
        RefusalError: INVALID_ARGUMENT or UNIMPLEMENTED.
    """
    match write.WhichOneof("operation"):
        case "update":
            name = parse_name(write.update.name)
            check_fields(write.update.fields)
            paths = [*write.update_mask.field_paths, *map(_check_transform, write.update_transforms)]
            if any(len(parse_field_path(path)) > MAX_DEPTH for path in paths):
                raise invalid(f"A field path has more than {MAX_DEPTH} names.")
            return name
        case "delete":
            if write.HasField("update_mask") or write.update_transforms:
                raise invalid("A delete has no mask and no transforms.")
            return parse_name(write.delete)
        case "transform":
            raise RefusalError(grpc.StatusCode.UNIMPLEMENTED, "Use update_transforms, the later form.")
    raise invalid("A write is empty.")


def _check_transform(transform: Any) -> str:
    kind = transform.WhichOneof("transform_type")
    if kind is None or (kind == "set_to_server_value" and transform.set_to_server_value != _REQUEST_TIME):
        raise invalid("A transform without an operation.")
    if kind != "set_to_server_value":
        raise RefusalError(grpc.StatusCode.UNIMPLEMENTED, f"The embedded stand-in has no transform {kind}.")
    path: str = transform.field_path
    return path


def apply_write(storage: Storage, name: Name, write: Any, now: Any) -> Any:
    """Carry out a checked write, or change nothing.

    Returns:
        The protobuf WriteResult.

    Raises:
        RefusalError: its precondition does not hold, or the document would be too large.
    """
    stored = storage.get(name)
    _check_precondition(write.current_document, stored)
    if write.HasField("delete"):
        storage.delete(name)
        return _WriteResult()
    document = _merged(write, stored)
    results = [_set_server_time(document, transform, now) for transform in write.update_transforms]
    check_size(document)
    document.create_time.CopyFrom(stored.create_time if stored else now)
    document.update_time.CopyFrom(stored.update_time if stored else now)
    if document != stored:  # a write that changes nothing keeps the update time
        document.update_time.CopyFrom(now)
        storage.put(name, document)
    return _WriteResult(update_time=document.update_time, transform_results=results)


def _check_precondition(condition: Any, stored: Any) -> None:
    match condition.WhichOneof("condition_type"):
        case "exists" if condition.exists and not stored:
            raise RefusalError(grpc.StatusCode.NOT_FOUND, "There is no such document to update.")
        case "exists" if stored and not condition.exists:
            raise RefusalError(grpc.StatusCode.ALREADY_EXISTS, f"Document already exists: {stored.name}")
        case "update_time" if not stored or stored.update_time != condition.update_time:
            raise RefusalError(grpc.StatusCode.FAILED_PRECONDITION, "The document was not last updated then.")


def _merged(write: Any, stored: Any) -> Any:
    """Return the document as written: whole without a mask; with one, the stored one with the mask's fields changed."""
    if not write.HasField("update_mask"):
        return Document(name=write.update.name, fields=write.update.fields)
    document = Document(name=write.update.name, fields=stored.fields if stored else {})
    for path in map(parse_field_path, write.update_mask.field_paths):
        set_field(document.fields, path, get_field(write.update.fields, path))
    return document


def _set_server_time(document: Any, transform: Any, now: Any) -> Any:
    """Set a field to the server's time, which Firestore gives in milliseconds."""
    value = _Value(timestamp_value=now)
    value.timestamp_value.nanos -= now.nanos % 1_000_000
    set_field(document.fields, parse_field_path(transform.field_path), value)
    return value


class Service:
    """The answers to the calls of google.firestore.v1.Firestore that are answered at all."""

    def __init__(self, storage: Storage) -> None:
        """Take the documents to serve."""
        self._storage = storage

    def commit(self, request: Any) -> Any:
        """Carry out all writes, or none."""
        parse_database(request.database)
        if request.transaction:
            raise invalid("There is no such transaction.")
        names = [check_write(write) for write in request.writes]
        _refuse_repeats(
            [
                name
                for name, write in zip(names, request.writes, strict=True)
                if write.current_document.HasField("exists") and not write.current_document.exists
            ]
        )
        with self._storage.transaction() as now:
            results = [
                apply_write(self._storage, name, write, now) for name, write in zip(names, request.writes, strict=True)
            ]
        return types.CommitResponse.pb()(write_results=results, commit_time=now)

    def batch_write(self, request: Any) -> Any:
        """Carry out each write for itself."""
        parse_database(request.database)
        names = [check_write(write) for write in request.writes]
        _refuse_repeats(names)
        response = types.BatchWriteResponse.pb()()
        with self._storage.transaction() as now:
            for name, write in zip(names, request.writes, strict=True):
                result, status = response.write_results.add(), response.status.add()
                try:
                    result.CopyFrom(apply_write(self._storage, name, write, now))
                except RefusalError as refusal:
                    status.code, status.message = refusal.code.value[0], str(refusal)
        return response

    def get_document(self, request: Any) -> Any:
        """Return one document."""
        for found in self._read([request.name], request):
            if found.HasField("found"):
                return found.found
        raise RefusalError(grpc.StatusCode.NOT_FOUND, f"There is no document {request.name}.")

    def batch_get_documents(self, request: Any) -> Iterator[Any]:
        """Return each document once, or that it is missing."""
        return self._read(dict.fromkeys(request.documents), request)

    def _read(self, names: Iterable[str], request: Any) -> Iterator[Any]:
        _refuse_snapshots(request)
        parsed = {name: parse_name(name) for name in names}
        with self._storage.transaction() as now:
            stored = {name: self._storage.get(key) for name, key in parsed.items()}
        for name, document in stored.items():
            if document and request.HasField("mask"):
                document = masked(document, request.mask.field_paths)  # noqa: PLW2901 - a part of the same document
            content = {"found": document} if document else {"missing": name}
            yield types.BatchGetDocumentsResponse.pb()(read_time=now, **content)

    def run_query(self, request: Any) -> list[Any]:
        """Return what a query finds; the last answer says that it is the last, and is there even if nothing is."""
        response = types.RunQueryResponse.pb()
        found, now = self._run(request, request.structured_query)
        answers = [response(document=document, read_time=now) for document in found] or [response(read_time=now)]
        answers[-1].done = True
        return answers

    def run_aggregation_query(self, request: Any) -> list[Any]:
        """Count what a query finds."""
        found, now = self._run(request, request.structured_aggregation_query.structured_query)
        response = types.RunAggregationQueryResponse.pb()(read_time=now)
        for number, aggregation in enumerate(request.structured_aggregation_query.aggregations, 1):
            if not aggregation.HasField("count"):
                raise RefusalError(grpc.StatusCode.UNIMPLEMENTED, "The embedded stand-in only counts.")
            count = min(len(found), aggregation.count.up_to.value or len(found))
            alias = aggregation.alias or f"field_{number}"
            response.result.aggregate_fields[alias].integer_value = count
        return [response]

    def _run(self, request: Any, structured: Any) -> tuple[list[Any], Any]:
        _refuse_snapshots(request)
        parent = parse_parent(request.parent)
        if len(structured.from_) != 1 or not structured.from_[0].collection_id or structured.HasField("find_nearest"):
            raise RefusalError(grpc.StatusCode.UNIMPLEMENTED, "The embedded stand-in queries collections by their id.")
        narrowing = query.narrowing(structured)
        with self._storage.transaction() as now:
            documents = self._storage.collection(parent, structured.from_[0], narrowing)
        return query.run(structured, documents), now


def _refuse_repeats(names: list[Name]) -> None:
    if len(set(names)) < len(names):
        raise invalid("One document is written more than once.")


def _refuse_snapshots(request: Any) -> None:
    if request.WhichOneof("consistency_selector"):
        raise RefusalError(grpc.StatusCode.UNIMPLEMENTED, "The embedded stand-in has no transactions and no past.")


def handlers(service: Service) -> "grpc.GenericRpcHandler[Any, Any]":
    """Return the gRPC handlers of a service; what is not among them gRPC itself answers with UNIMPLEMENTED."""
    unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
    methods: dict[str, tuple[Any, Any, Callable[[Any], Any]]] = {
        "Commit": (unary, types.CommitRequest, service.commit),
        "BatchWrite": (unary, types.BatchWriteRequest, service.batch_write),
        "GetDocument": (unary, types.GetDocumentRequest, service.get_document),
        "BatchGetDocuments": (stream, types.BatchGetDocumentsRequest, service.batch_get_documents),
        "RunQuery": (stream, types.RunQueryRequest, service.run_query),
        "RunAggregationQuery": (stream, types.RunAggregationQueryRequest, service.run_aggregation_query),
    }
    return grpc.method_handlers_generic_handler(
        "google.firestore.v1.Firestore",
        {
            name: kind(_answering(request.pb(), answer, listed=kind is stream), response_serializer=_serialize)
            for name, (kind, request, answer) in methods.items()
        },
    )


def _answering(request_type: Any, answer: Callable[[Any], Any], *, listed: bool) -> Callable[..., Any]:
    """Return a handler in which a refusal becomes a gRPC status."""

    def handle(data: bytes, context: grpc.ServicerContext) -> Any:
        try:
            answered = answer(request_type.FromString(data))
            return iter(list(answered)) if listed else answered
        except RefusalError as refusal:
            context.abort(refusal.code, str(refusal))
        except DecodeError:  # also a nesting beyond protobuf's own limit
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "The request cannot be read, or is nested too deep.")
        except sqlite3.OperationalError as error:  # the disk is full, another program holds the file
            context.abort(grpc.StatusCode.UNAVAILABLE, f"SQLite: {error}")

    return handle


def _serialize(message: Any) -> bytes:
    content: bytes = message.SerializeToString()
    return content


def serve(port: int, file: Path) -> None:
    """Serve the documents of a file on 127.0.0.1 until SIGTERM or SIGINT.

    Args:
        port: the TCP port; 0 takes a free one.
        file: the SQLite file, made where there is none.

    Raises:
        OSError: the port is taken.
        sqlite3.Error: the file cannot be opened, or is something else.
    """
    socket.create_server(("127.0.0.1", port)).close()  # says in one line what gRPC says in many
    # Blocked, in the threads to come as well, and waited for: a handler could run while this thread holds a lock.
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


def main() -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m local.embedded",
        description="An embedded stand-in for Firestore on one SQLite file, for this machine only.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--port", type=int, default=0, help="TCP port on 127.0.0.1; 0, the default, takes a free one")
    parser.add_argument("--file", type=Path, required=True, help="the SQLite file, made where there is none")
    args = parser.parse_args()
    try:
        serve(args.port, args.file)
    except (OSError, OverflowError) as error:
        print(f"Port {args.port} cannot be had ({error}): choose another one with --port.", file=sys.stderr)
        return 2
    except sqlite3.Error as error:
        print(f"{args.file} cannot be used ({error}): name an SQLite file in a folder that exists.", file=sys.stderr)
        return 2
    return 0
