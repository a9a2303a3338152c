"""The closing tables, and the sentence that says what to do."""

from collections import Counter
from collections.abc import Iterable, Mapping

from rich.console import Console
from rich.table import Table

from backfill.tally import FAILED, MISSING, Tally

_MOST_NAMED = 20


def print_tables(tally: Tally, console: Console) -> None:
    """Print what became of the events: by type, and by day.

    Args:
        tally: the sums.
        console: where to.
    """
    for heading, rows in (("event type", tally.by_type), ("day (UTC)", tally.by_day)):
        _print(console, _table(heading, rows, tally))


def print_gaps(tally: Tally, console: Console) -> None:
    """Print the days and devices with fewer documents than history.

    Args:
        tally: the sums.
        console: where to.
    """
    table = Table("day (UTC)", "device", title="Gaps")
    for heading in ("history", "documents", MISSING):
        table.add_column(heading, justify="right")
    days = [(day, device, counts) for device, found in tally.gaps.items() for day, counts in found.items()]
    for day, device, counts in sorted(days, key=lambda row: row[:2]):
        if counts[MISSING]:
            numbers = (counts.total(), counts.total() - counts[MISSING], counts[MISSING])
            table.add_row(day, device, *map(str, numbers))
    if table.rows:
        _print(console, table)


def _table(heading: str, rows: Mapping[str, Counter[str]], tally: Tally) -> Table:
    table = Table(heading)
    for column in ("seen", *tally.outcomes):
        table.add_column(column, justify="right")
    for name in sorted(rows):
        table.add_row(name, *_numbers(rows[name], tally.outcomes))
    table.add_section()
    table.add_row("total", *_numbers(tally.total, tally.outcomes))
    return table


def _numbers(counts: Counter[str], outcomes: Iterable[str]) -> list[str]:
    return [str(counts.total()), *(str(counts[outcome]) for outcome in outcomes)]


def _print(console: Console, table: Table) -> None:
    """Print a table as wide as it is, when no terminal bounds it."""
    width = None if console.is_terminal else max(console.width, console.measure(table).maximum)
    console.print(table, width=width)


def troubles(tally: Tally) -> list[str]:
    """Return a line for each thing that went wrong; the first devices of many.

    Args:
        tally: the sums.

    Returns:
        The lines.
    """
    unread = [f"device {device}: {reason}" for device, reason in tally.unread.items()]
    if len(unread) > _MOST_NAMED:
        unread[_MOST_NAMED:] = [f"and {len(unread) - _MOST_NAMED} devices more"]
    reasons = [f"{number} events: {reason}" for reason, number in tally.reasons.items()]
    return [*unread, *reasons, *([f"stopped: {tally.stopped}"] if tally.stopped else [])]


def summary(tally: Tally, *, interrupted: bool) -> str:
    """Return the closing sentence.

    Args:
        tally: the sums.
        interrupted: whether somebody ended the run.

    Returns:
        One line.
    """
    far = f"{tally.finished} of {tally.devices} devices read, {tally.total.total()} events seen"
    if tally.complete and not interrupted:
        return f"{far}: all there."
    if tally.total[MISSING] and not (interrupted or tally.unread or tally.stopped):
        return f"{far}, {tally.total[MISSING]} missing: run the same command without --dry-run to add them."
    failed = f", {tally.total[FAILED]} failed" if tally.total[FAILED] else ""
    start = "Interrupted" if interrupted else "Not complete"
    return f"{start}: {far}{failed}. Run the same command again: it goes on, and writes nothing twice."
