"""Starts, monitors and stops the system on one machine: a Firestore and the function that writes to it."""

import asyncio
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TextIO

import click
from google.cloud.firestore import AsyncClient

from local.emulator import Kind, Store, running_store
from local.function import local_environ, running_function
from local.processes import Part, free_port, port_is_free
from local.proofs import Proofs, running_proofs
from local.reader import Reader
from simulator.keys import write_private
from viewer.cli import SETTINGS

DEFAULT_PORT = 8080
SETTINGS_FILE = "settings.json"
_WATCH = 0.2  # seconds


@dataclass(frozen=True, slots=True)
class System:
    """The running system; `url` and `environ` (its settings) are the function's."""

    store: Store
    function: Part
    url: str
    proofs: Proofs
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
            PartError: the function's or Firestore's process has ended.
        """
        while True:
            for part in filter(None, (self.function, self.store.part)):
                part.check()
            await asyncio.sleep(_WATCH)


@contextmanager
def running_system(folder: Path, port: int | None, choice: Kind | None, *, sensors: bool) -> Iterator[System]:
    """Run a Firestore and the function until the end of the block.

    Args:
        folder: for logs, the settings and the embedded store; created if it is missing.
        port: of the function; None means 8080, or a free port if that is in use.
        choice: None means the emulator, or the embedded store if no emulator is available.
        sensors: whether simulated sensors must be able to sign for it.

    Raises:
        click.UsageError: the port, the folder or a setting cannot be used.
        StoreUnavailable: the chosen Firestore is not available.
        PartError: the function did not start.
    """
    with _hold(folder), running_proofs(folder, os.environ, sensors=sensors) as proofs:
        port = _port(port)
        with running_store(choice, file=folder / "firestore.sqlite3", say=say) as store:
            environ = local_environ(os.environ, host=store.host, secret="") | proofs.settings
            environ["DEVICES_COLLECTION"] = environ.get("DEVICES_COLLECTION", "").strip() or "devices"
            with running_function(port, log=folder / "function.log", environ=environ) as function:
                system = System(store, function, f"http://127.0.0.1:{port}/", proofs, environ)
                with _published(system, folder / SETTINGS_FILE):
                    yield system


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


@contextmanager
def _published(system: System, file: Path) -> Iterator[None]:
    """Write what the viewer and the simulator need to find the system to a file, until the end of the block."""
    names = (*SETTINGS, "FIRESTORE_EMULATOR_HOST", *system.proofs.settings)
    settings = {name: system.environ[name] for name in names if name in system.environ}
    settings["DT_ENDPOINT_URL"] = system.url
    if system.proofs.key_file:
        settings["DT_IDENTITY_KEYS"] = str(system.proofs.key_file.resolve())
    write_private(file, json.dumps(settings))
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def say(line: str) -> None:
    """Print a line immediately."""
    print(line, flush=True)
