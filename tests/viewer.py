"""The viewer as a process, and documents for it to show."""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from google.cloud import firestore

from local.processes import free_port, running
from receiver.event import parse_event
from tests.events import encode


@contextmanager
def running_viewer(log: Path, **environ: str) -> Iterator[str]:
    """Run the viewer on a free port and yield its address."""
    url = f"http://127.0.0.1:{(port := free_port())}/"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}  # NiceGUI reads it
    command = [sys.executable, "-m", "viewer", f"--port={port}"]
    with running("The viewer", command, log=log, environ=inherited | environ, ready=lambda: _answers(url)):
        yield url


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def store(database: firestore.Client, bodies: Iterable[dict[str, Any]]) -> None:
    """Write the documents of bodies that DT Cloud sends, as the function does."""
    batch = database.batch()
    for number, body in enumerate(bodies, 1):
        event = parse_event(encode(body))
        reference = database.collection("events").document(event.event_id)
        batch.set(reference, event.fields | {"receivedAt": firestore.SERVER_TIMESTAMP})
        if number % 400 == 0:
            batch.commit()
            batch = database.batch()
    batch.commit()
