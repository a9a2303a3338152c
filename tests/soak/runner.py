"""Runs a soak: a Data Connector with faults delivers events while faults are injected into function and Firestore."""

import asyncio
import json
import resource
import secrets
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from heapq import merge
from itertools import takewhile
from pathlib import Path
from random import Random
from typing import Any

import click
from google.cloud.firestore import Client
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from local.emulator import StoreUnavailable
from local.options import Kind
from local.processes import ProcessError
from simulator import faults
from simulator.connector import Attempt
from simulator.faulty_connector import FaultyConnector
from simulator.fleet import Fleet
from simulator.sensors import ORGANIZATION_ID
from tests.soak.fault_injector import FAULTS, PROJECT, FaultInjector
from tests.soak.forger import Forger
from tests.soak.ledger import Account, Ledger, documents
from tests.soak.schedule import SEGMENT_MINUTES, Episode, draw_schedule
from tests.soak.signer import MixedSigner, proof_of

_QUIET_SECONDS = 2.0  # longer than any pause of the function between two attempts of a commit
_PROGRESS_SECONDS = 5.0  # between progress lines when the output is not a terminal
_BURST_MINUTES = 10.0  # the length from which a segment's bursts have their full size
_BACKFILL, _MORNING = 3000, 10_000


@dataclass(frozen=True, slots=True)
class Settings:
    """The options of the command line.

    Attributes:
        minutes: how long events are made.
        seed: of the schedule, the events and the sender's faults.
        store: the Firestore; None is the emulator, or else the embedded store.
        json: file for the figures.
        rate: events a second.
        sensors: the size of the fleet.
        devices: whether the function keeps the newest state of each device.
        time_factor: divides the pauses of the Data Connector.
        only: the kinds of faults to inject; empty for all.
        wanted: the sender's faults.
    """

    minutes: float
    seed: int
    store: Kind | None
    json: Path | None
    rate: float
    sensors: int
    devices: bool
    time_factor: float
    only: Sequence[str]
    wanted: faults.Settings


def run(settings: Settings) -> int:
    """Run a soak and print its ledger.

    Returns:
        0 if every promise held, else 1.

    Raises:
        click.UsageError: the chosen Firestore is not available, or the file cannot be written.
        click.ClickException: a process did not start.
    """
    if settings.json:
        _check_writable(settings.json)
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    soak = Soak(settings, folder)
    try:
        soak.system.start()
        asyncio.run(soak.run())
    except KeyboardInterrupt:
        shutil.rmtree(folder)
        raise
    except StoreUnavailable as error:
        raise click.UsageError(str(error)) from None
    except ProcessError as error:
        raise click.ClickException(str(error)) from None
    finally:
        soak.stop()
    soak.report()
    if soak.account.clean:
        shutil.rmtree(folder)
        return 0
    print(f"The logs are in {folder}")
    return 1


def _check_writable(file: Path) -> None:
    try:
        file.touch()
    except OSError as error:
        raise click.UsageError(f"--json {file}: {error.strerror}") from None


class Soak:
    """A soak.

    Args:
        folder: for the files of the processes and of the ledger.

    Attributes:
        system: Firestore, proxy and function.
        account: of the segments that have ended.
    """

    def __init__(self, settings: Settings, folder: Path) -> None:
        """Starts nothing but the proxy."""
        secret = secrets.token_urlsafe(32)
        self._settings = settings
        self._ledger = Ledger(folder / "ledger.sqlite3")
        self.account = Account()
        self.system = FaultInjector(folder, settings.store, secret, settings.seed, devices=settings.devices)
        self._connector = FaultyConnector(
            self.system.url,
            MixedSigner(secret, lambda: self.system.provider.key, ORGANIZATION_ID),
            time_factor=settings.time_factor,
            fresh_tokens=not settings.wanted.same_token,
            rates=settings.wanted.rates,
            rng=Random(f"faults {settings.seed}"),  # noqa: S311 - faults, no cryptography
            observer=self._ledger,
            on_attempt=self._count_proof,
        )
        self._proofs: Counter[str] = Counter()
        self._forger = Forger(self._connector, self.system, self._ledger, Random(settings.seed))  # noqa: S311 - values
        self._fleet = Fleet(settings.sensors, settings.seed)
        self._schedule: list[Episode] = []
        self._start = time.monotonic()
        self._step = "starting"

    async def run(self) -> None:
        """Run all segments and show the progress."""
        progress = asyncio.create_task(self._show_progress())
        try:
            for number, schedule in enumerate(self._segments()):
                self._schedule += schedule
                await self._run_segment(number, schedule)
        finally:
            progress.cancel()
        self.account.add(self._forger.account)
        for _ in range(self.system.stranger.requests):
            self.account.note("keys fetched from a stranger", self.system.stranger.issuer)

    def _count_proof(self, attempt: Attempt) -> None:
        self._proofs[proof_of(attempt.body)] += attempt.acknowledged

    def _segments(self) -> Iterator[list[Episode]]:
        """Yield each segment's schedule: one for the embedded store, which keeps its documents; else several."""
        durable = self.system.kind == "embedded"
        wanted = self._settings.only or FAULTS
        kinds = {kind: FAULTS[kind].seconds for kind in wanted if durable or kind != "kill Firestore"}
        number = 1 if durable else max(1, round(self._settings.minutes / SEGMENT_MINUTES))
        for segment in range(number):
            seconds = self._settings.minutes * 60 / number
            schedule = draw_schedule(f"{self._settings.seed} {segment}", seconds, kinds) if kinds else []
            if not durable and "kill Firestore" in wanted:
                schedule.insert(0, Episode("kill Firestore", 0.0, 1.0, 1.0))
            yield schedule

    def stop(self) -> None:
        """Stop the system and close the ledger."""
        self.system.stop()
        self._ledger.close()

    async def _run_segment(self, number: int, schedule: Sequence[Episode]) -> None:
        ended = asyncio.Event()
        events = takewhile(lambda _: not ended.is_set(), self._events(number))
        async with self._connector:
            playing = asyncio.create_task(self._connector.play(events))
            attack = asyncio.create_task(self._forger.attack())
            try:
                self._step = "no fault"
                for episode in schedule:
                    await self.system.inject(episode)
            except BaseException:
                playing.cancel()
                await asyncio.gather(playing, return_exceptions=True)
                raise
            finally:
                attack.cancel()
                with suppress(asyncio.CancelledError):
                    await attack
            ended.set()
            self._step = "waiting for the last retries"
            await playing
        await self._wait_until_idle()
        self._step = "comparing"
        self.account.add(await asyncio.to_thread(self._settle))

    def _events(self, number: int) -> Iterator[tuple[datetime, dict[str, Any]]]:
        """Merge the fleet's events with the segment's bursts, which do not begin at once."""
        settings, now = self._settings, datetime.now(UTC)
        rng = Random(f"bursts {settings.seed} {number}")  # noqa: S311 - no cryptography
        length = timedelta(minutes=settings.minutes)
        size = min(1.0, settings.minutes / _BURST_MINUTES)
        backfill = settings.wanted.backfill or round(_BACKFILL * size)
        morning = settings.wanted.morning or round(_MORNING * size)
        streams = (
            self._fleet.play(now, settings.rate),
            faults.backfilled(backfill, rng, now + min(length / 4, timedelta(minutes=1))),
            faults.morning(morning, rng, now + min(length / 2, timedelta(minutes=2))),
        )
        return merge(*streams, key=lambda item: item[0])

    async def _wait_until_idle(self) -> None:
        """Wait until the function has finished what it began, even for clients that have closed their connections."""
        calls, since = -1, time.monotonic()
        while time.monotonic() - since < _QUIET_SECONDS:
            if not self.system.proxy.idle or self.system.proxy.calls != calls:
                calls, since = self.system.proxy.calls, time.monotonic()
            await asyncio.sleep(0.1)

    def _settle(self) -> Account:
        client = Client(PROJECT)
        collections = ["events", "events_quarantine", *(["devices"] if self._settings.devices else [])]
        return self._ledger.settle(*(documents(client, collection) for collection in collections))

    async def _show_progress(self) -> None:
        console = Console()
        if not console.is_terminal:
            while True:
                print(f"{time.monotonic() - self._start:6.0f} s  {self._line()}", flush=True)
                await asyncio.sleep(_PROGRESS_SECONDS)
        columns = (SpinnerColumn(), TimeElapsedColumn(), BarColumn(20), TextColumn("{task.description}", markup=False))
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("", total=self._settings.minutes * 60)
            while True:
                progress.update(task, completed=time.monotonic() - self._start, description=self._line())
                await asyncio.sleep(0.2)

    def _line(self) -> str:
        return f"[{self.system.active or self._step}] {self._connector.counters.line()}"

    def report(self) -> None:
        """Print the figures and the ledger, and write the JSON file."""
        figures = self._figures()
        print(f"\nSeed {figures['seed']}, {figures['minutes']:g} minutes of events, {figures['store']},", end=" ")
        print(f"time factor {figures['timeFactor']:g}, sender's peak memory {figures['peakMemoryMB']} MB")
        print(f"Data Connector: {self._connector.counters.line(latencies=True)}")
        print("Faults injected:", _list(dict(sorted(figures["faults"].items()))))
        print("Calls to Firestore:", figures["calls"], "of which faulted:", figures["callsFaulted"])
        print("Sender's faults:", _list(figures["senderFaults"]))
        print("Acknowledged, signed by:", _list(figures["proofs"]))
        print("Forged public-key tokens:", _list(figures["forgeries"]))
        print("Requests for keys:", figures["keyRequests"])
        print("", *self.account.lines(), "", sep="\n")
        print("CLEAN: every promise holds." if self.account.clean else "NOT CLEAN.")
        if self._settings.json:
            self._settings.json.write_text(json.dumps(figures, indent=2) + "\n")

    def _figures(self) -> dict[str, Any]:
        return {
            "seed": self._settings.seed,
            "minutes": self._settings.minutes,
            "seconds": round(time.monotonic() - self._start, 1),
            "store": self.system.kind,
            "timeFactor": self._settings.time_factor,
            "peakMemoryMB": _peak_memory() // 2**20,
            "faults": dict(self.system.happened),
            "calls": self.system.proxy.calls,
            "callsFaulted": self.system.proxy.faulted,
            "senderFaults": self._connector.happened,
            "proofs": dict(self._proofs),
            "forgeries": dict(self._forger.sent),
            "keyRequests": self.system.provider.requests,
            "schedule": [episode.kind for episode in self._schedule],
            "ledger": dict(self.account.counts),
            "keys": self.account.keys,
            "clean": self.account.clean,
        }


def _list(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in counts.items())


def _peak_memory() -> int:
    """Return this process's peak memory in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
