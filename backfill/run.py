"""Runs a transfer that a user started, and reports it."""

import asyncio
import os
from collections.abc import Callable
from types import SimpleNamespace

import click

import command_line
from backfill.progress import Progress
from backfill.results import Results
from backfill.time_window import TimeWindow
from backfill.transfer import Transfer
from backfill.writers import Writer
from dtcloud.account import MissingCredentials
from dtcloud.history import History, HistoryError
from dtcloud.rest import RequestRefused


def transfer(given: SimpleNamespace, window: TimeWindow, open_writer: Callable[[], Writer], results: Results) -> int:
    """Read history and hand it to a writer; print a report.

    Args:
        given: the options `dt_project`, `devices`, `event_types` and `labels`.
        window: the time window to read.
        open_writer: is called in the event loop.
        results: the counts of the writer.

    Returns:
        The exit status.

    Raises:
        click.UsageError: credentials are missing, or DT refuses the list of devices.
        click.ClickException: DT does not return the list of devices.
    """
    interrupted = False
    try:
        history = History(given.dt_project, os.environ)
        asyncio.run(_transfer(given, history, window, open_writer, results))
    except (MissingCredentials, RequestRefused) as error:
        raise click.UsageError(str(error)) from None
    except HistoryError as error:
        raise click.ClickException(f"{error}; try again later") from None
    except KeyboardInterrupt:
        interrupted = True
    results.print_tables()
    lines = [*results.notes(window), *results.errors(), results.summary(interrupted=interrupted)]
    click.echo("\n".join(lines), err=True)
    return command_line.INTERRUPTED if interrupted else int(not results.complete)


async def _transfer(
    given: SimpleNamespace, history: History, window: TimeWindow, open_writer: Callable[[], Writer], results: Results
) -> None:
    progress = Progress(results, history.api.waits)
    async with progress.shown():
        devices = await history.devices(given.devices, None if given.labels is None else frozenset(given.labels))
        writer = open_writer()
        await Transfer(history, lambda _: [window], given.event_types, writer, results, progress).run(devices)
