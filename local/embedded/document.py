"""What a Firestore document may be: names, field paths, values and sizes, by the official emulator's rules.

The limits were measured on the emulator 1.19.9, and `tests/test_embedded.py` holds them to it. They are those of
https://firebase.google.com/docs/firestore/quotas and https://firebase.google.com/docs/firestore/storage-size.
"""

import base64
import math
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import grpc
from google.cloud.firestore_v1 import types

MAX_DEPTH = 20
MAX_DOCUMENT_BYTES = 1 << 20
MAX_VALUE_BYTES = MAX_DOCUMENT_BYTES - 89
MAX_NAME_BYTES = 1500
MAX_PATH_SEGMENTS = 200

Document = types.Document.pb()

_DATABASE = re.compile(r"projects/([^/]+)/databases/(\(default\)|[A-Za-z0-9_.-]+)", re.ASCII)
_RESERVED = re.compile(r"__.+__", re.DOTALL)
_SIMPLE_FIELD = r"[a-zA-Z_][a-zA-Z_0-9]*"
_QUOTED_FIELD = r"`(?:[^`\\]|\\.)+`"
_FIELD = re.compile(f"{_SIMPLE_FIELD}|{_QUOTED_FIELD}", re.DOTALL)
SIMPLE_PATH = re.compile(rf"{_SIMPLE_FIELD}(\.{_SIMPLE_FIELD})*")
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


class RefusalError(Exception):
    """A request that Firestore does not carry out.

    Attributes:
        code: the gRPC status that Firestore answers.
    """

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        """Keep the status and the words that say why."""
        super().__init__(text)
        self.code = code


def invalid(text: str) -> RefusalError:
    """Return the refusal of a request that could never succeed."""
    return RefusalError(grpc.StatusCode.INVALID_ARGUMENT, text)


class Name(NamedTuple):
    """The full name of a document, or of the place below which a query looks.

    Attributes:
        project: the project's id.
        database: the database's id.
        path: collection and document ids in turn, joined by slashes; empty for the database itself.
    """

    project: str
    database: str
    path: str


def parse_database(name: str) -> Name:
    """Take `projects/P/databases/D` apart.

    Raises:
        RefusalError: INVALID_ARGUMENT, it is none.
    """
    match = _DATABASE.fullmatch(name)
    if not match:
        raise invalid(f'"{name}" is not of the form projects/PROJECT/databases/DATABASE.')
    return Name(match[1], match[2], "")


def parse_parent(name: str) -> Name:
    """Take the name of a document, or of a database's `documents`, apart.

    Raises:
        RefusalError: INVALID_ARGUMENT, it is none.
    """
    database, separator, path = name.partition("/documents")
    if not separator or (path and not path.startswith("/")):
        raise invalid(f'"{name}" lacks "documents".')
    segments = path.split("/")[1:]
    if len(segments) % 2 or len(segments) > MAX_PATH_SEGMENTS:
        raise invalid(
            f'"{name}" is not made of pairs of a collection and a document, {MAX_PATH_SEGMENTS // 2} at most.'
        )
    for segment in segments:
        _check_id(segment)
    return parse_database(database)._replace(path=path[1:])


def parse_name(name: str) -> Name:
    """Take the name of a document apart.

    Raises:
        RefusalError: INVALID_ARGUMENT, it is none.
    """
    parsed = parse_parent(name)
    if not parsed.path:
        raise invalid(f'"{name}" names no document.')
    return parsed


def _check_id(segment: str) -> None:
    if segment in ("", ".", "..") or len(segment.encode()) > MAX_NAME_BYTES:
        raise invalid(f'"{segment:.80}" cannot be an id: 1 to {MAX_NAME_BYTES} bytes, not "." and not "..".')
    if _RESERVED.fullmatch(segment):
        raise invalid(f'The id "{segment}" is reserved.')


def parse_field_path(text: str) -> list[str]:
    """Take a field path such as ``data.`a field`.value`` apart into names.

    Raises:
        RefusalError: INVALID_ARGUMENT, it is none, or one that Firestore keeps for itself.
    """
    if not _FIELD_PATH.fullmatch(text):
        raise invalid(f'"{text:.80}" is not a field path; a name of other than letters, digits and _ needs backticks.')
    parts = _FIELD.findall(text)
    names = [re.sub(r"\\(.)", r"\1", part[1:-1], flags=re.DOTALL) if part[0] == "`" else part for part in parts]
    if any(_RESERVED.fullmatch(name) for name in names) or len(".".join(names).encode()) > MAX_NAME_BYTES:
        raise invalid(f'The field path "{text:.80}" is reserved, or longer than {MAX_NAME_BYTES} bytes.')
    return names


def check_fields(fields: Any, path_bytes: int = 0, depth: int = 0) -> None:
    """Refuse fields that no document can hold, and cut their timestamps to microseconds, as Firestore does.

    Args:
        fields: the protobuf map of a Document or a MapValue.
        path_bytes: UTF-8 bytes of the field path before these fields, its last dot included.
        depth: how many maps and arrays lie around them.

    Raises:
        RefusalError: INVALID_ARGUMENT.
    """
    for name, value in fields.items():
        length = path_bytes + len(name.encode())
        if not name or _RESERVED.fullmatch(name) or length > MAX_NAME_BYTES:
            raise invalid(f'"{name:.80}" cannot be a field: empty, reserved or its path over {MAX_NAME_BYTES} bytes.')
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
            raise invalid("A value is without a type.")


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
            raise invalid("An array lies directly in an array.")
        _check_value(value, path_bytes, depth)


def _check_timestamp(timestamp: Any) -> None:
    if timestamp.seconds not in _SECONDS or timestamp.nanos not in _NANOS:
        raise invalid("A timestamp is outside the years 1 to 9999, or has no true nanoseconds.")
    timestamp.nanos -= timestamp.nanos % 1000


def _check_geo_point(point: Any) -> None:
    if not (-90 <= point.latitude <= 90 and -180 <= point.longitude <= 180):  # noqa: PLR2004 - degrees
        raise invalid("A geo point is not on the globe.")


def check_size(document: Any) -> None:
    """Refuse a document over 1 MiB, as Firestore counts it.

    Raises:
        RefusalError: INVALID_ARGUMENT.
    """
    size = _path_bytes(document.name) + _fields_bytes(document.fields) + 32
    if size > MAX_DOCUMENT_BYTES:
        raise invalid(f"The document is {size} bytes long; {MAX_DOCUMENT_BYTES} is the limit.")


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


def get_field(fields: Any, path: list[str]) -> Any:
    """Return the value at a field path, or None."""
    *outer, last = path
    for name in outer:
        if name not in fields:
            return None
        fields = fields[name].map_value.fields
    return fields.get(last)


def set_field(fields: Any, path: list[str], value: Any) -> None:
    """Put a value at a field path, with the maps that lead there; None takes away what is there."""
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
    """Return a document of only these fields.

    Raises:
        RefusalError: INVALID_ARGUMENT, one is no field path.
    """
    part = Document(name=document.name, create_time=document.create_time, update_time=document.update_time)
    for path in paths:
        if path != "__name__":
            names = parse_field_path(path)
            set_field(part.fields, names, get_field(document.fields, names))
    return part


def to_json(fields: Any) -> dict[str, Any]:
    """Return fields as JSON that a person reads: timestamps in RFC 3339, bytes in base64, references as full names."""
    return {name: _to_json(fields[name]) for name in sorted(fields)}


def _to_json(value: Any) -> Any:
    kind = value.WhichOneof("value_type")
    content = getattr(value, kind)
    return _JSON[kind](content) if kind in _JSON else content


def rfc3339(timestamp: Any) -> str:
    """Return a protobuf Timestamp in RFC 3339, UTC, always with six digits: such texts sort by time."""
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
