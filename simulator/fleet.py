"""A building full of sensors, whose events come in the order of time."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from heapq import merge
from itertools import count
from random import Random
from typing import Any

from simulator import scenarios
from simulator.scenarios import Reading
from simulator.sensors import Device, device, envelope, event

_SENSORS_PER_CLOUD_CONNECTOR = 50

# A place, and the sensors that it wants: device type and name.
_PLACES: tuple[tuple[Callable[..., Iterator[Reading]], tuple[tuple[str, str], ...]], ...] = (
    (scenarios.fridge, (("temperature", "Fridge {}"), ("contact", "Fridge door {}"))),
    (
        scenarios.room,
        (
            ("co2", "Meeting room {} air"),
            ("motion", "Meeting room {} motion"),
            ("deskOccupancy", "Meeting room {} desk"),
        ),
    ),
    (scenarios.climate, (("humidity", "Store room {}"),)),
    (scenarios.freezer, (("temperature", "Freezer {}"),)),
    (scenarios.button, (("touch", "Service button {}"),)),
    (scenarios.turnstile, (("touchCounter", "Coffee machine {}"),)),
    (scenarios.turnstile, (("proximityCounter", "Entrance {}"),)),
    (scenarios.parking, (("proximity", "Parking space {}"),)),
    (scenarios.cellar, (("waterDetector", "Cellar {}"),)),
)


class Fleet:
    """Sensors, the Cloud Connectors that hear them, and a clock of their own.

    From 12 sensors on, all 19 event types occur early. The devices are the same in every run.

    Attributes:
        sensors: the sensors, Cloud Connectors not among them.
    """

    def __init__(self, sensors: int = 24, seed: int | None = None) -> None:
        """Install so many sensors.

        Args:
            sensors: how many, 1 or more.
            seed: makes the events of a run repeatable, ids too if they start at the same time; None: never twice alike.
        """
        self._rng = Random(seed)  # noqa: S311 - sensor values, no cryptography
        self.sensors: list[Device] = []
        self._readings = self._install(sensors)
        self._clock = 0.0  # seconds since the fleet was switched on

    def _install(self, wanted: int) -> Iterator[Reading]:
        gateways = [
            device("ccon", f"Cloud Connector {number + 1}")
            for number in range(2 + wanted // _SENSORS_PER_CLOUD_CONNECTOR)
        ]
        streams = [scenarios.cloud_connector(gateway, self._rng) for gateway in gateways]
        streams += self._furnish(wanted)
        streams += [scenarios.heartbeats(sensor, gateways, self._rng) for sensor in self.sensors]
        streams.append(scenarios.caretaker(self.sensors, self._rng))
        # The last place may want more sensors than there are: those stay silent.
        installed = {installation.id for installation in (*gateways, *self.sensors)}
        readings = merge(*streams, key=lambda reading: reading.at)
        return (reading for reading in readings if reading.source.id in installed)

    def _furnish(self, wanted: int) -> Iterator[Iterator[Reading]]:
        for number in count(1):
            for place, furniture in _PLACES:
                if len(self.sensors) >= wanted:
                    del self.sensors[wanted:]
                    return
                devices = [device(device_type, name.format(number)) for device_type, name in furniture]
                self.sensors += devices
                yield place(*devices, self._rng)

    def play(self, now: datetime, rate: float | None = None) -> Iterator[tuple[datetime, dict[str, Any]]]:
        """Let the sensors go on from where they are; the caller keeps to the times.

        Args:
            now: when the first events are due.
            rate: events a second on average, irregular as events are: the fleet's life in time-lapse or slow motion.
                None: as the sensors' own clock has it, after a busy first minute less than one a second.

        Yields:
            For ever: when the event is due, which is also its `timestamp`, and the body to deliver.
        """
        due, since = now, self._clock
        for reading in self._readings:
            self._clock = reading.at
            due = now + timedelta(seconds=reading.at - since) if rate is None else self._next(due, rate)
            content = event(reading.event_type, rng=self._rng, now=due, value=reading.value, source=reading.source)
            yield due, envelope(content, reading.source)

    def _next(self, due: datetime, rate: float) -> datetime:
        return due + timedelta(seconds=self._rng.expovariate(rate))
