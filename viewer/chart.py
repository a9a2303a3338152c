"""Options for ECharts: lines of numbers, or states as bands. Pure."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from viewer.model import Band, Line
from viewer.values import readable

_COLOURS = ["#3b82f6", "#f59e0b", "#10b981", "#a78bfa", "#ef4444", "#06b6d4"]  # readable on light and dark
_GREY, _GRID = "#8a94a6", "rgba(138,148,166,0.2)"
_SYMBOLS = 120  # points, up to which each has a symbol
_BAND = """
(params, api) => {
  const start = api.coord([api.value(0), api.value(2)]), end = api.coord([api.value(1), api.value(2)]);
  const height = api.size([0, 1])[1] * 0.5;
  return {type: "rect", style: {fill: api.visual("color")}, shape: {
    x: start[0], y: start[1] - height / 2, width: Math.max(2, end[0] - start[0]), height, r: 2}};
}
"""


def of_lines(lines: Sequence[Line], since: datetime, until: datetime) -> dict[str, Any]:
    """Return a chart of lines; the first has its axis on the left, the others on the right."""
    axes = [_value_axis(line, index) for index, line in enumerate(lines)]
    series = [
        {
            "type": "line",
            "name": line.label,
            "yAxisIndex": index,
            "data": [[_ms(at), value] for at, value in line.points],
            "showSymbol": len(line.points) <= _SYMBOLS,
            "symbolSize": 4,
            "sampling": "lttb",
            "lineStyle": {"width": 2},
        }
        for index, line in enumerate(lines)
    ]
    legend = {"show": len(lines) > 1, "top": 0, "textStyle": {"color": _GREY}}
    return {**_frame(since, until), "yAxis": axes, "series": series, "legend": legend, "tooltip": {"trigger": "axis"}}


def of_bands(bands: Sequence[Band], since: datetime, until: datetime) -> dict[str, Any]:
    """Return a chart with a row for each state."""
    states = sorted({band.state for band in bands})
    data = [
        {
            "name": f"{readable(band.state)}, {_duration(band)}",
            "value": [_ms(band.start), _ms(band.end), states.index(band.state)],
            "itemStyle": {"color": _COLOURS[states.index(band.state) % len(_COLOURS)]},
        }
        for band in bands
    ]
    label = {"color": _GREY, "width": 110, "overflow": "break", "lineHeight": 15}
    axis = {"type": "category", "data": [readable(each) for each in states], "axisLabel": label}
    series = {"type": "custom", ":renderItem": _BAND, "encode": {"x": [0, 1], "y": 2}, "data": data, "clip": True}
    return {**_frame(since, until), "yAxis": axis, "series": [series], "tooltip": {"formatter": "{b}"}}


def _frame(since: datetime, until: datetime) -> dict[str, Any]:
    grey = {"axisLabel": {"color": _GREY, "hideOverlap": True}, "axisLine": {"lineStyle": {"color": _GREY}}}
    # The slider's shadow would spread the data over its whole width, not over the span.
    slider = {"type": "slider", "height": 20, "bottom": 8, "textStyle": {"color": _GREY}, "showDataShadow": False}
    return {
        "animation": False,
        "color": _COLOURS,
        "grid": {"left": 16, "right": 16, "top": 36, "bottom": 56, "containLabel": True},
        "xAxis": {"type": "time", "min": _ms(since), "max": _ms(until), "splitLine": {"show": False}, **grey},
        "dataZoom": [{"type": "inside"}, slider],
    }


def _value_axis(line: Line, index: int) -> dict[str, Any]:
    return {
        "type": "value",
        "name": line.unit,
        "nameTextStyle": {"color": _GREY},
        "scale": True,
        "position": "left" if index == 0 else "right",
        "axisLabel": {"color": _GREY},
        "splitLine": {"show": index == 0, "lineStyle": {"color": _GRID}},
    }


def _duration(band: Band) -> str:
    minutes = round((band.end - band.start).total_seconds() / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"  # noqa: PLR2004


def _ms(time: datetime) -> int:
    return round(time.timestamp() * 1000)
