"""The soak: a Data Connector with all its bad days against the function and its Firestore with all of theirs."""

import argparse
import asyncio
import json
import resource
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from heapq import merge
from itertools import takewhile
from pathlib import Path
from random import Random
from typing import Any

from google.cloud.firestore import Client
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from local.emulator import StoreUnavailable
from local.processes import PartError
from simulator import faults
from simulator.commands import Problem, counters_line
from simulator.faulty_connector import FaultyConnector
from simulator.fleet import Fleet
from tests.soak.fault_injector import PROJECT, Trouble
from tests.soak.ledger import Account, Ledger, documents
from tests.soak.schedule import KINDS, SEGMENT_MINUTES, Episode, draw_plan

_QUIET_SECONDS = 2.0  # longer than any pause of the function's between two attempts at a commit
_PLAIN_PROGRESS_SECONDS = 5.0
_BURST_MINUTES = 10.0  # from this length on a segment's bursts have their full size
_BACKFILL, _MORNING = 3000, 10_000


def run(arguments: argparse.Namespace) -> int:
    """Run a soak and print its ledger.

    Args:
        arguments: those of `commands.configure_soak`.

    Returns:
        0 if every promise held, else 1.

    Raises:
        Problem: the Firestore that was asked for cannot be had, or the file cannot be written.
    """
    if arguments.seed is None:
        arguments.seed = secrets.randbelow(10**6)
    if arguments.json:
        _check_writable(arguments.json)
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    soak = Soak(arguments, folder)
    try:
        soak.trouble.start()
        asyncio.run(soak.run())
    except KeyboardInterrupt:
        shutil.rmtree(folder)
        raise
    except StoreUnavailable as error:
        raise Problem(str(error)) from None
    except PartError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        soak.end()
    soak.report(arguments.json)
    if soak.account.clean:
        shutil.rmtree(folder)
        return 0
    print(f"What the parts said is in {folder}")
    return 1


def _check_writable(file: Path) -> None:
    try:
        file.touch()
    except OSError as error:
        raise Problem(f"--json {file}: {error.strerror}") from None


class Soak:
    """One run.

    Attributes:
        trouble: the system, and what breaks it.
        account: the figures so far.
    """

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        """Prepare it.

        Args:
            arguments: those of `configure`.
            folder: for the files of the parts and of the ledger.
        """
        secret = secrets.token_urlsafe(32)
        self._arguments = arguments
        self._ledger = Ledger(folder / "ledger.sqlite3")
        self.account = Account()
        self.trouble = Trouble(folder, arguments.store, secret, arguments.seed)
        self._connector = FaultyConnector(
            self.trouble.url,
            secret,
            time_factor=arguments.time_factor,
            fresh_tokens=not arguments.same_token,
            rates=faults.rates(arguments),
            rng=Random(f"faults {arguments.seed}"),  # noqa: S311 - faults, no cryptography
            witness=self._ledger,
        )
        self._fleet = Fleet(arguments.sensors, arguments.seed)
        self._plan: list[Episode] = []
        self._begun = time.monotonic()
        self._doing = "starting"

    async def run(self) -> None:
        """Play all segments, and show the progress."""
        showing = asyncio.create_task(self._show_progress())
        try:
            for number, plan in enumerate(self._segments()):
                self._plan += plan
                await self._play_segment(number, plan)
        finally:
            showing.cancel()

    def _segments(self) -> Iterator[list[Episode]]:
        """Yield each segment's plan: one for the stand-in, whose documents survive; several for the emulator."""
        seconds, lasting = self._arguments.minutes * 60, self.trouble.kind == "embedded"
        kinds = [kind for kind in self._arguments.only or KINDS if lasting or kind != "kill Firestore"]
        number = 1 if lasting else max(1, round(self._arguments.minutes / SEGMENT_MINUTES))
        for segment in range(number):
            plan = draw_plan(f"{self._arguments.seed} {segment}", seconds / number, kinds) if kinds else []
            if not lasting and (not self._arguments.only or "kill Firestore" in self._arguments.only):
                plan.insert(0, Episode("kill Firestore", 0.0, 1.0, 1.0))
            yield plan

    def end(self) -> None:
        """End all parts, and close the ledger."""
        self.trouble.end()
        self._ledger.close()

    async def _play_segment(self, number: int, plan: Sequence[Episode]) -> None:
        ended = asyncio.Event()
        events = takewhile(lambda _: not ended.is_set(), self._events(number))
        async with self._connector:
            playing = asyncio.create_task(self._connector.play(events))
            try:
                self._doing = "breaking things"
                for episode in plan:
                    await self.trouble.make(episode)
            except BaseException:
                playing.cancel()
                await asyncio.gather(playing, return_exceptions=True)
                raise
            ended.set()
            self._doing = "waiting for the last retries"
            await playing
        await self._quiet()
        self._doing = "settling the ledger"
        self.account.add(await asyncio.to_thread(self._settle))

    def _events(self, number: int) -> Iterator[tuple[datetime, dict[str, Any]]]:
        """Merge the fleet's events with the segment's bursts: some way in, not all at the start."""
        now, rng = datetime.now(UTC), Random(f"bursts {self._arguments.seed} {number}")  # noqa: S311 - no cryptography
        length = timedelta(minutes=self._arguments.minutes)
        size = min(1.0, self._arguments.minutes / _BURST_MINUTES)
        backfill = self._arguments.backfill or round(_BACKFILL * size)
        morning = self._arguments.morning or round(_MORNING * size)
        streams = (
            self._fleet.play(now, self._arguments.rate),
            faults.backfilled(backfill, rng, now + min(length / 4, timedelta(minutes=1))),
            faults.morning(morning, rng, now + min(length / 2, timedelta(minutes=2))),
        )
        return merge(*streams, key=lambda item: item[0])

    async def _quiet(self) -> None:
        """Wait until the function, whose clients may be gone, has done what it had begun."""
        calls, since = -1, time.monotonic()
        while time.monotonic() - since < _QUIET_SECONDS:
            if not self.trouble.proxy.idle or self.trouble.proxy.calls != calls:
                calls, since = self.trouble.proxy.calls, time.monotonic()
            await asyncio.sleep(0.1)

    def _settle(self) -> Account:
        client = Client(PROJECT)
        return self._ledger.settle(documents(client, "events"), documents(client, "events_quarantine"))

    async def _show_progress(self) -> None:
        console = Console()
        if not console.is_terminal:
            while True:
                print(f"{time.monotonic() - self._begun:6.0f} s  {self._line()}", flush=True)
                await asyncio.sleep(_PLAIN_PROGRESS_SECONDS)
        columns = (SpinnerColumn(), TimeElapsedColumn(), BarColumn(20), TextColumn("{task.description}", markup=False))
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("", total=self._arguments.minutes * 60)
            while True:
                elapsed = time.monotonic() - self._begun
                progress.update(task, completed=elapsed, description=self._line())
                await asyncio.sleep(0.2)

    def _line(self) -> str:
        return f"[{self.trouble.under_way or self._doing}] {counters_line(self._connector.counters)}"

    def report(self, file: Path | None) -> None:
        """Print the ledger, and write it.

        Args:
            file: for JSON; None writes none.
        """
        figures = self._figures()
        print(
            f"\nSeed {figures['seed']}, {figures['minutes']:g} minutes of making events, {figures['store']}, ", end=""
        )
        print(f"time shortened {figures['timeFactor']:g} times, sender's peak memory {figures['peakMemoryMB']} MB")
        print(f"Data Connector: {counters_line(self._connector.counters, latencies=True)}")
        print("Broken:", ", ".join(f"{kind} {number}" for kind, number in sorted(figures["broken"].items())))
        print("Calls to Firestore:", figures["calls"], "of which bent:", figures["callsBent"])
        print("Sent wrong:", ", ".join(f"{name} {number}" for name, number in figures["sentWrong"].items()))
        print("", *self.account.lines(), "", sep="\n")
        print("CLEAN: every promise holds." if self.account.clean else "NOT CLEAN.")
        if file:
            file.write_text(json.dumps(figures, indent=2) + "\n")

    def _figures(self) -> dict[str, Any]:
        return {
            "seed": self._arguments.seed,
            "minutes": self._arguments.minutes,
            "seconds": round(time.monotonic() - self._begun, 1),
            "store": self.trouble.kind,
            "timeFactor": self._arguments.time_factor,
            "peakMemoryMB": _peak_memory() // 2**20,
            "broken": dict(self.trouble.happened),
            "calls": self.trouble.proxy.calls,
            "callsBent": self.trouble.proxy.bent,
            "sentWrong": self._connector.happened,
            "plan": [episode.kind for episode in self._plan],
            "ledger": dict(self.account.counts),
            "keys": self.account.keys,
            "clean": self.account.clean,
        }


def _peak_memory() -> int:
    """Return the most memory that this process had so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
