"""`python -m tests.viewer_size`: measures the viewer with many devices and events, in a real browser."""

import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import chain, islice
from pathlib import Path
from typing import Any

import click
import psutil
from google.cloud import firestore
from google.cloud.firestore_v1.types import BatchWriteRequest, Write
from playwright.sync_api import Browser, Page

import command_line
from local.emulator import running_store
from receiver.values import fill_fields
from tests.browser import find_browser, running_browser
from tests.events import DATA, envelope
from tests.viewer import running_viewer
from viewer.queries import DEVICES

_NAME = "python -m tests.viewer_size"
_PROJECT = "demo-viewer-size"
_BATCH = 500  # documents
_PATIENCE = 300_000  # milliseconds: a fresh embedded store first builds its indexes
_SPAN = timedelta(days=1)
_TYPES = ("temperature", "networkStatus", "batteryStatus")


def main(argv: list[str] | None = None) -> int:
    """Run the measurement and return its exit status; `argv` defaults to the arguments of the process."""
    return command_line.run(_measure, argv, name=_NAME)


@click.command(
    epilog=command_line.examples(f"{_NAME} --devices 100 --events 1000", f"{_NAME} --store emulator --events 200000")
)
@click.option("--devices", metavar="N", type=click.IntRange(2, DEVICES), default=10_000, show_default=True)
@click.option("--events", metavar="N", type=click.IntRange(2), default=1_000_000, show_default=True)
@click.option("--rounds", metavar="N", type=command_line.COUNT, default=5, show_default=True, help="Viewers to start.")
@click.option("--store", type=click.Choice(["embedded", "emulator"]), default="embedded", show_default=True)
def _measure(*, devices: int, events: int, rounds: int, store: Any) -> None:
    """Fill a Firestore, open the viewer's pages several times, and print seconds and memory of each time.

    The first time, an embedded store also builds its indexes.
    """
    path = find_browser()
    if path is None:
        raise click.ClickException("Chromium or Chrome is missing")
    with tempfile.TemporaryDirectory() as folder, running_store(store, file=Path(folder, "store.sqlite3")) as system:
        os.environ |= {"FIRESTORE_EMULATOR_HOST": system.host, "GOOGLE_CLOUD_PROJECT": _PROJECT}
        os.environ["DEVICES_COLLECTION"] = "devices"
        _fill(devices, events)
        with running_browser(path) as browser:
            for _ in range(rounds):
                print(json.dumps(_round(browser, Path(folder, "log"), devices)), flush=True)


def _fill(devices: int, events: int) -> None:
    """Write the documents, spread evenly over devices and one day, the newest of now."""
    client, end = firestore.Client(), datetime.now(UTC)
    documents = chain(_events(devices, events, end), _devices(devices, end))
    with click.progressbar(range(0, devices + events, _BATCH), file=sys.stderr) as batches:
        for _ in batches:
            writes = _writes(client, islice(documents, _BATCH))
            request = BatchWriteRequest.pb()(database=client._database_string, writes=writes)
            client._firestore_api.batch_write(request=BatchWriteRequest.wrap(request))


def _writes(client: firestore.Client, documents: Iterable[tuple[str, dict[str, Any]]]) -> Iterator[Any]:
    for path, fields in documents:
        write = Write.pb()()
        write.update.name = f"{client._database_string}/documents/{path}"
        fill_fields(write.update.fields, fields)
        yield write


def _events(devices: int, events: int, end: datetime) -> Iterator[tuple[str, dict[str, Any]]]:
    for number in range(events):
        at = end - _SPAN * (1 - (number + 1) / events)
        body = _body(number % devices, _TYPES[number // devices % len(_TYPES)], f"event{number:09}", at)
        yield f"events/event{number:09}", body.pop("event") | body | {"receivedAt": at}


def _devices(devices: int, end: datetime) -> Iterator[tuple[str, dict[str, Any]]]:
    for number in range(devices):
        seen = end - timedelta(seconds=number / devices)
        body = _body(number, "temperature", "", seen)
        newest = {kind: {"eventId": f"e{number}", "timestamp": seen, "data": DATA[kind]} for kind in _TYPES}
        known = {"targetName": body.pop("event")["targetName"], "lastSeen": seen, "newest": newest}
        yield f"devices/d{number:06}", known | body


def _body(device: int, event_type: str, key: str, at: datetime) -> dict[str, Any]:
    body = envelope(event_type, eventId=key, targetName=f"projects/p/devices/d{device:06}", timestamp=at)
    return body | {"labels": {"name": f"Fridge {device:06}", "room": "Kitchen"}}


def _round(browser: Browser, log: Path, devices: int) -> dict[str, float]:
    """Start a viewer, and return seconds until its pages show their content, and its memory in MiB."""
    with running_viewer(log) as url, browser.new_context() as context:
        page = context.new_page()
        page.set_default_timeout(_PATIENCE)
        first = _seconds(lambda: _open(page, url, ".sensor"))
        rest = _seconds(lambda: page.get_by_text(re.compile(rf"^{devices:,} sensors( · [^…]*)?$")).wait_for())
        found = {
            "firstSensors": first,
            "allSensors": first + rest,
            "secondPage": _seconds(lambda: _open(context.new_page(), url, ".sensor")),
            "history": _seconds(lambda: _open(page, f"{url}history?sensor=projects/p/devices/d000001", "tbody tr")),
            "deliveries": _seconds(lambda: _open(page, f"{url}deliveries", ".latest tbody tr")),
        }
        memory = max(process.memory_info().rss for process in psutil.Process().children() if _is_viewer(process))
        return {name: round(each, 2) for name, each in found.items()} | {"memoryMiB": memory // 2**20}


def _open(page: Page, url: str, content: str) -> None:
    page.goto(url)
    page.locator(content).first.wait_for(timeout=_PATIENCE)


def _seconds(action: Callable[[], object]) -> float:
    started = time.monotonic()
    action()
    return time.monotonic() - started


def _is_viewer(process: psutil.Process) -> bool:
    return "viewer" in process.cmdline()


if __name__ == "__main__":
    sys.exit(main())
