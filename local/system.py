"""Starts, monitors and stops the system on one machine: a Firestore and the function that writes to it."""

import asyncio
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TextIO

import click

import command_line
from local.emulator import Store, named_host, running_store
from local.function import local_environ, starting_function
from local.options import Options
from local.processes import Process, accepts, free_port, port_is_free, wait_until_ready
from local.proofs import Proofs, running_proofs
from simulator.keys import write_private
from simulator.local_system import FOLDER, SETTINGS_FILE
from viewer.settings import SETTINGS

DEFAULT_PORT = 8080
FIRESTORE_PORT = 8686  # of the system in the default folder; another one may run beside it
DATABASE_FILE = "firestore.sqlite3"
_WATCH = 0.2  # seconds


@dataclass(frozen=True, slots=True)
class System:
    """The running system; `url` and `environ` (its settings) are the function's."""

    store: Store
    function: Process
    url: str
    proofs: Proofs
    environ: dict[str, str]

    @property
    def collection(self) -> str:
        """Name of the collection of events."""
        return self.environ.get("EVENTS_COLLECTION", "").strip() or "events"

    @property
    def database(self) -> str:
        """Name of the database."""
        return self.environ.get("FIRESTORE_DATABASE", "").strip() or "(default)"

    @property
    def project(self) -> str:
        """Id of the project."""
        return self.environ["GOOGLE_CLOUD_PROJECT"]

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
def running_system(options: Options) -> Iterator[System]:
    """Run a Firestore and the function until the end of the block. They start at the same time.

    Raises:
        click.UsageError: the port, the folder or a setting cannot be used.
        StoreUnavailable: the chosen Firestore is not available.
        ProcessError: the function did not start.
    """
    folder = options.state
    with (
        _hold(folder),
        running_proofs(folder, os.environ, sensors=not options.serve) as proofs,
        ExitStack() as stack,
    ):
        port, store_port = _port(options.port), _store_port(folder)
        host = named_host(options.store, os.environ) or f"127.0.0.1:{store_port}"
        environ = local_environ(os.environ, host=host, secret="") | proofs.settings
        environ["DEVICES_COLLECTION"] = environ.get("DEVICES_COLLECTION", "").strip() or "devices"
        # What the function would refuse when it starts; the address of Firestore is checked when it is used.
        command_line.function_settings({**environ, "FIRESTORE_EMULATOR_HOST": ""})
        if options.fresh:
            _delete_documents(folder)
        function = stack.enter_context(starting_function(port, log=folder / "function.log", environ=environ))
        file = folder / DATABASE_FILE
        store = stack.enter_context(
            running_store(options.store, file=file, port=store_port, environ=_quick_java(os.environ), say=say)
        )
        wait_until_ready(function, lambda: accepts(port))
        system = System(store, function, f"http://127.0.0.1:{port}/", proofs, environ)
        stack.enter_context(_published(system, folder / SETTINGS_FILE))
        yield system


def _quick_java(environ: Mapping[str, str]) -> dict[str, str]:
    """Let the emulator start with 40 % less CPU, by the quick one of Java's two compilers."""
    options = f"{environ.get('JAVA_TOOL_OPTIONS', '')} -XX:TieredStopAtLevel=1".strip()
    return {**environ, "JAVA_TOOL_OPTIONS": options}


def _delete_documents(folder: Path) -> None:
    for file in folder.glob(f"{DATABASE_FILE}*"):  # SQLite keeps two more beside it
        file.unlink()
        say(f"Deleted {file}.")


def _store_port(folder: Path) -> int:
    return FIRESTORE_PORT if folder == FOLDER and port_is_free(FIRESTORE_PORT) else free_port()


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
