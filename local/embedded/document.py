"""Firestore's rules for documents: names, field paths, values and sizes.

The limits were measured on the official emulator 1.19.9, and `tests/test_conformance.py` compares the two. They are
those of https://firebase.google.com/docs/firestore/quotas and https://firebase.google.com/docs/firestore/storage-size.
"""

import base64
import math
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, NamedTuple

import grpc
from google.cloud.firestore_v1 import types

MAX_DEPTH = 20
MAX_DOCUMENT_BYTES = 1 << 20
MAX_VALUE_BYTES = MAX_DOCUMENT_BYTES - 89
MAX_NAME_BYTES = 1500
MAX_PATH_SEGMENTS = 200

Document = types.Document.pb()
Value = types.Value.pb()

_DATABASE = re.compile(r"projects/([^/]+)/databases/(\(default\)|[A-Za-z0-9_.-]+)", re.ASCII)
_RESERVED = re.compile(r"__.+__", re.DOTALL)
_FIELD = re.compile(r"[a-zA-Z_][a-zA-Z_0-9]*|`(?:[^`\\]|\\.)+`", re.DOTALL)
_FIELD_PATH = re.compile(rf"({_FIELD.pattern})(\.({_FIELD.pattern}))*", re.DOTALL)
_SECONDS = range(-62_135_596_800, 253_402_300_800)  # of the years 1 to 9999
_NANOS = range(1_000_000_000)
_FIXED_BYTES = {
    "null_value": 1,
    "boolean_value": 1,
    "integer_value": 8,
    "double_value": 8,
    "timestamp_value": 8,
    "geo_point_value": 16,
}


class StatusError(Exception):
    """Raised if a request is answered with an error.

    Attributes:
        code: the gRPC status of the answer.
    """

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        """Set the status and the message."""
        super().__init__(text)
        self.code = code


def invalid(text: str) -> StatusError:
    """Return the error for a request that can never succeed."""
    return StatusError(grpc.StatusCode.INVALID_ARGUMENT, text)


def unimplemented(feature: str) -> StatusError:
    """Return the error for a feature of Firestore that the embedded store lacks."""
    return StatusError(grpc.StatusCode.UNIMPLEMENTED, f"The embedded store does not support {feature}.")


class Name(NamedTuple):
    """The name of a document, a collection or a database.

    Attributes:
        project: the project's id.
        database: the database's id.
        path: alternating collection and document ids, joined by slashes; empty for the database itself.
    """

    project: str
    database: str
    path: str

    @property
    def parent(self) -> "Name":
        """The collection of this document."""
        return self._replace(path=self.path.rpartition("/")[0])


def parse_database(name: str) -> Name:
    """Parse `projects/P/databases/D`.

    Raises:
        StatusError: INVALID_ARGUMENT.
    """
    match = _DATABASE.fullmatch(name)
    if not match:
        raise invalid(f'"{name}" is not of the form projects/PROJECT/databases/DATABASE.')
    return Name(match[1], match[2], "")


def parse_parent(name: str) -> Name:
    """Parse the name of a document, or `projects/P/databases/D/documents`.

    Raises:
        StatusError: INVALID_ARGUMENT.
    """
    database, separator, path = name.partition("/documents")
    if not separator or (path and not path.startswith("/")):
        raise invalid(f'"{name}" lacks "documents".')
    segments = path.split("/")[1:]
    if len(segments) % 2 or len(segments) > MAX_PATH_SEGMENTS:
        raise invalid(f'"{name}" is not made of at most {MAX_PATH_SEGMENTS // 2} pairs of a collection and a document.')
    for segment in segments:
        _check_id(segment)
    return parse_database(database)._replace(path=path[1:])


def parse_name(name: str) -> Name:
    """Parse the name of a document.

    Raises:
        StatusError: INVALID_ARGUMENT.
    """
    parsed = parse_parent(name)
    if not parsed.path:
        raise invalid(f'"{name}" is not the name of a document.')
    return parsed


def _check_id(segment: str) -> None:
    if segment in ("", ".", "..") or len(segment.encode()) > MAX_NAME_BYTES:
        raise invalid(f'"{segment:.80}" is not a valid id: 1 to {MAX_NAME_BYTES} bytes, not "." and not "..".')
    if _RESERVED.fullmatch(segment):
        raise invalid(f'The id "{segment}" is reserved.')


@lru_cache
def parse_field_path(text: str) -> tuple[str, ...]:
    """Split a field path such as ``data.`a field`.value`` into field names.

    Raises:
        StatusError: INVALID_ARGUMENT, also for a reserved name.
    """
    if not _FIELD_PATH.fullmatch(text):
        raise invalid(
            f'"{text:.80}" is not a field path; quote names of other than letters, digits and _ in backticks.'
        )
    parts = _FIELD.findall(text)
    names = [re.sub(r"\\(.)", r"\1", part[1:-1], flags=re.DOTALL) if part[0] == "`" else part for part in parts]
    if any(_RESERVED.fullmatch(name) for name in names) or len(".".join(names).encode()) > MAX_NAME_BYTES:
        raise invalid(f'The field path "{text:.80}" is reserved, or longer than {MAX_NAME_BYTES} bytes.')
    return tuple(names)


def check_fields(fields: Any, path_bytes: int = 0, depth: int = 0) -> None:
    """Check the fields of a document, and truncate their timestamps to microseconds, as Firestore does.

    Args:
        fields: the protobuf map of a Document or a MapValue.
        path_bytes: UTF-8 bytes of the field path before these fields, including its last dot.
        depth: the number of maps and arrays around them.

    Raises:
        StatusError: INVALID_ARGUMENT, Firestore cannot store them.
    """
    for name, value in fields.items():
        length = path_bytes + len(name.encode())
        if not name or _RESERVED.fullmatch(name) or length > MAX_NAME_BYTES:
            raise invalid(
                f'"{name:.80}" is not a field name: empty, reserved, or its path over {MAX_NAME_BYTES} bytes.'
            )
        _check_value(value, length + 1, depth)


def _check_value(value: Any, path_bytes: int, depth: int) -> None:
    match value.WhichOneof("value_type"):
        case "string_value":
            _check_length(value.string_value.encode())
        case "bytes_value":
            _check_length(value.bytes_value)
        case "map_value":
            check_fields(value.map_value.fields, path_bytes, _deeper(depth))
        case "array_value" if value.array_value.values:
            _check_array(value.array_value.values, path_bytes, _deeper(depth))
        case "timestamp_value":
            _check_timestamp(value.timestamp_value)
        case "geo_point_value":
            _check_geo_point(value.geo_point_value)
        case "reference_value":
            parse_name(value.reference_value)
        case None:
            raise invalid("A value has no type.")


def _check_length(content: bytes) -> None:
    if len(content) > MAX_VALUE_BYTES:
        raise invalid(f"A value is longer than {MAX_VALUE_BYTES} bytes.")


def _deeper(depth: int) -> int:
    if depth >= MAX_DEPTH:
        raise invalid(f"The document is nested more than {MAX_DEPTH} levels deep.")
    return depth + 1


def _check_array(values: Iterable[Any], path_bytes: int, depth: int) -> None:
    for value in values:
        if value.HasField("array_value"):
            raise invalid("An array contains an array.")
        _check_value(value, path_bytes, depth)


def _check_timestamp(timestamp: Any) -> None:
    if timestamp.seconds not in _SECONDS or timestamp.nanos not in _NANOS:
        raise invalid("A timestamp is outside the years 1 to 9999, or its nanoseconds are out of range.")
    timestamp.nanos -= timestamp.nanos % 1000


def _check_geo_point(point: Any) -> None:
    if not (-90 <= point.latitude <= 90 and -180 <= point.longitude <= 180):  # noqa: PLR2004 - degrees
        raise invalid("The latitude or longitude of a geo point is out of range.")


def check_size(document: Any) -> None:
    """Check that a document is at most 1 MiB, as Firestore computes its size.

    Raises:
        StatusError: INVALID_ARGUMENT.
    """
    size = _path_bytes(document.name) + _fields_bytes(document.fields) + 32
    if size > MAX_DOCUMENT_BYTES:
        raise invalid(f"The document has {size} bytes; the limit is {MAX_DOCUMENT_BYTES}.")


def _path_bytes(name: str) -> int:
    return 16 + sum(len(segment.encode()) + 1 for segment in parse_name(name).path.split("/"))


def _fields_bytes(fields: Any) -> int:
    return sum(len(name.encode()) + 1 + _value_bytes(value) for name, value in fields.items())


def _value_bytes(value: Any) -> int:
    match kind := value.WhichOneof("value_type"):
        case "string_value":
            return len(value.string_value.encode()) + 1
        case "bytes_value":
            return len(value.bytes_value)
        case "reference_value":
            return _path_bytes(value.reference_value)
        case "map_value":
            return _fields_bytes(value.map_value.fields) or 1
        case "array_value":
            return sum(map(_value_bytes, value.array_value.values)) or 1
    return _FIXED_BYTES[kind]


def get_field(fields: Any, path: tuple[str, ...]) -> Any:
    """Return the value at a field path, or None."""
    *outer, last = path
    for name in outer:
        if name not in fields:
            return None
        fields = fields[name].map_value.fields
    return fields.get(last)


def set_field(fields: Any, path: tuple[str, ...], value: Any) -> None:
    """Set the value at a field path, creating maps on the way; None deletes the field."""
    *outer, last = path
    for name in outer:
        if value is None and (name not in fields or not fields[name].HasField("map_value")):
            return
        fields[name].map_value.SetInParent()
        fields = fields[name].map_value.fields
    if value is not None:
        fields[last].CopyFrom(value)
    elif last in fields:
        del fields[last]


def masked(document: Any, paths: Iterable[str]) -> Any:
    """Return a copy of a document with only the fields at these paths.

    Raises:
        StatusError: INVALID_ARGUMENT, one is not a field path.
    """
    part = Document(name=document.name, create_time=document.create_time, update_time=document.update_time)
    for path in paths:
        if path != "__name__":
            names = parse_field_path(path)
            set_field(part.fields, names, get_field(document.fields, names))
    return part


def to_json(fields: Any) -> dict[str, Any]:
    """Return fields as JSON for people: timestamps in RFC 3339, bytes in base64, references as full names."""
    return {name: _to_json(fields[name]) for name in sorted(fields)}


def _to_json(value: Any) -> Any:
    kind = value.WhichOneof("value_type")
    content = getattr(value, kind)
    return _JSON[kind](content) if kind in _JSON else content


def rfc3339(timestamp: Any) -> str:
    """Return a protobuf Timestamp in RFC 3339, UTC, always with six decimals, so that such texts sort by time."""
    text: str = timestamp.ToDatetime().isoformat(timespec="microseconds")
    return text + "Z"


_JSON: dict[str, Callable[[Any], Any]] = {
    "null_value": lambda _: None,
    "double_value": lambda number: number if math.isfinite(number) else str(number),
    "timestamp_value": rfc3339,
    "bytes_value": lambda content: base64.b64encode(content).decode(),
    "geo_point_value": lambda point: {"latitude": point.latitude, "longitude": point.longitude},
    "array_value": lambda array: [_to_json(element) for element in array.values],
    "map_value": lambda content: to_json(content.fields),
}
