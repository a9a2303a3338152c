"""One line of JSON a request, in the words that Google Cloud's Logging and Error Reporting read."""

import json
import re
import sys
import traceback
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from receiver.errors import Failed, Refusal, Unstorable
from receiver.event import Event

_SEVERITIES = {"INFO": 20, "WARNING": 30, "ERROR": 40}
_TRACE_HEADERS = {
    # https://cloud.google.com/trace/docs/trace-context
    "traceparent": re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-"),
    "x-cloud-trace-context": re.compile(r"([0-9a-fA-F]{32})(?:/|$)"),
}
_MAX_CHARACTERS = 1500  # of a value that the sender chose


def trace(headers: Mapping[str, str], project: str | None) -> dict[str, Any]:
    """Return the field that ties a log line to its request's trace.

    Args:
        headers: the request's headers.
        project: Google Cloud project id, when known.

    Returns:
        The field, or nothing when no header names a trace.
    """
    for header, pattern in _TRACE_HEADERS.items():
        if match := pattern.match(headers.get(header, "")):
            prefix = f"projects/{project}/traces/" if project else ""
            return {"logging.googleapis.com/trace": prefix + match[1].lower()}
    return {}


def about(event: Event, now: float) -> dict[str, Any]:
    """Return what a log line says of an event.

    Args:
        event: the event.
        now: the time, in seconds since the epoch.

    Returns:
        Its eventId, eventType, targetName and lag, as far as they are what they should be.
    """
    names = ("eventId", "eventType", "targetName")
    texts = {name: event.fields.get(name) for name in names}
    known: dict[str, Any] = {name: text[:_MAX_CHARACTERS] for name, text in texts.items() if isinstance(text, str)}
    if isinstance(timestamp := event.fields.get("timestamp"), datetime):
        known["lagSeconds"] = round(now - timestamp.timestamp(), 3)
    return known


def stored(*, created: bool) -> dict[str, Any]:
    """Return what a log line says of an acknowledged event."""
    outcome = "stored" if created else "already_stored"
    return {"severity": "INFO", "message": outcome, "outcome": outcome, "status": 200}


def refused(refusal: Refusal) -> dict[str, Any]:
    """Return what a log line says of a request that is not acknowledged."""
    severe = refusal.status >= 500 or isinstance(refusal, Unstorable)  # noqa: PLR2004 - HTTP's own number
    return {
        "severity": "ERROR" if severe else "WARNING",
        "message": refusal.reason if isinstance(refusal, Failed) else f"{refusal.outcome}: {refusal.reason}",
        "outcome": refusal.outcome,
        "status": int(refusal.status),
        "reason": type(refusal.__cause__).__name__ if isinstance(refusal, Failed) else refusal.reason,
    }


def failed(error: Exception) -> Failed:
    """Return anything unforeseen as a refusal whose reason is the traceback, as Error Reporting reads it.

    The exception's own words stay out: they may repeat a body or a secret.
    """
    stack = "".join(traceback.format_tb(error.__traceback__))
    failure = Failed(f"Traceback (most recent call last):\n{stack}{type(error).__qualname__}: (text withheld)")
    failure.__cause__ = error
    return failure


def write(line: Mapping[str, Any], level: int) -> None:
    """Write the line on standard output, unless its severity is below the level.

    Args:
        line: the fields, `severity` among them.
        level: the least severity written, as the numbers of `logging`.
    """
    if _SEVERITIES[line["severity"]] >= level:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
