"""Makes a row of the terminal view from a line of the function's log and the stored document. Pure."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from viewer.values import describe

ACKNOWLEDGED = frozenset({"stored", "already_stored"})
_LONGEST = 200  # characters of a cell


class Row(NamedTuple):
    """One request as text without control characters.

    Attributes:
        time: local time of the commit by Firestore's clock, or the current time if nothing was committed.
        device: its label `name`, or its id if it has no such label.
        value: with its unit.
        outcome: as in the log.
        latency: as the function measured it, from request to response.
        detail: the reason why the request was refused.
    """

    time: str
    device: str
    type: str
    value: str
    outcome: str
    latency: str
    detail: str = ""


def make_row(line: Mapping[str, Any], document: Mapping[str, Any] | None, now: datetime) -> Row:
    """Make a row: time, device, type and value come from the document; outcome and latency from the log.

    Args:
        line: of the function's log.
        document: None if the event is not in Firestore, or the request was refused.
        now: with a time zone.
    """
    outcome = str(line["outcome"])
    if outcome in ACKNOWLEDGED and document is None:
        outcome = "NOT FOUND"
    stored = document or {}
    received = stored.get("receivedAt")
    return Row(
        *map(
            _printable,
            (
                (received if isinstance(received, datetime) else now).astimezone(now.tzinfo).strftime("%H:%M:%S"),
                _device(stored or line),
                stored.get("eventType", line.get("eventType", "-")),
                describe(stored) if document else "-",
                outcome,
                _milliseconds(line["latencyMs"]) if "latencyMs" in line else "-",
                "" if document else line.get("reason", ""),
            ),
        )
    )


def _milliseconds(latency: float) -> str:
    return f"{latency:.0f} ms" if latency >= 100 else f"{latency:.1f} ms"  # noqa: PLR2004 - three digits are enough


def _device(known: Mapping[str, Any]) -> Any:
    labels = known.get("labels")
    name = labels.get("name") if isinstance(labels, Mapping) else None
    return name or str(known.get("targetName", "-")).rpartition("/")[2]


def _printable(value: Any) -> str:
    """Replace control characters, since an event must not control the terminal that shows it, and limit the length."""
    text = str(value)
    text = text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
    return "".join(char if char.isprintable() else "?" for char in text)
