"""Draws throughput, and p50 and p99, against concurrency, as SVG."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any
from xml.sax.saxutils import escape

from benchmarks.contenders import CONTENDERS, GENERATOR, LIMIT
from benchmarks.report import Rows, select

_WIDTH, _HEIGHT, _LEFT, _TOP, _LEGEND = 360, 240, 70, 60, 150  # of a panel, and around it, in pixels
_COLOURS = ("#d1495b", "#edae49", "#8d5a97", "#3d7ea6", "#1b7f3b", "#b8b8b8", "#7d7d7d", "#222222")
_COLOUR = dict(zip((name for name in CONTENDERS if name != GENERATOR), _COLOURS, strict=True))

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class _Curve:
    name: str
    points: Sequence[Point]
    dashed: bool = False


def draw(figures: dict[str, Any]) -> str:
    """Draw a row of two panels for each store.

    Args:
        figures: as `benchmarks.run.measure` returns them.

    Returns:
        The SVG document.
    """
    samples = [sample for sample in figures["samples"] if sample["contender"] in _COLOUR]
    stores = list(dict.fromkeys(sample["store"] for sample in samples))
    parts: list[str] = []
    for row, store in enumerate(stores):
        here, top = select(samples, store=store), _TOP + row * (_HEIGHT + 100)
        latency = [
            curve for curve in (*_curves(here, "p50"), *_curves(here, "p99", dashed=True)) if curve.name != LIMIT
        ]
        parts += _panel(_LEFT, top, f"Events a second, store: {store}", list(_curves(here, "rate")))
        parts += _panel(2 * _LEFT + _WIDTH, top, f"ms, p50 and p99 (dashed), store: {store}", latency)
    names = [name for name in _COLOUR if select(samples, contender=name)]
    parts += _legend(3 * _LEFT + 2 * _WIDTH - 50, names)
    width, height = 3 * _LEFT + 2 * _WIDTH - 50 + _LEGEND, len(stores) * (_HEIGHT + 100) + 20
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"'
    return "\n".join([f'{head} font-size="12">', '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>\n"])


def _curves(samples: Rows, figure: str, *, dashed: bool = False) -> Iterator[_Curve]:
    for name in _COLOUR:
        own = select(samples, contender=name)
        levels = sorted({sample["concurrency"] for sample in own})
        points = [(x, median(one[figure] for one in select(own, concurrency=x))) for x in levels]
        if points:
            yield _Curve(name, points, dashed)


def _panel(left: float, top: float, title: str, curves: Sequence[_Curve]) -> Iterator[str]:
    points = [point for curve in curves for point in curve.points]
    across = sorted({x for x, _ in points})
    decades = [10.0**power for power in range(*_powers([y for _, y in points]))]
    to_x = _scale(across[0], across[-1], left + 12, left + _WIDTH - 12)
    to_y = _scale(decades[0], decades[-1], top + _HEIGHT, top)
    yield f'<text x="{left}" y="{top - 14}" font-weight="bold">{escape(title)}</text>'
    for y in decades:
        yield f'<path d="M{left} {to_y(y):.1f}h{_WIDTH}" stroke="#dddddd"/>'
        yield f'<text x="{left - 6}" y="{to_y(y) + 4:.1f}" text-anchor="end">{y:,g}</text>'
    for x in across:
        yield f'<text x="{to_x(x):.1f}" y="{top + _HEIGHT + 18}" text-anchor="middle">{x}</text>'
    yield f'<text x="{left + _WIDTH / 2}" y="{top + _HEIGHT + 36}" text-anchor="middle">requests at once</text>'
    for curve in curves:
        yield from _line(curve, [(to_x(x), to_y(y)) for x, y in curve.points])


def _line(curve: _Curve, points: Sequence[Point]) -> Iterator[str]:
    colour, dash = _COLOUR[curve.name], ' stroke-dasharray="5 4"' if curve.dashed else ""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>'
    for x, y in points:
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>'


def _legend(left: float, names: Sequence[str]) -> Iterator[str]:
    for number, name in enumerate(names):
        y = _TOP + 20 * number
        yield f'<path d="M{left} {y}h20" stroke="{_COLOUR[name]}" stroke-width="3"/>'
        yield f'<text x="{left + 26}" y="{y + 4}">{escape(name)}</text>'


def _powers(values: Sequence[float]) -> tuple[int, int]:
    """Return the powers of ten around the values, as `range` takes them."""
    return math.floor(math.log10(min(values))), math.ceil(math.log10(max(values))) + 1


def _scale(least: float, most: float, start: float, end: float) -> Callable[[float], float]:
    span = math.log(most / least) or 1.0
    return lambda value: start + (end - start) * math.log(value / least) / span
