"""A building full of sensors, whose events are ordered by time."""

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

# Scenarios, and the device type and name of each sensor in them.
_SCENARIOS: tuple[tuple[Callable[..., Iterator[Reading]], tuple[tuple[str, str], ...]], ...] = (
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
    """Sensors and the Cloud Connectors in their range, with a clock of their own.

    With 12 sensors or more, all 19 event types occur early. The devices are the same in every run.

    Attributes:
        sensors: without the Cloud Connectors.
    """

    def __init__(self, sensors: int = 24, seed: int | None = None) -> None:
        """Install the sensors.

        Args:
            sensors: their number, 1 or more.
            seed: repeats the events of a run, with their ids if they start at the same time; None: new events.
        """
        self._rng = Random(seed)  # noqa: S311 - sensor values, no cryptography
        self.sensors: list[Device] = []
        self._readings = self._install(sensors)
        self._clock = 0.0  # seconds since the start of the fleet

    def _install(self, wanted: int) -> Iterator[Reading]:
        gateways = [
            device("ccon", f"Cloud Connector {number + 1}")
            for number in range(2 + wanted // _SENSORS_PER_CLOUD_CONNECTOR)
        ]
        streams = [scenarios.cloud_connector(gateway, self._rng) for gateway in gateways]
        streams += self._install_sensors(wanted)
        streams += [scenarios.heartbeats(sensor, gateways, self._rng) for sensor in self.sensors]
        streams.append(scenarios.caretaker(self.sensors, self._rng))
        # The last scenario may have more sensors than are installed: those send nothing.
        installed = {source.id for source in (*gateways, *self.sensors)}
        readings = merge(*streams, key=lambda reading: reading.at)
        return (reading for reading in readings if reading.source.id in installed)

    def _install_sensors(self, wanted: int) -> Iterator[Iterator[Reading]]:
        for number in count(1):
            for scenario, sensors in _SCENARIOS:
                if len(self.sensors) >= wanted:
                    del self.sensors[wanted:]
                    return
                devices = [device(device_type, name.format(number)) for device_type, name in sensors]
                self.sensors += devices
                yield scenario(*devices, self._rng)

    def play(self, now: datetime, rate: float | None = None) -> Iterator[tuple[datetime, dict[str, Any]]]:
        """Yield events without end: when each is due, which is also its `timestamp`, and its body.

        A later call continues with the readings that follow.

        Args:
            now: when the first events are due.
            rate: events a second on average, at random intervals. None: as by the sensors' own clock, which is less
                than one a second after the first minute.
        """
        due, since = now, self._clock
        for reading in self._readings:
            self._clock = reading.at
            due = now + timedelta(seconds=reading.at - since) if rate is None else self._next(due, rate)
            content = event(reading.event_type, rng=self._rng, now=due, value=reading.value, source=reading.source)
            yield due, envelope(content, reading.source)

    def _next(self, due: datetime, rate: float) -> datetime:
        return due + timedelta(seconds=self._rng.expovariate(rate))
