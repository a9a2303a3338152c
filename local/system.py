"""Starts, monitors and stops the system on one machine: a Firestore and the function that writes to it."""

import asyncio
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TextIO

import click
from google.cloud.firestore import AsyncClient

from local.emulator import Kind, Store, running_store
from local.function import local_environ, running_function
from local.processes import Process, free_port, port_is_free
from local.reader import Reader

DEFAULT_PORT = 8080
_WATCH = 0.2  # seconds


@dataclass(frozen=True, slots=True)
class System:
    """The running system; `url` and `environ` (its settings) are the function's."""

    store: Store
    function: Process
    url: str
    secret_file: Path
    environ: dict[str, str]

    @property
    def collection(self) -> str:
        """Name of the collection of events."""
        return self.environ.get("EVENTS_COLLECTION", "").strip() or "events"

    def reader(self) -> Reader:
        """Return a reader of the stored events; `os.environ` must hold the function's settings."""
        database = self.environ.get("FIRESTORE_DATABASE", "").strip() or "(default)"
        return Reader(AsyncClient(self.environ["GOOGLE_CLOUD_PROJECT"], database=database), self.collection)

    async def watch(self) -> NoReturn:
        """Wait until a process dies.

        Raises:
            ProcessError: the function's or Firestore's process has ended.
        """
        while True:
            for process in filter(None, (self.function, self.store.process)):
                process.check()
            await asyncio.sleep(_WATCH)


@contextmanager
def running_system(*, folder: Path, port: int | None, choice: Kind | None) -> Iterator[System]:
    """Run a Firestore and the function until the end of the block.

    Args:
        folder: for logs, the secret and the embedded store; created if it is missing.
        port: of the function; None means 8080, or a free port if that is in use.
        choice: None means the emulator, or the embedded store if no emulator is available.

    Raises:
        click.UsageError: the port or the folder cannot be used.
        StoreUnavailable: the chosen Firestore is not available.
        ProcessError: the function did not start.
    """
    with _hold(folder):
        port = _port(port)
        secret_file, secret = _secret(folder)
        with running_store(choice, file=folder / "firestore.sqlite3", say=say) as store:
            environ = local_environ(os.environ, host=store.host, secret=secret)
            environ["DEVICES_COLLECTION"] = environ.get("DEVICES_COLLECTION", "").strip() or "devices"
            with running_function(port, log=folder / "function.log", environ=environ) as function:
                yield System(store, function, f"http://127.0.0.1:{port}/", secret_file, environ)


def _hold(folder: Path) -> TextIO:
    """Lock the folder until the returned file is closed, so that no second system writes to its logs and database."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise click.UsageError(
            f"Another run uses the folder {folder}: stop it, or choose another folder with --state."
        ) from None
    except OSError as error:
        raise click.UsageError(
            f"The folder {folder} cannot be used ({error.strerror}): choose another one with --state."
        ) from error
    return lock


def _port(chosen: int | None) -> int:
    if port_is_free(chosen or DEFAULT_PORT):
        return chosen or DEFAULT_PORT
    if chosen:
        raise click.UsageError(f"Port {chosen} is in use or not permitted: choose another one with --port, or omit it.")
    port = free_port()
    say(f"Port {DEFAULT_PORT} is in use: the function listens on {port} instead.")
    return port


def _secret(folder: Path) -> tuple[Path, str]:
    """Write the secret, from the environment or a random one, to a file that the simulator can read."""
    secret = os.environ.get("DT_SIGNATURE_SECRET", "").strip() or secrets.token_urlsafe(32)
    file = folder / "signature-secret"
    file.unlink(missing_ok=True)
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:  # noqa: PTH123 - with a mode
        stream.write(os.fsencode(secret) + b"\n")
    return file, secret


def say(line: str) -> None:
    """Print a line immediately."""
    print(line, flush=True)
