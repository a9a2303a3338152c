"""Finds a Firestore for this machine and starts it: the official emulator, else the embedded stand-in.

The emulator is, in this order: the one that FIRESTORE_EMULATOR_HOST names, when it answers; gcloud's; the newest in the
cache of the Firebase tools that a Java here can run; the pinned one, downloaded into that cache.
"""

import os
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from local.download import PINNED, Download, Say
from local.jar import NotFoundError, find_emulator
from local.processes import Part, PartError, free_port, running

Kind = Literal["emulator", "embedded"]

HOW_TO_GET_IT = (
    "run again with a network, or run `gcloud components install cloud-firestore-emulator`, "
    "or set FIRESTORE_EMULATOR_HOST"
)
_MAIN_CLASS = "com.google.cloud.datastore.emulator.firestore.CloudFirestore"
_HTTP2_SETTINGS_TYPE, _HTTP2_FRAME_HEADER_BYTES = 4, 9
_HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, _HTTP2_SETTINGS_TYPE, 0, 0, 0, 0, 0))


class StoreUnavailable(Exception):
    """Raised if the Firestore that was asked for cannot be had; the text is one line that says what to do."""


@dataclass(frozen=True, slots=True)
class Store:
    """A Firestore that answers.

    Attributes:
        host: `HOST:PORT` of its gRPC service.
        kind: official emulator or embedded stand-in.
        origin: where it comes from, in words.
        part: its process; None when somebody else started it.
    """

    host: str
    kind: Kind
    origin: str
    part: Part | None = None


def say_on_stderr(line: str) -> None:
    """Say a line to the person at the terminal, beside the output proper."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def running_store(
    choice: Kind | None = None,
    *,
    file: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    pinned: Download = PINNED,
    say: Say = say_on_stderr,
) -> Iterator[Store]:
    """Provide a Firestore for the time of a block.

    Args:
        choice: what it must be; None takes the emulator, else the embedded stand-in.
        file: SQLite file of the embedded stand-in; the log, of either, is beside it. None: in a folder that is removed
            afterwards.
        environ: where programs and settings are looked up.
        pinned: what to download when there is no emulator on this machine.
        say: takes each line for a person.

    Yields:
        The Firestore, ready.

    Raises:
        StoreUnavailable: the choice cannot be had.
    """
    with ExitStack() as parts:
        if file is None:
            file = Path(parts.enter_context(tempfile.TemporaryDirectory()), "firestore.sqlite3")
        start = _Start(parts, file, environ)
        if choice == "embedded":
            yield start.embedded()
            return
        try:
            store = start.emulator(pinned, say)
        except StoreUnavailable as error:
            if choice == "emulator":
                raise StoreUnavailable(f"No Firestore emulator: {error}. To get it, {HOW_TO_GET_IT}.") from error
            say(f"IN USE: the embedded stand-in, not the Firestore emulator: {error}. To get it, {HOW_TO_GET_IT}.")
            store = start.embedded()
        yield store


@dataclass(frozen=True, slots=True)
class _Start:
    """What both ways to start a Firestore share.

    Attributes:
        parts: ends what is started.
        file: the stand-in's SQLite file.
        environ: of the process.
    """

    parts: ExitStack
    file: Path
    environ: Mapping[str, str]

    def embedded(self) -> Store:
        port = free_port()
        command = [sys.executable, "-m", "local.embedded", "--port", str(port), "--file", str(self.file.resolve())]
        return self._process(Store(f"127.0.0.1:{port}", "embedded", f"embedded stand-in, {self.file}"), command)

    def emulator(self, pinned: Download, say: Say) -> Store:
        if named := self.environ.get("FIRESTORE_EMULATOR_HOST", "").strip():
            if speaks_http2(named):
                return Store(named, "emulator", "Firestore emulator of FIRESTORE_EMULATOR_HOST")
            say(f"FIRESTORE_EMULATOR_HOST is set, but no Firestore answers at {named}: looking for another one.")
        try:
            jar, java = find_emulator(self.environ, pinned=pinned, say=say)
        except NotFoundError as error:
            raise StoreUnavailable(str(error)) from error
        port = free_port()
        command = [str(java), "-Duser.language=en", "-cp", str(jar.path), _MAIN_CLASS, "start"]
        command += ["--host=127.0.0.1", f"--port={port}"]
        return self._process(Store(f"127.0.0.1:{port}", "emulator", str(jar)), command)

    def _process(self, store: Store, command: list[str]) -> Store:
        name, log = f"Firestore ({store.kind})", self.file.with_suffix(".log")
        part = running(name, command, log=log, environ=self.environ, ready=lambda: speaks_http2(store.host))
        try:
            return replace(store, part=self.parts.enter_context(part))
        except PartError as error:
            raise StoreUnavailable(str(error).rstrip(".")) from error


def speaks_http2(host: str) -> bool:
    """Tell whether an HTTP/2 server without TLS answers, which is what a Firestore emulator is.

    Args:
        host: `HOST:PORT`.

    Returns:
        True when it greets with SETTINGS, as RFC 9113, section 3.4, says.
    """
    name, _, port = host.rpartition(":")
    if not name or not port.isdecimal():
        return False
    with suppress(OSError, OverflowError), socket.create_connection((name.strip("[]"), int(port)), timeout=1) as server:
        server.sendall(_HTTP2_PREFACE)
        greeting = server.recv(_HTTP2_FRAME_HEADER_BYTES)
        return len(greeting) == _HTTP2_FRAME_HEADER_BYTES and greeting[3] == _HTTP2_SETTINGS_TYPE
    return False
