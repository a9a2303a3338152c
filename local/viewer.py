"""Starts the viewer beside the system; the system does not wait for it, nor end with it."""

import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from local.processes import free_port, port_is_free, running
from viewer.cli import DEFAULT_PORT


@contextmanager
def running_viewer(folder: Path, environ: Mapping[str, str], say: Callable[[str], None]) -> Iterator[str | None]:
    """Run the viewer until the end of the block.

    Args:
        folder: for its log.
        environ: the function's settings.
        say: is called with a line if the viewer cannot start.

    Yields:
        Its address, before it answers; None if NiceGUI is not installed.
    """
    if importlib.util.find_spec("nicegui") is None:
        say("The viewer does not start: NiceGUI is missing; requirements-dev.txt has it.")
        yield None
        return
    port = DEFAULT_PORT if port_is_free(DEFAULT_PORT) else free_port()
    command = [sys.executable, "-m", "viewer", f"--port={port}"]
    with running("The viewer", command, log=folder / "viewer.log", environ=environ, ready=lambda: True):
        yield f"http://127.0.0.1:{port}/"
