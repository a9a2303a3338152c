"""A history of one sensor on a fake of DT's API, for the tests of the backfill's commands."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import disruptive
import pytest

from backfill import rate_limit
from dtcloud import history
from tests.dt_api import DTApi
from tests.events import envelope

NOW = datetime.now(UTC)
SENSOR = "bchonod7rihjtvdmd2vg"


@contextmanager
def one_sensor(monkeypatch: pytest.MonkeyPatch) -> Iterator[DTApi]:
    """Run a fake of DT's API with one sensor during a block; the environment of this process points to it."""
    api = DTApi()
    api.install(SENSOR, name="Milk fridge", room="Küche")
    for name, value in api.environ.items():
        monkeypatch.setenv(name, value)
    for setting in ("base_url", "request_timeout", "request_attempts", "default_auth"):
        monkeypatch.setattr(disruptive, setting, getattr(disruptive, setting))
    monkeypatch.setattr(history, "PAUSES", (0.0, 0.0))
    yield api
    api.stop()


def use_firestore(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the backfill of this process write to the test's Firestore, without a secret and as fast as it can.

    tests/test_backfill.py tests the real rate.
    """
    for name, value in environ.items():
        if name != "DT_SIGNATURE_SECRET":
            monkeypatch.setenv(name, value)
    monkeypatch.setattr(rate_limit, "FIRST_RATE", 1e6)


@dataclass(frozen=True)
class Result:
    """The result of a command.

    Attributes:
        status: the exit status.
        out: the standard output.
        err: the standard error.
    """

    status: int
    out: str
    err: str

    def table(self, name: str) -> list[int]:
        """Return the numbers in the first row with this name."""
        row = next(line for line in self.out.splitlines() if re.match(rf"[│┃]\s*{re.escape(name)}\s", line))
        return [int(cell) for cell in re.split(r"[│┃]", row)[2:-1]]


def make_events(count: int, *, until: datetime = NOW, hours: float = 20, event_type: str = "temperature") -> list[Any]:
    """Return events of one sensor, spread evenly over the hours before a time."""
    step = timedelta(hours=hours) / count
    times = [(until - step * number).strftime("%Y-%m-%dT%H:%M:%S.%fZ") for number in range(count)]
    return [envelope(event_type, timestamp=at)["event"] for at in times]
