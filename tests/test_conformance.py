"""The embedded store answers as the official emulator does, and keeps what it acknowledged.

A test that uses `firestore_host`, itself or through another fixture, runs on both.
"""

import asyncio
import json
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.api_core.exceptions import FailedPrecondition, InvalidArgument, MethodNotImplemented
from google.cloud import firestore
from google.cloud.firestore_v1 import types
from google.cloud.firestore_v1.base_query import FieldFilter, Or

from local.embedded.document import Document, Name
from local.embedded.query import plan
from local.embedded.storage import _FIND, Storage

ROOT = Path(__file__).parent.parent
MIB = 1 << 20

OK = grpc.StatusCode.OK
INVALID = grpc.StatusCode.INVALID_ARGUMENT
EXISTS = grpc.StatusCode.ALREADY_EXISTS
MISSING = grpc.StatusCode.NOT_FOUND
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION

Value, Write = types.Value.pb(), types.Write.pb()
CommitRequest, CommitResponse = types.CommitRequest.pb(), types.CommitResponse.pb()
Transform = types.DocumentTransform.FieldTransform.pb()
REQUEST_TIME = types.DocumentTransform.FieldTransform.ServerValue.REQUEST_TIME

Commit = Callable[..., Any]
Fields = dict[str, Any]


# Values as protobuf messages.


def integer(number: int = 1) -> Any:
    """Return an integer value."""
    return Value(integer_value=number)


def text(content: str) -> Any:
    """Return a string value."""
    return Value(string_value=content)


def binary(content: bytes) -> Any:
    """Return a bytes value."""
    return Value(bytes_value=content)


def timestamp(seconds: int, nanos: int = 0) -> Any:
    """Return a timestamp value."""
    return Value(timestamp_value={"seconds": seconds, "nanos": nanos})


def point(latitude: float, longitude: float) -> Any:
    """Return a geo point value."""
    return Value(geo_point_value={"latitude": latitude, "longitude": longitude})


def mapping(**fields: Any) -> Any:
    """Return a map value."""
    return Value(map_value={"fields": fields})


def array(*values: Any) -> Any:
    """Return an array value."""
    return Value(array_value={"values": values})


def maps(levels: int, leaf: Any) -> Any:
    """Return a value inside a number of maps."""
    for _ in range(levels):
        leaf = mapping(a=leaf)
    return leaf


def alternating(levels: int, leaf: Any) -> Any:
    """Return a value inside a number of alternating arrays and maps, the innermost an array."""
    for level in range(levels):
        leaf = mapping(a=leaf) if level % 2 else array(leaf)
    return leaf


def reference(name: str) -> Any:
    """Return a reference value."""
    return Value(reference_value=name)


# Every type of value, and maps and arrays of them. The sizes are as Google documents them: 16 + "c" 2 + "12345678" 9
# for the name, 32 for the document, and so on for the fields.
DATABASE = "projects/demo-p/databases/(default)"
EVERYTHING = {
    "null": Value(null_value=0),  # name 5, value 1
    "boolean": Value(boolean_value=True),  # 8, 1
    "integer": integer(),  # 8, 8
    "double": Value(double_value=1.5),  # 7, 8
    "timestamp": timestamp(1),  # 10, 8
    "geo": point(1, 1),  # 4, 16
    "text": text("é"),  # 5, 3
    "bytes": binary(b"12"),  # 6, 2
    "reference": reference(f"{DATABASE}/documents/c/d"),  # 10, 20
    "map": mapping(a=integer(), b=mapping()),  # 4, 10 + 3
    "array": array(integer(), mapping(a=integer()), text("x")),  # 6, 8 + 10 + 2
}
EVERYTHING_BYTES = 59 + (6 + 9 + 16 + 15 + 18 + 20 + 8 + 8 + 30 + 17 + 26)


def filled(size: int) -> Fields:
    """Return fields with which the document `c/12345678` has this size in bytes."""
    padding = size - EVERYTHING_BYTES - 2 * 3  # two one-letter names, and two texts
    return {**EVERYTHING, "p": text("x" * 500_000), "q": text("x" * (padding - 500_000))}


@pytest.fixture(scope="session", params=["emulator", "embedded"])
def firestore_host(request: pytest.FixtureRequest) -> str:
    """Return the address of each of the two Firestores in turn."""
    host: str = request.getfixturevalue(f"{request.param}_host")
    return host


@pytest.fixture
def root(project: str) -> str:
    """Return the prefix of all document names of the test."""
    return f"projects/{project}/databases/(default)/documents"


@pytest.fixture
def channel(firestore_host: str) -> Iterator[grpc.Channel]:
    """Return a channel to the Firestore, without a client library."""
    with grpc.insecure_channel(firestore_host) as channel:
        yield channel


@pytest.fixture
def commit(channel: grpc.Channel, root: str) -> Commit:
    """Return a function that commits writes and returns the response, or the status of the failure."""
    return lambda *writes: call_commit(channel, root, *writes)


def call_commit(channel: grpc.Channel, root: str, *writes: Any) -> Any:
    """Commit writes; return the response, or the status of the failure."""
    call = channel.unary_unary(
        "/google.firestore.v1.Firestore/Commit",
        request_serializer=CommitRequest.SerializeToString,
        response_deserializer=CommitResponse.FromString,
    )
    try:
        return call(CommitRequest(database=root.removesuffix("/documents"), writes=writes), timeout=30)
    except grpc.RpcError as error:
        return error.code()


def code(answer: Any) -> grpc.StatusCode:
    """Return the status of an answer of `commit`."""
    return answer if isinstance(answer, grpc.StatusCode) else OK


def update(name: str, fields: Fields | None = None, mask: list[str] | None = None, **condition: Any) -> Any:
    """Return a write of a whole document, or of the fields of a mask."""
    write = Write(update={"name": name, "fields": fields or {}}, current_document=condition or None)
    if mask is not None:
        write.update_mask.SetInParent()
        write.update_mask.field_paths.extend(mask)
    return write


def delete(name: str, **condition: Any) -> Any:
    """Return a write that deletes."""
    return Write(delete=name, current_document=condition or None)


LIMITS = [
    ("20 maps", {"f": maps(20, integer())}, OK),
    ("21 maps", {"f": maps(21, integer())}, INVALID),
    ("the 20th map is empty", {"f": maps(19, mapping())}, OK),
    ("the 21st map is empty", {"f": maps(20, mapping())}, INVALID),
    ("the 21st is an empty array", {"f": maps(20, array())}, OK),
    ("the 21st is an array", {"f": maps(20, array(integer()))}, INVALID),
    ("20 arrays and maps", {"f": alternating(20, integer())}, OK),
    ("21 arrays and maps", {"f": alternating(21, integer())}, INVALID),
    ("array in array", {"f": array(array(integer()))}, INVALID),
    ("empty array in array", {"f": array(array())}, INVALID),
    ("array in map in array", {"f": array(mapping(a=array(integer())))}, OK),
    ("empty map and array", {"f": mapping(), "g": array()}, OK),
    ("no fields", {}, OK),
    ("longest text", {"f": text("x" * (MIB - 89))}, OK),
    ("text too long", {"f": text("x" * (MIB - 88))}, INVALID),
    ("text too long in UTF-8", {"f": text("é" * (MIB // 2 - 44))}, INVALID),
    ("longest bytes", {"f": binary(b"x" * (MIB - 89))}, OK),
    ("bytes too long", {"f": binary(b"x" * (MIB - 88))}, INVALID),
    ("bytes too long in an array", {"f": array(mapping(a=binary(b"x" * (MIB - 88))))}, INVALID),
    ("largest document", filled(MIB), OK),
    ("document too large", filled(MIB + 1), INVALID),
    ("no field name", {"": integer()}, INVALID),
    ("no field name in a map", {"f": mapping(**{"": integer()})}, INVALID),
    ("reserved field name", {"__a__": integer()}, INVALID),
    ("reserved field name in an array", {"f": array(mapping(__a__=integer()))}, INVALID),
    ("reserved field name with a line feed", {"__\n__": integer()}, INVALID),
    ("field name of the document", {"__name__": integer()}, INVALID),
    ("field name of a type", {"f": mapping(__type__=text("x"))}, INVALID),
    ("nearly reserved field names", dict.fromkeys(["__", "___", "____", "__a", "a__"], integer()), OK),
    ("odd field names", dict.fromkeys(["a.b", "a b", "`", "/", "\0", "é", "1", "."], integer()), OK),
    ("longest field name", {"f" * 1500: integer()}, OK),
    ("field name too long", {"f" * 1501: integer()}, INVALID),
    ("field name too long in UTF-8", {"é" * 751: integer()}, INVALID),
    ("longest field path", {"f": array(mapping(**{"f" * 1498: integer()}))}, OK),
    ("field path too long", {"f": array(mapping(**{"f" * 1499: integer()}))}, INVALID),
    ("integers at the edge", {"f": integer(-(1 << 63)), "g": integer((1 << 63) - 1)}, OK),
    ("doubles at the edge", {"f": Value(double_value=float("nan")), "g": Value(double_value=float("-inf"))}, OK),
    ("timestamps at the edge", {"f": timestamp(-62_135_596_800), "g": timestamp(253_402_300_799, 999_999_999)}, OK),
    ("timestamp too early", {"f": timestamp(-62_135_596_801)}, INVALID),
    ("timestamp too late", {"f": timestamp(253_402_300_800)}, INVALID),
    ("timestamp with a second of nanoseconds", {"f": timestamp(0, 1_000_000_000)}, INVALID),
    ("timestamp with less than no nanoseconds", {"f": timestamp(0, -1)}, INVALID),
    ("geo points at the edge", {"f": point(90, 180), "g": point(-90, -180)}, OK),
    ("latitude beyond", {"f": point(90.1, 0)}, INVALID),
    ("longitude beyond", {"f": point(0, -180.1)}, INVALID),
    ("no latitude", {"f": point(float("nan"), 0)}, INVALID),
    ("reference", {"f": reference(f"{DATABASE}/documents/c/d")}, OK),
    ("reference to nothing", {"f": reference("")}, INVALID),
    ("reference to a collection", {"f": reference(f"{DATABASE}/documents/c")}, INVALID),
    ("value without a type", {"f": Value()}, INVALID),
    ("value without a type in an array", {"f": array(Value())}, INVALID),
    ("50,001 elements", {"f": array(*[integer()] * 50_001)}, OK),
    ("message over 4 MiB", {key: text("x" * MIB) for key in "abcde"}, grpc.StatusCode.RESOURCE_EXHAUSTED),
]


@pytest.mark.parametrize(("fields", "expected"), [case[1:] for case in LIMITS], ids=[case[0] for case in LIMITS])
def test_limits_of_fields(commit: Commit, root: str, fields: Fields, expected: grpc.StatusCode) -> None:
    """The limits of fields and documents are exactly those of the official emulator."""
    answer = commit(update(f"{root}/c/12345678", fields, exists=False))

    assert code(answer) is expected


PATHS = [
    ("c/____", OK),
    ("c/__", OK),
    ("c/__a", OK),
    ("c/__a__", INVALID),
    ("__a__/a", INVALID),
    ("c/.", INVALID),
    ("c/..", INVALID),
    ("../a", INVALID),
    ("c/...", OK),
    ("c/", INVALID),
    ("c", INVALID),
    ("", INVALID),
    ("c/a/", INVALID),
    ("c/a/d", INVALID),
    ("c/a/d/e", OK),
    ("/a", INVALID),
    ("c/a\nb", OK),
    ("c/\x7f", OK),
    ("c/ *[`é", OK),
    ("c/" + "i" * 1500, OK),
    ("c/" + "i" * 1501, INVALID),
    ("c/" + "é" * 751, INVALID),
    ("i" * 1501 + "/a", INVALID),
    ("/".join(["c/a"] * 100), OK),
    ("/".join(["c/a"] * 101), INVALID),
]


@pytest.mark.parametrize(("path", "expected"), PATHS, ids=[repr(path[:20]) for path, _ in PATHS])
def test_limits_of_names(commit: Commit, root: str, path: str, expected: grpc.StatusCode) -> None:
    """The limits of document names are exactly those of the official emulator."""
    answer = commit(update(f"{root}/{path}", {"f": integer()}, exists=False))

    assert code(answer) is expected


@pytest.mark.parametrize(
    "name",
    ["", "x", "projects/demo-p/documents/c/a", "projects/demo-p/databases/é/documents/c/a", f"{DATABASE}/docs/c/a"],
)
def test_not_the_name_of_a_document(commit: Commit, name: str) -> None:
    """A name without a project, a database or `documents` is refused."""
    answer = commit(update(name, {"f": integer()}))

    assert code(answer) is INVALID


CONDITIONS = [
    (lambda there, _: update(there, exists=False), EXISTS),
    (lambda _, missing: update(missing, exists=False), OK),
    (lambda there, _: update(there, exists=True), OK),
    (lambda _, missing: update(missing, exists=True), MISSING),
    (lambda _, missing: update(missing), OK),
    (lambda _, missing: update(missing, mask=["f"]), OK),
    (lambda there, _: update(there, update_time={"seconds": 5}), PRECONDITION),
    (lambda _, missing: update(missing, update_time={"seconds": 5}), PRECONDITION),
    (lambda there, _: delete(there), OK),
    (lambda _, missing: delete(missing), OK),
    (lambda there, _: delete(there, exists=True), OK),
    (lambda _, missing: delete(missing, exists=True), MISSING),
    (lambda there, _: delete(there, exists=False), EXISTS),
    (lambda _, missing: delete(missing, exists=False), OK),
    (lambda there, _: delete(there, update_time={"seconds": 5}), PRECONDITION),
    (lambda _, missing: delete(missing, update_time={"seconds": 5}), PRECONDITION),
]


@pytest.mark.parametrize(("write", "expected"), CONDITIONS)
def test_preconditions(commit: Commit, root: str, write: Callable[[str, str], Any], expected: grpc.StatusCode) -> None:
    """A write whose precondition does not hold fails with the status of the official emulator."""
    commit(update(f"{root}/c/there"))

    answer = commit(write(f"{root}/c/there", f"{root}/c/missing"))

    assert code(answer) is expected


def test_update_time_as_a_precondition(commit: Commit, root: str) -> None:
    """A write can require that the document has a certain update time."""
    stored = commit(update(f"{root}/c/a", {"f": integer(1)})).write_results[0].update_time

    first = commit(update(f"{root}/c/a", {"f": integer(2)}, update_time=stored))
    second = commit(update(f"{root}/c/a", {"f": integer(3)}, update_time=stored))

    assert (code(first), code(second)) == (OK, PRECONDITION)


PATHS_OF_FIELDS = [
    ("a.b", OK),
    ("`a b`", OK),
    ("`a`.b", OK),
    (r"`a\`b`", OK),
    ("", INVALID),
    ("a b", INVALID),
    ("a..b", INVALID),
    ("a.", INVALID),
    ("`", INVALID),
    ("`a", INVALID),
    ("`a`b", INVALID),
    ("1a", INVALID),
    ("é", INVALID),
    ("__a__", INVALID),
    ("`__a__`", INVALID),
    ("`" + "a" * 1501 + "`", INVALID),
    (".".join("a" * 21), INVALID),
]


@pytest.mark.parametrize(("path", "expected"), PATHS_OF_FIELDS, ids=[path[:20] for path, _ in PATHS_OF_FIELDS])
def test_field_paths(commit: Commit, root: str, path: str, expected: grpc.StatusCode) -> None:
    """Field paths are parsed, or refused, as by the official emulator."""
    answer = commit(update(f"{root}/c/a", mask=[path]))

    assert code(answer) is expected


def server_time(path: str) -> Any:
    """Return the transform that sets a field to the server's time."""
    return Transform(field_path=path, set_to_server_value=REQUEST_TIME)


INVALID_WRITES = [
    lambda _: [Write()],
    lambda name: [Write(update={"name": name}, update_transforms=[Transform(field_path="f")])],
    lambda name: [Write(update={"name": name}, update_transforms=[Transform(field_path="f", set_to_server_value=0)])],
    lambda name: [Write(update={"name": name}, update_transforms=[server_time("__f__")])],
    lambda name: [Write(delete=name, update_transforms=[server_time("f")])],
    lambda name: [Write(delete=name, update_mask={"field_paths": ["f"]})],
    lambda name: [update(name, exists=False), update(name, exists=False)],
    lambda name: [update(name), update(name, {"__a__": integer()})],
]


@pytest.mark.parametrize("writes", INVALID_WRITES)
def test_invalid_writes(commit: Commit, root: str, writes: Callable[[str], list[Any]]) -> None:
    """Invalid writes are refused, whatever is stored."""
    answer = commit(*writes(f"{root}/c/a"))

    assert code(answer) is INVALID


def test_nesting_beyond_the_limit_of_protobuf(channel: grpc.Channel, root: str) -> None:
    """A message nested so deep that protobuf cannot parse it is refused as invalid."""

    def field(number: int, content: bytes) -> bytes:
        length = len(content)
        return bytes([number << 3 | 2, length & 127 | 128, length >> 7]) + content

    value = integer().SerializeToString()
    for _ in range(40):
        value = field(6, field(1, field(1, b"a") + field(2, value)))
    document = field(1, f"{root}/c/a".encode()) + field(2, field(1, b"f") + field(2, value))
    request = field(1, root.removesuffix("/documents").encode()) + field(2, field(1, document))

    call: Any = channel.unary_unary("/google.firestore.v1.Firestore/Commit", bytes, bytes)

    with pytest.raises(grpc.RpcError) as refused:
        call(request, timeout=10)

    assert refused.value.code() is INVALID


def test_a_commit_is_all_or_nothing(commit: Commit, root: str, database: firestore.Client) -> None:
    """When one write of a commit fails, none is applied."""
    answer = commit(update(f"{root}/c/a", exists=False), update(f"{root}/c/b", exists=True))

    assert code(answer) is MISSING
    assert list(database.collection("c").stream()) == []


def test_values_are_read_back(database: firestore.Client) -> None:
    """Values of every type are read back as they were written, timestamps to the microsecond."""
    document = database.document("c/a")
    fields: Fields = {
        "null": None,
        "true": True,
        "integer": (1 << 63) - 1,
        "double": 1.5,
        "timestamp": datetime(2026, 2, 3, 4, 5, 6, 789_012, UTC),
        "text": 'é😀 "\0',
        "bytes": b"\0\xff",
        "geo": firestore.GeoPoint(1.5, -2.5),
        "reference": document,
        "map": {"a b": {"c.d": []}, "e": {}},
        "array": [1, "x", {"f": [None]}],
    }

    document.create(fields)

    assert document.get().to_dict() == fields


def test_timestamps_are_truncated_to_microseconds(commit: Commit, root: str, database: firestore.Client) -> None:
    """Nanoseconds are truncated, not rounded, also before 1970."""
    commit(update(f"{root}/c/a", {"late": timestamp(5, 999_999_999), "early": timestamp(-1, 1999)}))

    request = {"database": root.removesuffix("/documents"), "documents": [f"{root}/c/a"]}
    (stored,) = database._firestore_api.batch_get_documents(request=request)

    fields = types.Document.pb(stored.found).fields
    assert fields["late"] == timestamp(5, 999_999_000)
    assert fields["early"] == timestamp(-1, 1000)


def test_server_time(commit: Commit, root: str, database: firestore.Client) -> None:
    """The server timestamp has milliseconds, is the same for every field, and at or just before the commit time."""
    write = update(f"{root}/c/a", {"at": integer()}, exists=False)
    write.update_transforms.extend([server_time("at"), server_time("map.at")])

    answer = commit(write)

    stored = database.document("c/a").get()
    returned = [result.timestamp_value.ToDatetime(UTC) for result in answer.write_results[0].transform_results]
    assert returned == [stored.get("at"), stored.get("map.at")]
    assert returned[0] == returned[1]
    assert returned[0].microsecond % 1000 == 0
    assert returned[0] <= stored.create_time < returned[0] + timedelta(seconds=10)


def test_times_of_a_document(commit: Commit, root: str, database: firestore.Client) -> None:
    """A write keeps the create time, and also the update time if it changes nothing."""
    times = []
    for number in (1, 1, 2):
        answer = commit(update(f"{root}/c/a", {"f": integer(number)}))
        stored = database.document("c/a").get()
        assert stored.update_time.timestamp_pb() == answer.write_results[0].update_time
        times.append((stored.create_time, stored.update_time))

    (created, first), second, (still, third) = times

    assert created == first
    assert second == (created, first)
    assert still == created
    assert third > first


def test_commit_times_rise(commit: Commit, root: str) -> None:
    """Each commit has a later commit time than the previous one."""
    times = [commit(update(f"{root}/c/{key}")).commit_time.ToNanoseconds() for key in range(50)]

    assert times == sorted(set(times))


def test_update_with_a_mask(commit: Commit, root: str, database: firestore.Client) -> None:
    """The fields of a mask are set, or deleted if the write lacks them; all others stay."""
    commit(update(f"{root}/c/a", {"m": mapping(a=integer(1), b=integer(2)), "n": integer(3), "o": integer(4)}))

    commit(update(f"{root}/c/a", {"m": mapping(b=integer(5)), "o": integer(6)}, mask=["m.b", "m.c", "n", "p.q.r"]))

    assert database.document("c/a").get().to_dict() == {"m": {"a": 1, "b": 5}, "o": 4}


def test_update_with_a_mask_of_quoted_paths(commit: Commit, root: str, database: firestore.Client) -> None:
    """Quoted names of a mask set and delete fields, on the condition of an update time."""
    commit(update(f"{root}/c/a", {"m": mapping(**{"a b": integer(1), "c.d": integer(2)}), "n": integer(3)}))
    stored = database.document("c/a").get().update_time.timestamp_pb()
    fields = {"m": mapping(**{"a b": integer(4), "`": integer(5)})}

    answer = commit(update(f"{root}/c/a", fields, mask=["m.`a b`", "m.`c.d`", r"`m`.`\``"], update_time=stored))

    assert code(answer) is OK
    assert database.document("c/a").get().to_dict() == {"m": {"a b": 4, "`": 5}, "n": 3}


def test_a_mask_replaces_a_value_by_a_map(commit: Commit, root: str, database: firestore.Client) -> None:
    """A field path through a value that is not a map replaces it by a map to set a field, but not to delete one."""
    commit(update(f"{root}/c/a", {"f": integer(1), "g": integer(2)}))

    commit(update(f"{root}/c/a", {"f": mapping(x=integer(3))}, mask=["f.x", "g.x"]))

    assert database.document("c/a").get().to_dict() == {"f": {"x": 3}, "g": 2}


def test_the_size_is_that_of_the_whole_document(commit: Commit, root: str) -> None:
    """A small update is refused if the document would become too large by it."""
    commit(update(f"{root}/c/12345678", filled(MIB)))

    answer = commit(update(f"{root}/c/12345678", {"r": integer()}, mask=["r"]))

    assert code(answer) is INVALID


def test_batch_write(commit: Commit, root: str, database: firestore.Client) -> None:
    """Each write of a batch has its own status, and does not depend on the others."""
    commit(update(f"{root}/c/there"))
    large = {"a": text("x" * 900_000), "b": text("x" * 900_000)}
    writes = [
        update(f"{root}/c/there", exists=False),
        update(f"{root}/c/new", {"f": integer()}),
        update(f"{root}/c/missing", exists=True),
        update(f"{root}/c/large", large),
        delete(f"{root}/c/nothing"),
    ]

    request = types.BatchWriteRequest.pb()(database=root.removesuffix("/documents"), writes=writes)
    answer = database._firestore_api.batch_write(request=request, metadata=[("authorization", "Bearer owner")])

    assert [status.code for status in answer.status] == [each.value[0] for each in (EXISTS, OK, MISSING, INVALID, OK)]
    assert [bool(result.update_time) for result in answer.write_results] == [False, True, False, False, False]
    assert {document.id for document in database.collection("c").stream()} == {"there", "new"}


@pytest.mark.parametrize(
    "writes",
    [
        lambda root: [update(f"{root}/c/a"), update(f"{root}/c/b", {"__a__": integer()})],
        lambda root: [update(f"{root}/c/a"), delete(f"{root}/c/a")],
    ],
    ids=["one is invalid", "one document twice"],
)
def test_batch_write_refused_as_a_whole(
    root: str, database: firestore.Client, writes: Callable[[str], list[Any]]
) -> None:
    """Nothing is applied of a batch with an invalid write, or with one document twice."""
    request = types.BatchWriteRequest.pb()(database=root.removesuffix("/documents"), writes=writes(root))

    with pytest.raises(InvalidArgument):
        database._firestore_api.batch_write(request=request, metadata=[("authorization", "Bearer owner")])

    assert list(database.collection("c").stream()) == []


def test_bulk_writer(database: firestore.Client) -> None:
    """The client's BulkWriter, which uses BatchWrite, works."""
    writer = database.bulk_writer()
    for key in range(30):
        writer.create(database.document(f"c/{key}"), {"key": key})

    writer.close()

    assert database.collection("c").count().get()[0][0].value == 30


def test_get_all(database: firestore.Client) -> None:
    """BatchGetDocuments returns each document once, with only the fields of the mask, and names the missing ones."""
    database.document("c/a").set({"f": {"x": 1, "y": 2}, "g": 3})
    names = ["c/a", "c/missing", "c/a"]

    found = list(database.get_all([database.document(name) for name in names], field_paths=["f.x"]))

    assert {document.id: document.to_dict() for document in found} == {"a": {"f": {"x": 1}}, "missing": None}
    assert len(found) == 2


def test_async_client(database: firestore.Client) -> None:
    """The asynchronous client works, too: create, get, stream and delete."""

    async def use() -> list[Any]:
        client = firestore.AsyncClient(project=database.project)
        document = client.document("c/a")
        await document.create({"f": 1})
        stored = (await document.get()).to_dict()
        streamed = [each.id async for each in client.collection("c").stream()]
        await document.delete()
        gone = not (await document.get()).exists
        await client._firestore_api.transport.close()
        return [stored, streamed, gone]

    assert asyncio.run(use()) == [{"f": 1}, ["a"], True]


VALUES: dict[str, Any] = {
    "B": {"x": b"z"},
    "a": {"x": 1, "y": "p", "l": [1, 2], "m": {"k": 1}},
    "b": {"x": 1.5, "y": "q", "l": [2], "t": datetime(2026, 1, 1, tzinfo=UTC)},
    "c": {"x": "s", "y": "p", "t": datetime(2026, 1, 1, 0, 0, 0, 500_000, UTC)},
    "d": {"x": None},
    "e": {"y": "p", "t": "2026-01-01T00:00:00.100000Z"},
    "f": {"x": 2, "y": "r", "m": {"k": 2}, "t": datetime(2026, 1, 2, tzinfo=UTC)},
    "g": {"x": float("nan")},
    "h": {"x": True},
    "i": {"x": 1.0, "y": "z"},
    "j": {"x": [1]},
    "k": {"x": {"a": 1}},
    "l": {"x": datetime(2026, 1, 1, tzinfo=UTC)},
    "m": {"x": "\ufffe"},
    "n": {"x": "😀"},
    "o": {"x": firestore.GeoPoint(1, 2)},
}


def where(*conditions: tuple[str, str, Any]) -> Callable[[Any], Any]:
    """Return a function that adds these filters to a query."""

    def query(collection: Any) -> Any:
        for path, op, value in conditions:
            collection = collection.where(filter=FieldFilter(path, op, value))
        return collection

    return query


NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
QUERIES: list[tuple[Callable[[Any], Any], str]] = [
    (lambda c: c, "Babcdefghijklmno"),
    (lambda c: c.order_by("x"), "dhgaibflcmnBojk"),
    (lambda c: c.order_by("x", direction="DESCENDING"), "kjoBnmclfbiaghd"),
    (lambda c: c.order_by("y").order_by("x", direction="DESCENDING"), "cabfi"),
    (where(("x", "==", 1)), "ai"),
    (where(("x", ">", 1)), "bf"),
    (where(("x", ">=", 1)), "aibf"),
    (where(("x", "<", 2)), "aib"),
    (where(("x", "<=", "s")), "c"),
    (where(("x", "==", [1])), "j"),
    (where(("x", "==", {"a": 1})), "k"),
    (where(("m.k", ">=", 1)), "af"),
    (where(("y", "==", "p")), "ace"),
    (where(("y", "==", "p"), ("x", ">=", 0)), "a"),
    (where(("y", ">", "")), "acebfi"),
    (where(("t", "==", NEW_YEAR)), "b"),
    (where(("t", ">", NEW_YEAR)), "cf"),
    (where(("t", ">=", NEW_YEAR), ("t", "<", NEW_YEAR + timedelta(days=1))), "bc"),
    (where(("t", ">=", "2026")), "e"),
    (lambda c: where(("y", ">", ""))(c).order_by("y", direction="DESCENDING"), "ifbeca"),
    (lambda c: where(("__name__", ">", c.document("m")))(c), "no"),
    (lambda c: c.order_by("y").limit(2), "ac"),
    (lambda c: c.limit(0), ""),
    (lambda c: c.order_by("y").start_at({"y": "q"}), "bfi"),
    (lambda c: c.order_by("y").start_after({"y": "p"}), "bfi"),
    (lambda c: c.order_by("y").end_before({"y": "q"}), "ace"),
    (lambda c: c.order_by("y").end_at({"y": "q"}), "aceb"),
    (lambda c: c.order_by("y", direction="DESCENDING").start_at({"y": "q"}), "beca"),
    (lambda c: c.order_by("y").start_after(c.document("c").get()), "ebfi"),
    (lambda c: where(("y", ">=", "p"))(c).start_after(c.document("c").get()), "ebfi"),
    (lambda c: c.order_by("__name__").start_at({"__name__": "m"}), "mno"),
    (lambda c: where(("__name__", "==", c.document("m")))(c), "m"),
    (lambda c: where(("__name__", ">=", c.document("c")), ("__name__", "<", c.document("f")))(c), "cde"),
    (where(("y", "==", "p"), ("x", "==", 1)), "a"),
    (where(("y", "==", "p"), ("y", "==", "q")), ""),
    (where(("y", "==", "p"), ("y", ">", "o")), "ace"),
    (where(("x", ">", 1), ("x", "<=", 2)), "bf"),
    (where(("x", ">", 1), ("x", "<", "s")), ""),
    (lambda c: where(("x", ">=", 1))(c).order_by("x", direction="DESCENDING"), "fbia"),
    (lambda c: where(("x", "<", 2))(c).order_by("x", direction="DESCENDING"), "bia"),
    (lambda c: where(("y", "==", "p"))(c).order_by("x", direction="DESCENDING").limit(1), "c"),
    (lambda c: where(("y", "==", "p"))(c).order_by("y").order_by("x"), "ac"),
    (lambda c: c.order_by("y", direction="DESCENDING").order_by("x"), "ifbac"),
    (lambda c: c.order_by("y").order_by("x", direction="DESCENDING").start_after({"y": "p", "x": "s"}), "abfi"),
    (lambda c: c.order_by("y").start_at({"y": "q"}).end_before({"y": "z"}), "bf"),
    (lambda c: c.order_by("y").start_at({"y": "r"}).end_at({"y": "q"}), ""),
    (lambda c: c.order_by("y").end_before(c.document("c").get()), "a"),
    (lambda c: c.order_by("x").start_at({"x": "s"}).limit(2), "cm"),
]


@pytest.fixture(scope="session")
def collections(firestore_host: str, request: pytest.FixtureRequest) -> Iterator[firestore.Client]:
    """Return a database with the documents of VALUES in `e`, and like-named collections below documents."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIRESTORE_EMULATOR_HOST", firestore_host)
        client = firestore.Client(project=f"demo-queries-{id(request)}")
    for key, fields in VALUES.items():
        client.document("e", key).set(fields)
    client.document("e/a/e/sub").set({"x": 1})
    client.document("o/a/e/under").set({"x": 1})
    yield client
    client.close()


@pytest.mark.parametrize(("query", "expected"), QUERIES, ids=range(len(QUERIES)))
def test_queries(collections: firestore.Client, query: Callable[[Any], Any], expected: str) -> None:
    """A query returns the expected documents in the expected order."""
    found = query(collections.collection("e")).stream()

    assert "".join(document.id for document in found) == expected


def test_collections_below_documents(collections: firestore.Client) -> None:
    """A query finds the documents of its own collection, not those of like-named ones."""
    assert [document.id for document in collections.collection("o/a/e").stream()] == ["under"]


ORDERED: list[list[Any]] = [
    [None],
    [False],
    [True],
    [float("nan")],
    [float("-inf")],
    [-(1 << 63), -float(1 << 63)],
    [-(1 << 63) + 1],
    [-1e15],
    [-1.5],
    [-1],
    [-5e-324],
    [0, 0.0, -0.0],
    [5e-324],
    [1, 1.0],
    [1.5],
    [1 << 53, float(1 << 53)],
    [(1 << 53) + 1],
    [(1 << 53) + 2, float((1 << 53) + 2)],
    [(1 << 63) - 1],
    [float(1 << 63)],
    [float("inf")],
    [datetime(1, 1, 1, tzinfo=UTC)],
    [datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC)],
    [datetime(1970, 1, 1, tzinfo=UTC)],
    [datetime(2026, 1, 1, 0, 0, 0, 1, UTC)],
    [""],
    ["\0"],
    ["\0\0"],
    ["\1"],
    ["a"],
    ["a\0"],
    ["a\0b"],
    ["a\1"],
    ["ab"],
    ["b"],
    ["\uffff"],
    ["😀"],
    [b""],
    [b"\0"],
    [b"\0\xff"],
    [b"\1"],
    [b"\xff"],
    [b"\xff\xff"],
    [firestore.GeoPoint(-1, 5)],
    [firestore.GeoPoint(1, -5)],
    [firestore.GeoPoint(1, 5)],
    [[]],
    [[None]],
    [[1]],
    [[1, 1]],
    [[1, 2], [1.0, 2]],
    [[2]],
    [["a"]],
    [{}],
    [{"a": 1}, {"a": 1.0}],
    [{"a": 1, "b": 1}],
    [{"a": 2}],
    [{"a\0": 1}],
    [{"b": 1}],
]


@pytest.fixture
def ordered(database: firestore.Client) -> Any:
    """Return a collection with the values of ORDERED, each in the field `f` of a document of its own."""
    batch = database.batch()
    for number, equal in enumerate(ORDERED):
        for position, content in enumerate(equal):
            batch.set(database.document("c", f"{number:02}-{position}"), {"f": content})
    batch.commit()
    return database.collection("c")


def test_order_of_values(ordered: Any) -> None:
    """Values of all types are sorted by type and content, equal ones by name, each in the direction of the order."""
    keys = [f"{number:02}-{position}" for number, equal in enumerate(ORDERED) for position in range(len(equal))]

    ascending = [document.id for document in ordered.order_by("f").stream()]
    descending = [document.id for document in ordered.order_by("f", direction="DESCENDING").stream()]

    assert ascending == keys
    assert descending == keys[::-1]


def test_equal_values(ordered: Any) -> None:
    """A filter by equality finds the equal values, be they integers or doubles, and no others."""
    for number, equal in enumerate(ORDERED):
        if equal[0] is not None and equal[0] == equal[0]:
            found = [document.id for document in where(("f", "==", equal[-1]))(ordered).stream()]

            assert found == [f"{number:02}-{position}" for position in range(len(equal))]


def ids(query: Any) -> str:
    """Return the ids, of one letter each, of the documents that a query finds."""
    return "".join(document.id for document in query.stream())


def test_queries_after_writes(database: firestore.Client) -> None:
    """A repeated query reflects the documents that were created, updated and deleted since."""
    collection: Any = database.collection("c")
    query = where(("n", "==", 1))(collection).order_by("x", direction="DESCENDING")
    for key, x in (("a", 1), ("b", 2), ("c", 3)):
        collection.document(key).set({"n": 1, "x": x})
    before = ids(query)

    collection.document("d").create({"n": 1, "x": 2.5})
    collection.document("a").update({"x": 9})
    collection.document("b").update({"x": firestore.DELETE_FIELD})
    collection.document("c").update({"other": 1})
    with pytest.raises(Exception, match="409"):
        collection.document("c").create({"n": 1, "x": 0})
    batch = database.batch()
    batch.set(collection.document("e"), {"n": 1, "x": 7})
    batch.create(collection.document("c"), {"n": 1, "x": 0})
    with pytest.raises(Exception, match="409"):
        batch.commit()
    written = ids(query)
    collection.document("a").delete()
    collection.document("d").set({"n": 2, "x": 5})

    assert (before, written, ids(query)) == ("cba", "acd", "c")
    assert where(("n", "==", 1))(collection).count().get()[0][0].value == 2


def test_limit_to_last(collections: firestore.Client) -> None:
    """The last documents of an order are returned in this order."""
    query = collections.collection("e").order_by("y").limit_to_last(3)

    assert [document.id for document in query.get()] == ["b", "f", "i"]


def test_counting(collections: firestore.Client) -> None:
    """Documents are counted, under the alias given and up to the query's limit."""
    collection: Any = collections.collection("e")

    (all_of_them,), *_ = collection.count(alias="n").get()
    (some,), *_ = where(("x", ">", 0))(collection).count().get()
    (few,), *_ = collection.limit(3).count().get()

    assert (all_of_them.alias, all_of_them.value, some.value, few.value) == ("n", len(VALUES), 4, 3)


def test_selecting(collections: firestore.Client) -> None:
    """A query returns only the selected fields."""
    collection = collections.collection("e").limit(2)

    some = [document.to_dict() for document in collection.select(["m.k", "y"]).stream()]
    without_fields = [document.to_dict() for document in collection.select([]).stream()]

    assert some == [{}, {"m": {"k": 1}, "y": "p"}]
    assert without_fields == [{}, {}]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (where(("__name__", "==", 5)), InvalidArgument),
        (lambda c: c.limit(-1), InvalidArgument),
        (lambda c: c.order_by("x").order_by("x"), InvalidArgument),
        (lambda c: c.order_by("__name__", direction="DESCENDING"), FailedPrecondition),
    ],
)
def test_refused_queries(collections: firestore.Client, query: Callable[[Any], Any], expected: type[Exception]) -> None:
    """A query that the official emulator refuses is refused with the same error."""
    with pytest.raises((expected, ValueError)) as refused:
        list(query(collections.collection("e")).stream())

    assert isinstance(refused.value, expected)


def test_64_creates_of_one_document(firestore_host: str, root: str) -> None:
    """Of many creates of one document at once, over several connections, exactly one succeeds."""
    channels = [
        grpc.insecure_channel(firestore_host, options=[("grpc.use_local_subchannel_pool", 1)]) for _ in range(4)
    ]

    def create(number: int) -> grpc.StatusCode:
        status = grpc.StatusCode.ABORTED
        while status is grpc.StatusCode.ABORTED:  # contention: the emulator asks to try again, on a busy machine
            status = code(call_commit(channels[number % 4], root, update(f"{root}/c/a", exists=False)))
        return status

    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(create, range(64)))
    for channel in channels:
        channel.close()

    assert sorted(answers, key=str) == [EXISTS] * 63 + [OK]


# Promises of the embedded store alone.


@contextmanager
def running(file: Path, port: int = 0) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run an embedded store on a file; yield its process and its address."""
    command = [sys.executable, "-m", "local.embedded", "--port", str(port), "--file", str(file)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().removeprefix("listening on ").strip()
        finally:
            process.kill()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the SQLite file for an embedded store of the test's own."""
    return tmp_path / "firestore.sqlite3"


def keys(host: str, project: str) -> set[str]:
    """Return the ids of all documents of `c`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIRESTORE_EMULATOR_HOST", host)
        client = firestore.Client(project=project)
    found = {document.id for document in client.collection("c").stream()}
    client.close()
    return found


def test_commit_times_rise_even_if_the_clock_does_not(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commits within one microsecond, or after the clock was set back, still have later commit times."""
    storage = Storage(file)
    clock = iter([2_000_000_000, 2_000_000_000, 1_000_000_000])
    monkeypatch.setattr(time, "time_ns", lambda: next(clock))

    times = []
    for _ in range(3):
        with storage.transaction() as now:
            times.append(now.ToMicroseconds())
    storage.close()

    assert times == [2_000_000, 2_000_001, 2_000_002]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_survives_a_restart(file: Path, project: str, root: str, number: signal.Signals) -> None:
    """After SIGTERM or SIGINT it ends with status 0, and the next one on its file has all documents."""
    with running(file) as (process, host), grpc.insecure_channel(host) as channel:
        call_commit(channel, root, update(f"{root}/c/a"))
        process.send_signal(number)
        status = process.wait(timeout=10)
        left = list(file.parent.iterdir())

    with running(file) as (_, host):
        stored = keys(host, project)

    assert status == 0
    assert stored == {"a"}
    assert left == [file]


def test_kill_9_loses_nothing_acknowledged(file: Path, project: str, root: str) -> None:
    """After SIGKILL during a burst of creates it has every document that it acknowledged."""
    acknowledged: list[str] = []

    def burst(channel: grpc.Channel, worker: int) -> None:
        for number in range(2000):
            key = f"{worker}-{number}"
            write = update(f"{root}/c/{key}", {"f": text("x" * 500)}, exists=False)
            if code(call_commit(channel, root, write)) is not OK:
                return
            acknowledged.append(key)

    with running(file) as (process, host), grpc.insecure_channel(host) as channel, ThreadPoolExecutor(8) as pool:
        workers = [pool.submit(burst, channel, worker) for worker in range(8)]
        while len(acknowledged) < 300:
            time.sleep(0.01)
        process.kill()
        for worker in workers:
            worker.result(timeout=60)

    with running(file) as (_, host):
        stored = keys(host, project)

    assert 300 <= len(acknowledged) < 8 * 2000
    assert set(acknowledged) <= stored


def test_the_file_is_readable(file: Path, project: str, root: str) -> None:
    """While it runs, any SQLite tool can read the documents, as JSON and as Firestore's own message."""
    fields = {
        "name": text("é"),
        "at": timestamp(1_767_225_600, 5000),
        "data": mapping(value=Value(double_value=21.5), none=Value(null_value=0), nan=Value(double_value=float("nan"))),
        "list": array(integer(), binary(b"\0"), point(1, 2), reference(f"{root}/c/b")),
    }

    with running(file) as (_, host), grpc.insecure_channel(host) as channel:
        answer = call_commit(channel, root, update(f"{root}/c/a", fields))
        connection = sqlite3.connect(file)
        (row,) = connection.execute("SELECT * FROM documents").fetchall()
        (value,) = connection.execute("SELECT json_extract(fields, '$.data.value') FROM documents").fetchone()
        connection.close()

    committed = answer.commit_time.ToDatetime().isoformat(timespec="microseconds") + "Z"
    assert row[:6] == (project, "(default)", "c/a", "c", committed, committed)
    assert json.loads(row[6]) == {
        "name": "é",
        "at": "2026-01-01T00:00:00.000005Z",
        "data": {"value": 21.5, "none": None, "nan": "nan"},
        "list": [1, "AA==", {"latitude": 1.0, "longitude": 2.0}, f"{root}/c/b"],
    }
    assert types.Document.pb().FromString(row[7]).fields == fields
    assert value == 21.5


UNSUPPORTED: list[tuple[Callable[[firestore.Client], Any], str]] = [
    (lambda client: list(client.collections()), "Method not found"),
    (lambda client: client.transaction()._begin(), "Method not found"),
    (lambda client: client.document("c/a").get(read_time=NEW_YEAR), "read_time"),
    (lambda client: client.document("c/a").set({"f": firestore.Increment(1)}), "increment"),
    (lambda client: client.document("c/a").set({"f": firestore.ArrayUnion([1])}), "append_missing_elements"),
    (lambda client: client.collection("c").sum("f").get(), "aggregations other than count"),
    (lambda client: client.collection_group("c").get(), "collection groups"),
    (lambda client: client.collection("c").offset(1).get(), "offset"),
    (lambda client: where(("x", "==", None))(client.collection("c")).get(), "IS_NULL"),
    (lambda client: where(("x", "!=", float("nan")))(client.collection("c")).get(), "IS_NOT_NAN"),
    (lambda client: where(("x", "!=", 1))(client.collection("c")).get(), "NOT_EQUAL"),
    (lambda client: where(("x", "in", [1]))(client.collection("c")).get(), "operator IN"),
    (lambda client: where(("x", "not-in", [1]))(client.collection("c")).get(), "NOT_IN"),
    (lambda client: where(("x", "array_contains", 1))(client.collection("c")).get(), "ARRAY_CONTAINS"),
    (lambda client: where(("x", "array_contains_any", [1]))(client.collection("c")).get(), "ARRAY_CONTAINS_ANY"),
    (lambda client: client.collection("c").where(filter=Or([FieldFilter("x", "==", 1)] * 2)).get(), "operator OR"),
    (lambda client: where(("x", ">", 1), ("y", ">", 1))(client.collection("c")).get(), "another field"),
    (lambda client: where(("x", ">", 1))(client.collection("c")).order_by("y").get(), "another field"),
]


@pytest.mark.parametrize(("attempt", "feature"), UNSUPPORTED, ids=[feature for _, feature in UNSUPPORTED])
def test_unsupported_features(
    embedded_host: str,
    project: str,
    monkeypatch: pytest.MonkeyPatch,
    attempt: Callable[[firestore.Client], Any],
    feature: str,
) -> None:
    """A feature that the embedded store lacks is refused with UNIMPLEMENTED and its name."""
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", embedded_host)
    client = firestore.Client(project=project)

    with pytest.raises(MethodNotImplemented, match=feature):
        attempt(client)
    client.close()


def test_listeners_are_refused(embedded_host: str) -> None:
    """A listener is refused with UNIMPLEMENTED, never with the INTERNAL of a client that is still sending."""

    async def requests() -> AsyncIterator[bytes]:
        yield b""
        await asyncio.sleep(60)

    async def code() -> Any:
        async with grpc.aio.insecure_channel(embedded_host) as channel:
            call = channel.stream_stream("/google.firestore.v1.Firestore/Listen", None, None)(requests())
            return await call.code()

    assert {asyncio.run(code()) for _ in range(20)} == {grpc.StatusCode.UNIMPLEMENTED}


def test_a_query_reads_only_what_it_returns(file: Path) -> None:
    """SQLite searches a range of the index and sorts nothing, so a limit also limits what is read."""
    storage = Storage(file)

    steps = storage._connection.execute(f"EXPLAIN QUERY PLAN {_FIND}", (1, b"", b"", "", "", 1)).fetchall()
    storage.close()

    assert [step[3].partition(" (")[0] for step in steps] == [
        "SEARCH entries USING PRIMARY KEY",
        "SEARCH documents USING INDEX sqlite_autoindex_documents_1",
    ]


def test_an_index_is_built_in_parts(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index of many documents is built in several transactions; what is written in between is in it."""
    monkeypatch.setattr("local.embedded.storage._PART", 2)
    storage, collection = Storage(file), Name("p", "(default)", "c")
    names = [collection._replace(path=f"c/{key}") for key in "abcdefg"]
    documents = [Document(name=f"{DATABASE}/documents/{name.path}", fields={"f": integer()}) for name in names]
    below, beside = collection._replace(path="c/a/c/x"), collection._replace(path="c0/x")
    with storage.transaction():
        for name, document in zip([*names[:5], below, beside], [*documents[:5], *documents[5:]], strict=True):
            storage.put(name, document, None)
    build, parts = Storage._build, list[str]()

    def build_and_write(*arguments: Any) -> None:
        build(*arguments)
        parts.append(arguments[-1])
        if len(parts) == 1:
            storage.delete(names[0], documents[0])
            storage.delete(names[3], documents[3])
            storage.put(names[6], documents[6], None)

    monkeypatch.setattr(Storage, "_build", build_and_write)
    query = types.StructuredQuery.pb(types.StructuredQuery(from_=[{"collection_id": "c"}]))
    with storage.find(collection, plan(query)) as (found, _):
        paths = [document.name[-1] for document in found]
    storage.close()

    assert parts == ["c/", "c/b", "c/e"]
    assert paths == ["b", "c", "e", "g"]


def test_a_query_reads_a_snapshot(file: Path) -> None:
    """Writes that are committed while a result is streamed do not change this result."""
    storage, name = Storage(file), Name("p", "(default)", "c/a")
    document = Document(name=f"{DATABASE}/documents/c/a")
    query = types.StructuredQuery.pb(types.StructuredQuery(from_=[{"collection_id": "c"}]))

    with storage.transaction():
        storage.put(name, document, None)
    with storage.find(name.parent, plan(query)) as (documents, _):
        with storage.transaction():
            storage.put(name._replace(path="c/b"), Document(name=f"{DATABASE}/documents/c/b"), None)
            storage.delete(name, document)
        first = [found.name[-3:] for found in documents]
    with storage.find(name.parent, plan(query)) as (documents, _):
        second = [found.name[-3:] for found in documents]
    storage.close()

    assert (first, second) == (["c/a"], ["c/b"])


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line and wait for its end."""
    command = [sys.executable, "-m", "local.embedded", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)


def test_a_busy_port(file: Path) -> None:
    """If the port is in use, it ends with status 2 and one line that names the port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run("--port", str(port), "--file", str(file))

    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1
    assert f"Port {port} " in ended.stderr


def test_a_port_that_another_one_uses(file: Path, tmp_path: Path) -> None:
    """A second embedded store does not share the port of the first one."""
    with running(file) as (_, host):
        ended = run("--port", host.rpartition(":")[2], "--file", str(tmp_path / "other.sqlite3"))

    assert ended.returncode == 2


@pytest.mark.parametrize("kind", ["a folder", "no folder around it", "something else"])
def test_a_file_that_cannot_be_used(tmp_path: Path, kind: str) -> None:
    """If the file cannot be used, it ends with status 2 and one line that names the file."""
    other = tmp_path / "notes.txt"
    other.write_text("not a database, but long enough to be looked at" * 100)
    file = {"a folder": tmp_path, "no folder around it": tmp_path / "none" / "x", "something else": other}[kind]

    ended = run("--file", str(file))

    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert str(file) in ended.stderr


def test_help_has_examples() -> None:
    """`--help` shows how to start it, and how to read its file."""
    shown = run("--help")

    assert shown.returncode == 0
    assert "python -m local.embedded --port" in shown.stdout
    assert "sqlite3" in shown.stdout
