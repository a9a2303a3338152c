"""Makes the screenshot of the viewer: `python -m tests.screenshot docs/viewer.png`."""

import os
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

from google.cloud import firestore

from local.emulator import running_store
from simulator.fleet import Fleet
from tests.browser import find_browser, running_browser
from tests.events import envelope
from tests.viewer import running_viewer, store

PROJECT = "demo-screenshot"
_SILENT = timedelta(hours=3)
_EVENTS, _RATE = 1500, 2.0


def main(file: str) -> None:
    """Fill an embedded store with the events of a simulated fleet, and take a picture of the sensors."""
    path = find_browser()
    if path is None:
        sys.exit("Chromium or Chrome is missing.")
    with tempfile.TemporaryDirectory() as folder, running_store("embedded") as system:
        os.environ |= {"FIRESTORE_EMULATOR_HOST": system.host, "GOOGLE_CLOUD_PROJECT": PROJECT}
        now = datetime.now(UTC)
        played = Fleet(24, 1).play(now - timedelta(seconds=_EVENTS / _RATE), _RATE)
        silent = envelope(timestamp=(now - _SILENT).isoformat())
        store(firestore.Client(), [silent, *(body for _, body in islice(played, _EVENTS))])
        with running_viewer(Path(folder, "log")) as url, running_browser(path) as browser:
            page = browser.new_page(viewport={"width": 1280, "height": 760})
            page.goto(url)
            page.get_by_text("silent for 3 h").wait_for()
            page.screenshot(path=file)


if __name__ == "__main__":
    main(sys.argv[1])
