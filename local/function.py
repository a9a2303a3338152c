"""Starts the function as Google Cloud does, with functions-framework, on a port of this machine."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from local.processes import ROOT, Process, accepts, starting, wait_until_ready

PROJECT = "demo-dt-firestore"  # the emulators never connect a project id that begins with demo- to the cloud

# uvicorn uses these packages where they are installed. The function is deployed without them, and the viewer brings
# them: with uvloop the function has another event loop, and with the others a request to open a WebSocket waits.
_NOT_DEPLOYED = ("uvloop", "websockets", "wsproto")
_RUN = (
    f"import runpy, sys; sys.modules.update(dict.fromkeys({_NOT_DEPLOYED})); runpy.run_module('functions_framework', "
)
FRAMEWORK = (sys.executable, "-c", f"{_RUN}run_name='__main__')")  # as `python -m functions_framework`


def local_environ(environ: Mapping[str, str], *, host: str, secret: str) -> dict[str, str]:
    """Return settings for the function that lead to the Firestore at `host` (`HOST:PORT`), never to the cloud.

    The function's other settings are copied from `environ`. A reader of the stored documents needs the same settings.
    """
    dropped = {"K_SERVICE", "DEBUG", "CLOUD_RUN_TIMEOUT_SECONDS"}
    return {
        **{name: value for name, value in environ.items() if name not in dropped},
        "DT_SIGNATURE_SECRET": secret,
        "GOOGLE_CLOUD_PROJECT": environ.get("GOOGLE_CLOUD_PROJECT", "").strip() or PROJECT,
        "FIRESTORE_EMULATOR_HOST": host,
        "LOG_LEVEL": "INFO",  # the view reads the log
        "no_grpc_proxy": host.rpartition(":")[0],  # no proxy for connections to this machine
    }


@contextmanager
def starting_function(
    port: int, *, log: Path, environ: Mapping[str, str], source: str = "main.py"
) -> Iterator[Process]:
    """Start the function on 127.0.0.1, and stop it at the end of the block, which does not wait for it."""
    command = [*FRAMEWORK, "--target=dataconnector_endpoint", f"--source={source}"]
    command += ["--signature-type=http", "--host=127.0.0.1", f"--port={port}"]
    settings = {**environ, "FUNCTION_USE_ASGI": "true", "PYTHONPATH": str(ROOT)}
    with starting("The function", command, log=log, environ=settings) as process:
        yield process


@contextmanager
def running_function(port: int, *, log: Path, environ: Mapping[str, str], source: str = "main.py") -> Iterator[Process]:
    """Run the function on 127.0.0.1 until the end of the block; it accepts requests when the block begins.

    Raises:
        ProcessError: it did not start; the text ends with the last line of its log.
    """
    with starting_function(port, log=log, environ=environ, source=source) as process:
        wait_until_ready(process, lambda: accepts(port))
        yield process
