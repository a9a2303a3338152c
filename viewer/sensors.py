"""The page of all sensors with their newest values."""

from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from nicegui import ui

from viewer.feed import Feed
from viewer.model import ORDERS, Sensor, ago, type_name
from viewer.page import empty, follow, frame, milliseconds

_ROWS = 50  # on one page
_LOW_BATTERY = 10  # percent
_SEND = ".venv/bin/python -m simulator send temperature --value 21.5"
_SENSOR = """
<a class="sensor" :href="props.row.href">
  <div class="who"><b>{{ props.row.name }}</b><small>{{ props.row.kind }}</small></div>
  <div class="values">
    <span v-for="value in props.row.values"><b>{{ value.text }}</b><small>{{ value.label }}</small></span>
  </div>
  <div class="seen">
    <span :class="props.row.silent ? 'mark' : 'faint'" :title="new Date(props.row.seen).toLocaleString()">{{
      props.row.silent ? "silent for " + props.row.ago.replace(" ago", "") : props.row.ago }}</span>
  </div>
  <div class="level"><template v-if="props.row.signal !== null"><small>signal</small>{{ props.row.signal }} %</template>
  </div>
  <div class="level" :class="{low: props.row.low}"><template v-if="props.row.battery !== null"
    ><small>battery</small>{{ props.row.battery }} %</template></div>
</a>
"""


def add_page(feed: Feed) -> None:
    """Add the page to the application."""

    @ui.page("/")
    def sensors() -> None:
        with frame(feed, "/"):
            _content(feed)


def _content(feed: Feed) -> None:
    with ui.element("div").classes("tools"):
        text = ui.input(placeholder="Search by name or id").props("outlined dense clearable debounce=200")
        kind = ui.select({"": "All types"}, value="").props("outlined dense options-dense").classes("kinds")
        order = ui.select(ORDERS, value="name").props("outlined dense options-dense").classes("orders")
    count = ui.label().classes("faint")
    table = ui.table(columns=[], rows=[], row_key="id").props("grid hide-header").classes("sensors")
    table.add_slot("item", _SENSOR)
    nothing = empty("No sensor has sent an event yet. While ./run.sh --serve runs, send one:", _SEND)
    unmatched = empty("No sensor matches. Change the search or the type.")
    pages = ui.pagination(1, 1, value=1, direction_links=True).props("max-pages=6")

    def show() -> None:
        now = datetime.now(UTC)
        kinds = {"": "All types"} | {each: type_name(each) for each in feed.sensors.types()}
        if kinds != kind.options:
            kind.set_options(kinds)
        found = feed.sensors.select(text.value or "", kind.value or "", order.value)
        pages.max = max(1, -(-len(found) // _ROWS))
        pages.value = min(pages.value, pages.max)
        start = (pages.value - 1) * _ROWS
        rows = [_row(sensor, now) for sensor in found[start : start + _ROWS]]
        if rows != table.rows:
            table.rows = rows
        known = len(feed.sensors.by_target)
        count.set_text(_count(feed, known, found, now))
        table.set_visibility(bool(rows))
        nothing.set_visibility(feed.loaded and not known)
        unmatched.set_visibility(bool(known) and not found)
        pages.set_visibility(pages.max > 1)

    for control in (text, kind, order, pages):
        control.on_value_change(show)
    show()
    follow(feed, show)


def _count(feed: Feed, known: int, found: list[Sensor], now: datetime) -> str:
    silent = sum(sensor.is_silent(now) for sensor in found)
    words = [f"{len(found):,} of {known:,} sensors" if len(found) < known else f"{known:,} sensors"]
    words += [f"{silent:,} silent for over an hour"] if silent else []
    words += [] if feed.loaded else ["reading …"]
    if not feed.queries.source.devices and known:
        words.append("those of the latest events: with DEVICES_COLLECTION, all are listed")
    return " · ".join(words)


def _row(sensor: Sensor, now: datetime) -> dict[str, Any]:
    battery = sensor.battery
    return {
        "id": sensor.target,
        "href": "/history?" + urlencode({"sensor": sensor.target}),
        "name": sensor.name,
        "kind": type_name(sensor.device_type),
        "values": [{"text": text, "label": type_name(kind)} for kind, text in sensor.values()],
        "seen": milliseconds(sensor.last_seen),
        "ago": ago(sensor.last_seen, now),
        "silent": sensor.is_silent(now),
        "signal": sensor.signal,
        "battery": battery,
        "low": battery is not None and battery <= _LOW_BATTERY,
    }
