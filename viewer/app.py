"""The application: its pages, the guard before them, and the feed behind them."""

from nicegui import Client, app, background_tasks, ui

from viewer import deliveries, history, sensors
from viewer.connection import Source
from viewer.feed import Feed
from viewer.guard import LoopbackOnly
from viewer.queries import Queries


def serve(source: Source, port: int) -> None:
    """Serve the pages on 127.0.0.1 until a signal."""
    feed = Feed(Queries(source), _is_open)
    for module in (sensors, history, deliveries):
        module.add_page(feed)
    app.add_middleware(LoopbackOnly)
    app.on_startup(lambda: background_tasks.create(feed.run(), name="feed"))
    app.on_startup(lambda: print(f"The viewer is at http://127.0.0.1:{port}/", flush=True))
    ui.run(
        host="127.0.0.1",
        port=port,
        title="Sensor events",
        favicon="📡",
        dark=None,
        language="en-US",
        show=False,
        reload=False,
        show_welcome_message=False,
        tailwind=False,
        timeout_graceful_shutdown=1,
    )


def _is_open() -> bool:
    return any(client.has_socket_connection for client in Client.instances.values())
