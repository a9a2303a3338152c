"""Draws throughput, latency and CPU time against concurrency."""

from io import StringIO
from statistics import median
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from benchmarks.contenders import CONTENDERS, GENERATOR, LIMIT, OURS, REFERENCE
from benchmarks.report import Rows, select

_COLOURS = (
    "#d1495b",
    "#edae49",
    "#8d5a97",
    "#3d7ea6",
    "#1b7f3b",
    "#6ab04c",
    "#22a6b3",
    "#b8b8b8",
    "#7d7d7d",
    "#222222",
)
_COLOUR = dict(zip((name for name in CONTENDERS if name != GENERATOR), _COLOURS, strict=True))
_PANELS = {
    "events per second": {"rate": "-"},
    "latency in ms: p50, p99 dashed": {"p50": "-", "p99": "--"},
    "CPU ms per event": {"cpu": "-"},
}
# The same figures make the same file, and text stays text.
_STYLE: Any = {"svg.hashsalt": "benchmarks", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 11}


def draw(figures: dict[str, Any]) -> str:
    """Draw a row of panels for each store.

    Args:
        figures: as `benchmarks.run.measure` returns them.

    Returns:
        The SVG document; each curve is a group whose id is store, contender and figure.
    """
    stores = list(dict.fromkeys(sample["store"] for sample in figures["samples"]))
    with rc_context(_STYLE):
        figure = Figure(figsize=(4.2 * len(_PANELS), 3.4 * len(stores) + 0.8), layout="constrained")
        grid = figure.subplots(len(stores), len(_PANELS), squeeze=False)
        for row, store in zip(grid, stores, strict=True):
            for axes, (title, styles) in zip(row, _PANELS.items(), strict=True):
                _panel(axes, select(figures["samples"], store=store), styles)
                axes.set_title(f"{title}\nstore: {store}", loc="left", fontsize="medium")
        handles, labels = grid[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
        svg = StringIO()
        figure.savefig(svg, format="svg", metadata={"Date": None})
    return svg.getvalue()


def _panel(axes: Axes, samples: Rows, styles: dict[str, str]) -> None:
    for name, colour in _COLOUR.items():
        for figure, style in styles.items():
            if name != LIMIT or figure in ("rate", "cpu"):
                _curve(axes, select(samples, contender=name), figure, color=colour, linestyle=style)
    axes.set(xscale="log", yscale="log", xlabel="requests at once")
    levels = sorted({sample["concurrency"] for sample in samples})
    axes.set_xticks(levels, [str(level) for level in levels])
    axes.set_xticks([], minor=True)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.yaxis.set_minor_formatter("")
    axes.grid(axis="y", color="#dddddd")
    axes.spines[["top", "right"]].set_visible(False)


def _curve(axes: Axes, samples: Rows, figure: str, **style: Any) -> None:
    if not samples:
        return
    store, name = samples[0]["store"], samples[0]["contender"]
    levels = sorted({sample["concurrency"] for sample in samples})
    medians = [median(sample[figure] for sample in select(samples, concurrency=level)) for level in levels]
    label = f"{name} (reference)" if name == REFERENCE else name
    width = 3 if name in (OURS, REFERENCE) else 1.5
    axes.plot(levels, medians, label=label, gid=f"{store} {name} {figure}", linewidth=width, marker="o", **style)
