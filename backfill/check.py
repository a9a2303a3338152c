"""`python -m backfill check`: compares the documents with DT's history, and writes nothing."""

from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import click

import command_line
from backfill import options
from backfill.results import Results
from backfill.run import transfer
from backfill.time_window import TimeWindow, expired_before
from backfill.writers import DryRunWriter

_EXAMPLES = (
    "python -m backfill check --dt-project c0md3pm0p7bet3vico8g --since 3d",
    "python -m backfill check --dt-project c0md3pm0p7bet3vico8g \\",
    "    --since 31d --until 1h",
)


@click.command(epilog=command_line.examples(*_EXAMPLES))
@options.dt_project
@options.since
@options.selection
@options.database
@options.retention
def check(**given: Any) -> int:
    """Compare Firestore with DT's history, and write nothing.

    Each event of the history must have a document with the same fields. Labels and metadata are not compared, because
    DT's history has only those of today. Events that are older than the retention time, or whose documents were
    deleted by `forget`, are left out. Costs one read of Firestore for each event.

    Credentials: see python -m backfill --help.

    Exit status: 0 every event is in Firestore; 1 a document is missing or differs, or an event could not be read; 2 an
    argument, setting or credential is wrong or missing; 130 interrupted.
    """
    settings = options.read_database_settings(given)
    window = _without_expired(options.read_window(given["since"], given["until"]), settings.retention_days)
    results = Results(dry_run=True, check=True)
    return transfer(
        SimpleNamespace(**given, labels=None), window, lambda: DryRunWriter(settings, results, compare=True), results
    )


def _without_expired(window: TimeWindow, days: int | None) -> TimeWindow:
    """Return the part of a window whose documents cannot have expired yet."""
    since = max(window.since, expired_before(days, datetime.now(UTC)))
    if since >= window.until:
        raise click.UsageError(f"--until is before the retention time of {days} days: those documents have expired")
    return replace(window, since=since)
