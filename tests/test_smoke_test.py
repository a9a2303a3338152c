"""deploy/smoke_test.py: what it says of each delivery and of each failure, and its wait for an event from DT."""

import ast
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from google.cloud import firestore

from deploy import smoke_test
from tests import tls
from tests.conftest import ROOT, Endpoint, StartFunction
from tests.events import encode, envelope
from tests.json_server import JsonServer
from tests.signing import SECRET

Smoke = Callable[..., subprocess.CompletedProcess[str]]


class RefusingEndpoint(JsonServer):
    """An endpoint and a Firestore that answer with given statuses, one a request.

    Attributes:
        statuses: of the next requests; the last one stays.
    """

    def __init__(self, *statuses: int) -> None:
        """Answer with these statuses."""
        self.statuses = list(statuses)
        super().__init__()

    def respond(self, *_: object) -> tuple[int, str]:
        """Answer with the next status."""
        return (self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]), "no reason"


@pytest.fixture
def refusing() -> Iterator[Callable[..., str]]:
    """Return a function that starts an endpoint which answers with given statuses; it returns the URL."""
    servers: list[RefusingEndpoint] = []

    def start(*statuses: int) -> str:
        servers.append(RefusingEndpoint(*statuses))
        return servers[-1].url

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def documents(environ: dict[str, str], firestore_host: str) -> str:
    """Return the URL of the collection of events in the REST API of the local Firestore."""
    project = environ["GOOGLE_CLOUD_PROJECT"]
    return f"http://{firestore_host}/v1/projects/{project}/databases/(default)/documents/events"


@pytest.fixture
def smoke(documents: str, monkeypatch: pytest.MonkeyPatch) -> Smoke:
    """Return a function that runs the script; standard input holds a token and the secrets."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)

    def run(*options: str, secrets: str = SECRET) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "deploy/smoke_test.py", "--documents", documents, "--patience", "0.1", *options]
        return subprocess.run(
            command, cwd=ROOT, input=f"owner\n{secrets}\n", capture_output=True, text=True, timeout=60, check=False
        )

    return run


def test_each_line_says_what_it_proves(smoke: Smoke, function: StartFunction, database: firestore.Client) -> None:
    """Each delivery is a line with its status and what that proves, for each secret; nothing remains in Firestore."""
    url = function(DT_SIGNATURE_SECRET=f"{SECRET}\nthe old secret").url

    run = smoke("--url", url, secrets=f"{SECRET}\nthe old secret")

    assert run.returncode == 0, run.stderr
    assert [line.strip() for line in run.stderr.splitlines()] == [
        "a new event: 200 (the function verifies the signature, and Firestore stores the event)",
        "the same event again: 200 (a repeated delivery is acknowledged; secret 1 of 2 is accepted)",
        "the same event again: 200 (a repeated delivery is acknowledged; secret 2 of 2 is accepted)",
        "a tampered event: 400 (a body that differs from its signature is refused)",
        "the synthetic document was in Firestore, and is deleted",
    ]
    assert list(database.collection("events").stream()) == []


def test_an_old_instance_may_still_refuse(refusing: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    """A delivery that is answered with 400 at first, by an instance with the earlier secret, is repeated."""
    url = refusing(400, 200)

    smoke_test._deliver_until_stored(url, b"{}", SECRET, 20, "a new event: 200 (stored)")

    assert capsys.readouterr().err.splitlines() == [
        "  the endpoint does not accept events yet: 400 (the endpoint has another signature secret)",
        "  a new event: 200 (stored)",
    ]


def test_a_lasting_400_fails_before_the_patience_ends(
    refusing: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only for a minute a 400 may come from an old instance, however long a new endpoint is waited for."""
    monkeypatch.setattr(smoke_test, "_OLD_INSTANCES", 0.1)

    with pytest.raises(smoke_test.SmokeTestError, match=r"400 .* another signature secret"):
        smoke_test._deliver_until_stored(refusing(400), b"{}", SECRET, 600, "a new event: 200")


@pytest.mark.parametrize(
    ("statuses", "words"),
    [
        ([403], "a new event was answered with 403 (the endpoint is not public"),
        ([500], "a new event was answered with 500"),
        ([200], "a tampered event was answered with 200 instead of 400"),
        ([200, 200, 503], "a tampered event was answered with 503"),
    ],
)
def test_a_wrong_answer_has_its_own_exit_status(
    refusing: Callable[..., str], smoke: Smoke, statuses: list[int], words: str
) -> None:
    """An answer that a good endpoint does not give, from the function or from the platform, is exit status 3."""
    run = smoke("--url", refusing(*statuses))

    assert run.returncode == 3
    assert words in run.stderr.splitlines()[-1]


def test_an_event_that_is_not_in_firestore(refusing: Callable[..., str], smoke: Smoke) -> None:
    """An endpoint that answers as it should, but whose event is not in the collection, is at fault."""
    run = smoke("--url", refusing(200, 200, 400))

    assert run.returncode == 3
    assert "whose delivery was answered with 200, is not in http" in run.stderr.splitlines()[-1]


def test_a_failed_deletion_does_not_hide_a_wrong_answer(refusing: Callable[..., str], smoke: Smoke) -> None:
    """The endpoint's wrong answer counts, although Firestore cannot be reached either."""
    run = smoke("--url", refusing(500), "--documents", "http://127.0.0.1:1/v1/projects/p/databases/d/documents/events")

    assert run.returncode == 3
    assert "answered with 500" in run.stderr.splitlines()[-1]


def test_a_silent_endpoint_is_at_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes a delivery and does not answer in time counts as a gateway that says 504."""
    monkeypatch.setattr(smoke_test, "_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"

        assert smoke_test._request("POST", url, {}, b"{}") == (504, "127.0.0.1 does not answer within 0.2 s")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:1/", "127.0.0.1 refuses the connection"),
        ("http://no-such-host.invalid/", "the name no-such-host.invalid cannot be resolved"),
    ],
)
def test_a_failed_connection_is_explained(smoke: Smoke, url: str, reason: str) -> None:
    """A delivery without an answer names the cause: the name or the connection."""
    run = smoke("--url", url)

    assert run.returncode == 1
    assert f"a new event was answered with nothing ({reason}" in run.stderr.splitlines()[-1]


def test_a_certificate_that_cannot_be_verified_is_explained(smoke: Smoke, tmp_path: Path) -> None:
    """A server whose certificate this Python cannot verify fails at once, and the error names the Python."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    (tmp_path / "pem").write_bytes(tls._KEY + tls._CHAIN)
    context.load_cert_chain(tmp_path / "pem")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_handshakes, args=(listener, context), daemon=True).start()

        run = smoke("--url", f"https://127.0.0.1:{listener.getsockname()[1]}/", "--patience", "600")

    assert run.returncode == 1
    assert "the certificate of 127.0.0.1 cannot be verified" in run.stderr
    assert sys.executable in run.stderr
    assert "SSL_CERT_FILE" in run.stderr


def _handshakes(listener: socket.socket, context: ssl.SSLContext) -> None:
    with suppress(OSError):
        while True:
            connection, _ = listener.accept()
            with suppress(ssl.SSLError):
                context.wrap_socket(connection, server_side=True).close()


def test_a_connection_that_is_closed_is_explained(smoke: Smoke) -> None:
    """A server that closes the connection without an answer is reported in one line, not by a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_hang_up, args=(listener,), daemon=True).start()

        run = smoke("--url", f"http://127.0.0.1:{listener.getsockname()[1]}/")

    assert run.returncode == 1
    assert "the connection to 127.0.0.1 failed" in run.stderr
    assert "Traceback" not in run.stderr


def _hang_up(listener: socket.socket) -> None:
    with suppress(OSError):
        while True:
            listener.accept()[0].close()


def test_an_event_from_dt_is_found(documents: str, endpoint: Endpoint) -> None:
    """Synthetic events, those from before the wait, and those without a valid time do not count."""
    target = "projects/p/devices/new"
    endpoint.deliver(encode(envelope("touch")))
    since = smoke_test.database_time(documents, "owner")
    endpoint.deliver(encode(envelope("touch", eventId="deploy-1")))
    for _ in range(20):
        endpoint.deliver(encode(envelope("touch", timestamp="not a time")))
    endpoint.deliver(encode(envelope("humidity", targetName=target)))

    found = smoke_test.wait_for_event(documents, "owner", 20, since=since)

    assert found.startswith(f"an event from DT is in Firestore: humidity of {target}, received at 20")


def test_a_wait_in_vain(smoke: Smoke, endpoint: Endpoint) -> None:
    """Without a URL the script only waits; if no further event is stored, it fails and says where to look."""
    endpoint.deliver(encode(envelope()))

    run = smoke("--wait-for-event", "0.1", secrets="")

    assert run.returncode == 1
    assert "waiting up to 0.1 s for an event from DT" in run.stderr
    assert "no event from DT was stored within 0.1 s" in run.stderr
    assert "docs/operations.md" in run.stderr


def test_a_refused_query_is_explained(refusing: Callable[..., str], smoke: Smoke) -> None:
    """A token that may not read the database ends the wait at once, with the role that it lacks."""
    run = smoke("--wait-for-event", "20", "--documents", f"{refusing(403)}/v1/projects/p/databases/d/documents/events")

    assert run.returncode == 1
    assert "Firestore answered the query with 403" in run.stderr
    assert "roles/datastore.user" in run.stderr


def test_a_document_that_may_not_be_deleted_is_explained(
    refusing: Callable[..., str], smoke: Smoke, function: StartFunction
) -> None:
    """If Firestore refuses to delete the synthetic document, the error names it and the role, in one line."""
    documents = f"{refusing(403)}/v1/projects/p/databases/d/documents/events"

    run = smoke("--url", function().url, "--documents", documents)

    assert run.returncode == 1
    last = run.stderr.splitlines()[-1]
    assert "deleting the synthetic document deploy-" in last
    assert "answered with 403" in last
    assert "roles/datastore.user" in last


def test_a_failed_query_is_repeated(refusing: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    """A Firestore that is unavailable for a moment does not end the wait; a refusal after it does."""
    documents = f"{refusing(503, 403)}/v1/projects/p/databases/d/documents/events"

    with pytest.raises(smoke_test.SmokeTestError, match="403"):
        smoke_test.wait_for_event(documents, "owner", 20, target="projects/p/devices/d")

    assert "Firestore answered the query with 503" in capsys.readouterr().err


def test_times_of_any_precision_are_ordered() -> None:
    """Firestore writes times with 0 to 9 fractional digits."""
    first, last = "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z"
    between = ["2026-01-01T00:00:00.100000001Z", "2026-01-01T00:00:00.1Z"]

    assert sorted([last, *between, first], key=smoke_test._instant) == [first, *between[::-1], last]


def test_options_without_a_task_are_refused(smoke: Smoke) -> None:
    """Without --url and --wait-for-event, or without a secret, the exit status is 2."""
    assert smoke().returncode == 2
    assert smoke("--url", "http://127.0.0.1:1/", secrets="").returncode == 2


def test_it_runs_without_packages() -> None:
    """The script imports nothing but the standard library, and its syntax is that of Python 3.8."""
    command = [sys.executable, "-I", "-S", "deploy/smoke_test.py", "--help"]

    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    ast.parse((ROOT / "deploy/smoke_test.py").read_text(), feature_version=(3, 8))

    assert run.returncode == 0, run.stderr
    assert "--wait-for-event" in run.stdout
