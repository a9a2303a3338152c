"""Who takes part: the function, other ways to write it, the framework's floor, and the limit."""

import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from local.processes import ROOT

_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to take events.

    Attributes:
        name: as on the command line.
        says: what it is, for a person.
        kind: a function for functions-framework, asynchronous (`asgi`) or not (`wsgi`); a `server` of its own; or a
            `client` that sends to the store, without HTTP.
        source: the file that holds it.
        environ: settings of its own.
        package: what it needs beside the project's requirements, as pip takes it.
    """

    name: str
    says: str
    kind: Literal["asgi", "wsgi", "server", "client"]
    source: Path
    environ: Mapping[str, str] = field(default_factory=dict)
    package: str | None = None

    @property
    def missing(self) -> str | None:
        """What to install before it can take part; None when all is there."""
        there = self.package is None or importlib.util.find_spec(self.package.partition("==")[0])
        return None if there else self.package

    def command(self, port: int) -> list[str]:
        """Return the command that serves it at a TCP port of 127.0.0.1."""
        if self.kind == "server":
            return [sys.executable, str(self.source), str(port)]
        command = [sys.executable, "-m", "functions_framework", "--target=dataconnector_endpoint"]
        command += [f"--source={self.source}", "--signature-type=http", "--host=127.0.0.1", f"--port={port}"]
        return [*command, "--asgi"] if self.kind == "asgi" else command


REFERENCE, OURS, FLOOR, LIMIT, GENERATOR = "documented", "ours", "empty_async", "commit_only", "bare_server"

_ALL = (
    Contender(REFERENCE, "Flask, PyJWT, SHA-1, set()", "wsgi", _HERE / "documented.py"),
    Contender(f"{REFERENCE}_250", "the same, THREADS=250", "wsgi", _HERE / "documented.py", environ={"THREADS": "250"}),
    Contender(
        "dtintegrations",
        "Flask, dtintegrations, create()",
        "wsgi",
        _HERE / "dt_integrations.py",
        package="dtintegrations==0.6.1",
    ),
    Contender("async_client", "async, PyJWT, AsyncClient, create()", "asgi", _HERE / "async_client.py"),
    Contender(OURS, "this project's function", "asgi", ROOT / "main.py"),
    Contender("empty_flask", "empty function, Flask", "wsgi", _HERE / "empty_flask.py"),
    Contender(FLOOR, "empty function, async", "asgi", _HERE / "empty_async.py"),
    Contender(LIMIT, "bare grpc.aio, the same Commits", "client", _HERE / "commit_only.py"),
    Contender(GENERATOR, "a constant answer: the load generator's own bound", "server", _HERE / "bare_server.py"),
)
CONTENDERS = {contender.name: contender for contender in _ALL}
