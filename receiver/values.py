"""Converts Python values to Firestore's protobuf values, and refuses what Firestore cannot hold.

The messages are google-cloud-firestore's own, without its wrappers, which take ten times as long.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from receiver.errors import Unprocessable

# https://firebase.google.com/docs/firestore/quotas#collections_documents_and_fields
MAX_DEPTH = 20
MAX_NAME_BYTES = 1500
_SURELY_SHORT = MAX_NAME_BYTES // 4  # characters of at most four bytes each

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def fill_fields(fields: Any, values: Mapping[str, Any], depth: int = 0) -> None:
    """Write values into a protobuf map of `google.firestore.v1.Value`.

    Args:
        fields: the `fields` of a Document or a MapValue.
        values: str, int, float, bool, None, bytes, datetime (UTC), and dicts and lists of these.
        depth: how many maps and arrays contain `values`.

    Raises:
        Unprocessable: Firestore cannot hold a value or a field name.
    """
    try:
        for name, value in values.items():
            _check_name(name)
            _fill(fields[name], value, depth)
    except UnicodeEncodeError:
        raise Unprocessable("The event contains text that is not Unicode (a lone surrogate).") from None


def _fill(slot: Any, value: Any, depth: int) -> None:
    match value:
        case str():
            slot.string_value = value
        case bool():
            slot.boolean_value = value
        case int():
            _fill_integer(slot, value)
        case float():
            slot.double_value = value
        case None:
            slot.null_value = 0
        case dict():
            slot.map_value.SetInParent()
            fill_fields(slot.map_value.fields, value, _deeper(depth))
        case list():
            # Firestore counts an empty array as a scalar, and an empty map as a level.
            _fill_array(slot, value, _deeper(depth) if value else depth)
        case datetime():
            seconds, micros = divmod((value - _EPOCH) // _MICROSECOND, 1_000_000)
            slot.timestamp_value.seconds, slot.timestamp_value.nanos = seconds, micros * 1000
        case _:
            slot.bytes_value = value


def _fill_integer(slot: Any, value: int) -> None:
    try:
        slot.integer_value = value
    except ValueError:
        raise Unprocessable("The event contains an integer beyond 64 bits.") from None


def _fill_array(slot: Any, values: list[Any], depth: int) -> None:
    slot.array_value.SetInParent()
    for value in values:
        if isinstance(value, list):
            raise Unprocessable("The event contains an array directly in an array.")
        _fill(slot.array_value.values.add(), value, depth)


def _deeper(depth: int) -> int:
    if depth >= MAX_DEPTH:
        raise Unprocessable(f"The event is nested more than {MAX_DEPTH} levels deep.")
    return depth + 1


def _check_name(name: str) -> None:
    if not name:
        raise Unprocessable("The event contains a field without a name.")
    if name.startswith("__") and name.endswith("__") and name not in ("__", "___"):
        raise Unprocessable("The event contains a field name of the form __name__, which Firestore reserves.")
    if len(name) > _SURELY_SHORT and len(name.encode()) > MAX_NAME_BYTES:
        raise Unprocessable(f"The event contains a field name of more than {MAX_NAME_BYTES} bytes.")
