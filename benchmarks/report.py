"""The figures as tables: medians with minimum and maximum, and ratios, each made within one round."""

from collections.abc import Iterable, Sequence
from itertools import accumulate
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.contenders import CONTENDERS, FLOOR, GENERATOR, LIMIT, OURS, REFERENCE

Rows = list[dict[str, Any]]


def show(figures: dict[str, Any], console: Console) -> None:
    """Print the tables.

    Args:
        figures: as `benchmarks.run.measure` returns them.
        console: where to.
    """
    for store in dict.fromkeys(sample["store"] for sample in figures["samples"]):
        console.print(_samples(store, select(figures["samples"], store=store)))
    console.print(_starts(figures))
    if figures["soak"]:
        console.print(_soak(figures["soak"]))
    console.print(_imports(figures["imports"]))


def select(rows: Rows, **wanted: Any) -> Rows:
    """Return the rows that have the wanted values."""
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def ratio(rows: Rows, others: Sequence[Rows], name: str) -> float | None:
    """Compare a figure with the sum of others, round by round.

    Args:
        rows: of a contender, one a round.
        others: of the contenders to compare with, likewise.
        name: of the figure.

    Returns:
        The median ratio; None where there is nobody to compare with.
    """
    if not all(others):
        return None
    whole = [sum(row[name] for row in round_) for round_ in zip(*others, strict=True)]
    if not all(whole):  # less than a tick of the clock
        return None
    ratios: list[float] = [row[name] / other for row, other in zip(rows, whole, strict=True)]
    return median(ratios)


def _samples(store: str, rows: Rows) -> Table:
    table = Table(title=f"Store: {store}", title_justify="left")
    headings = "at once", "contender", "events/s", "/ documented", "p50 ms", "p99 ms", "CPU ms/event", "/ documented"
    for heading in (*headings, "/ limit", "generator ms/event", "of a core"):
        table.add_column(heading, justify="left" if heading == "contender" else "right")
    for concurrency in dict.fromkeys(row["concurrency"] for row in rows):
        at_once = select(rows, concurrency=concurrency)
        for name in (name for name in CONTENDERS if select(at_once, contender=name)):
            table.add_row(str(concurrency), *_cells(name, at_once))
        table.add_section()
    table.caption = (
        f"Median (min to max) of the rounds. A ratio is made round by round. The limit is {FLOOR} + {LIMIT}."
    )
    return table


def _cells(name: str, at_once: Rows) -> list[str]:
    rows, reference, floor, limit = (select(at_once, contender=one) for one in (name, REFERENCE, FLOOR, LIMIT))
    times = [_times(ratio(rows, others, figure)) for figure, others in _compared(reference, floor, limit)]
    own = [_spread(row[figure] for row in rows) for figure in ("rate", "p50", "p99", "cpu")]
    cost, share = (median(row[figure] for row in rows) for figure in ("client_cpu", "client_share"))
    generator = [_short(cost), f"{share:.0%}"] if name != LIMIT else ["", ""]
    return [name, own[0], times[0], own[1], own[2], own[3], times[1], times[2], *generator]


def _compared(reference: Rows, floor: Rows, limit: Rows) -> list[tuple[str, list[Rows]]]:
    return [("rate", [reference]), ("cpu", [reference]), ("cpu", [floor, limit])]


def _starts(figures: dict[str, Any]) -> Table:
    table = Table(title="Start and memory", title_justify="left")
    headings = (
        "contender",
        "what it is",
        "first 200 ms",
        "/ documented",
        f"/ {FLOOR}",
        "MiB at rest",
        "under load",
        "peak",
    )
    for heading in headings:
        table.add_column(heading, justify="left" if heading in headings[:2] else "right")
    for name in (name for name in CONTENDERS if select(figures["memory"], contender=name)):
        starts, *others = (select(figures["starts"], contender=one) for one in (name, REFERENCE, FLOOR))
        memory = select(figures["memory"], contender=name)
        times = [_times(ratio(starts, [other], "ms")) for other in others]
        held = [f"{max(row[figure] for row in memory):.0f}" for figure in ("rest", "now", "peak")]
        table.add_row(name, CONTENDERS[name].says, _spread(row["ms"] for row in starts), *times, *held)
    table.caption = "The peak adds the processes' own peaks up, and counts the pages that they share more than once."
    return table


def _imports(rows: Rows) -> Table:
    table = Table(title="Imports, ms: the fastest of all starts", title_justify="left")
    for heading in ("contender", "in all", "by package"):
        table.add_column(heading)
    for row in (row for row in rows if row["contender"] != GENERATOR):
        packages = ", ".join(f"{name} {ms:.0f}" for name, ms in row["packages"].items() if ms >= 1)
        table.add_row(row["contender"], f"{row['ms']:.0f}", packages)
    return table


def _soak(rows: Rows) -> Table:
    ageing, old, fresh = (select(rows, process=process) for process in ("ageing", "old", "fresh"))
    table = Table(title=f"Soak of {OURS}", title_justify="left")
    for heading in ("events", "CPU ms/event", "events/s", "p99 ms", "MiB", "peak"):
        table.add_column(heading, justify="right")
    done = list(accumulate(row["events"] for row in ageing))
    for number in range(0, len(ageing), max(1, len(ageing) // 10)):
        table.add_row(f"{done[number]:,}", *_soaked([ageing[number]]))
    table.add_section()
    table.add_row(f"after {done[-1]:,}", *_soaked(old))
    table.add_row("a fresh process", *_soaked(fresh))
    table.caption = f"CPU, old process / fresh process, round by round: {_times(ratio(old, [fresh], 'cpu'))}."
    return table


def _soaked(rows: Rows) -> list[str]:
    return [_spread(row[figure] for row in rows) for figure in ("cpu", "rate", "p99", "now", "peak")]


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _spread(values: Iterable[float]) -> str:
    ordered = sorted(values)
    if not ordered:
        return ""
    middle, least, most = (_short(value) for value in (median(ordered), ordered[0], ordered[-1]))
    return middle if least == most else f"{middle} ({least} to {most})"


def _short(value: float) -> str:
    digits = 3 if value < 1 else 1 if value < 100 else 0  # noqa: PLR2004 - three figures or so
    return f"{value:,.{digits}f}"
