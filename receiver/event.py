"""From the raw body to the fields of a document. Pure functions, without a clock."""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn, TypeGuard

from receiver.errors import Unprocessable

MAX_STRUCTURE = 40_000  # of the characters , : [ { in a body; DT's events have about 60

# 1 to 1,500 UTF-8 bytes; the length is checked separately. https://firebase.google.com/docs/firestore/quotas
_DOCUMENT_KEY = re.compile(r"(?!\.{1,2}$|__.*__$)[^/\x00-\x1f\x7f-\x9f\ud800-\udfff]+")
_MAX_KEY_BYTES = 1500
# `datetime.fromisoformat` refuses other values out of range, but reads an offset of +00:60 and, from 3.14 on, 24:00.
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt](?!24)\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:[0-5]\d)", re.ASCII)

_NUMBER_TOO_LARGE = "The body contains a number beyond 64 bits."


@dataclass(frozen=True, slots=True)
class Event:
    """A sensor event.

    Attributes:
        event_id: the sender's `eventId`, which is the document key.
        fields: the fields of the document: those of `event`, with its timestamp as a `datetime` in UTC, and those of
            the body around it.
    """

    event_id: str
    fields: dict[str, Any]


def parse_event(body: bytes) -> Event:
    """Parse the body of an authentic request.

    Unknown fields and event types are kept as they are: the sender adds them without notice.

    Raises:
        Unprocessable: the body is not a JSON object with an event whose `eventId` is a valid document key.
    """
    _check_structure(body)
    envelope = _json(body)
    event = envelope.get("event") if isinstance(envelope, dict) else None
    if not isinstance(event, dict):
        raise Unprocessable("The body contains no event.")
    event_id, fields = event.get("eventId"), _fields(envelope, event)
    if not is_document_key(event_id):
        raise Unprocessable("The event has no eventId that is a valid document key.", fields)
    return Event(event_id, fields)


def _check_structure(body: bytes) -> None:
    """Bound the time that parsing takes: a body of 1 MiB can hold 340,000 values and block all deliveries for 1 s."""
    if len(body) > MAX_STRUCTURE and sum(map(body.count, (b",", b":", b"[", b"{"))) > MAX_STRUCTURE:
        raise Unprocessable(f"The body has more than {MAX_STRUCTURE:,} of the characters , : [ {{")


def _fields(envelope: dict[str, Any], event: dict[str, Any]) -> dict[str, Any]:
    del envelope["event"]
    fields = envelope | event
    if len(fields) < len(envelope) + len(event):
        fields["envelope"] = {name: envelope[name] for name in envelope.keys() & event.keys()}
    if "timestamp" in event:
        fields["timestamp"] = _timestamp(event["timestamp"])
    return fields


def _json(body: bytes) -> Any:
    try:
        return _DECODER.decode(body.decode())
    except Unprocessable:
        raise
    except RecursionError:
        raise Unprocessable("The body is nested too deeply.") from None
    except (UnicodeDecodeError, json.JSONDecodeError):
        raise Unprocessable("The body is not JSON.") from None
    except ValueError:  # Python converts no integer of more than 4,300 digits
        raise Unprocessable(_NUMBER_TOO_LARGE) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise Unprocessable("The body contains an object with a repeated field name.")
    return result


def _no_constant(_name: str) -> NoReturn:
    raise Unprocessable("The body is not JSON: it contains NaN or Infinity.")


def _finite_float(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise Unprocessable(_NUMBER_TOO_LARGE)
    return number


# Made once: json.loads would make a decoder for each body.
_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_no_constant, parse_float=_finite_float)


def is_document_key(event_id: Any) -> TypeGuard[str]:
    """Return whether a value can be the id of a document."""
    if not isinstance(event_id, str) or not _DOCUMENT_KEY.fullmatch(event_id):
        return False
    return len(event_id.encode()) <= _MAX_KEY_BYTES


def _timestamp(value: Any) -> Any:
    """Return an RFC 3339 time in UTC to the microsecond, and any other value unchanged."""
    if not isinstance(value, str) or not _RFC_3339.fullmatch(value):
        return value
    try:
        return datetime.fromisoformat(value.upper()).astimezone(UTC)
    except (ValueError, OverflowError):  # a 30th of February, or a year that UTC moves out of range
        return value
