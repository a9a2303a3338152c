"""The contenders: this function, other implementations, the framework alone, and Firestore alone."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from local.function import FRAMEWORK
from local.processes import ROOT
from simulator.sensors import ORGANIZATION_ID

_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to receive and store events.

    Attributes:
        name: as on the command line.
        description: what it is, for a person.
        kind: a function for functions-framework, asynchronous (`asgi`) or not (`wsgi`); a `server` of its own; or a
            `client` that calls the store directly.
        source: the file that contains it.
        environ: environment variables that only this contender gets.
        by_public_key: whether its events are signed with a key of DT's, not with the secret.
    """

    name: str
    description: str
    kind: Literal["asgi", "wsgi", "server", "client"]
    source: Path
    environ: Mapping[str, str] = field(default_factory=dict)
    by_public_key: bool = False

    def command(self, port: int) -> list[str]:
        """Return the command that serves it on a TCP port of 127.0.0.1."""
        if self.kind == "server":
            return [sys.executable, str(self.source), str(port)]
        command = [*FRAMEWORK, "--target=dataconnector_endpoint"]
        command += [f"--source={self.source}", "--signature-type=http", "--host=127.0.0.1", f"--port={port}"]
        return [*command, "--asgi"] if self.kind == "asgi" else command


REFERENCE, OURS, FLOOR, LIMIT, GENERATOR = "documented", "ours", "empty_async", "commit_only", "bare_server"

_ALL = (
    Contender(REFERENCE, "as DT documents it: Flask, PyJWT, SHA-1, set()", "wsgi", _HERE / "documented.py"),
    Contender(f"{REFERENCE}_250", "the same, THREADS=250", "wsgi", _HERE / "documented.py", {"THREADS": "250"}),
    Contender("dtintegrations", "Flask, DT's dtintegrations, create()", "wsgi", _HERE / "dt_integrations.py"),
    Contender("async_client", "async, PyJWT, AsyncClient, create()", "asgi", _HERE / "async_client.py"),
    Contender(OURS, "this project's function", "asgi", ROOT / "main.py"),
    Contender(
        f"{OURS}_public_key",
        "the same, events signed with DT's key",
        "asgi",
        ROOT / "main.py",
        {"DT_ORGANIZATION_ID": ORGANIZATION_ID, "DT_SIGNATURE_SECRET": ""},
        by_public_key=True,
    ),
    Contender(f"{OURS}_devices", "the same, with devices", "asgi", ROOT / "main.py", {"DEVICES_COLLECTION": "devices"}),
    Contender("empty_flask", "empty function, Flask", "wsgi", _HERE / "empty_flask.py"),
    Contender(FLOOR, "empty function, async", "asgi", _HERE / "empty_async.py"),
    Contender(LIMIT, "the same Commits from bare grpc.aio, without HTTP", "client", _HERE / "commit_only.py"),
    Contender(GENERATOR, "fixed answer: limit of the load generator", "server", _HERE / "bare_server.py"),
)
CONTENDERS = {contender.name: contender for contender in _ALL}
