"""Takes all measurements of one run, interleaved: what disturbs the machine disturbs every contender alike."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.contenders import CONTENDERS, OURS, Contender
from benchmarks.events import make_requests
from benchmarks.usage import memory
from local.emulator import running_store, speaks_http2
from local.function import local_environ
from local.processes import ROOT, accepts, free_port, running, stop
from tests.signing import SECRET

STORES = {"instant": 0, "20ms": 20, "emulator": None}  # delay of the stand-in, in ms
SOAK_SLICE, SOAK_CONCURRENCY = 10_000, 80
_WARM_UP = 200, 16, 2.0  # events, at once, seconds at most
_FIRST_ANSWER = 60.0  # seconds
_IMPORT = re.compile(r"import time: +(\d+) \| +(\d+) \|( *)(\S+)")

Say = Callable[[str], None]


class Failed(Exception):
    """Raised if a contender or the load generator fails; the text is one line for a person."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure.

    Attributes:
        contenders: names of those who take part.
        stores: names of the storage sides.
        concurrency: how many requests at a time, one measurement each.
        rounds: how often all that is measured.
        events: most events a measurement.
        seconds: longest measurement.
        starts: how often each contender is started for the time to its first 200.
        soak_events: events for one process of this project's function, which is then compared with fresh ones; 0 for
            none.
    """

    contenders: Sequence[str]
    stores: Sequence[str]
    concurrency: Sequence[int]
    rounds: int
    events: int
    seconds: float
    starts: int
    soak_events: int

    @property
    def steps(self) -> int:
        """How many measurements there are, for a progress bar."""
        contenders, soak = len(self.contenders), -(-self.soak_events // SOAK_SLICE)
        comparisons = self.rounds if soak else 0
        return (
            contenders * (self.rounds * len(self.stores) * len(self.concurrency) + self.starts + 1) + soak + comparisons
        )

    def taking_part(self) -> list[Contender]:
        """Return the contenders."""
        return [CONTENDERS[name] for name in self.contenders]


@dataclass(frozen=True, slots=True)
class Side:
    """The storage side of a measurement.

    Attributes:
        store: its name.
        host: `HOST:PORT` of its gRPC service.
        folder: where the logs of those who use it go.
    """

    store: str
    host: str
    folder: Path


@dataclass(frozen=True, slots=True)
class Served:
    """A contender that answers, or a client, of which nothing is running yet.

    Attributes:
        contender: which one.
        host: `HOST:PORT` where it answers; of a client, the store's.
        session: id of the session of its processes; 0 for a client.
        rest: its resident memory after the first answer, in MiB.
    """

    contender: Contender
    host: str
    session: int = 0
    rest: float = 0


def measure(plan: Plan, say: Say) -> dict[str, Any]:
    """Take all measurements.

    Args:
        plan: what to measure.
        say: is told each measurement before it is taken.

    Returns:
        The raw figures, as JSON has them: `samples`, `memory` and `starts` (ms) a contender, `imports` (ms), `soak`.

    Raises:
        Failed: a contender did not answer as it should.
        PartError: a process did not start.
        StoreUnavailable: there is no emulator.
    """
    figures: dict[str, Any] = {"samples": [], "memory": [], "starts": [], "imports": [], "soak": []}
    with TemporaryDirectory() as name:
        folder = Path(name)
        for store in plan.stores:
            with _running(store, folder) as side:
                _compare(plan, side, figures, say)
        with _running("instant", folder) as side:
            figures["starts"] = list(_starts(plan, side, say))
            figures["imports"] = list(_imports(plan, side, say))
            figures["soak"] = list(_soak(plan, side, say))
    return figures


@contextmanager
def _running(store: str, folder: Path) -> Iterator[Side]:
    delay = STORES[store]
    if delay is None:
        with running_store("emulator", file=folder / "store") as emulator:
            yield Side(store, emulator.host, folder)
        return
    host = f"127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "benchmarks.instant", f"--port={port}", f"--delay={delay}"]
    ready = lambda: speaks_http2(host)  # noqa: E731 - a line is enough
    with running("The stand-in", command, log=folder / "store.log", environ=os.environ, ready=ready):
        yield Side(store, host, folder)


def _compare(plan: Plan, side: Side, figures: dict[str, Any], say: Say) -> None:
    with ExitStack() as stack:
        served = [stack.enter_context(serve(contender, side)) for contender in plan.taking_part()]
        for one in served:
            _sample(one, *_WARM_UP)
        for number in range(plan.rounds):
            for concurrency in plan.concurrency:
                for one in served:
                    say(f"{side.store}, round {number + 1}: {one.contender.name}, {concurrency} at once")
                    sample = _sample(one, plan.events, concurrency, plan.seconds)
                    about = {"store": side.store, "contender": one.contender.name, "round": number}
                    figures["samples"].append({**about, "concurrency": concurrency, **sample})
            served.append(served.pop(0))  # nobody is always first
        figures["memory"] += [{"store": side.store, **_memory(one)} for one in served if one.session]


@contextmanager
def serve(contender: Contender, side: Side) -> Iterator[Served]:
    """Serve a contender for the time of a block; it has stored its first event.

    Args:
        contender: which one.
        side: where it stores.

    Yields:
        The contender.

    Raises:
        Failed: it did not acknowledge its first event.
        PartError: it did not start.
    """
    if contender.kind == "client":
        yield Served(contender, side.host)
        return
    port, log = free_port(), side.folder / f"{contender.name}.log"
    command, environ = contender.command(port), _environ(contender, side.host)
    with running(contender.name, command, log=log, environ=environ, ready=lambda: accepts(port)) as part:
        _first_answer(port, part.process, contender.name)
        session = part.process.pid
        yield Served(contender, f"127.0.0.1:{port}", session, memory(session).now)


def _environ(contender: Contender, host: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name not in ("FUNCTION_USE_ASGI", "THREADS")}
    own = {**contender.environ, "PYTHONPATH": str(ROOT)}
    return {**local_environ(inherited, host=host, secret=SECRET), **own}


def _memory(served: Served) -> dict[str, Any]:
    return {"contender": served.contender.name, "rest": served.rest, **asdict(memory(served.session))}


def _sample(served: Served, events: int, concurrency: int, seconds: float) -> dict[str, Any]:
    module = "benchmarks.contenders.commit_only" if served.contender.kind == "client" else "benchmarks.load"
    command = [sys.executable, "-m", module, f"--host={served.host}", f"--session={served.session}"]
    command += [f"--events={events}", f"--concurrency={concurrency}", f"--seconds={seconds}"]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if finished.returncode:
        last = finished.stderr.strip().splitlines()[-1:]
        raise Failed(f"{served.contender.name}, {concurrency} at once: {' '.join(last)}")
    sample: dict[str, Any] = json.loads(finished.stdout)
    return sample


def _starts(plan: Plan, side: Side, say: Say) -> Iterator[dict[str, Any]]:
    for _ in range(plan.starts):
        for contender in plan.taking_part():
            say(f"start of {contender.name}")
            if contender.kind != "client":
                yield {"contender": contender.name, "ms": 1000 * _start(contender, side)}


def _start(contender: Contender, side: Side) -> float:
    """Return the seconds from the start of the process to its first 200."""
    port = free_port()
    with (side.folder / "start.log").open("wb") as log:
        started = time.perf_counter()
        process = subprocess.Popen(
            contender.command(port),
            cwd=ROOT,
            env=_environ(contender, side.host),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            _first_answer(port, process, contender.name)
            return time.perf_counter() - started
        finally:
            stop(process)


def _first_answer(port: int, process: subprocess.Popen[bytes], name: str) -> None:
    (request,) = make_requests(1)
    limit = time.monotonic() + _FIRST_ANSWER
    while time.monotonic() < limit and process.poll() is None:
        with suppress(ConnectionError), socket.create_connection(("127.0.0.1", port), timeout=_FIRST_ANSWER) as server:
            server.sendall(request)
            answer = server.recv(1024)
            if not answer.startswith(b"HTTP/1.1 200 "):
                raise Failed(f"{name} did not answer 200, but {answer[:60]!r}")
            return
        time.sleep(0.002)
    raise Failed(f"{name} did not start")


def _imports(plan: Plan, side: Side, say: Say) -> Iterator[dict[str, Any]]:
    for contender in plan.taking_part():
        say(f"imports of {contender.name}")
        fastest = min((_import(contender, side) for _ in range(plan.starts)), key=Counter.total)
        packages = {package: micros / 1000 for package, micros in fastest.most_common(10)}
        yield {"contender": contender.name, "ms": fastest.total() / 1000, "packages": packages}


def _import(contender: Contender, side: Side) -> Counter[str]:
    """Return the microseconds that importing the contender's file takes, by package."""
    code = f"import runpy; runpy.run_path({str(contender.source)!r}, run_name='contender')"
    command = [sys.executable, "-X", "importtime", "-c", code]
    environ = _environ(contender, side.host)
    finished = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=True)
    packages = Counter[str]()
    for own, _, _, module in _IMPORT.findall(finished.stderr):
        packages[_package(module)] += int(own)
    return packages


def _package(module: str) -> str:
    parts = module.split(".")
    return ".".join(parts[: 3 if parts[0] == "google" else 1])


def _soak(plan: Plan, side: Side, say: Say) -> Iterator[dict[str, Any]]:
    """Send many events through one process, then some through it and, in turn, through fresh ones."""
    if not plan.soak_events:
        return
    with serve(CONTENDERS[OURS], side) as old:
        for done in range(0, plan.soak_events, SOAK_SLICE):
            say(f"soak, {done:,} of {plan.soak_events:,} events")
            yield {"process": "ageing", **_slice(old, min(SOAK_SLICE, plan.soak_events - done))}
        for number in range(plan.rounds):
            say(f"soak, old and fresh process, round {number + 1}")
            with serve(CONTENDERS[OURS], side) as fresh:
                for process, served in (("old", old), ("fresh", fresh))[:: 1 if number % 2 else -1]:
                    yield {"process": process, **_slice(served, min(SOAK_SLICE, plan.soak_events))}


def _slice(served: Served, events: int) -> dict[str, Any]:
    sample = _sample(served, events, SOAK_CONCURRENCY, float("inf"))
    return {**sample, **asdict(memory(served.session))}
