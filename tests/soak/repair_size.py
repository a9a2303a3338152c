"""`python -m tests.soak.repair_size`: measures a repair of a long history of many devices, and a second one.

The history comes from the fake of DT's API, which makes the events of a page when it is requested. The documents go to
an embedded store.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import psutil

import command_line
from local.emulator import running_store
from tests.dt_api import DTApi
from tests.events import envelope
from tests.proxy import Proxy

_NAME = "python -m tests.soak.repair_size"
_PROJECT = "demo-repair-size"
_SAMPLE_SECONDS = 1.0
_SPAN = timedelta(days=30)


class LongHistory(DTApi):
    """A fake of DT's API whose devices have as many events as wanted, without holding them in memory."""

    def __init__(self, events: int, devices: int) -> None:
        """Spread the events evenly over the devices and 30 days."""
        super().__init__()
        self._step = _SPAN / (events / devices)
        self._start = datetime.now(UTC) - _SPAN
        self._event = envelope()["event"]
        self.requests = 0
        for number in range(devices):
            self.install(f"sensor{number:06}")

    def select(self, device_id: str, query: dict[str, list[str]]) -> list[dict[str, Any]]:
        """Return the events of a device in a time window, newest first."""
        self.requests += 1
        self.queries.clear()
        since, until = (datetime.fromisoformat(query[name][0]) for name in ("startTime", "endTime"))
        first = max(0, -(-(since - self._start) // self._step))
        last = min((until - self._start) // self._step, _SPAN // self._step - 1)
        return [self._make(device_id, number) for number in range(last, first - 1, -1)]

    def _make(self, device_id: str, number: int) -> dict[str, Any]:
        at = (self._start + number * self._step).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        target = f"projects/{self.project}/devices/{device_id}"
        return {**self._event, "eventId": f"{device_id}x{number}", "targetName": target, "timestamp": at}


class CountingProxy(Proxy):
    """Counts the calls to Firestore by method."""

    def __init__(self, target: str) -> None:
        """Listen on a free port."""
        self.methods: Counter[str] = Counter()
        super().__init__(target)

    def service(self, handler_call_details: Any) -> Any:
        """Count a call, and return its handler."""
        self.methods[handler_call_details.method.rpartition("/")[2]] += 1
        return super().service(handler_call_details)


def main(argv: list[str] | None = None) -> int:
    """Run the measurement and return its exit status; `argv` defaults to the arguments of the process."""
    return command_line.run(_measure, argv, name=_NAME)


@click.command(
    epilog=command_line.examples(f"{_NAME} --events 10000 --devices 20", f"{_NAME} --events 1000000 --devices 1000")
)
@click.option("--events", metavar="N", type=command_line.COUNT, default=1_000_000, show_default=True)
@click.option("--devices", metavar="N", type=command_line.COUNT, default=1_000, show_default=True)
@click.option("--rate", metavar="N", type=command_line.COUNT, default=1_000, show_default=True, help="Writes a second.")
def _measure(*, events: int, devices: int, rate: int) -> int:
    """Repair a whole history twice, and print time, memory and the calls to DT and to Firestore.

    Exit status: 0 if both repairs are complete and the second one added nothing; else 1.
    """
    api = LongHistory(events, devices)
    api.connect("https://endpoint.invalid")
    folder = tempfile.mkdtemp(prefix="repair-size-")
    with running_store("embedded", file=Path(folder) / "firestore.sqlite3") as store:
        first = _repair(api, store.host, rate)
        proxy = CountingProxy(store.host)
        second = _repair(api, proxy.host, rate)
        proxy.stop()
    api.stop()
    print(json.dumps({"first": first, "second": second | {"firestoreCalls": dict(proxy.methods)}}, indent=2))
    whole = first["added"] == events and second["added"] == 0
    return int(not (whole and {first["outcome"], second["outcome"]} == {"complete"}))


def _repair(api: LongHistory, host: str, rate: int) -> dict[str, Any]:
    """Run a repair as a process, and return its figures."""
    api.requests = 0
    arguments = ["repair", "--dt-project", api.project, "--endpoint", "https://endpoint.invalid", "--rate", str(rate)]
    environ = os.environ | api.environ | {"FIRESTORE_EMULATOR_HOST": host, "GOOGLE_CLOUD_PROJECT": _PROJECT}
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen([sys.executable, "-m", "backfill", *arguments], env=environ, stdout=out)
        samples = _sample_memory(process)
        out.seek(0)
        report = json.loads(out.read().splitlines()[-1])
    size = max(1, len(samples) // 4)
    quarters = [max(samples[start : start + size]) for start in range(0, 4 * size, size) if samples[start:]]
    return {
        **{name: report[name] for name in ("outcome", "seen", "alreadyStored", "added", "failed", "oldestEvent")},
        "seconds": round(time.monotonic() - started, 1),
        "peakMemoryMB": max(samples) // 2**20,
        "peakMemoryMBByQuarter": [peak // 2**20 for peak in quarters],
        "requestsForEvents": api.requests,
    }


def _sample_memory(process: "subprocess.Popen[bytes]") -> list[int]:
    """Return the resident memory of a process in bytes, once a second until it ends."""
    samples = []
    observed = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            samples.append(observed.memory_info().rss)
        except psutil.NoSuchProcess:
            break
        time.sleep(_SAMPLE_SECONDS)
    process.wait()
    return samples


if __name__ == "__main__":
    sys.exit(main())
