"""Starts the function as it is served in the cloud: by functions-framework, on a port of this machine."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from local.processes import ROOT, Part, accepts, running

PROJECT = "demo-dt-firestore"  # Google's own tools never let a project whose id begins with demo- meet a real one


def local_environ(environ: Mapping[str, str], *, host: str, secret: str) -> dict[str, str]:
    """Return an environment in which nothing can reach a Firestore in the cloud.

    Args:
        environ: the environment to start from; the function's other settings are kept.
        host: `HOST:PORT` of the Firestore on this machine.
        secret: the signature secret.

    Returns:
        The environment for the function, and for whoever reads what it stored.
    """
    dropped = {"K_SERVICE", "DEBUG", "CLOUD_RUN_TIMEOUT_SECONDS"}
    return {
        **{name: value for name, value in environ.items() if name not in dropped},
        "DT_SIGNATURE_SECRET": secret,
        "GOOGLE_CLOUD_PROJECT": environ.get("GOOGLE_CLOUD_PROJECT", "").strip() or PROJECT,
        "FIRESTORE_EMULATOR_HOST": host,
        "LOG_LEVEL": "INFO",  # the view reads the log
        "no_grpc_proxy": host.rpartition(":")[0],  # a proxy named in the environment is not meant for this machine
    }


@contextmanager
def running_function(port: int, *, log: Path, environ: Mapping[str, str]) -> Iterator[Part]:
    """Run the function for the time of a block.

    Args:
        port: TCP port on 127.0.0.1.
        log: file for its log.
        environ: its settings.

    Yields:
        Its process, which accepts requests.

    Raises:
        PartError: it did not start; the text has its own last word.
    """
    command = [sys.executable, "-m", "functions_framework", "--target=dataconnector_endpoint", "--source=main.py"]
    command += ["--signature-type=http", "--host=127.0.0.1", f"--port={port}"]
    settings = {**environ, "FUNCTION_USE_ASGI": "true", "PYTHONPATH": str(ROOT)}
    with running("The function", command, log=log, environ=settings, ready=lambda: accepts(port)) as part:
        yield part
