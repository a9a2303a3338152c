"""The 19 event types of DT's sensors: their fields, plausible values, and the body that a Data Connector posts."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import isfinite, nan
from random import Random
from typing import Any
from zlib import crc32

from dtcloud.xid import stable_id, xid

ORGANIZATION_ID = stable_id("organization")
PROJECT_ID = stable_id("project")
CLOUD_CONNECTOR_ID = stable_id("Cloud Connector 1")

_PRODUCT_NUMBERS = {
    "ccon": "101472",
    "co2": "102543",
    "contact": "102535",
    "deskOccupancy": "102530",
    "humidity": "102081",
    "motion": "102538",
    "proximity": "100112",
    "proximityCounter": "102544",
    "temperature": "102058",
    "touch": "100115",
    "touchCounter": "102546",
    "waterDetector": "100120",
}


@dataclass(frozen=True, slots=True)
class Device:
    """A sensor or a Cloud Connector.

    Attributes:
        id: the device id.
        type: DT's device type.
        labels: those that the Data Connector sends along with events.
    """

    id: str
    type: str
    labels: Mapping[str, str] = field(default_factory=dict)


def device(device_type: str, name: str) -> Device:
    """Return a device with a name as its label, which has the same id in every run, so that its history grows."""
    return Device(stable_id(name), device_type, {"name": name})


@dataclass(frozen=True, slots=True)
class EventType:
    """An event type.

    Attributes:
        device_type: a device type that publishes it.
        typical: draws a plausible value.
        parse: reads a value from the command line; raises ValueError with the values allowed.
        fields: returns the fields of `data` for a value and a time.
    """

    device_type: str
    typical: Callable[[Random], Any]
    parse: Callable[[str], Any]
    fields: Callable[[Any, str], dict[str, Any]]


def _state(device_type: str, *states: str, **further: Any) -> EventType:
    def parse(text: str) -> str:
        if text.upper() not in states:
            raise ValueError(f"must be one of {', '.join(states)}")
        return text.upper()

    return EventType(
        device_type,
        typical=lambda rng: rng.choice(states),
        parse=parse,
        fields=lambda value, at: {"state": value, "updateTime": at} | further,
    )


def _whole(device_type: str, field_name: str, low: int, high: int) -> EventType:
    return EventType(
        device_type,
        typical=lambda rng: rng.randint(low, high),
        parse=_whole_number,
        fields=lambda value, at: {field_name: value, "updateTime": at},
    )


def _whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("must be a whole number") from None


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = nan
    if not isfinite(number):
        raise ValueError("must be a number")
    return number


def _no_value(text: str) -> None:
    raise ValueError(f"cannot be {text!r}: this type has no value")


def _plain(number: float) -> float:
    """Return the number as DT writes it: two decimals at most, none for a whole number."""
    rounded = round(number, 2)
    return int(rounded) if rounded == int(rounded) else rounded


def _temperature(celsius: float, at: str) -> dict[str, Any]:
    value = _plain(celsius)
    return {
        "value": value,
        "updateTime": at,
        "samples": [{"value": value, "sampleTime": at}],
        "isBackfilled": False,
    }


def _humidity(value: tuple[float, float], at: str) -> dict[str, Any]:
    reading = {"temperature": _plain(value[0]), "relativeHumidity": _plain(value[1])}
    return reading | {"samples": [reading | {"sampleTime": at}], "isBackfilled": False, "updateTime": at}


def _parse_humidity(text: str) -> tuple[float, float]:
    celsius, _, percent = text.rpartition(",")
    try:
        return _number(celsius or "21.5"), _number(percent)
    except ValueError:
        raise ValueError("must be RELATIVE_HUMIDITY or TEMPERATURE,RELATIVE_HUMIDITY") from None


def _network_status(strengths: Mapping[str, int], at: str) -> dict[str, Any]:
    heard = [
        {"id": connector, "signalStrength": strength, "rssi": round(-110 + 0.6 * strength)}
        for connector, strength in sorted(strengths.items(), key=lambda item: -item[1])
    ]
    return {
        "signalStrength": heard[0]["signalStrength"],
        "rssi": heard[0]["rssi"],
        "updateTime": at,
        "cloudConnectors": heard,
        "transmissionMode": "LOW_POWER_STANDARD_MODE",
    }


def _parse_label(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise ValueError("must be KEY=VALUE, the label that is added")
    return {"added": {key: value}, "modified": {}, "removed": []}


_CONNECTIONS = {"ETHERNET": ["CELLULAR", "ETHERNET"], "CELLULAR": ["CELLULAR"], "OFFLINE": []}


def _connection_status(value: str, at: str) -> dict[str, Any]:
    return {"connection": value, "available": _CONNECTIONS[value], "updateTime": at}


def _ethernet_status(address: str, at: str) -> dict[str, Any]:
    tail = crc32(address.encode()).to_bytes(4, "big").hex(":")[:8]
    return {"macAddress": f"f0:b5:b7:{tail}", "ipAddress": address, "errors": [], "updateTime": at}


def _cellular_status(strength: int, at: str) -> dict[str, Any]:
    return {"signalStrength": strength, "errors": [], "updateTime": at}


TYPES: dict[str, EventType] = {
    "touch": EventType("touch", lambda _: None, _no_value, lambda _, at: {"updateTime": at}),
    "temperature": EventType("temperature", lambda rng: rng.gauss(21, 1.5), _number, _temperature),
    "objectPresent": _state("proximity", "PRESENT", "NOT_PRESENT"),
    "humidity": EventType("humidity", lambda rng: (rng.gauss(21, 1), rng.gauss(40, 6)), _parse_humidity, _humidity),
    "objectPresentCount": _whole("proximityCounter", "total", 1, 9999),
    "touchCount": _whole("touchCounter", "total", 1, 9999),
    "waterPresent": _state("waterDetector", "PRESENT", "NOT_PRESENT"),
    "networkStatus": EventType(
        "temperature",
        lambda rng: {CLOUD_CONNECTOR_ID: rng.randint(25, 95)},
        lambda text: {CLOUD_CONNECTOR_ID: _whole_number(text)},
        _network_status,
    ),
    "batteryStatus": _whole("temperature", "percentage", 60, 100),
    "labelsChanged": EventType(
        "temperature",
        lambda rng: _parse_label(f"floor={rng.randint(1, 9)}"),
        _parse_label,
        lambda value, _: dict(value),
    ),
    "connectionStatus": EventType(
        "ccon", lambda _: "ETHERNET", _state("ccon", *_CONNECTIONS).parse, _connection_status
    ),
    "ethernetStatus": EventType("ccon", lambda rng: f"10.0.0.{rng.randint(2, 254)}", str, _ethernet_status),
    "cellularStatus": EventType("ccon", lambda rng: rng.randint(40, 95), _whole_number, _cellular_status),
    "co2": _whole("co2", "ppm", 420, 1200),
    "pressure": _whole("co2", "pascal", 98_000, 103_000),
    "motion": _state("motion", "MOTION_DETECTED", "NO_MOTION_DETECTED"),
    "deskOccupancy": _state("deskOccupancy", "OCCUPIED", "NOT_OCCUPIED", remarks=[]),
    "contact": _state("contact", "OPEN", "CLOSED"),
    "probeWireStatus": _state("temperature", "THREE_WIRE", "TWO_WIRE", "FOUR_WIRE", "INVALID_WIRE_CONFIGURATION"),
}
EVENT_TYPES: tuple[str, ...] = tuple(TYPES)


def event(
    event_type: str, *, rng: Random, now: datetime, value: Any = None, source: Device | None = None
) -> dict[str, Any]:
    """Return a new event: the member `event` of a body.

    Args:
        event_type: one of `EVENT_TYPES`.
        rng: draws the value if none is given, and the random part of `eventId`.
        now: when a Cloud Connector receives the event.
        value: as `TYPES[event_type].parse` returns it; None draws a plausible one.
        source: the device; None is the type's default device.

    Raises:
        KeyError: the event type is unknown.
    """
    of_type = TYPES[event_type]
    source = source or default_device(event_type)
    at = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    fields = of_type.fields(of_type.typical(rng) if value is None else value, at)
    return {
        "eventId": xid(now, rng.randbytes),
        "targetName": f"projects/{PROJECT_ID}/devices/{source.id}",
        "eventType": event_type,
        # The fields of this type alone are directly under data.
        "data": fields if event_type == "labelsChanged" else {event_type: fields},
        "timestamp": at,
    }


def default_device(event_type: str) -> Device:
    """Return the device of an event type's events if no other is named: the same in every run."""
    return device(TYPES[event_type].device_type, f"Simulated {event_type} sensor")


def envelope(content: Mapping[str, Any], source: Device) -> dict[str, Any]:
    """Return the body that a Data Connector posts.

    Args:
        content: the event.
        source: the device that published it.
    """
    return {
        "event": dict(content),
        "labels": dict(source.labels),
        "metadata": {
            "deviceId": source.id,
            "projectId": PROJECT_ID,
            "deviceType": source.type,
            "productNumber": _PRODUCT_NUMBERS[source.type],
        },
    }


def encode(body: Mapping[str, Any]) -> bytes:
    """Encode a body as DT Cloud does: compact JSON in UTF-8."""
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
