"""Sensors and their history, made of documents. Pure: a document may hold anything, since types are not checked."""

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from viewer.values import describe, number, quantities, readable, samples, state

SILENT = timedelta(hours=1)
_OLDEST = datetime.min.replace(tzinfo=UTC)
_STATUS = frozenset({"networkStatus", "batteryStatus", "cellularStatus", "labelsChanged"})  # not values of a sensor
_NAMES = {"ccon": "Cloud Connector", "co2": "CO₂", "networkStatus": "Signal", "batteryStatus": "Battery"}


class Newest(NamedTuple):
    """An event of a type; of two, the greater one is newer."""

    at: datetime
    event_id: str
    data: Any


@dataclass(frozen=True, slots=True)
class Event:
    """A stored event.

    Attributes:
        target: its `targetName`.
        name: the label `name` of its device, or the device's id.
        at: its `timestamp`; None if that is not a time.
        received_at: None for an event that was fetched by the backfill.
    """

    event_id: str
    target: str
    event_type: str
    name: str
    device_type: str
    at: datetime | None
    received_at: datetime | None
    data: Any

    @property
    def value(self) -> str:
        """The value with its unit."""
        return value_of(self.event_type, self.data)


def read_event(key: str, document: Mapping[str, Any]) -> Event:
    """Read the document of an event."""
    return Event(
        key,
        _text(document.get("targetName")),
        _text(document.get("eventType")),
        _name(document),
        _device_type(document),
        _time(document.get("timestamp")),
        _time(document.get("receivedAt")),
        document.get("data"),
    )


@dataclass(slots=True)
class Sensor:
    """The newest state of a device; `newest` is by event type."""

    target: str
    name: str
    device_type: str
    last_seen: datetime
    newest: dict[str, Newest] = field(default_factory=dict)

    @property
    def signal(self) -> float | None:
        """Signal strength in percent."""
        strength = self._number("networkStatus", "signalStrength")
        return self._number("cellularStatus", "signalStrength") if strength is None else strength

    @property
    def battery(self) -> float | None:
        """Battery in percent."""
        return self._number("batteryStatus", "percentage")

    def _number(self, event_type: str, name: str) -> float | None:
        data = self.newest[event_type].data if event_type in self.newest else None
        reading = data.get(event_type) if isinstance(data, Mapping) else None
        return number(reading, name) if isinstance(reading, Mapping) else None

    def is_silent(self, now: datetime) -> bool:
        """Return whether the last event is older than an hour."""
        return now - self.last_seen > SILENT

    def values(self) -> list[tuple[str, str]]:
        """Return event types and values, the newest first and a touch last; signal, battery and labels are left out."""
        shown = [kind for kind in self.newest if kind not in _STATUS]
        shown.sort(key=lambda kind: (kind != "touch", self.newest[kind].at), reverse=True)
        return [(kind, value_of(kind, self.newest[kind].data)) for kind in shown]

    def types(self) -> list[str]:
        """Return the event types, those of values first."""
        return sorted(self.newest, key=lambda kind: (kind in _STATUS, kind == "touch", kind))


class Sensors:
    """All known sensors by their `targetName`."""

    def __init__(self) -> None:
        """Begin without sensors."""
        self.by_target: dict[str, Sensor] = {}

    def add_event(self, event: Event) -> None:
        """Bring a sensor up to date; an event without a device or a time changes nothing, nor does an older one."""
        if event.at is None or "/devices/" not in event.target:
            return
        sensor = self.by_target.setdefault(event.target, Sensor(event.target, event.name, event.device_type, _OLDEST))
        if event.at >= sensor.last_seen:
            sensor.last_seen, sensor.name, sensor.device_type = event.at, event.name, event.device_type
        candidate = Newest(event.at, event.event_id, event.data)
        known = sensor.newest.get(event.event_type)
        if known is None or candidate[:2] > known[:2]:
            sensor.newest[event.event_type] = candidate

    def add_device(self, document: Mapping[str, Any]) -> None:
        """Add the events of a document of `DEVICES_COLLECTION`."""
        newest = document.get("newest")
        target, name, device_type = _text(document.get("targetName")), _name(document), _device_type(document)
        for event_type, each in newest.items() if isinstance(newest, Mapping) else ():
            if isinstance(each, Mapping):
                key, at = _text(each.get("eventId")), _time(each.get("timestamp"))
                self.add_event(Event(key, target, event_type, name, device_type, at, None, each.get("data")))

    def types(self) -> list[str]:
        """Return the device types."""
        return sorted({sensor.device_type for sensor in self.by_target.values()})

    def select(self, text: str, device_type: str, order: str) -> list[Sensor]:
        """Return the sensors whose name or id contains a text.

        Args:
            text: in any case.
            device_type: only this one, or empty for all.
            order: a key of `ORDERS`.
        """
        wanted = text.casefold().strip()
        found = [
            sensor
            for sensor in self.by_target.values()
            if device_type in ("", sensor.device_type)
            and (wanted in sensor.name.casefold() or wanted in sensor.target.casefold())
        ]
        return sorted(found, key=lambda sensor: (_KEYS[order](sensor), sensor.name.casefold(), sensor.target))


ORDERS = {
    "name": "Name",
    "seen": "Last seen, newest first",
    "silent": "Last seen, oldest first",
    "battery": "Battery, lowest first",
    "signal": "Signal, weakest first",
}

_KEYS: dict[str, Callable[[Sensor], Any]] = {
    "name": lambda _: 0,
    "seen": lambda sensor: -sensor.last_seen.timestamp(),
    "silent": lambda sensor: sensor.last_seen,
    "battery": lambda sensor: _low_first(sensor.battery),
    "signal": lambda sensor: _low_first(sensor.signal),
}


@dataclass(frozen=True, slots=True)
class Line:
    """A quantity over time; points are a time and a number."""

    label: str
    unit: str
    points: list[tuple[datetime, float]]


class Band(NamedTuple):
    """A state over time."""

    start: datetime
    end: datetime
    state: str


def lines(events: Sequence[Event], event_type: str, since: datetime) -> list[Line]:
    """Return the numbers of the events of a type, oldest first; a sample is at its own time, and appears once."""
    shown = {each: None for event in events for each in quantities(event_type, event.data)}
    readings = [
        (at, reading)
        for event in events
        if event.at
        for at, reading in samples(event_type, event.data, event.at)
        if at >= since
    ]
    found = []
    for quantity in shown:
        points = {at: value for at, reading in readings if (value := number(reading, quantity.field)) is not None}
        found.append(Line(quantity.label, quantity.unit, sorted(points.items())))
    return [line for line in found if line.points]


def bands(events: Iterable[Event], event_type: str, since: datetime, until: datetime) -> list[Band]:
    """Return the states of the events of a type; each lasts until the next event, the last one until `until`.

    A touch lasts no time. The state of an event before `since` begins at `since`.
    """
    states = sorted((event.at, each) for event in events if event.at and (each := state(event_type, event.data)))
    found: list[Band] = []
    for index, (at, each) in enumerate(states):
        following = states[index + 1][0] if index + 1 < len(states) else until
        end = at if event_type == "touch" else following
        if end < since:
            continue
        if found and found[-1].state == each and found[-1].end == at and event_type != "touch":
            found[-1] = found[-1]._replace(end=end)
        else:
            found.append(Band(max(at, since), end, each))
    return found


def to_csv(found: Sequence[Line] | Sequence[Band]) -> str:
    """Return lines or bands as CSV, with times in UTC."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerows(_csv_rows(found))
    return text.getvalue()


def _csv_rows(found: Sequence[Line] | Sequence[Band]) -> Iterator[Sequence[object]]:
    if found and isinstance(found[0], Band):
        yield "start", "end", "state"
        for band in found:
            assert isinstance(band, Band)  # noqa: S101 - a sequence holds either
            yield _iso(band.start), _iso(band.end), _cell(band.state)
        return
    columns = [line for line in found if isinstance(line, Line)]
    yield "time", *(_cell(f"{line.label} ({line.unit})" if line.unit else line.label) for line in columns)
    by_time = [dict(line.points) for line in columns]
    for at in sorted(set().union(*by_time)):
        yield _iso(at), *(points.get(at, "") for points in by_time)


def _iso(time: datetime) -> str:
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _cell(text: str) -> str:
    """Return text that a spreadsheet does not run as a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def ago(time: datetime, now: datetime) -> str:
    """Return how long ago a time was, such as "3 min ago"."""
    seconds = (now - time).total_seconds()
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} ago"
    return "just now"


def value_of(event_type: str, data: Any) -> str:
    """Return the value with its unit, and a state as words."""
    known = state(event_type, data)
    return readable(known) if known else describe({"eventType": event_type, "data": data})


def type_name(name: str) -> str:
    """Return an event type or device type as words."""
    return _NAMES.get(name) or readable(name) or "Unknown"


def _low_first(value: float | None) -> tuple[bool, float]:
    return value is None, value or 0


def _name(document: Mapping[str, Any]) -> str:
    labels = document.get("labels")
    name = labels.get("name") if isinstance(labels, Mapping) else None
    return _text(name) or _text(document.get("targetName")).rpartition("/")[2]


def _device_type(document: Mapping[str, Any]) -> str:
    metadata = document.get("metadata")
    return _text(metadata.get("deviceType")) if isinstance(metadata, Mapping) else ""


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _time(value: Any) -> datetime | None:
    return value.astimezone(UTC) if isinstance(value, datetime) else None
