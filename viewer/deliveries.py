"""The page of the latest events, and of the quarantine."""

from typing import Any

from nicegui import ui

from viewer.feed import Feed
from viewer.model import Event
from viewer.page import TIME_CELL, as_json, empty, event_row, event_table, follow, frame, milliseconds, show_text
from viewer.queries import EPOCH, quarantined_at

_COLUMNS = {"at": "Time", "name": "Sensor", "type": "Type", "value": "Value", "received": "Received"}
_REFUSED = [
    {"name": "received", "label": "Received", "field": "received", "align": "left"},
    {"name": "reason", "label": "Reason", "field": "reason", "align": "left", "classes": "reason"},
    {"name": "start", "label": "Body", "field": "start", "align": "left", "classes": "wide", "headerClasses": "wide"},
]
_START = 80  # characters of a body in the table


def add_page(feed: Feed) -> None:
    """Add the page to the application."""

    @ui.page("/deliveries")
    def deliveries() -> None:
        feed.quarantine_pages += 1

        def leave() -> None:
            feed.quarantine_pages -= 1

        ui.context.client.on_delete(leave)
        with frame(feed, "/deliveries"):
            _content(feed)


def _content(feed: Feed) -> None:
    with ui.element("div").classes("panel quarantine"):
        ui.label("Quarantine").props("role=heading aria-level=2")
        ui.label("Authentic requests that are not a valid event. A click shows the body.").classes("faint")
        refused = ui.table(columns=_REFUSED, rows=[], row_key="id", pagination=5).props("flat dense")
        refused.add_slot("body-cell-received", TIME_CELL)
        clean = ui.label("The quarantine is empty: every authentic request was stored.").classes("faint")
    with ui.element("div").classes("panel latest"):
        ui.label("Latest events").props("role=heading aria-level=2")
        latest = event_table(feed, _COLUMNS, pagination=20)
    nothing = empty("No event is stored yet. ./run.sh plays simulated sensors:", "./run.sh")

    def open_body(key: str) -> None:
        document = dict(feed.quarantine or ()).get(key)
        if document:
            show_text(str(document.get("reason")), _body(document))

    refused.on("rowClick", lambda click: open_body(click.args["id"]), js_handler="(_, row) => emit({id: row.id})")

    def show() -> None:
        refused.rows = [_refused_row(key, document) for key, document in feed.quarantine or ()]
        latest.rows = [event_row(event) for event in sorted(feed.events, key=_received, reverse=True)]
        refused.set_visibility(bool(feed.quarantine))
        clean.set_visibility(feed.quarantine == [])
        nothing.set_visibility(feed.loaded and not feed.events)

    show()
    follow(feed, show)


def _received(event: Event) -> Any:
    return event.received_at or event.at or EPOCH


def _refused_row(key: str, document: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": key,
        "received": milliseconds(quarantined_at(document)),
        "reason": str(document.get("reason")),
        "start": _body(document)[:_START],
    }


def _body(document: dict[str, Any]) -> str:
    body = document.get("body")
    return body.decode(errors="replace") if isinstance(body, bytes) else as_json({"body": body})
