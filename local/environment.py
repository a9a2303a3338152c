"""The variables by which programs of the user reach the store of the system that runs."""

import fcntl
import json
import shlex
from pathlib import Path

import click

from simulator.local_system import SETTINGS_FILE

NAMES = ("FIRESTORE_EMULATOR_HOST", "GOOGLE_CLOUD_PROJECT")


def exports(folder: Path) -> str:
    """Return a shell command that exports the variables of the system that runs.

    Args:
        folder: the state of the system.

    Raises:
        click.UsageError: no system runs with the folder.
    """
    try:
        settings: dict[str, str] = json.loads((folder / SETTINGS_FILE).read_text())
        running = _is_locked(folder / "lock")
    except (OSError, ValueError):
        running = False
    if not running:
        raise click.UsageError(
            f"No system runs with the folder {folder}: start ./run.sh, or name its folder with --state."
        )
    return "export " + " ".join(f"{name}={shlex.quote(settings[name])}" for name in NAMES)


def _is_locked(file: Path) -> bool:
    with file.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
