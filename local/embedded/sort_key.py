"""Firestore values as bytes that SQLite sorts as Firestore sorts the values.

The order is that of https://firebase.google.com/docs/firestore/manage-data/data-types#value_type_ordering. The first
byte is the rank of the value's type, so the values of a type are one range. No key is a prefix of another one, so keys
can be concatenated: the result sorts by the first, then by the second.
"""

import math
import struct
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from local.embedded.document import Value, get_field, parse_field_path

NAME = "__name__"
NULL, NAN = b"\x01", b"\x03"

_SIGN, _ALL = 1 << 63, (1 << 64) - 1
_COMPLEMENT = bytes(range(255, -1, -1))


class Column(NamedTuple):
    """A field that an index is sorted by.

    Attributes:
        path: a field path, or `__name__`.
        descending: the direction.
    """

    path: str
    descending: bool

    def encode(self, value: Any) -> bytes:
        """Return the sort key of a protobuf Value in the direction of this column."""
        key = sort_key(value)
        return key.translate(_COMPLEMENT) if self.descending else key


def index_key(document: Any, columns: Iterable[Column]) -> bytes | None:
    """Return the sort key of a protobuf Document in an index; None if it lacks one of the fields."""
    key = b""
    for column in columns:
        value = _field(document, column.path)
        if value is None:
            return None
        key += column.encode(value)
    return key


def _field(document: Any, path: str) -> Any:
    if path == NAME:
        return Value(reference_value=document.name)
    return get_field(document.fields, parse_field_path(path))


def sort_key(value: Any) -> bytes:
    """Return the sort key of a protobuf Value; values that Firestore considers equal have the same key."""
    kind = value.WhichOneof("value_type")
    return _ENCODERS[kind](getattr(value, kind))


def _double(number: float) -> bytes:
    (bits,) = struct.unpack(">Q", struct.pack(">d", number + 0.0))  # + 0.0 turns -0.0 into 0.0
    return struct.pack(">Q", bits ^ (_ALL if bits & _SIGN else _SIGN))


def _number(number: float) -> bytes:
    """Encode an integer or a double: the nearest double, then what an integer of over 53 bits differs from it."""
    if math.isnan(number):
        return NAN
    rest = number - int(float(number)) if isinstance(number, int) else 0
    return b"\x04" + _double(float(number)) + struct.pack(">H", rest + (1 << 15))


def _text(content: bytes) -> bytes:
    return content.replace(b"\0", b"\0\xff") + b"\0\1"


def _sequence(keys: Iterable[bytes]) -> bytes:
    return b"".join(b"\1" + key for key in keys) + b"\0"


_ENCODERS: dict[str, Callable[[Any], bytes]] = {
    "null_value": lambda _: NULL,
    "boolean_value": lambda truth: b"\x02" + bytes([truth]),
    "integer_value": _number,
    "double_value": _number,
    "timestamp_value": lambda time: b"\x05" + struct.pack(">QI", time.seconds + _SIGN, time.nanos),
    "string_value": lambda text: b"\x06" + _text(text.encode()),
    "bytes_value": lambda content: b"\x07" + _text(content),
    "reference_value": lambda name: b"\x08" + _sequence(_text(part.encode()) for part in name.split("/")),
    "geo_point_value": lambda point: b"\x09" + _double(point.latitude) + _double(point.longitude),
    "array_value": lambda array: b"\x0a" + _sequence(map(sort_key, array.values)),
    "map_value": lambda content: (
        b"\x0b" + _sequence(_text(name.encode()) + sort_key(content.fields[name]) for name in sorted(content.fields))
    ),
}
