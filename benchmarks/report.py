"""Prints the figures as tables of at most 80 columns: medians with their range, and ratios within a round."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from statistics import median
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.contenders import CONTENDERS, FLOOR, GENERATOR, LIMIT, OURS, REFERENCE

Rows = list[dict[str, Any]]


def show(figures: dict[str, Any], console: Console) -> None:
    """Print all tables.

    Args:
        figures: as `benchmarks.run.measure` returns them.
        console: where to print.
    """
    for table in _tables(figures):
        console.print(table)
        console.print()


def _tables(figures: dict[str, Any]) -> Iterator[Table]:
    for store in dict.fromkeys(sample["store"] for sample in figures["samples"]):
        samples = select(figures["samples"], store=store)
        yield _throughput(store, samples)
        yield _cpu(store, samples)
    yield _starts(figures)
    if figures["soak"]:
        yield _soak(figures["soak"])
    yield _imports(figures["imports"])


def select(rows: Rows, **wanted: Any) -> Rows:
    """Return the rows that have the wanted values."""
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def ratio(rows: Rows, others: Sequence[Rows], figure: str) -> float | None:
    """Compare a figure of one contender with the sum of others, round by round.

    Args:
        rows: of the contender, one per round.
        others: of the contenders to compare with, likewise.
        figure: its name.

    Returns:
        The median of the ratios; None if one of the others was not measured.
    """
    if not all(others):
        return None
    sums = [sum(row[figure] for row in round_) for round_ in zip(*others, strict=True)]
    if not all(sums):  # less than a tick of the clock that counts CPU time
        return None
    ratios: list[float] = [row[figure] / other for row, other in zip(rows, sums, strict=True)]
    return median(ratios)


def _throughput(store: str, samples: Rows) -> Table:
    table = _table(f"Throughput and latency, store: {store}", "events/s", "/ ref", "p50 ms", "p99 ms")
    table.caption = f"Median (range) of the rounds, of ratios the median. Ref is {REFERENCE}."
    for rows, at_once in _sections(table, samples):
        compared = _times(ratio(rows, [select(at_once, contender=REFERENCE)], "rate"))
        rate, p50, p99 = (_spread(row[figure] for row in rows) for figure in ("rate", "p50", "p99"))
        table.add_row(rows[0]["contender"], rate, compared, p50, p99)
    return table


def _cpu(store: str, samples: Rows) -> Table:
    table = _table(f"CPU time, store: {store}", "ms/event", "/ ref", "/ limit", "generator ms/event", "of a core")
    table.caption = f"Limit is {FLOOR} + {LIMIT}; generator is the load generator."
    for rows, at_once in _sections(table, samples):
        reference, floor, limit = (select(at_once, contender=name) for name in (REFERENCE, FLOOR, LIMIT))
        ratios = [_times(ratio(rows, others, "cpu")) for others in ([reference], [floor, limit])]
        cost, share = (median(row[figure] for row in rows) for figure in ("client_cpu", "client_share"))
        generator = [_short(cost), f"{share:.0%}"] if cost else []  # commit_only is its own generator
        table.add_row(rows[0]["contender"], _spread(row["cpu"] for row in rows), *ratios, *generator)
    return table


def _sections(table: Table, samples: Rows) -> Iterable[tuple[Rows, Rows]]:
    """Yield each contender's rows, with all rows of that concurrency, which is a section of the table."""
    for concurrency in dict.fromkeys(row["concurrency"] for row in samples):
        at_once = select(samples, concurrency=concurrency)
        table.add_section()
        table.add_row(f"[bold]{concurrency} at once[/]")
        for name in CONTENDERS:
            if rows := select(at_once, contender=name):
                yield rows, at_once


def _starts(figures: dict[str, Any]) -> Table:
    table = _table("Start and memory", "first 200 ms", "/ ref", "/ floor", "MiB idle", "under load", "peak")
    table.caption = f"Floor is {FLOOR}. The peak is an upper bound."
    for name in CONTENDERS:
        if memory := select(figures["memory"], contender=name):
            starts, *others = (select(figures["starts"], contender=one) for one in (name, REFERENCE, FLOOR))
            ratios = [_times(ratio(starts, [other], "ms")) for other in others]
            used = [f"{max(row[figure] for row in memory):.0f}" for figure in ("idle", "now", "peak")]
            table.add_row(name, _spread(row["ms"] for row in starts), *ratios, *used)
    return table


def _imports(rows: Rows) -> Table:
    table = _table("Imports, in ms, of the fastest start", "total")
    table.add_column("by package")
    for row in rows:
        if row["contender"] != GENERATOR:
            packages = ", ".join(f"{name} {ms:.0f}" for name, ms in row["packages"].items() if ms >= 1)
            table.add_row(row["contender"], f"{row['ms']:.0f}", packages)
    return table


def _soak(rows: Rows) -> Table:
    ageing, old, new = (select(rows, process=process) for process in ("ageing", "old", "new"))
    table = _table(f"Soak of {OURS}", "CPU ms/event", "events/s", "p99 ms", "MiB", "peak", first="events")
    done = list(accumulate(row["events"] for row in ageing))
    for number in range(0, len(ageing), max(1, len(ageing) // 10)):
        table.add_row(f"{done[number]:,}", *_soak_cells([ageing[number]]))
    table.add_section()
    table.add_row(f"after {done[-1]:,}", *_soak_cells(old))
    table.add_row("new process", *_soak_cells(new))
    table.caption = f"CPU, old process / new process, within a round: {_times(ratio(old, [new], 'cpu'))}."
    return table


def _soak_cells(rows: Rows) -> list[str]:
    spreads = [_spread(row[figure] for row in rows) for figure in ("cpu", "rate", "p99")]
    return [*spreads, *(f"{max(row[figure] for row in rows):.0f}" for figure in ("now", "peak"))]


def _table(title: str, *headings: str, first: str = "contender") -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.title_justify = table.caption_justify = "left"
    table.add_column(first, no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right")
    return table


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _spread(values: Iterable[float]) -> str:
    ordered = sorted(values)
    if not ordered:
        return ""
    middle, least, most = (_short(value) for value in (median(ordered), ordered[0], ordered[-1]))
    return middle if least == most else f"{middle} ({least}-{most})"


def _short(value: float) -> str:
    digits = 2 if value < 10 else 1 if value < 100 else 0  # noqa: PLR2004 - about three significant digits
    return f"{value:.{digits}f}"
