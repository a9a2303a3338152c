"""Access tokens: refreshing a token that is still valid delays and fails no delivery.

The function runs as on Cloud Run: google-auth's own credentials of a Compute Engine metadata server, which is a fake
one, and a channel with TLS to a Firestore, which is the proxy.
"""

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.auth.exceptions import RefreshError
from google.oauth2.credentials import Credentials

from receiver.credentials import PatientCredentials
from tests import signing
from tests.conftest import ROOT, Documents, Endpoint, service_account
from tests.events import encode, envelope
from tests.function import Function
from tests.proxy import Proxy
from tests.tls import server_credentials

STALE = 120  # seconds; google-auth refreshes in the last 225 of a token's life
NO_ANSWER = "no access token within 8 s: the metadata server or the credentials do not answer"
NO_TOKEN = "no access token: the metadata server or the credentials do not give one"


class MetadataServer:
    """A fake metadata server, which is also the token endpoint of a service account.

    Attributes:
        host: `HOST:PORT`.
        expires_in: life of the tokens that it gives, in seconds.
        fault: called before a token is given; returns the status of the answer.
        tokens: how many were asked for.
    """

    def __init__(self) -> None:
        """Listen on a free port of the loopback interface."""
        self.expires_in = STALE
        self.fault: Callable[[], int] = lambda: 200
        self.tokens = 0
        self.released = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, answer = server.answer(self.path)
                body = answer.encode()
                self.send_response(status)
                self.send_header("Metadata-Flavor", "Google")
                self.send_header("Content-Type", "application/json" if body[:1] == b"{" else "text/plain")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET  # noqa: N815 - the name that the base class calls

            def log_message(self, *_arguments: Any) -> None:
                """Write nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.host = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def answer(self, path: str) -> tuple[int, str]:
        """Return status and body."""
        if "/token" in path:
            self.tokens += 1
            token = {"access_token": f"token-{self.tokens}", "expires_in": self.expires_in, "token_type": "Bearer"}
            return self.fault(), json.dumps(token)
        if "/service-accounts/" in path:
            return 200, json.dumps({"email": "dt@demo.invalid", "scopes": [], "aliases": ["default"]})
        if "universe-domain" in path:
            return 200, "googleapis.com"
        return 200, "demo-project"

    def hang(self) -> int:
        """Do not answer until the end of the test."""
        self.released.wait()
        return 503

    def stop(self) -> None:
        """Release what hangs and close."""
        self.released.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def metadata_server() -> Iterator[MetadataServer]:
    """Return a fake metadata server."""
    server = MetadataServer()
    yield server
    server.stop()


@pytest.fixture
def function(
    metadata_server: MetadataServer, firestore_host: str, project: str, tmp_path: Path
) -> Iterator[tuple[Function, Proxy]]:
    """Return the function and the Firestore with TLS that it uses."""
    proxy = Proxy(firestore_host, tls=server_credentials())
    port = proxy.host.rpartition(":")[2]
    (tmp_path / "with_tls.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        f"from receiver import credentials\ncredentials.HOST = 'localhost:{port}'\n"
        "from main import dataconnector_endpoint\n"
    )
    environ = {
        "DT_SIGNATURE_SECRET": signing.SECRET,
        "GOOGLE_CLOUD_PROJECT": project,
        "FIRESTORE_EMULATOR_HOST": "",
        "GOOGLE_APPLICATION_CREDENTIALS": "",
        "CLOUDSDK_CONFIG": str(tmp_path / "empty"),
        "GCE_METADATA_HOST": metadata_server.host,
        "GCE_METADATA_IP": metadata_server.host,
        "GCE_METADATA_ROOT": metadata_server.host,
        "no_proxy": "*",
    }
    process = Function(environ, tmp_path / "function.log", source=tmp_path / "with_tls.py")
    yield process, proxy
    process.kill()
    proxy.stop()


def deliver(process: Function) -> int:
    """Deliver a new event; return the status."""
    body = encode(envelope())
    headers = {"X-Dt-Signature": signing.sign(body)}
    return httpx.post(process.url, content=body, headers=headers, timeout=30).status_code


@pytest.mark.parametrize("fault", ["answers 503", "does not answer"])
def test_refresh_of_a_valid_token_fails_no_delivery(
    function: tuple[Function, Proxy], metadata_server: MetadataServer, stored: Documents, fault: str
) -> None:
    """While a token is still valid, no delivery waits for a metadata server that fails or does not answer."""
    process, _ = function
    assert deliver(process) == 200
    metadata_server.fault = metadata_server.hang if fault == "does not answer" else lambda: 503

    statuses = [deliver(process) for _ in range(12)]

    assert statuses == [200] * 12
    assert len(stored()) == 13
    assert metadata_server.tokens > 1


@pytest.mark.parametrize("fault", ["answers 404", "hangs"])
def test_missing_token_is_named(function: tuple[Function, Proxy], metadata_server: MetadataServer, fault: str) -> None:
    """Without a valid token the answer is 503, and the log names the credentials, not Firestore."""
    process, _ = function
    metadata_server.fault = metadata_server.hang if fault == "hangs" else lambda: 404

    assert deliver(process) == 503

    assert list(process.reasons()) == [NO_ANSWER if fault == "hangs" else NO_TOKEN]


def test_token_is_used_until_it_expires(function: tuple[Function, Proxy], metadata_server: MetadataServer) -> None:
    """A token that is not in the last minutes of its life is not refreshed."""
    process, _ = function
    metadata_server.expires_in = 3600

    assert [deliver(process) for _ in range(3)] == [200] * 3

    assert metadata_server.tokens == 1


@pytest.fixture
def endpoint(
    start: Callable[..., Endpoint],
    metadata_server: MetadataServer,
    firestore_host: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Iterator[Endpoint]:
    """Return the function in this process, with the key of a service account and a Firestore with TLS."""
    proxy = Proxy(firestore_host, tls=server_credentials())
    monkeypatch.setattr("receiver.credentials.HOST", f"localhost:{proxy.host.rpartition(':')[2]}")
    file = service_account(tmp_path, f"http://{metadata_server.host}/token")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    monkeypatch.setenv("no_proxy", "*")
    yield start(FIRESTORE_EMULATOR_HOST="")
    metadata_server.released.set()
    proxy.stop()


@pytest.mark.parametrize("status", [400, 503])
def test_failed_refresh_of_a_valid_token_is_repeated(
    endpoint: Endpoint, metadata_server: MetadataServer, stored: Documents, status: int
) -> None:
    """With the key of a service account, too: while the token is valid, a refresh that fails is tried again later."""
    statuses = [endpoint.deliver(encode(envelope())).status_code]
    metadata_server.fault = lambda: status
    while metadata_server.tokens < 3:
        statuses.append(endpoint.deliver(encode(envelope())).status_code)

    assert set(statuses) == {200}
    assert len(stored()) == len(statuses)


@pytest.mark.parametrize("fault", ["answers 400", "does not answer"])
def test_service_account_without_a_token_is_named(
    endpoint: Endpoint, metadata_server: MetadataServer, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """With the key of a service account, too: without a valid token the log names the credentials."""
    if fault == "does not answer":
        monkeypatch.setattr("receiver.store.TOTAL_SECONDS", 1)
        metadata_server.fault = metadata_server.hang
    else:
        metadata_server.fault = lambda: 400

    assert endpoint.deliver(encode(envelope())).status_code == 503

    expected = NO_ANSWER.replace("8 s", "1 s") if fault == "does not answer" else NO_TOKEN
    assert [line["reason"] for line in endpoint.log()] == [expected]


def held_token(seconds: int) -> Credentials:
    """Return credentials with a token that expires after so many seconds."""
    return Credentials(token="held", expiry=datetime.now(UTC).replace(tzinfo=None) + timedelta(seconds=seconds))


def test_one_thread_at_a_time_replaces_a_token() -> None:
    """While a thread replaces a token that is still valid, requests use that token and start no other thread."""
    patient = PatientCredentials(held_token(STALE))
    headers: dict[str, str] = {}
    patient._refreshing.acquire()
    before = threading.active_count()

    patient.before_request(None, "POST", "https://localhost", headers)

    assert headers["authorization"] == "Bearer held"
    assert threading.active_count() == before


def test_fresh_token_is_only_added() -> None:
    """A token that does not expire soon is added to the request, and nothing else happens."""
    headers: dict[str, str] = {}
    before = threading.active_count()

    PatientCredentials(held_token(3600)).before_request(None, "POST", "https://localhost", headers)

    assert headers["authorization"] == "Bearer held"
    assert threading.active_count() == before


def test_one_request_at_a_time_fetches_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a request fetches a token, others wait for it, no longer than a delivery may take."""
    monkeypatch.setattr("receiver.credentials._FETCH_SECONDS", 0)
    patient = PatientCredentials(held_token(-1))
    patient._fetching.acquire()

    with pytest.raises(RefreshError):
        patient.before_request(None, "POST", "https://localhost", {})

    assert patient.waiting == 0
