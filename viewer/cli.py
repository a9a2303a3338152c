"""The command line of the viewer."""

import json
import os
import socket
from collections.abc import Sequence
from typing import Any

import click

import command_line
from command_line.firestore import database_settings, project_of_credentials
from receiver.settings import Settings
from viewer.connection import Source
from viewer.settings import DEFAULT_PORT, LOCAL_SYSTEM, SETTINGS

_EXAMPLES = command_line.examples(
    "python -m viewer                    the system that ./run.sh runs",
    "python -m viewer --project my-project --devices devices",
    "python -m viewer --project my-project --database my-database --port 9000",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status; `argv` defaults to the arguments of the process."""
    return command_line.run(_command, argv, name="python -m viewer")


@click.command(epilog=_EXAMPLES)
@click.option("--project", metavar="ID", help="Google Cloud project.  [default: GOOGLE_CLOUD_PROJECT]")
@click.option("--database", metavar="ID", help="Firestore database.  [default: FIRESTORE_DATABASE, or (default)]")
@click.option("--collection", metavar="ID", help="Collection of events.  [default: EVENTS_COLLECTION, or events]")
@click.option("--devices", metavar="ID", help="Collection of devices.  [default: DEVICES_COLLECTION, or none]")
@click.option("--port", type=command_line.PORT, metavar="P", show_default="8081, or a free one", help="Of the page.")
def _command(port: int | None, **given: str | None) -> int:
    """Show stored sensor events on a page of this machine, http://127.0.0.1:8081/.

    Without --project and GOOGLE_CLOUD_PROJECT, the page shows the system that ./run.sh runs in this folder. A Firestore
    in the cloud is read with your own application default credentials (roles/datastore.viewer is enough).

    The page only reads. It answers only browsers of this machine.
    """
    source = _source(given)
    try:
        from viewer.app import serve  # noqa: PLC0415 - NiceGUI takes a second to import, and may be missing
    except ImportError as error:
        raise click.UsageError(
            f"{error.name} is not installed: run .venv/bin/python -m viewer, in the .venv that ./run.sh makes"
        ) from None
    serve(source, _port(port))
    return 0


def _source(given: dict[str, str | None]) -> Source:
    """Read the settings: options first, then the environment, then what ./run.sh wrote."""
    options = {name: given[option.removeprefix("--")] or "" for name, option in SETTINGS.items()}
    if not options["GOOGLE_CLOUD_PROJECT"] and not os.environ.get("GOOGLE_CLOUD_PROJECT", "").strip():
        os.environ.update(_local_system())
    chosen = {name: option or os.environ.get(name, "") for name, option in options.items()}
    settings = database_settings(chosen, SETTINGS)
    return Source(_project(settings), settings.database, settings.collection, settings.devices_collection)


def _local_system() -> dict[str, str]:
    try:
        found: dict[str, str] = json.loads(LOCAL_SYSTEM.read_text())
    except (OSError, ValueError):
        raise click.UsageError("no Firestore to show: start ./run.sh, or name a project with --project") from None
    return found


def _project(settings: Settings) -> str:
    """Return the project; for the cloud, check for credentials before the page opens."""
    if not settings.project:
        raise click.UsageError("no project: name it with --project")
    if not settings.emulator_host:
        project_of_credentials()
    return settings.project


def _port(chosen: int | None) -> int:
    for port in (chosen or DEFAULT_PORT, 0):
        try:
            with socket.create_server(("127.0.0.1", port)) as server:
                found: Any = server.getsockname()[1]
                return int(found)
        except OSError:
            if chosen:
                break
    raise click.UsageError(f"port {chosen} is in use or not permitted: choose another one with --port, or omit it")
