"""What all pages have: the header, the message when Firestore does not answer, and the footer."""

import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from nicegui import ui

from viewer.connection import StoreError
from viewer.feed import Feed
from viewer.model import Event, type_name

SHORT = 0.3  # seconds, between looks at the feed
AGES = 20  # looks, after which "3 min ago" is brought up to date
_STYLE = Path(__file__).with_name("style.css")
_LINKS = {"/": "Sensors", "/deliveries": "Deliveries"}
TIME_CELL = """
<q-td :props="props">{{ props.value ? new Date(props.value).toLocaleString() : "" }}</q-td>
"""


@contextmanager
def frame(feed: Feed, here: str) -> Iterator[None]:
    """Put the content of the block between header and footer."""
    ui.add_css(_STYLE)
    with ui.element("header").classes("bar"), ui.element("div"):
        with ui.element("b"):
            ui.label("Sensor events")
        for path, text in _LINKS.items():
            ui.link(text, path).classes("here" if path == here else "")
    banner = ui.label().classes("banner")
    with ui.element("main").classes("body"):
        yield
    with ui.element("footer").classes("foot"):
        ui.label(str(feed.queries.source))
        reads = ui.label()

    def show() -> None:
        banner.set_visibility(feed.error is not None)
        banner.set_text(f"{feed.error} The page shows what was read before, and tries again." if feed.error else "")
        reads.set_text(f"{feed.queries.connection.reads:,} documents read")

    show()
    ui.timer(SHORT, show)


def follow(feed: Feed, show: Callable[[], Awaitable[None] | None]) -> None:
    """Call a function soon, after each change of the feed, and now and then, since ages change."""
    shown, looks = -1, 0

    async def look() -> None:
        nonlocal shown, looks
        looks += 1
        if shown != feed.version or looks % AGES == 0:
            shown = feed.version
            if (result := show()) is not None:
                await result

    ui.timer(SHORT, look)


def empty(text: str, command: str = "") -> ui.element:
    """Show what to do where there is nothing to show."""
    with ui.element("div").classes("empty") as box:
        ui.label(text)
        if command:
            with ui.element("code"):
                ui.label(command)
    return box


def event_table(feed: Feed, columns: dict[str, str], **settings: Any) -> ui.table:
    """Add a table of events, which shows an event as JSON on a click.

    Args:
        feed: of the page.
        columns: headings by the name of a field of `event_row`.
        settings: of `ui.table`.
    """
    wide = {"received", "type"} if len(columns) > 3 else {"received"}  # noqa: PLR2004 - on a narrow page
    heads = [
        {"name": name, "label": label, "field": name, "align": "left", "sortable": True}
        | ({"classes": "wide", "headerClasses": "wide"} if name in wide else {})
        for name, label in columns.items()
    ]
    table = ui.table(columns=heads, rows=[], row_key="id", **settings).props("flat dense")
    for name in {"at", "received"} & columns.keys():
        table.add_slot(f"body-cell-{name}", TIME_CELL)

    async def open_event(key: str) -> None:
        try:
            document = await feed.queries.document(key)
        except StoreError as error:
            ui.notify(str(error))
        else:
            show_text(key, as_json(document) if document else "This event is no longer stored.")

    table.on("rowClick", lambda click: open_event(click.args["id"]), js_handler="(_, row) => emit({id: row.id})")
    return table


def event_row(event: Event) -> dict[str, Any]:
    """Return a row for `event_table`; times in milliseconds, which the browser shows in its own zone."""
    return {
        "id": event.event_id,
        "name": event.name,
        "type": type_name(event.event_type),
        "value": event.value,
        "at": milliseconds(event.at),
        "received": milliseconds(event.received_at),
    }


def show_text(title: str, text: str) -> None:
    """Show preformatted text in a dialog."""
    with ui.dialog(value=True) as dialog, ui.card():
        ui.label(title).classes("faint")
        with ui.element("pre").classes("json"):
            ui.label(text)
    dialog.on("hide", dialog.delete)


def as_json(document: dict[str, Any]) -> str:
    """Return a document as JSON; times as RFC 3339."""
    return json.dumps(document, indent=2, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def milliseconds(time: datetime | None) -> int | None:
    """Return a time as JavaScript counts it."""
    return None if time is None else round(time.timestamp() * 1000)
