"""The stores and the function, as the tests use them."""

import json
import os
import signal
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from functions_framework.aio import create_asgi_app
from google.cloud import firestore
from starlette.testclient import TestClient

from local.emulator import StoreUnavailable, running_store
from tests import signing, tls
from tests.function import Function
from tests.proxy import Proxy

ROOT = Path(__file__).parent.parent

tls.trust()

# A background job ignores SIGINT, and so do its children; the processes of the tests must not.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def emulator_host() -> Iterator[str]:
    """Return the address of the official emulator; where it is not available skip the test, but fail in CI."""
    try:
        with running_store("emulator") as store:
            _warm_up(store.host)
            yield store.host
    except StoreUnavailable as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))


def _warm_up(host: str) -> None:
    """Wait for the emulator's first commit, which on a busy machine takes longer than the function's deadline."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIRESTORE_EMULATOR_HOST", host)
        firestore.Client(project="demo-warm-up").document("warm/up").set({}, timeout=60)


@pytest.fixture(scope="session")
def embedded_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of an embedded store."""
    with running_store("embedded", file=tmp_path_factory.mktemp("embedded") / "firestore.sqlite3") as store:
        yield store.host


@pytest.fixture(scope="session")
def firestore_host(request: pytest.FixtureRequest) -> str:
    """Return the address of the official emulator; of the embedded store where the emulator is not available."""
    try:
        host: str = request.getfixturevalue("emulator_host")
    except pytest.skip.Exception:
        host = request.getfixturevalue("embedded_host")
    return host


@pytest.fixture
def project() -> str:
    """Return a project of the test's own, so that it finds only what it stored."""
    return f"demo-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def proxy(firestore_host: str) -> Iterator[Proxy]:
    """Return a proxy before the Firestore, as yet without a fault."""
    proxy = Proxy(firestore_host)
    yield proxy
    proxy.stop()


@pytest.fixture
def environ(firestore_host: str, project: str) -> dict[str, str]:
    """Return the function's settings."""
    return {
        "DT_SIGNATURE_SECRET": signing.SECRET,
        "GOOGLE_CLOUD_PROJECT": project,
        "FIRESTORE_EMULATOR_HOST": firestore_host,
    }


@pytest.fixture
def database(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> firestore.Client:
    """Return a reader of the test's database that shares nothing with the function."""
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", environ["FIRESTORE_EMULATOR_HOST"])
    return firestore.Client(project=environ["GOOGLE_CLOUD_PROJECT"])


class Endpoint:
    """The function as deployed, in this process.

    Attributes:
        client: speaks HTTP with it.
    """

    def __init__(self, client: TestClient, capfd: pytest.CaptureFixture[str]) -> None:
        """Initialize."""
        self.client = client
        self._capfd = capfd

    def deliver(self, body: bytes, token: str | None = None, **headers: str) -> httpx.Response:
        """POST a body, with its true signature unless another one is given."""
        headers = {"X-Dt-Signature": signing.sign(body) if token is None else token, **headers}
        response: httpx.Response = self.client.post("/", content=body, headers=headers)
        return response

    def log(self) -> list[dict[str, Any]]:
        """Return the log lines since the last call."""
        return [json.loads(line) for line in self._capfd.readouterr().out.splitlines()]


@pytest.fixture
def start(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Endpoint]]:
    """Return a function that starts the receiver with the test's settings and the changes that are given."""
    clients: list[TestClient] = []

    def start_endpoint(**changes: str) -> Endpoint:
        for name, value in (environ | changes).items():
            monkeypatch.setenv(name, value)
        app = create_asgi_app(target="dataconnector_endpoint", source=str(ROOT / "main.py"))
        clients.append(TestClient(app).__enter__())
        return Endpoint(clients[-1], capfd)

    yield start_endpoint
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def endpoint(start: Callable[..., Endpoint]) -> Endpoint:
    """Return the function with the test's settings."""
    return start()


Documents = Callable[[], dict[str, dict[str, Any]]]


@pytest.fixture
def stored(database: firestore.Client) -> Documents:
    """Return a function that reads all events, by key."""
    return lambda: {document.id: document.to_dict() or {} for document in database.collection("events").stream()}


@pytest.fixture
def quarantined(database: firestore.Client) -> Documents:
    """Return a function that reads the whole quarantine, by key."""
    return lambda: {doc.id: doc.to_dict() or {} for doc in database.collection("events_quarantine").stream()}


@pytest.fixture(scope="session")
def run_script() -> Callable[..., str]:
    """Return a function that runs a script of the project and returns its standard output."""

    def run(script: str, *arguments: str) -> str:
        finished = subprocess.run(
            [str(ROOT / script), *arguments], capture_output=True, text=True, check=True, timeout=120
        )
        return finished.stdout

    return run


StartFunction = Callable[..., Function]


@pytest.fixture
def function(environ: dict[str, str], tmp_path: Path) -> Iterator[StartFunction]:
    """Return a function that starts the function's process; its arguments override settings."""
    with ExitStack() as started:

        def start_process(**changes: str) -> Function:
            process = Function(environ | changes, tmp_path / "function.log")
            started.callback(process.kill)
            return process

        yield start_process


def service_account(folder: Path, token_uri: str) -> Path:
    """Write the key file of a service account whose tokens come from a URL; return the file."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    account = {"type": "service_account", "private_key": pem, "client_email": "dt@demo.invalid"}
    file = folder / "account.json"
    file.write_text(json.dumps(account | {"token_uri": token_uri}))
    return file
