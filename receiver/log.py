"""Writes one line of JSON a request, in the form that Google Cloud's Logging and Error Reporting read."""

import json
import os
import re
import select
import traceback
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from receiver.batching import Outcome
from receiver.errors import Failed, Refusal, Unprocessable

_SEVERITIES = {"INFO": 20, "WARNING": 30, "ERROR": 40}
_TRACE_HEADERS = {
    # https://cloud.google.com/trace/docs/trace-context
    "traceparent": re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-"),
    "x-cloud-trace-context": re.compile(r"([0-9a-fA-F]{32})(?:[/;]|$)"),
}
_MAX_CHARACTERS = 1500  # of a value that the sender chose


def trace(headers: Mapping[str, str], project: str | None) -> dict[str, Any]:
    """Return the field that links a log line to the trace that a header names, if one does.

    Args:
        headers: the request's headers.
        project: Google Cloud project id, if known.
    """
    for header, pattern in _TRACE_HEADERS.items():
        if match := pattern.match(headers.get(header, "")):
            prefix = f"projects/{project}/traces/" if project else ""
            return {"logging.googleapis.com/trace": prefix + match[1].lower()}
    return {}


def about(fields: Mapping[str, Any], now: float) -> dict[str, Any]:
    """Return what the line says of an event: its eventId, eventType, targetName and lag, where the type is right.

    Args:
        fields: of the event's document.
        now: the time, in seconds since the epoch.
    """
    names = ("eventId", "eventType", "targetName")
    texts = {name: fields.get(name) for name in names}
    known: dict[str, Any] = {name: text[:_MAX_CHARACTERS] for name, text in texts.items() if isinstance(text, str)}
    if isinstance(timestamp := fields.get("timestamp"), datetime):
        known["lagSeconds"] = round(now - timestamp.timestamp(), 3)
    return known


def stored(outcome: Outcome) -> dict[str, Any]:
    """Return the fields for an acknowledged event."""
    return {"severity": "INFO", "message": outcome.value, "outcome": outcome.value, "status": 200}


def short_secrets(count: int) -> dict[str, Any]:
    """Return the line that the process writes at start if signature secrets are too short for HS256."""
    verb = "is" if count == 1 else "are"
    message = f"DT_SIGNATURE_SECRET: {count} of the secrets {verb} shorter than 32 bytes, as HS256 wants (RFC 7518)"
    return {"severity": "WARNING", "message": message}


def refused(refusal: Refusal) -> dict[str, Any]:
    """Return the fields for a request that is not acknowledged."""
    severe = refusal.status >= 500 or isinstance(refusal, Unprocessable)  # noqa: PLR2004 - HTTP's own number
    return {
        "severity": "ERROR" if severe else "WARNING",
        "message": refusal.reason if isinstance(refusal, Failed) else f"{refusal.outcome}: {refusal.reason}",
        "outcome": refusal.outcome,
        "status": int(refusal.status),
        "reason": type(refusal.__cause__).__name__ if isinstance(refusal, Failed) else refusal.reason,
    }


def failed(error: Exception) -> Failed:
    """Return an unforeseen exception as a refusal whose reason is the traceback, as Error Reporting reads it.

    The exception's own text is left out: it may repeat a body or a secret.
    """
    stack = "".join(traceback.format_tb(error.__traceback__))
    failure = Failed(f"Traceback (most recent call last):\n{stack}{type(error).__qualname__}: (text withheld)")
    failure.__cause__ = error
    return failure


class _Output:
    """A file descriptor itself, which takes what it can take at once.

    functions-framework may replace `sys.stdout` by a stream that adds a label from the request's headers, however long.
    What cannot be written at once is dropped: the answer to the sender must not wait for the reader of a pipe. A pipe
    that is writable takes `PIPE_BUF` bytes without blocking.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self._separator = b""

    def write(self, line: bytes) -> None:
        data = self._separator + line
        with suppress(OSError):
            while data and self._poll.poll(0):
                data = data[os.write(self._descriptor, data[: select.PIPE_BUF]) :]
        self._separator = b"\n" if data else b""  # ends a line that was cut


REQUESTS = _Output(1)  # standard output has one line a request, and nothing else
START = _Output(2)  # Cloud Logging reads the JSON of standard error too


def write(line: Mapping[str, Any], level: int, output: _Output = REQUESTS) -> None:
    """Write a line, unless its severity is below the level.

    Args:
        line: the fields, `severity` among them.
        level: the least severity that is written, as the numbers of `logging`.
        output: `REQUESTS`, or `START` for a line that belongs to no request.
    """
    if _SEVERITIES[line["severity"]] >= level:
        output.write(json.dumps(line).encode() + b"\n")
