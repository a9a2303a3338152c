"""The system on one machine: a Firestore and the function before it, started, watched and ended together."""

import asyncio
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TextIO

from google.cloud.firestore import AsyncClient

from local.emulator import Kind, Store, running_store
from local.function import local_environ, running_function
from local.processes import Part, free_port, port_is_free
from local.reader import Reader

DEFAULT_PORT = 8080
_WATCH = 0.2  # seconds


class Problem(Exception):
    """Raised if an argument cannot be followed; its text says what to do."""


@dataclass(frozen=True, slots=True)
class System:
    """What is running.

    Attributes:
        store: the Firestore.
        function: the function's process.
        url: of the function.
        secret_file: holds the signature secret.
        environ: the function's settings.
    """

    store: Store
    function: Part
    url: str
    secret_file: Path
    environ: dict[str, str]

    @property
    def collection(self) -> str:
        """Where the events are."""
        return self.environ.get("EVENTS_COLLECTION", "").strip() or "events"

    def reader(self) -> Reader:
        """Return what reads the events back; only within the environment of the function."""
        database = self.environ.get("FIRESTORE_DATABASE", "").strip() or "(default)"
        return Reader(AsyncClient(self.environ["GOOGLE_CLOUD_PROJECT"], database=database), self.collection)

    async def watch(self) -> NoReturn:
        """Return never.

        Raises:
            PartError: a part has died.
        """
        while True:
            for part in filter(None, (self.function, self.store.part)):
                part.check()
            await asyncio.sleep(_WATCH)


@contextmanager
def running_system(*, folder: Path, port: int | None, choice: Kind | None) -> Iterator[System]:
    """Run a Firestore and the function for the time of a block.

    Args:
        folder: for logs, the secret and the embedded store; made where there is none.
        port: of the function; None takes 8080, or a free one.
        choice: of the Firestore; None takes the emulator, else the embedded stand-in.

    Yields:
        The running system.

    Raises:
        Problem: the port, or the folder, is taken.
        StoreUnavailable: the Firestore that was asked for cannot be had.
        PartError: the function did not start.
    """
    with _hold(folder):
        port = _port(port)
        secret_file, secret = _secret(folder)
        with running_store(choice, file=folder / "firestore.sqlite3", say=say) as store:
            environ = local_environ(os.environ, host=store.host, secret=secret)
            with running_function(port, log=folder / "function.log", environ=environ) as function:
                yield System(store, function, f"http://127.0.0.1:{port}/", secret_file, environ)


def _hold(folder: Path) -> TextIO:
    """Lock the folder, until the file is closed: two systems would write into each other's logs and database."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise Problem(f"Another run uses the folder {folder}: end it, or choose one with --state.") from None
    except OSError as error:
        raise Problem(f"The folder {folder} cannot be used ({error.strerror}): choose one with --state.") from error
    return lock


def _port(chosen: int | None) -> int:
    if port_is_free(chosen or DEFAULT_PORT):
        return chosen or DEFAULT_PORT
    if chosen:
        raise Problem(f"Port {chosen} is busy, or not allowed: choose another one with --port, or leave it out.")
    port = free_port()
    say(f"Port {DEFAULT_PORT} is busy: the function listens on {port} instead.")
    return port


def _secret(folder: Path) -> tuple[Path, str]:
    """Take the environment's secret, else draw one; it is in a file for who sends events."""
    secret = os.environ.get("DT_SIGNATURE_SECRET", "").strip() or secrets.token_urlsafe(32)
    file = folder / "signature-secret"
    file.unlink(missing_ok=True)
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:  # noqa: PTH123 - with a mode
        stream.write(os.fsencode(secret) + b"\n")
    return file, secret


def say(line: str) -> None:
    """Say a line to the person at the terminal."""
    print(line, flush=True)
