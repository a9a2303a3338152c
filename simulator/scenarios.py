"""Scenarios, such as a fridge or a room: each is an endless stream of sensor readings in time order."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from math import exp
from random import Random
from typing import Any, NamedTuple

from simulator.sensors import Device

_MINUTE = 60.0
_HOUR = 3600.0


class Reading(NamedTuple):
    """A value that a sensor sends.

    Attributes:
        at: seconds since the start of the fleet; each sensor's first reading is within the first minutes.
        source: the sensor.
        event_type: one of `simulator.sensors.EVENT_TYPES`.
        value: as `simulator.sensors.TYPES[event_type].parse` returns it.
    """

    at: float
    source: Device
    event_type: str
    value: Any = None


Readings = Iterator[Reading]


def _approach(value: float, target: float, seconds: float, inertia: float) -> float:
    """Return `value` after it has approached `target` exponentially, with the time constant `inertia`."""
    return target + (value - target) * exp(-seconds / inertia)


def fridge(thermometer: Device, door: Device, rng: Random) -> Readings:
    """A fridge that warms while its door is open: `contact` at each change, `temperature` once a minute."""
    at, celsius = rng.uniform(0, _MINUTE), 4.0
    while True:
        for state, minutes, target, inertia in (
            ("CLOSED", rng.randint(10, 40), 4.0, 8 * _MINUTE),
            ("OPEN", rng.randint(3, 10), 21.0, 15 * _MINUTE),
        ):
            yield Reading(at, door, "contact", state)
            for _ in range(minutes):
                at += _MINUTE
                celsius = _approach(celsius, target, _MINUTE, inertia)
                yield Reading(at, thermometer, "temperature", celsius + rng.uniform(-0.05, 0.05))


def room(air: Device, motion: Device, desk: Device, rng: Random) -> Readings:
    """A meeting room, used and empty in turn, whose CO2 rises with the number of people.

    Args:
        air: a CO2 sensor, which also measures humidity and pressure.
        motion: a motion sensor.
        desk: a desk occupancy sensor; it follows the motion sensor.
        rng: draws how many people stay for how long.

    Yields:
        `motion` and `deskOccupancy` at each change; `co2`, `humidity`, `pressure` every five minutes.
    """
    at, ppm, percent, pascal = rng.uniform(0, _MINUTE), 450.0, 38.0, rng.uniform(99_500, 102_000)
    while True:
        for people, periods in ((rng.randint(1, 6), rng.randint(4, 12)), (0, rng.randint(3, 9))):
            yield Reading(at, motion, "motion", "MOTION_DETECTED" if people else "NO_MOTION_DETECTED")
            yield Reading(at + 20, desk, "deskOccupancy", "OCCUPIED" if people else "NOT_OCCUPIED")
            for _ in range(periods):
                yield Reading(at + 30, air, "co2", round(ppm))
                yield Reading(at + 30, air, "humidity", (20.5 + people / 4 + rng.uniform(-0.1, 0.1), percent))
                yield Reading(at + 30, air, "pressure", round(pascal))
                at += 5 * _MINUTE
                ppm = _approach(ppm, 430 + 180 * people, 5 * _MINUTE, 25 * _MINUTE)
                percent = _approach(percent, 36 + 2 * people, 5 * _MINUTE, 25 * _MINUTE)
                pascal += rng.uniform(-15, 15)


def climate(sensor: Device, rng: Random) -> Readings:
    """A store room with a stable climate: `humidity` every quarter of an hour."""
    for number in count():
        yield Reading(15 * _MINUTE * number + 40, sensor, "humidity", (rng.gauss(19, 0.2), rng.gauss(45, 0.5)))


def freezer(probe: Device, rng: Random) -> Readings:
    """A freezer with a wired probe: `temperature` every five minutes; `probeWireStatus` first and every six hours."""
    start = rng.uniform(0, _MINUTE)
    for number in count():
        at = start + 5 * _MINUTE * number
        if number % 72 == 0:
            yield Reading(at, probe, "probeWireStatus", "THREE_WIRE")
        yield Reading(at, probe, "temperature", rng.gauss(-18, 0.3))


def button(sensor: Device, rng: Random) -> Readings:
    """A service button: `touch` every half hour on average."""
    at = rng.uniform(0, _MINUTE)
    while True:
        yield Reading(at, sensor, "touch")
        at += rng.expovariate(1 / (30 * _MINUTE))


def turnstile(sensor: Device, rng: Random) -> Readings:
    """A counter whose total rises: `touchCount` or `objectPresentCount` every ten to thirty minutes."""
    event_type = "touchCount" if sensor.type == "touchCounter" else "objectPresentCount"
    at, total = rng.uniform(0, _MINUTE), rng.randint(100, 5000)
    while True:
        yield Reading(at, sensor, event_type, total)
        at += 10 * _MINUTE * rng.randint(1, 3)
        total += rng.randint(1, 12)


def parking(sensor: Device, rng: Random) -> Readings:
    """A parking space: `objectPresent` at each change, every half hour on average."""
    yield from _alternate(sensor, "objectPresent", {"PRESENT": 30 * _MINUTE, "NOT_PRESENT": 30 * _MINUTE}, rng)


def cellar(sensor: Device, rng: Random) -> Readings:
    """A cellar with a leak every few hours: `waterPresent` at each change."""
    yield from _alternate(sensor, "waterPresent", {"NOT_PRESENT": 4 * _HOUR, "PRESENT": 10 * _MINUTE}, rng)


def _alternate(sensor: Device, event_type: str, states: Mapping[str, float], rng: Random) -> Readings:
    at = rng.uniform(0, _MINUTE)
    while True:
        for state, mean_seconds in states.items():
            yield Reading(at, sensor, event_type, state)
            at += rng.expovariate(1 / mean_seconds)


def heartbeats(sensor: Device, connectors: Sequence[Device], rng: Random) -> Readings:
    """The status events of every sensor, received by one or two of the Cloud Connectors.

    Yields:
        `networkStatus` every quarter of an hour, `batteryStatus` once a day.
    """
    start, charge = rng.uniform(0, 15 * _MINUTE), rng.randint(70, 100)
    strengths = {connector.id: rng.randint(30, 90) for connector in rng.sample(connectors, min(2, len(connectors)))}
    for number in count():
        at = start + 15 * _MINUTE * number
        heard = {connector: strength + rng.randint(-5, 5) for connector, strength in strengths.items()}
        yield Reading(at, sensor, "networkStatus", heard)
        if number % 96 == 95:  # noqa: PLR2004 - the last one of the day
            yield Reading(at, sensor, "batteryStatus", charge)
            charge = max(1, charge - rng.randint(0, 1))


def cloud_connector(gateway: Device, rng: Random) -> Readings:
    """A Cloud Connector whose Ethernet fails at times.

    Yields:
        `connectionStatus` at each change, `ethernetStatus` when it is up again, `cellularStatus` every half hour.
    """
    at, address = rng.uniform(0, _MINUTE), f"10.0.0.{rng.randint(2, 254)}"
    while True:
        for connection, periods in (("ETHERNET", rng.randint(4, 40)), ("CELLULAR", 1)):
            yield Reading(at, gateway, "connectionStatus", connection)
            if connection == "ETHERNET":
                yield Reading(at, gateway, "ethernetStatus", address)
            for _ in range(periods):
                yield Reading(at + 1, gateway, "cellularStatus", rng.randint(60, 80))
                at += 30 * _MINUTE


def caretaker(sensors: Sequence[Device], rng: Random) -> Readings:
    """A caretaker, who touches one sensor after another to identify it and counts the visits in a label.

    The Data Connector does not send this label along with events.

    Yields:
        `touch`, `batteryStatus` and `labelsChanged` of each sensor visited.
    """
    at, visits = rng.uniform(0, _MINUTE), dict.fromkeys((sensor.id for sensor in sensors), 0)
    while True:
        sensor = rng.choice(sensors)
        visits[sensor.id] += 1
        label, first = {"visits": str(visits[sensor.id])}, visits[sensor.id] == 1
        changed = {"added": label if first else {}, "modified": {} if first else label, "removed": []}
        yield Reading(at, sensor, "touch")
        yield Reading(at + 1, sensor, "batteryStatus", rng.randint(70, 100))
        yield Reading(at + 20, sensor, "labelsChanged", changed)
        at += rng.uniform(10, 20) * _MINUTE
