"""The values of an event: which fields hold numbers, with which unit, and which hold a state. Pure."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple


class Quantity(NamedTuple):
    """A number in an event's data; `label` names it in a chart."""

    field: str
    label: str
    unit: str


QUANTITIES: dict[str, tuple[Quantity, ...]] = {
    "temperature": (Quantity("value", "Temperature", "°C"),),
    "humidity": (Quantity("relativeHumidity", "Humidity", "%RH"), Quantity("temperature", "Temperature", "°C")),
    "objectPresentCount": (Quantity("total", "Objects", "in total"),),
    "touchCount": (Quantity("total", "Touches", "in total"),),
    "networkStatus": (Quantity("signalStrength", "Signal", "%"), Quantity("rssi", "RSSI", "dBm")),
    "batteryStatus": (Quantity("percentage", "Battery", "%"),),
    "cellularStatus": (Quantity("signalStrength", "Signal", "%"),),
    "co2": (Quantity("ppm", "CO₂", "ppm"),),
    "pressure": (Quantity("pascal", "Pressure", "Pa"),),
}

_STATES = {"connectionStatus": "connection"}  # the field of the state, where it is not `state`


def describe(document: Mapping[str, Any]) -> str:
    """Return the value of a stored event with its unit, such as "21.5 °C" or "OPEN".

    Data of an unknown shape is returned as JSON, and missing data as an empty string.
    """
    event_type, data = document.get("eventType"), document.get("data")
    try:
        if event_type == "labelsChanged":
            return _labels_changed(data)
        reading = data[event_type]  # type: ignore[index]
        if event_type in QUANTITIES:
            return ", ".join(f"{reading[each.field]} {each.unit}" for each in QUANTITIES[event_type])
        if event_type == "touch":
            return "touched"
        if event_type == "ethernetStatus":
            return str(reading["ipAddress"] or "no address")
        return str(reading[_STATES.get(str(event_type), "state")])
    except (LookupError, TypeError, AttributeError):
        return "" if data is None else json.dumps(data, ensure_ascii=False, default=str)


def _labels_changed(data: Any) -> str:
    added = [f"+{key}={value}" for key, value in data["added"].items()]
    modified = [f"{key}={value}" for key, value in data["modified"].items()]
    return " ".join([*added, *modified, *(f"-{key}" for key in data["removed"])])


def quantities(event_type: str, data: Any) -> tuple[Quantity, ...]:
    """Return the quantities of an event type; those of an unknown type are the numbers of its data."""
    if event_type in QUANTITIES:
        return QUANTITIES[event_type]
    reading = _reading(event_type, data)
    return tuple(Quantity(name, name, "") for name, value in reading.items() if _is_number(value))


def samples(event_type: str, data: Any, at: datetime) -> list[tuple[datetime, Mapping[str, Any]]]:
    """Return the readings of an event with their times: its samples, or the reading itself at the time `at`."""
    reading = _reading(event_type, data)
    given = reading.get("samples")
    found = [(time, each) for each in given or () if (time := _sample_time(each))] if isinstance(given, list) else []
    return found or [(at, reading)]


def number(reading: Mapping[str, Any], field: str) -> float | None:
    """Return a number of a reading, or None."""
    value = reading.get(field)
    return value if _is_number(value) else None


def state(event_type: str, data: Any) -> str | None:
    """Return the state in an event's data; a touch is a state of its own, a reading without a state has None."""
    if event_type == "touch":
        return "touched"
    value = _reading(event_type, data).get(_STATES.get(event_type, "state"))
    return value if isinstance(value, str) else None


def readable(name: str) -> str:
    """Return an identifier as words: `MOTION_DETECTED` as "Motion detected", `deskOccupancy` as "Desk occupancy"."""
    words = name.replace("_", " ") if name.isupper() else "".join(f" {c}" if c.isupper() else c for c in name)
    return words.strip().capitalize()


def _reading(event_type: str, data: Any) -> Mapping[str, Any]:
    reading = data.get(event_type) if isinstance(data, Mapping) else None
    return reading if isinstance(reading, Mapping) else {}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _sample_time(sample: Any) -> datetime | None:
    try:
        time = datetime.fromisoformat(sample["sampleTime"])
    except (LookupError, TypeError, ValueError):
        return None
    return time if time.tzinfo else None
