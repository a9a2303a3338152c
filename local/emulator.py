"""Starts a Firestore on this machine: the official emulator, or the embedded store.

The emulator is the running one that FIRESTORE_EMULATOR_HOST names; if that is not set, gcloud's; else the pinned one,
which is downloaded if necessary.
"""

import os
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from local.download import PINNED, Download, NotFoundError, Say
from local.jar import find_emulator
from local.options import Kind
from local.processes import Process, ProcessError, free_port, running

_ADVICE = (
    "To use it, run again with a network, run `gcloud components install cloud-firestore-emulator`, "
    "or set FIRESTORE_EMULATOR_HOST."
)
_MAIN_CLASS = "com.google.cloud.datastore.emulator.firestore.CloudFirestore"
_LAST_PORT = 65_535
_HTTP2_SETTINGS_TYPE, _HTTP2_FRAME_HEADER_BYTES = 4, 9
_HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, _HTTP2_SETTINGS_TYPE, 0, 0, 0, 0, 0))


class StoreUnavailable(Exception):
    """Raised if the requested Firestore is not available; the text is one line that says what to do."""


@dataclass(frozen=True, slots=True)
class Store:
    """A Firestore that answers.

    Attributes:
        host: `HOST:PORT` of its gRPC service.
        kind: official emulator or embedded store.
        origin: where it comes from, in words.
        process: its process; None if it was already running.
    """

    host: str
    kind: Kind
    origin: str
    process: Process | None = None


def say_on_stderr(line: str) -> None:
    """Print a line on standard error."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def running_store(  # noqa: PLR0913 - each has a default
    choice: Kind | None = None,
    *,
    file: Path | None = None,
    port: int | None = None,
    environ: Mapping[str, str] = os.environ,
    pinned: Download = PINNED,
    say: Say = say_on_stderr,
) -> Iterator[Store]:
    """Run a Firestore for the duration of a block.

    Args:
        choice: None for the emulator if it is available, else the embedded store.
        file: SQLite file of the embedded store; the log of either is written beside it. None for a temporary folder.
        port: of the Firestore that is started; None for a free one.
        environ: the environment, also of the process.
        pinned: what to download if this machine has no emulator.
        say: is called with each line for the user.

    Yields:
        The Firestore, ready.

    Raises:
        StoreUnavailable: the choice is not available, or FIRESTORE_EMULATOR_HOST does not answer.
    """
    if named := named_host(choice, environ):
        yield _named_emulator(named)
        return
    host = f"127.0.0.1:{port or free_port()}"
    with ExitStack() as stack:
        if file is None:
            file = Path(stack.enter_context(tempfile.TemporaryDirectory()), "firestore.sqlite3")
        store = None
        if choice != "embedded":
            try:
                store = _start(stack, *_emulator(host, environ, pinned, say), file, environ)
            except StoreUnavailable as error:
                if choice == "emulator":
                    raise StoreUnavailable(f"No Firestore emulator: {error}. {_ADVICE}") from error
                say(f"IN USE: the embedded store, not the Firestore emulator: {error}. {_ADVICE}")
        yield store or _start(stack, *_embedded(host, file), file, environ)


def named_host(choice: Kind | None, environ: Mapping[str, str]) -> str:
    """Return the emulator that the user named in FIRESTORE_EMULATOR_HOST; "" if there is none, or it is not wanted."""
    return "" if choice == "embedded" else environ.get("FIRESTORE_EMULATOR_HOST", "").strip()


def _named_emulator(host: str) -> Store:
    if not speaks_http2(host):
        cure = "start it, or correct or unset FIRESTORE_EMULATOR_HOST."
        raise StoreUnavailable(f"No Firestore emulator answers at {host}{_why(host)}: {cure}")
    return Store(host, "emulator", "Firestore emulator of FIRESTORE_EMULATOR_HOST")


def _emulator(host: str, environ: Mapping[str, str], pinned: Download, say: Say) -> tuple[Store, list[str]]:
    """Return the official emulator at a host, and the command that starts it."""
    try:
        jar, java = find_emulator(environ, pinned=pinned, say=say)
    except NotFoundError as error:
        raise StoreUnavailable(str(error)) from error
    command = [str(java), "-Duser.language=en", "-cp", str(jar), _MAIN_CLASS]
    command += ["start", "--host=127.0.0.1", f"--port={_port(host)}"]
    return Store(host, "emulator", f"Firestore emulator {jar.name}"), command


def _embedded(host: str, file: Path) -> tuple[Store, list[str]]:
    command = [sys.executable, "-m", "local.embedded", "--port", _port(host), "--file", str(file.resolve())]
    return Store(host, "embedded", f"embedded store, {file}"), command


def _start(stack: ExitStack, store: Store, command: list[str], file: Path, environ: Mapping[str, str]) -> Store:
    name, log = f"Firestore ({store.kind})", file.with_suffix(".log")
    process = running(name, command, log=log, environ=environ, ready=lambda: speaks_http2(store.host))
    try:
        return replace(store, process=stack.enter_context(process))
    except ProcessError as error:
        raise StoreUnavailable(str(error).rstrip(".")) from error


def _why(host: str) -> str:
    if (address := _address(host)) is None:
        return ", which is not HOST:PORT"
    try:
        socket.getaddrinfo(address[0], None)
    except (OSError, UnicodeError):
        return ", a name without an address"
    return ""


def _address(host: str) -> tuple[str, int] | None:
    """Return name and port of `HOST:PORT`; a port beyond 65,535 would be taken for another one."""
    name, _, port = host.rpartition(":")
    if name and port.isdecimal() and 0 < int(port) <= _LAST_PORT:
        return name.strip("[]"), int(port)
    return None


def _port(host: str) -> str:
    return host.rpartition(":")[2]


def speaks_http2(host: str) -> bool:
    """Tell whether an HTTP/2 server without TLS, as a Firestore emulator is one, answers at `HOST:PORT`.

    It does if it sends SETTINGS first, as RFC 9113, section 3.4, requires.
    """
    if (address := _address(host)) is None:
        return False
    with suppress(OSError), socket.create_connection(address, timeout=1) as server:
        server.sendall(_HTTP2_PREFACE)
        frame = server.recv(_HTTP2_FRAME_HEADER_BYTES)
        return len(frame) == _HTTP2_FRAME_HEADER_BYTES and frame[3] == _HTTP2_SETTINGS_TYPE
    return False
