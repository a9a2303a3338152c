"""Makes a row of the terminal view from a line of the function's log and the stored document. Pure."""

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

ACKNOWLEDGED = frozenset({"stored", "already_stored"})
_LONGEST = 100  # characters of a value

_VALUES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "touch": lambda _: "touched",
    "temperature": lambda data: f"{data['value']} °C",
    "humidity": lambda data: f"{data['relativeHumidity']} %RH, {data['temperature']} °C",
    "objectPresentCount": lambda data: f"{data['total']} in total",
    "touchCount": lambda data: f"{data['total']} in total",
    "networkStatus": lambda data: f"{data['signalStrength']} %, {data['rssi']} dBm",
    "batteryStatus": lambda data: f"{data['percentage']} %",
    "connectionStatus": lambda data: str(data["connection"]),
    "ethernetStatus": lambda data: str(data["ipAddress"] or "no address"),
    "cellularStatus": lambda data: f"{data['signalStrength']} %",
    "co2": lambda data: f"{data['ppm']} ppm",
    "pressure": lambda data: f"{data['pascal']} Pa",
}


class Row(NamedTuple):
    """One request as text without control characters.

    Attributes:
        time: local time of the commit by Firestore's clock, or the current time if nothing was committed.
        device: its label `name`, or its id if it has no such label.
        value: with its unit, or the reason why the request was refused.
        outcome: as in the log.
        latency: as the function measured it, from request to response.
    """

    time: str
    device: str
    type: str
    value: str
    outcome: str
    latency: str


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
                describe(stored) if document else line.get("reason", ""),
                outcome,
                f"{line['latencyMs']} ms" if "latencyMs" in line else "",
            ),
        )
    )


def describe(document: Mapping[str, Any]) -> str:
    """Return the value of a stored event with its unit, such as "21.5 °C" or "OPEN".

    Data of an unknown shape is returned as JSON, and missing data as an empty string.
    """
    event_type, data = document.get("eventType"), document.get("data")
    try:
        if event_type == "labelsChanged":
            return _labels_changed(data)
        reading = data[event_type]  # type: ignore[index]
        return _VALUES[event_type](reading) if event_type in _VALUES else str(reading["state"])
    except (LookupError, TypeError, AttributeError):
        return "" if data is None else json.dumps(data, ensure_ascii=False, default=str)


def _labels_changed(data: Any) -> str:
    added = [f"+{key}={value}" for key, value in data["added"].items()]
    modified = [f"{key}={value}" for key, value in data["modified"].items()]
    return " ".join([*added, *modified, *(f"-{key}" for key in data["removed"])])


def _device(known: Mapping[str, Any]) -> Any:
    labels = known.get("labels")
    name = labels.get("name") if isinstance(labels, Mapping) else None
    return name or str(known.get("targetName", "-")).rpartition("/")[2]


def _printable(value: Any) -> str:
    """Replace control characters: an event must not control the terminal that shows it."""
    return "".join(char if char.isprintable() else "?" for char in str(value)[:_LONGEST])
