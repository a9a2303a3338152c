"""The page of one sensor: a chart, a table and a download."""

from datetime import UTC, datetime, timedelta

from nicegui import ui

from viewer import chart
from viewer.connection import StoreError
from viewer.feed import Feed
from viewer.model import Band, Event, Line, Sensor, ago, bands, lines, to_csv, type_name
from viewer.page import empty, event_row, event_table, follow, frame
from viewer.queries import HISTORY

_SPANS = {"1": "1 h", "24": "24 h", "168": "7 d", "720": "30 d"}  # by hours
_ROWS = 500  # of the table
_COLUMNS = {"at": "Time", "value": "Value", "received": "Received"}


def add_page(feed: Feed) -> None:
    """Add the page to the application."""

    @ui.page("/history")
    async def history(sensor: str = "", event_type: str = "", hours: str = "24") -> None:
        with frame(feed, "/history"):
            await ui.context.client.connected()
            known = await _find(feed, sensor)
            if known:
                await _History(feed, known, event_type, hours if hours in _SPANS else "24").show()
            else:
                empty("This sensor has no events. Choose one on the page Sensors.")


async def _find(feed: Feed, target: str) -> Sensor | None:
    """Return a sensor; without the documents of devices, read its newest events for the types that it sends."""
    known = feed.sensors.by_target.get(target)
    if target and (known is None or not feed.queries.source.devices):
        try:
            for event in await feed.queries.of_sensor(target):
                feed.sensors.add_event(event)
        except StoreError as error:
            feed.error = str(error)
    return feed.sensors.by_target.get(target)


class _History:
    """The content of the page, with the events of the chosen type and span."""

    def __init__(self, feed: Feed, sensor: Sensor, event_type: str, hours: str) -> None:
        self._feed, self._sensor = feed, sensor
        self._events: dict[str, Event] = {}
        self._found: list[Line] | list[Band] = []
        self._failed = False
        types = sensor.types()
        ui.label(sensor.name).classes("title").props("role=heading aria-level=1")
        self._subtitle = ui.label().classes("faint")
        with ui.element("div").classes("tools"):
            names = {each: type_name(each) for each in types}
            chosen = event_type if event_type in names else types[0]
            self._type = ui.select(names, value=chosen).props("outlined dense options-dense")
            self._hours = ui.toggle(_SPANS, value=hours).props("no-caps unelevated")
            self._csv = (
                ui.button("Download CSV", on_click=self._download).props("flat no-caps icon=download").classes("csv")
            )
        with ui.element("div").classes("panel") as self._panel:
            self._chart = ui.echart({}).classes("chart")
            self._note = ui.label().classes("faint")
        self._nothing = empty("There are no events of this type in this span. Choose a longer span.")
        with ui.element("div").classes("panel") as self._table_panel:
            self._table = event_table(feed, _COLUMNS, pagination=10)

    async def show(self) -> None:
        """Read and show the history, then each new event."""
        self._type.on_value_change(self._read)
        self._hours.on_value_change(self._read)
        await self._read()
        follow(self._feed, self._update)

    async def _read(self) -> None:
        event_type = self._type.value
        try:
            found = await self._feed.queries.history(self._sensor.target, event_type, self._since())
        except StoreError as error:
            self._failed = True
            self._note.set_text(str(error))
            return
        self._failed = False
        if event_type == self._type.value:
            self._events = {event.event_id: event for event in found}
            self._draw()

    async def _update(self) -> None:
        if self._failed and self._feed.error is None:
            await self._read()
            return
        new = {
            event.event_id: event
            for event in self._feed.events
            if event.target == self._sensor.target and event.event_type == self._type.value
        }
        if new.keys() - self._events.keys():
            self._events |= new
            self._draw()
        self._subtitle.set_text(self._describe())

    def _since(self) -> datetime:
        return datetime.now(UTC) - timedelta(hours=int(self._hours.value))

    def _describe(self) -> str:
        seen = ago(self._sensor.last_seen, datetime.now(UTC))
        return f"{type_name(self._sensor.device_type)} · {self._sensor.target} · last seen {seen}"

    def _draw(self) -> None:
        since, now, event_type = self._since(), datetime.now(UTC), self._type.value
        events = sorted(self._events.values(), key=lambda event: event.at or now)
        numbers = lines(events, event_type, since)
        self._found = numbers or bands(events, event_type, since, now)
        options = chart.of_lines(numbers, since, now) if numbers else chart.of_bands(self._found, since, now)  # type: ignore[arg-type]
        self._chart.options.clear()
        self._chart.options.update(options)
        self._chart.update()
        shown = [event for event in reversed(events) if event.at and event.at >= since]
        self._table.rows = [event_row(event) for event in shown[:_ROWS]]
        self._note.set_text(f"The newest {HISTORY:,} events of this span." if len(shown) >= HISTORY else "")
        self._panel.set_visibility(bool(self._found))
        self._csv.set_visibility(bool(self._found))
        self._table_panel.set_visibility(bool(shown))
        self._nothing.set_visibility(not self._found and not shown)
        self._subtitle.set_text(self._describe())

    def _download(self) -> None:
        name = "".join(char if char.isalnum() else "-" for char in f"{self._sensor.name}-{self._type.value}")
        ui.download.content(to_csv(self._found), f"{name}.csv", "text/csv")
