"""Takes all measurements of a run, interleaved: a disturbance of the machine affects every contender alike."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from benchmarks.contenders import CONTENDERS, OURS
from benchmarks.imports import import_times
from benchmarks.sample import Load
from benchmarks.serving import ContenderError, RunningContender, environment, serve, serve_store, start_seconds
from benchmarks.usage import memory
from local.processes import ROOT

_SOAK_SLICE, _SOAK_CONCURRENCY = 10_000, 80
_WARM_UP = 200, 16, 2.0  # events, concurrency, seconds at most


@dataclass(frozen=True, slots=True)
class Settings:
    """What to measure.

    Attributes:
        contenders: their names.
        stores: their names.
        concurrency: numbers of requests in flight, each measured on its own.
        rounds: how often every combination of the above is measured.
        events: at most, per measurement.
        seconds: at most, per measurement.
        starts: how often each contender is started, for the time to its first 200.
        soak_events: events for one process of this project's function, which is then compared with new ones; 0 for no
            soak.
    """

    contenders: Sequence[str]
    stores: Sequence[str]
    concurrency: Sequence[int]
    rounds: int
    events: int
    seconds: float
    starts: int
    soak_events: int


def measure(settings: Settings) -> dict[str, Any]:
    """Take all measurements, and name each on standard error.

    Returns:
        The raw figures, ready for JSON: `samples`, `memory`, `starts` (ms), `imports` (ms) and `soak`.

    Raises:
        ContenderError: a contender did not answer 200.
        ProcessError: a process did not start.
        StoreUnavailable: no emulator is available.
    """
    figures: dict[str, Any] = {"samples": [], "memory": []}
    with TemporaryDirectory() as name:
        folder = Path(name)
        for store in settings.stores:
            with serve_store(store, folder) as host:
                _compare(settings, store, host, folder, figures)
        with serve_store("instant", folder) as host:
            figures["starts"] = list(_starts(settings, host))
            figures["imports"] = list(_imports(settings, host))
            figures["soak"] = list(_soak(settings, host, folder))
    return figures


def _compare(settings: Settings, store: str, host: str, folder: Path, figures: dict[str, Any]) -> None:
    with ExitStack() as stack:
        contenders = [stack.enter_context(serve(CONTENDERS[name], host, folder)) for name in settings.contenders]
        for one in contenders:
            _sample(one, *_WARM_UP)
        for number in range(settings.rounds):
            for concurrency in settings.concurrency:
                for one in contenders:
                    name = one.contender.name
                    click.echo(
                        f"{store}, round {number + 1} of {settings.rounds}: {name}, {concurrency} at once", err=True
                    )
                    sample = _sample(one, settings.events, concurrency, settings.seconds)
                    about = {"store": store, "contender": name, "round": number, "concurrency": concurrency}
                    figures["samples"].append({**about, **sample})
            contenders.append(contenders.pop(0))  # another one is first in the next round
        for one in contenders:
            if one.pid:
                about = {"store": store, "contender": one.contender.name}
                figures["memory"].append({**about, "idle": one.idle, **memory(one.pid)})


def _sample(running: RunningContender, events: int, concurrency: int, seconds: float) -> dict[str, Any]:
    client = running.contender.kind == "client"
    command = [sys.executable, "-m", "benchmarks.contenders.commit_only" if client else "benchmarks.load"]
    load = json.dumps(asdict(Load(running.host, running.pid, events, concurrency, seconds, running.key_file)))
    finished = subprocess.run(command, cwd=ROOT, input=load, capture_output=True, text=True, check=False)
    if finished.returncode:
        last = "".join(finished.stderr.strip().splitlines()[-1:])
        raise ContenderError(f"{running.contender.name}, concurrency {concurrency}: {last}")
    sample: dict[str, Any] = json.loads(finished.stdout)
    return sample


def _starts(settings: Settings, host: str) -> Iterator[dict[str, Any]]:
    for _ in range(settings.starts):
        for name in settings.contenders:
            click.echo(f"start of {name}", err=True)
            if CONTENDERS[name].kind != "client":
                yield {"contender": name, "ms": 1000 * start_seconds(CONTENDERS[name], host)}


def _imports(settings: Settings, host: str) -> Iterator[dict[str, Any]]:
    for name in settings.contenders:
        click.echo(f"imports of {name}", err=True)
        source, environ = CONTENDERS[name].source, environment(CONTENDERS[name], host)
        fastest = min((import_times(source, environ) for _ in range(settings.starts)), key=Counter.total)
        packages = {package: micros / 1000 for package, micros in fastest.most_common(10)}
        yield {"contender": name, "ms": fastest.total() / 1000, "packages": packages}


def _soak(settings: Settings, host: str, folder: Path) -> Iterator[dict[str, Any]]:
    """Send many events to one process, then compare it with new processes, in turn."""
    if not settings.soak_events:
        return
    with serve(CONTENDERS[OURS], host, folder) as old:
        for done in range(0, settings.soak_events, _SOAK_SLICE):
            click.echo(f"soak, {done:,} of {settings.soak_events:,} events", err=True)
            yield {"process": "ageing", **_soak_slice(old, settings.soak_events - done)}
        for number in range(settings.rounds):
            click.echo(f"soak, old and new process, round {number + 1} of {settings.rounds}", err=True)
            with serve(CONTENDERS[OURS], host, folder) as new:
                for process, running in (("old", old), ("new", new))[:: 1 if number % 2 else -1]:
                    yield {"process": process, **_soak_slice(running, settings.soak_events)}


def _soak_slice(running: RunningContender, most: int) -> dict[str, Any]:
    sample = _sample(running, min(_SOAK_SLICE, most), _SOAK_CONCURRENCY, float("inf"))
    return {**sample, **memory(running.pid)}
