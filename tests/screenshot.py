"""Makes the screenshot of the viewer."""

import os
import sys
import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import click
from google.cloud import firestore

import command_line
from local.emulator import running_store
from receiver.event import parse_event
from simulator.fleet import Fleet
from tests.browser import find_browser, running_browser
from tests.events import encode, envelope
from tests.viewer import running_viewer, store

_PROJECT = "demo-screenshot"
_SILENT = timedelta(hours=3)
_EVENTS, _RATE = 1500, 2.0


@click.command(epilog=command_line.examples("python -m tests.screenshot docs/viewer.png"))
@click.argument("file", type=click.Path(dir_okay=False, writable=True))
def _command(file: str) -> None:
    """Write a picture of the viewer's sensors, those of a simulated fleet, to FILE."""
    path = find_browser()
    if path is None:
        raise click.ClickException("Chromium or Chrome is missing")
    with tempfile.TemporaryDirectory() as folder, running_store("embedded") as system:
        os.environ |= {"FIRESTORE_EMULATOR_HOST": system.host, "GOOGLE_CLOUD_PROJECT": _PROJECT}
        os.environ["DEVICES_COLLECTION"] = "devices"
        now = datetime.now(UTC)
        played = Fleet(24, 1).play(now - timedelta(seconds=_EVENTS / _RATE), _RATE)
        silent = envelope(timestamp=(now - _SILENT).isoformat()) | {"labels": {"name": "Beer fridge"}}
        bodies = [silent, *(body for _, body in islice(played, _EVENTS))]
        store(firestore.Client(), bodies)
        _store_devices(firestore.Client(), bodies)
        with running_viewer(Path(folder, "log")) as url, running_browser(path) as browser:
            page = browser.new_page(viewport={"width": 1280, "height": 760})
            page.goto(url)
            page.get_by_text("silent for 3 h").wait_for()
            page.screenshot(path=file)


def _store_devices(database: firestore.Client, bodies: Iterable[dict[str, Any]]) -> None:
    devices: dict[str, dict[str, Any]] = {}
    for body in bodies:
        event = parse_event(encode(body)).fields
        device = devices.setdefault(event["targetName"], {"newest": {}})
        device |= {name: event[name] for name in ("targetName", "labels", "metadata")}
        device["lastSeen"] = event["timestamp"]
        device["newest"][event["eventType"]] = {name: event[name] for name in ("eventId", "timestamp", "data")}
    for number, device in enumerate(devices.values()):
        database.collection("devices").document(str(number)).set(device)


if __name__ == "__main__":
    sys.exit(command_line.run(_command, name="python -m tests.screenshot"))
