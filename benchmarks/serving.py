"""Starts stores and contenders as processes on this machine."""

import atexit
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import NamedTuple

import click

from benchmarks.contenders import Contender
from benchmarks.events import SECRET, make_requests, signer
from benchmarks.usage import memory
from local.emulator import running_store, speaks_http2
from local.function import local_environ
from local.processes import ROOT, accepts, free_port, running, stop
from simulator.identity_provider import IdentityProvider
from simulator.keys import KeyFile

STORES = {"instant": 0, "20ms": 20, "emulator": None}  # delay of the instant store, in ms
_FIRST_ANSWER = 60.0  # seconds


class ContenderError(click.ClickException):
    """Raised if a contender or the load generator fails."""


@dataclass(frozen=True, slots=True)
class RunningContender:
    """A contender that accepts requests, or a client, which has no process yet.

    Attributes:
        contender: which one.
        host: `HOST:PORT` of its server; for a client, of the store.
        pid: its first process; 0 for a client.
        key_file: of the keys that sign its events; empty for the secret.
        idle: resident memory after the first answer, in MiB.
    """

    contender: Contender
    host: str
    pid: int = 0
    idle: float = 0

    @property
    def key_file(self) -> str:
        """The file of the keys that sign its events; empty for the secret."""
        return _key_file(self.contender)


@contextmanager
def serve_store(name: str, folder: Path) -> Iterator[str]:
    """Run a store until the block ends, and yield its `HOST:PORT`.

    Raises:
        ProcessError: it did not start.
        StoreUnavailable: no emulator is available.
    """
    delay = STORES[name]
    if delay is None:
        with running_store("emulator", file=folder / "store") as emulator:
            yield emulator.host
        return
    port, log = free_port(), folder / "store.log"
    host = f"127.0.0.1:{port}"
    command = [sys.executable, "-m", "benchmarks.instant_store", str(port), str(delay)]
    with running("The instant store", command, log=log, environ=os.environ, ready=lambda: speaks_http2(host)):
        yield host


@contextmanager
def serve(contender: Contender, store: str, folder: Path) -> Iterator[RunningContender]:
    """Run a contender until the block ends; it has stored its first event.

    Args:
        contender: which one.
        store: `HOST:PORT` of the store.
        folder: for its log.

    Raises:
        ContenderError: it did not acknowledge its first event.
        ProcessError: it did not start.
    """
    if contender.kind == "client":
        yield RunningContender(contender, store)
        return
    port, log = free_port(), folder / f"{contender.name}.log"
    command, environ = contender.command(port), environment(contender, store)
    with running(contender.name, command, log=log, environ=environ, ready=lambda: accepts(port)) as process:
        _await_first_answer(contender, port, process.popen)
        pid = process.popen.pid
        yield RunningContender(contender, f"127.0.0.1:{port}", pid, memory(pid)["now"])


def environment(contender: Contender, store: str) -> dict[str, str]:
    """Return the environment variables of a contender that writes to a store."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("FUNCTION_USE_ASGI", "THREADS")}
    issuer = {"DT_IDENTITY_ISSUER": _identity().provider.issuer} if contender.by_public_key else {}
    settings = local_environ(inherited, host=store, secret=SECRET)
    return {**settings, **contender.environ, **issuer, "PYTHONPATH": str(ROOT)}


class _Identity(NamedTuple):
    provider: IdentityProvider
    key_file: Path


@cache
def _identity() -> _Identity:
    """Start the identity provider of the contenders that need one; it runs until this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="benchmark-"))
    atexit.register(shutil.rmtree, folder)
    provider = IdentityProvider(keys=KeyFile(folder / "keys.json"))
    return _Identity(provider.__enter__(), folder / "keys.json")


def _key_file(contender: Contender) -> str:
    return str(_identity().key_file) if contender.by_public_key else ""


def sign(contender: Contender, body: bytes) -> Mapping[str, str]:
    """Return the signature headers of a body for a contender."""
    return signer(_key_file(contender)).headers(body, now=time.time())


def start_seconds(contender: Contender, store: str) -> float:
    """Start a contender and return the seconds until its first 200.

    Raises:
        ContenderError: it did not acknowledge its first event.
    """
    port, environ = free_port(), environment(contender, store)
    started = time.perf_counter()
    process = Popen(
        contender.command(port), cwd=ROOT, env=environ, stdout=DEVNULL, stderr=DEVNULL, start_new_session=True
    )
    try:
        _await_first_answer(contender, port, process)
        return time.perf_counter() - started
    finally:
        stop(process)


def _await_first_answer(contender: Contender, port: int, process: Popen[bytes]) -> None:
    (request,) = make_requests(1, _key_file(contender))
    limit = time.monotonic() + _FIRST_ANSWER
    while time.monotonic() < limit and process.poll() is None:
        with suppress(ConnectionError), socket.create_connection(("127.0.0.1", port), timeout=_FIRST_ANSWER) as server:
            server.sendall(request)
            answer = server.recv(1024)
            if not answer.startswith(b"HTTP/1.1 200 "):
                raise ContenderError(f"{contender.name} answered {answer[:60]!r}, not 200")
            return
        time.sleep(0.002)
    raise ContenderError(f"{contender.name} did not start")
