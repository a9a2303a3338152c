"""The command line of the backfill."""

import asyncio
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import click
import google.auth
from google.auth.exceptions import GoogleAuthError

import command_line
from backfill.progress import Progress
from backfill.rate_limit import RateLimit
from backfill.results import Results
from backfill.time_window import HISTORY, TimeWindow
from backfill.transfer import Transfer
from backfill.writers import DocumentWriter, DryRunWriter, Writer
from dtcloud.account import MissingCredentials
from dtcloud.history import History, HistoryError, RequestRefused
from receiver.devices import Devices
from receiver.settings import Settings, SettingsError, read_settings
from receiver.store import Store

_EXAMPLES = (
    "python -m backfill --dt-project c0md3pm0p7bet3vico8g --since 12h --dry-run",
    "python -m backfill --dt-project c0md3pm0p7bet3vico8g \\",
    "    --since 2026-05-16 --until 2026-05-18T06:00:00Z",
    "python -m backfill --dt-project c0md3pm0p7bet3vico8g --since 31d \\",
    "    --event-type temperature --labels name,room",
)
_SETTINGS = {  # the function's, and their options
    "GOOGLE_CLOUD_PROJECT": "--google-project",
    "FIRESTORE_DATABASE": "--database",
    "EVENTS_COLLECTION": "--collection",
    "DEVICES_COLLECTION": "--devices",
    "RETENTION_DAYS": "--retention-days",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status; `argv` defaults to the arguments of the process."""
    return command_line.run(command, argv, name="python -m backfill")


def _dt_id(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", text):
        raise ValueError(f"must be an id as DT Studio shows it, not {text!r}")
    return text


_Decorator = Callable[[Callable[..., int]], Callable[..., int]]


def _setting(variable: str, metavar: str, default: str) -> _Decorator:
    text = f"[default: {default}]"
    return click.option(_SETTINGS[variable], variable, metavar=metavar, help=text, envvar=variable, show_envvar=True)


@click.command(epilog=command_line.examples(*_EXAMPLES))
@click.option("--dt-project", metavar="ID", required=True, type=_dt_id, help="DT's project id.")
@click.option("--since", metavar="TIME", required=True, help="3d, 12h, a date (midnight UTC), or an RFC 3339 time.")
@click.option("--until", metavar="TIME", help="Likewise.  [default: now]")
@click.option("--device", "devices", metavar="ID", type=_dt_id, multiple=True, help="Only this device; repeatable.")
@click.option("--event-type", "event_types", metavar="TYPE", multiple=True, help="Only this event type; repeatable.")
@click.option(
    "--labels", metavar="A,B", type=command_line.items, help="The labels chosen on the Data Connector.  [default: all]"
)
@_setting("GOOGLE_CLOUD_PROJECT", "ID", "that of the credentials")
@_setting("FIRESTORE_DATABASE", "ID", "(default)")
@_setting("EVENTS_COLLECTION", "ID", "events")
@_setting("DEVICES_COLLECTION", "ID", "no documents of devices")
@_setting("RETENTION_DAYS", "N", "documents are kept for ever")
@click.option(
    "--rate",
    metavar="N",
    type=command_line.COUNT,
    help="Maximum of writes a second. The rate starts at 500 and grows by half every 5 minutes in any case.",
)
@click.option("--dry-run", is_flag=True, help="Write nothing; show which devices and days lack documents.")
def command(**given: Any) -> int:
    """Fetch history from DT's REST API and create the documents that the function would have created.

    An existing document is left unchanged, so the command can run again at any time, also while the function runs.

    DT: DT_SERVICE_ACCOUNT_KEY_ID, DT_SERVICE_ACCOUNT_SECRET and DT_SERVICE_ACCOUNT_EMAIL hold the key of a service
    account with a role in the project (DT Studio, API Integrations). DT_API_URL and DT_TOKEN_URL replace DT's own API.

    Google: application default credentials, or FIRESTORE_EMULATOR_HOST.

    Exit status: 0 every event is in Firestore; 1 an event failed or, in a dry run, is missing; 2 an argument, setting
    or credential is wrong or missing; 130 interrupted.
    """
    options = SimpleNamespace(**given)
    results, interrupted = Results(dry_run=options.dry_run), False
    try:
        window = _time_window(options.since, options.until)
        history = History(options.dt_project, os.environ)
        settings = _settings(given)
        asyncio.run(_backfill(options, history, window, settings, results))
    except (MissingCredentials, RequestRefused) as error:
        raise click.UsageError(str(error)) from None
    except HistoryError as error:
        raise click.ClickException(f"{error}; try again later") from None
    except KeyboardInterrupt:
        interrupted = True
    results.print_tables()
    click.echo("\n".join([*results.errors(), results.summary(interrupted=interrupted)]), err=True)
    return command_line.INTERRUPTED if interrupted else int(not results.complete)


def _time_window(since: str, until: str | None) -> TimeWindow:
    now = datetime.now(UTC)
    try:
        window = TimeWindow.parse(since, until, now)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if window.since >= now - HISTORY:
        return window
    click.echo(f"DT keeps {HISTORY.days} days of history: older events cannot be fetched.", err=True)
    return replace(window, since=now - HISTORY)


def _settings(given: Mapping[str, Any]) -> Settings:
    """Read the function's settings; no secret is needed, since nothing is verified."""
    chosen = {name: given[name] or "" for name in _SETTINGS} | {"DT_SIGNATURE_SECRET": "not used"}
    try:
        settings = read_settings(chosen | {"FIRESTORE_EMULATOR_HOST": os.environ.get("FIRESTORE_EMULATOR_HOST", "")})
    except SettingsError as error:
        option = _SETTINGS.get(str(error).split()[0])
        raise click.UsageError(f"{option} or {error}" if option else str(error)) from None
    return settings if settings.emulator_host else replace(settings, project=_google_project(settings.project))


def _google_project(project: str | None) -> str:
    """Check for credentials, and find the project, before anything is fetched."""
    try:
        _, found = google.auth.default()
    except GoogleAuthError:
        raise click.UsageError("no Google Cloud credentials: run `gcloud auth application-default login`") from None
    if not (project := project or found):
        raise click.UsageError("the credentials name no project: set --google-project or GOOGLE_CLOUD_PROJECT")
    return project


async def _backfill(
    options: SimpleNamespace, history: History, window: TimeWindow, settings: Settings, results: Results
) -> None:
    devices = await history.devices(options.devices, None if options.labels is None else frozenset(options.labels))
    writer: Writer
    if options.dry_run:
        writer = DryRunWriter(settings, results)
    else:
        store = Store(settings, stamp="backfilledAt")
        devices_collection = settings.devices_collection
        create = Devices(devices_collection, store).create if devices_collection else store.create
        writer = DocumentWriter(store, create, RateLimit(options.rate), results)
    progress = Progress(results)
    async with progress.shown():
        await Transfer(history, window, options.event_types, writer, results, progress).run(devices)
