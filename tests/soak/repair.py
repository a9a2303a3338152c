"""`python -m tests.soak.repair`: outages that a Data Connector does not survive; the scheduled repair is the remedy.

The connector discards events after 12 hours, and DT switches it off after 5 days of failures; both are shortened by
the time factor. A repair is started again and again, as by Cloud Scheduler: it is killed at random times, two run at
once, DT answers with errors, truncated pages and refused page tokens, and Firestore fails.
"""

import asyncio
import json
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import click
from google.cloud.firestore import Client
from grpc import StatusCode

import command_line
from command_line import POSITIVE
from local.options import Kind
from simulator.connector import Attempt, Connector
from simulator.fleet import Fleet
from simulator.retry import pause_before_retry
from simulator.sensors import PROJECT_ID, encode
from simulator.signer import Signer
from tests import dt_api, proxy
from tests.dt_api import DTApi
from tests.soak.fault_injector import PROJECT, FaultInjector
from tests.soak.ledger import canonical, documents, expected

_NAME = "python -m tests.soak.repair"
_DAY, _HOUR = 86_400.0, 3_600.0  # seconds, of simulated time
_SWITCHED_OFF_AFTER = 5 * _DAY
_PERIOD = 6 * _HOUR
_SENSORS, _RATE = 24, 15.0  # events a second, of real time
_LAST_RUNS = 30  # of the repair, at most, until everything is complete
# A repair with the soak's clock. The lag of the soak's own events is real time: hence the least overlap.
_RUN = """\
import sys
from datetime import timedelta
from backfill import checkpoint, cli, repair
from dtcloud import history
factor = float(sys.argv.pop(1))
checkpoint.LEASE_SECONDS = 2.0
history.PAUSES = (0.1, 0.3, 1.0, 2.0)
repair.OVERLAP = max(timedelta(hours=13) / factor, timedelta(seconds=10))
sys.exit(cli.main(sys.argv[1:]))
"""


class PublishedHistory(DTApi):
    """A fake of DT's API to which events are added while it is read."""

    def __init__(self) -> None:
        """Listen on a free port; a client that was killed is no error."""
        super().__init__()
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]

    def publish(self, device_id: str, events: Any) -> None:
        """Add events to a device's history, in one step."""
        added = [(datetime.fromisoformat(event["timestamp"]), event) for event in events]
        self._history[device_id] = sorted([*self._history[device_id], *added], key=lambda item: item[0], reverse=True)
        self._selections.clear()


@dataclass
class SwitchedConnector(Connector):
    """A Data Connector that DT switches off after 5 days of failures; what it is given then is in the history alone.

    Attributes:
        api: DT's API, which has the history and the connector's state.
        state: the connector as the API lists it.
        happened: how often an event was discarded or not sent, and how often DT switched the connector off.
    """

    api: DTApi = field(default_factory=DTApi)
    state: dict[str, Any] = field(default_factory=dict)
    happened: Counter[str] = field(default_factory=Counter)
    _failing_since: float | None = None

    async def deliver(self, event: Mapping[str, Any] | bytes) -> Attempt:
        """Publish an event, and deliver it while the connector is on."""
        if isinstance(event, bytes):
            raise TypeError
        self.api.publish(event["metadata"]["deviceId"], [event["event"]])
        body, age = encode(event), 0.0
        attempt = Attempt(body, 0, None, "not sent", 0.0)
        for number in count(1):
            if self.state["status"] != "ACTIVE":
                self.happened["not sent"] += 1
                return attempt
            attempt = await self.attempt(body, number=number)
            self._note(attempt)
            if attempt.acknowledged:
                return attempt
            age += attempt.latency
            pause = pause_before_retry(number, age=age, response_time=attempt.latency)
            if pause is None:
                self.happened["discarded"] += 1
                return attempt
            await asyncio.sleep(pause / self.time_factor)
            age += pause
        raise AssertionError  # the last attempt returned

    def _note(self, attempt: Attempt) -> None:
        now = time.monotonic()
        if attempt.acknowledged:
            self._failing_since = None
            return
        self._failing_since = self._failing_since or now
        if now - self._failing_since > _SWITCHED_OFF_AFTER / self.time_factor and self.state["status"] == "ACTIVE":
            self.state["status"] = "SYSTEM_DISABLED"
            self.happened["switched off"] += 1
            self._failing_since = None


class RepairSoak:
    """A soak of the repair.

    Attributes:
        system: Firestore, a proxy in front of it, and the function.
        runs: the outcomes of the runs of the repair.
    """

    def __init__(self, folder: Path, choice: Kind | None, seed: int, minutes: float, factor: float) -> None:
        """Start nothing but the proxy and the fake of DT's API."""
        self._rng = Random(f"repair {seed}")  # noqa: S311 - faults, no cryptography
        self._seconds, self._factor = minutes * 60, factor
        secret = secrets.token_urlsafe(32)
        self.system = FaultInjector(folder, choice, secret, seed, devices=False)
        self._bodies: list[dict[str, Any]] = []
        self._fleet = Fleet(_SENSORS, seed)
        self._api = PublishedHistory()
        self._api.project = PROJECT_ID
        labels = sorted({key for sensor in self._fleet.sensors for key in sensor.labels} | {"name"})
        state = self._api.connect(self.system.url, secret=secret, labels=labels)
        self.connector = SwitchedConnector(
            self.system.url, Signer(secret), time_factor=factor, api=self._api, state=state
        )
        self.runs: Counter[str] = Counter()

    def stop(self) -> None:
        """Stop all processes, the proxy and the fake."""
        self.system.stop()
        self._api.stop()

    async def run(self) -> list[str]:
        """Run the soak, and return what is wrong at its end."""
        end = time.monotonic() + self._seconds
        async with self.connector:
            playing = asyncio.create_task(self.connector.play(self._events(end)))
            repairing = asyncio.create_task(self._repair_regularly())
            try:
                while time.monotonic() < end:
                    await self._outage(self._rng.uniform(13, 20) * _HOUR)
                    await self._outage(self._rng.uniform(5.5, 7) * _DAY)
                await playing
            finally:
                for task in (playing, repairing):
                    task.cancel()
                    with suppress(asyncio.CancelledError):
                        await task
        self._api.faults.clear()
        self.system.proxy.otherwise = lambda: proxy.forward_only
        await self._repair_to_the_end()
        return await asyncio.to_thread(self._findings)

    def _events(self, end: float) -> Iterator[tuple[datetime, dict[str, Any]]]:
        known = set()
        for due, body in self._fleet.play(datetime.now(UTC), _RATE):
            if time.monotonic() >= end:
                return
            metadata = body["metadata"]
            if metadata["deviceId"] not in known:
                known.add(metadata["deviceId"])
                self._api.install(
                    metadata["deviceId"], metadata["deviceType"], metadata["productNumber"], **body["labels"]
                )
            self._bodies.append(body)
            yield due, body

    async def _outage(self, simulated: float) -> None:
        """Take the function down for a simulated time, after a time without a fault."""
        await asyncio.sleep(self._rng.uniform(0.5, 1.5))
        await asyncio.to_thread(self.system.function.kill)
        await asyncio.sleep(simulated / self._factor)
        await asyncio.to_thread(self.system.function.start)
        await asyncio.sleep(self._rng.uniform(1.0, 2.0) * _DAY / self._factor)

    # --- the repair --------------------------------------------------------------------------------------------------

    async def _repair_regularly(self) -> None:
        while True:
            await asyncio.sleep(max(_PERIOD / self._factor, 0.5))
            self._inject_faults()
            kill_after = self._rng.choice([None, None, self._rng.uniform(0.3, 3.0)])
            await asyncio.gather(*[self._repair(kill_after) for _ in range(self._rng.choice([1, 1, 2]))])

    def _inject_faults(self) -> None:
        rng, faults = self._rng, self._api.faults
        for kind in ("connectors", "devices", "events"):
            faults[kind].clear()
            faults[kind] += [_fault_of_dt(rng) for _ in range(rng.randrange(8))]
        codes = [StatusCode.UNAVAILABLE, StatusCode.ABORTED, StatusCode.DEADLINE_EXCEEDED]
        share = rng.choice([0.0, 0.02, 0.1])

        def choose() -> proxy.Fault:
            if rng.random() >= share:
                return proxy.forward_only
            return rng.choice([proxy.answer(rng.choice(codes)), proxy.commit_then(StatusCode.UNAVAILABLE)])

        self.system.proxy.otherwise = choose

    async def _repair(self, kill_after: float | None = None) -> dict[str, Any]:
        """Run a repair as a process, kill it after some seconds, and return its report; empty if it was killed."""
        arguments = ["repair", "--dt-project", PROJECT_ID, "--endpoint", self.system.url, "--rate", "500"]
        process = await asyncio.create_subprocess_exec(
            *[sys.executable, "-c", _RUN, str(self._factor), *arguments],
            env=os.environ
            | self._api.environ
            | {"FIRESTORE_EMULATOR_HOST": self.system.proxy.host, "GOOGLE_CLOUD_PROJECT": PROJECT},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(kill_after):
                out, _ = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            self.runs["killed"] += 1
            return {}
        except asyncio.CancelledError:
            process.kill()
            raise
        report: dict[str, Any] = json.loads(out.splitlines()[-1])
        self.runs[report["outcome"]] += 1
        self.runs["added"] += report["added"]
        self.runs["revived"] += bool(report["connector"].get("revived"))
        return report

    async def _repair_to_the_end(self) -> None:
        for _ in range(_LAST_RUNS):
            report = await self._repair()
            if report["outcome"] == "complete" and report["connector"]["status"] == "ACTIVE" and not report["added"]:
                return

    # --- the ledger --------------------------------------------------------------------------------------------------

    def _findings(self) -> list[str]:
        """Compare each event that was published with its document."""
        published = {body["event"]["eventId"]: body for body in self._bodies}
        findings, found = Counter[str](), set()
        for document in documents(Client(PROJECT), "events"):
            found.add(document.id)
            findings["written twice"] += document.create_time != document.update_time
            body = published.get(document.id)
            if body is None:
                findings["never published"] += 1
            elif canonical(_unstamped(document.to_dict() or {})) != canonical(expected(encode(body))):
                findings["different"] += 1
        findings["missing"] = len(published.keys() - found)
        state = self.connector.state["status"]
        active = [] if state == "ACTIVE" else [f"the Data Connector is {state}"]
        return [f"{number} {what}" for what, number in findings.items() if number] + active

    def report(self, findings: Sequence[str]) -> None:
        """Print what happened, and what is wrong."""
        counters = self.connector.counters
        print(f"{len(self._bodies)} events published, {counters.success} deliveries accepted, {counters.error} failed")
        print("Data Connector:", dict(self.connector.happened))
        print("Repair:", dict(self.runs))
        print("CLEAN: every event is stored once, and the Data Connector is active." if not findings else "NOT CLEAN:")
        for finding in findings:
            print(f"  {finding}")


def _unstamped(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in ("receivedAt", "backfilledAt")}


def _fault_of_dt(rng: Random) -> dt_api.Fault:
    """Draw a fault of DT's; most requests are answered."""
    faults = [
        dt_api.answer(500),
        dt_api.answer(503),
        dt_api.answer(429),
        dt_api.answer(429, Retry_After="1"),
        dt_api.truncate_json,
        dt_api.truncate_body,
        dt_api.revoke_tokens,
        dt_api.refuse_page_token,
    ]
    return rng.choice([dt_api.pass_through, rng.choice(faults)])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the soak and return its exit status; `argv` defaults to the arguments of the process."""
    return command_line.run(_soak, argv, name=_NAME)


@click.command(
    epilog=command_line.examples(
        f"{_NAME} --minutes 0.4 --time-factor 86400 --store embedded", f"{_NAME} --minutes 15 --seed 7"
    )
)
@click.option("--minutes", metavar="N", type=POSITIVE, default=10.0, show_default=True, help="How long to make events.")
@click.option("--seed", metavar="S", type=int, help="Repeat the faults of this seed. Default: new ones.")
@click.option("--store", type=click.Choice(["emulator", "embedded"]), help="Default: the emulator if available.")
@click.option("--time-factor", metavar="F", type=POSITIVE, default=8640.0, show_default=True, help="Divide times by F.")
def _soak(*, minutes: float, seed: int | None, store: Kind | None, time_factor: float) -> int:
    """Let a Data Connector lose events, and check that the scheduled repair brings each of them back.

    With the default time factor a day takes 10 s: the connector discards an event after 5 s, and DT switches it off
    after 50 s of failures. The function is down for 13 to 20 hours and for 5 to 7 days by turns.

    Exit status: 0 if every event is stored once and the connector is active; 1 if not; 2 for a wrong argument.
    """
    folder = Path(tempfile.mkdtemp(prefix="soak-repair-"))
    soak = RepairSoak(folder, store, secrets.randbelow(10**6) if seed is None else seed, minutes, time_factor)
    page, dt_api.MAX_PAGE = dt_api.MAX_PAGE, 10
    try:
        soak.system.start()
        findings = asyncio.run(soak.run())
    finally:
        dt_api.MAX_PAGE = page
        soak.stop()
    soak.report(findings)
    if not findings:
        shutil.rmtree(folder)
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main())
