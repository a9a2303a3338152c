"""From a raw body to a document: pure, without a clock."""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn, TypeGuard

from receiver.errors import Unstorable

# 1 to 1,500 UTF-8 bytes, of which the length is checked apart: https://firebase.google.com/docs/firestore/quotas
_DOCUMENT_KEY = re.compile(r"(?!\.{1,2}$|__.*__$)[^/\x00-\x1f\x7f-\x9f\ud800-\udfff]+")
_MAX_KEY_BYTES = 1500
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Event:
    """A sensor event that can be a document.

    Attributes:
        event_id: the sender's `eventId`, the document's key.
        fields: the document's fields: those of the event, its timestamp a `datetime` in UTC, and beside them those of
            the envelope.
    """

    event_id: str
    fields: dict[str, Any]


def parse_event(body: bytes) -> Event:
    """Read the body of an authentic request.

    Unknown fields and event types pass as they are: the sender adds them without notice.

    Args:
        body: the raw body.

    Returns:
        The event.

    Raises:
        Unstorable: the body is no JSON object with an event whose `eventId` can be a document key.
    """
    envelope = _json(body)
    event = envelope.get("event") if isinstance(envelope, dict) else None
    if not isinstance(event, dict):
        raise Unstorable("The body holds no event.")
    event_id = event.get("eventId")
    if not _is_document_key(event_id):
        raise Unstorable("The event has no eventId that can be a document key.")
    fields = {**envelope, **event}
    if "event" not in event:
        del fields["event"]
    if "timestamp" in event:
        fields["timestamp"] = _timestamp(event["timestamp"])
    return Event(event_id, fields)


def _json(body: bytes) -> Any:
    try:
        return _DECODER.decode(body.decode())
    except Unstorable:
        raise
    except RecursionError:
        raise Unstorable("The body is nested too deeply.") from None
    except ValueError:  # not UTF-8, not JSON, or an integer of thousands of digits
        raise Unstorable("The body is not JSON.") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise Unstorable("The body holds an object with a repeated field name.")
    return result


def _no_constant(_name: str) -> NoReturn:
    raise Unstorable("The body is not JSON: it holds NaN or Infinity.")


def _finite_float(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise Unstorable("The body holds a number beyond 64 bits.")
    return number


# Made once: json.loads would make one for each body.
_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_no_constant, parse_float=_finite_float)


def _is_document_key(event_id: Any) -> TypeGuard[str]:
    if not isinstance(event_id, str) or not _DOCUMENT_KEY.fullmatch(event_id):
        return False
    return len(event_id.encode()) <= _MAX_KEY_BYTES


def _timestamp(value: Any) -> Any:
    """Return an RFC 3339 time as UTC to the microsecond, and anything else as it is."""
    if not isinstance(value, str) or not _RFC_3339.fullmatch(value):
        return value
    try:
        return datetime.fromisoformat(value.upper()).astimezone(UTC)
    except (ValueError, OverflowError):  # a 30th of February, or a year that UTC moves out of range
        return value
