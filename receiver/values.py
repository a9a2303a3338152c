"""From Python values to Firestore's, straight into protobuf messages; what Firestore cannot hold is refused here.

The messages are google-cloud-firestore's own, without the wrappers that cost ten times as much.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from receiver.errors import Unstorable

# https://firebase.google.com/docs/firestore/quotas#collections_documents_and_fields
MAX_DEPTH = 20
MAX_NAME_BYTES = 1500
_SURELY_SHORT = MAX_NAME_BYTES // 4  # characters, of at most four bytes each

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def fill_fields(fields: Any, values: Mapping[str, Any], depth: int = 0) -> None:
    """Write each value into a protobuf map of `google.firestore.v1.Value`.

    Args:
        fields: the map's `fields`, of a Document or a MapValue.
        values: str, int, float, bool, None, bytes, datetime (UTC), and maps and lists of these.
        depth: how many maps and lists lie around `values`.

    Raises:
        Unstorable: a value or a field name is none that Firestore can hold.
    """
    try:
        for name, value in values.items():
            _check_name(name)
            _fill(fields[name], value, depth)
    except UnicodeEncodeError:
        raise Unstorable("The event holds text that is not Unicode (a lone surrogate).") from None


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
            # To Firestore an empty array is as deep as a number, an empty map is not.
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
        raise Unstorable("The event holds an integer beyond 64 bits.") from None


def _fill_array(slot: Any, values: list[Any], depth: int) -> None:
    slot.array_value.SetInParent()
    for value in values:
        if isinstance(value, list):
            raise Unstorable("The event holds an array directly in an array.")
        _fill(slot.array_value.values.add(), value, depth)


def _deeper(depth: int) -> int:
    if depth >= MAX_DEPTH:
        raise Unstorable(f"The event is nested more than {MAX_DEPTH} levels deep.")
    return depth + 1


def _check_name(name: str) -> None:
    if not name:
        raise Unstorable("The event holds a field without a name.")
    if name.startswith("__") and name.endswith("__") and name not in ("__", "___"):
        raise Unstorable("The event holds a field name of the form __name__, which Firestore keeps for itself.")
    if len(name) > _SURELY_SHORT and len(name.encode()) > MAX_NAME_BYTES:
        raise Unstorable(f"The event holds a field name of more than {MAX_NAME_BYTES} bytes.")
