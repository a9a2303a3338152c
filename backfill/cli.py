"""The command line."""

import argparse
import asyncio
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import google.auth
from google.auth.exceptions import GoogleAuthError
from rich.console import Console

from backfill.problem import Problem
from backfill.progress import Progress
from backfill.rate_limit import Pace
from backfill.report import print_gaps, print_tables, summary, troubles
from backfill.run import Run, Sink
from backfill.tally import ADDED, FAILED, MISSING, QUARANTINED, THERE, Tally
from backfill.time_window import HISTORY, Window, window
from backfill.writers import Lookup, Writer
from dtcloud.account import MissingError
from dtcloud.history import History, HistoryError, Refused
from receiver.settings import Settings, SettingsError, read_settings
from receiver.store import Store
from simulator.arguments import Parser, whole

_DESCRIPTION = """\
Fetches history from DT's REST API into the documents that the function writes. A document that is there already stays
as it is, so it may run as often as one likes, also while the function does.

DT's side: DT_SERVICE_ACCOUNT_KEY_ID, DT_SERVICE_ACCOUNT_SECRET and DT_SERVICE_ACCOUNT_EMAIL hold the key of a service
account with a role in the project (DT Studio, API Integrations). DT_API_URL and DT_TOKEN_URL name another API than
DT's own.
Google's side: application default credentials, or FIRESTORE_EMULATOR_HOST.
"""
_EPILOG = """\
examples:
  python -m backfill --dt-project c0md3pm0p7bet3vico8g --since 12h --dry-run
  python -m backfill --dt-project c0md3pm0p7bet3vico8g --since 2026-05-16 --until 2026-05-18T06:00:00Z
  python -m backfill --dt-project c0md3pm0p7bet3vico8g --since 31d --event-type temperature --labels name,room

exit status: 0 all there; 1 something failed or, in a dry run, is missing; 2 a wrong or missing argument, setting or
credential; 130 interrupted.
"""
_VARIABLES = {  # of the function, and the options that win over them
    "GOOGLE_CLOUD_PROJECT": "google_project",
    "FIRESTORE_DATABASE": "database",
    "EVENTS_COLLECTION": "collection",
    "RETENTION_DAYS": "retention_days",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments; None takes those of the process.

    Returns:
        The exit status, as `--help` says.
    """
    arguments = _parser().parse_args(argv)
    outcomes = (THERE, MISSING if arguments.dry_run else ADDED, QUARANTINED, FAILED)
    tally, interrupted = Tally(outcomes), False
    try:
        span = _span(arguments)
        history = History(arguments.dt_project, os.environ)
        settings = _settings(arguments, os.environ)
        asyncio.run(_backfill(arguments, history, span, settings, tally))
    except (Problem, MissingError, SettingsError, Refused) as problem:
        return _say(2, f"backfill: {problem}")
    except HistoryError as error:
        return _say(1, f"backfill: {error}: try again later")
    except KeyboardInterrupt:
        interrupted = True
    _report(tally, dry_run=arguments.dry_run)
    return _say(_status(tally, interrupted=interrupted), *troubles(tally), summary(tally, interrupted=interrupted))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m backfill",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = parser.add_argument
    option("--dt-project", metavar="ID", required=True, type=_dt_id, help="DT's id of the project")
    option("--since", metavar="T", required=True, help="3d, 12h, a date (midnight UTC), or an RFC 3339 time")
    option("--until", metavar="T", help="likewise; default: now")
    option("--device", metavar="ID", type=_dt_id, action="append", help="only this one; may be repeated")
    option("--event-type", metavar="TYPE", action="append", help="only this one; may be repeated")
    option("--labels", metavar="KEY,KEY", type=_labels, help="those chosen on the Data Connector; default: every label")
    option("--google-project", metavar="ID", help="default: $GOOGLE_CLOUD_PROJECT, else that of the credentials")
    option("--database", metavar="ID", help="default: $FIRESTORE_DATABASE, else (default)")
    option("--collection", metavar="ID", help="default: $EVENTS_COLLECTION, else events")
    option("--retention-days", metavar="N", help="default: $RETENTION_DAYS, else for ever")
    option(
        "--rate",
        metavar="N",
        type=whole,
        help="most writes a second; the ramp, of 500 and half more every 5 minutes, holds in any case",
    )
    option("--dry-run", action="store_true", help="write nothing: tell which devices and days lack documents")
    return parser


def _dt_id(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", text):
        raise argparse.ArgumentTypeError(f"must be an id as DT Studio shows it, not {text!r}")
    return text


def _labels(text: str) -> frozenset[str]:
    return frozenset(key.strip() for key in text.split(",")) - {""}


def _span(arguments: argparse.Namespace) -> Window:
    now = datetime.now(UTC)
    span = window(arguments.since, arguments.until, now)
    if span.since >= now - HISTORY:
        return span
    print(f"DT keeps {HISTORY.days} days of history: what is older cannot be fetched.", file=sys.stderr)
    return replace(span, since=now - HISTORY)


def _settings(arguments: argparse.Namespace, environ: Mapping[str, str]) -> Settings:
    """Read the function's settings, by its rules; no secret is needed here, since nothing is verified."""
    names = ("FIRESTORE_EMULATOR_HOST", *_VARIABLES)
    chosen = {name: environ[name] for name in names if name in environ} | {"DT_SIGNATURE_SECRET": "not used"}
    given = {name: getattr(arguments, option) for name, option in _VARIABLES.items()}
    try:
        settings = read_settings(chosen | {name: value for name, value in given.items() if value is not None})
    except SettingsError as error:
        name, _, rest = str(error).partition(" ")
        option = _VARIABLES.get(name, "").replace("_", "-")
        raise Problem(f"--{option} or {name} {rest}" if option else str(error)) from None
    if not settings.emulator_host:
        settings = replace(settings, project=_credentials_project(settings.project))
    return settings


def _credentials_project(project: str | None) -> str:
    """Find out before anything is fetched whether there are credentials, and a project."""
    try:
        _, found = google.auth.default()
    except GoogleAuthError:
        raise Problem("no Google Cloud credentials: run `gcloud auth application-default login`") from None
    if not (project := project or found):
        raise Problem("the credentials name no project: give --google-project or set GOOGLE_CLOUD_PROJECT")
    return project


async def _backfill(
    arguments: argparse.Namespace, history: History, span: Window, settings: Settings, tally: Tally
) -> None:
    devices = await history.devices(arguments.device or (), arguments.labels)
    sink: Sink
    if arguments.dry_run:
        sink = Lookup(settings, tally)
    else:
        sink = Writer(Store(settings, stamp="backfilledAt"), Pace(arguments.rate), tally)
    progress = Progress(tally)
    async with progress.shown():
        await Run(history, span, arguments.event_type or (), sink, tally, progress).over(devices)


def _report(tally: Tally, *, dry_run: bool) -> None:
    console = Console()
    print_tables(tally, console)
    if dry_run:
        print_gaps(tally, console)


def _status(tally: Tally, *, interrupted: bool) -> int:
    return 130 if interrupted else int(not tally.complete)


def _say(status: int, *lines: str) -> int:
    print(*lines, sep="\n", file=sys.stderr)
    return status
