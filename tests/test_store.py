"""Deliveries while Firestore or the way to it has a fault, which a proxy before a real one injects."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.cloud import firestore

from receiver.batching import Outcome
from receiver.store import Store
from tests.conftest import Documents, Endpoint, service_account
from tests.events import encode, envelope
from tests.proxy import Proxy, answer, commit_then

RETRIED = [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED, grpc.StatusCode.RESOURCE_EXHAUSTED]
FINAL = [
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.CANCELLED,
]


@pytest.fixture
def faulted(start: Callable[..., Endpoint], proxy: Proxy) -> Endpoint:
    """Return the function, whose Firestore is behind the proxy."""
    return start(FIRESTORE_EMULATOR_HOST=proxy.host)


@pytest.mark.parametrize("code", RETRIED)
def test_passing_failure_is_retried(faulted: Endpoint, proxy: Proxy, stored: Documents, code: grpc.StatusCode) -> None:
    """UNAVAILABLE, ABORTED and RESOURCE_EXHAUSTED are tried again: 200, and the event is stored."""
    proxy.faults.extend([answer(code), answer(code)])

    response = faulted.deliver(encode(envelope()))

    assert response.status_code == 200
    assert len(stored()) == 1
    assert faulted.log()[0]["outcome"] == "stored"


@pytest.mark.parametrize("code", FINAL)
def test_other_failure_is_not_acknowledged(
    faulted: Endpoint, proxy: Proxy, stored: Documents, code: grpc.StatusCode
) -> None:
    """After any other status the write may have happened or not: 503 at once, and the sender's retry stores it."""
    proxy.faults.append(answer(code))
    body = encode(envelope())

    first = faulted.deliver(body)
    nothing = stored()
    second = faulted.deliver(body)

    assert (first.status_code, nothing, proxy.calls) == (503, {}, 2)
    assert (second.status_code, len(stored())) == (200, 1)


@pytest.mark.parametrize("code", RETRIED)
def test_lost_answer_is_settled_within_the_request(
    faulted: Endpoint, proxy: Proxy, stored: Documents, code: grpc.StatusCode
) -> None:
    """After a commit whose answer was lost, the retry is answered ALREADY_EXISTS: the event is stored, 200."""
    proxy.faults.append(commit_then(code))

    response = faulted.deliver(encode(envelope()))

    assert response.status_code == 200
    assert len(stored()) == 1


def test_lost_answer_is_settled_by_the_sender(faulted: Endpoint, proxy: Proxy, database: firestore.Client) -> None:
    """A commit whose answer is lost is 503; the sender's retry finds the document and changes nothing."""
    proxy.faults.append(commit_then(grpc.StatusCode.DEADLINE_EXCEEDED))
    body = envelope()

    first = faulted.deliver(encode(body))
    between = database.collection("events").document(body["event"]["eventId"]).get()
    second = faulted.deliver(encode(body))

    after = database.collection("events").document(body["event"]["eventId"]).get()
    assert (first.status_code, second.status_code) == (503, 200)
    assert between.update_time == after.update_time


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        (grpc.StatusCode.NOT_FOUND, "does the database exist? See FIRESTORE_DATABASE and GOOGLE_CLOUD_PROJECT"),
        (grpc.StatusCode.FAILED_PRECONDITION, "the database must be in Native mode, not in Datastore mode"),
        (grpc.StatusCode.PERMISSION_DENIED, "the service account needs a role such as roles/datastore.user"),
        (grpc.StatusCode.UNAUTHENTICATED, "Google does not accept the credentials"),
    ],
)
def test_log_says_what_an_operator_can_do(faulted: Endpoint, proxy: Proxy, code: grpc.StatusCode, hint: str) -> None:
    """For a status with a usual cause, the log names that cause; the words of the answer do not appear."""
    proxy.faults.append(answer(code))

    faulted.deliver(encode(envelope()))

    assert faulted.log()[0]["reason"] == f"Firestore answered {code.name} ({hint})"


def test_event_and_quarantine_refused_as_invalid(faulted: Endpoint, proxy: Proxy) -> None:
    """When Firestore answers INVALID_ARGUMENT to the event and to its quarantine document, the log says that."""
    proxy.faults.extend([answer(grpc.StatusCode.INVALID_ARGUMENT)] * 2)

    response = faulted.deliver(encode(envelope()))

    assert response.status_code == 503
    assert faulted.log()[0]["reason"] == "Firestore answered INVALID_ARGUMENT to the quarantine document too"


def test_refused_value_goes_to_quarantine(faulted: Endpoint, proxy: Proxy, quarantined: Documents) -> None:
    """INVALID_ARGUMENT means that Firestore cannot hold the event: 400 and quarantine."""
    proxy.faults.append(answer(grpc.StatusCode.INVALID_ARGUMENT))

    response = faulted.deliver(encode(envelope()))

    assert (response.status_code, len(quarantined())) == (400, 1)


def test_quarantine_that_fails_is_not_acknowledged_as_one(
    faulted: Endpoint, proxy: Proxy, quarantined: Documents
) -> None:
    """While an unprocessable body cannot be quarantined it is answered 503, so that the sender keeps it."""
    proxy.faults.extend([answer(grpc.StatusCode.INVALID_ARGUMENT), answer(grpc.StatusCode.INTERNAL)])

    response = faulted.deliver(b"not JSON")
    again = faulted.deliver(b"not JSON")
    last = faulted.deliver(b"not JSON")

    assert [response.status_code, again.status_code, last.status_code] == [503, 503, 400]
    assert len(quarantined()) == 1


def test_commit_that_never_answers_ends_in_503(faulted: Endpoint, proxy: Proxy) -> None:
    """When the deadline of 8 s ends the retries: 503, and the log names the last status and the attempts."""
    proxy.faults.extend([answer(grpc.StatusCode.RESOURCE_EXHAUSTED)] * 3 + [proxy.hang] * 2)

    response = faulted.deliver(encode(envelope()))

    assert response.status_code == 503
    assert faulted.log()[0]["reason"] == (
        "Firestore did not confirm within 8 s; "
        "last answer RESOURCE_EXHAUSTED (a quota or the project's budget is used up), 4 attempts"
    )


def test_firestore_that_never_answers_is_named_by_its_status(
    faulted: Endpoint, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any answer from Firestore, the status in the log is that of a gRPC call that has reached its deadline."""
    monkeypatch.setattr("receiver.store.TOTAL_SECONDS", 1)
    proxy.faults.append(proxy.hang)

    response = faulted.deliver(encode(envelope()))

    assert response.status_code == 503
    assert faulted.log()[0]["reason"] == "Firestore did not confirm within 1 s; no answer (DEADLINE_EXCEEDED)"


def test_closed_port_ends_in_503(start: Callable[..., Endpoint], proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Firestore that does not run is 503 when the deadline is over, and the log names the last status."""
    monkeypatch.setattr("receiver.store.TOTAL_SECONDS", 1)
    proxy.stop()
    endpoint = start(FIRESTORE_EMULATOR_HOST=proxy.host)

    response = endpoint.deliver(encode(envelope()))

    assert response.status_code == 503
    assert endpoint.log()[0]["reason"].startswith("Firestore did not confirm within 1 s; last answer UNAVAILABLE, ")


def test_first_calls_share_one_channel(faulted: Endpoint, proxy: Proxy, stored: Documents) -> None:
    """Many first deliveries at once are all stored through one connection."""
    peers: set[str] = set()

    def note_peer(forward: Callable[[], bytes], context: grpc.ServicerContext) -> bytes:
        peers.add(context.peer())
        return forward()

    proxy.faults.extend([note_peer] * 32)

    with ThreadPoolExecutor(32) as pool:
        responses = list(pool.map(lambda _: faulted.deliver(encode(envelope())), range(32)))

    assert {response.status_code for response in responses} == {200}
    assert (len(stored()), len(peers)) == (32, 1)


def test_without_a_project_the_clients_default_is_used(start: Callable[..., Endpoint]) -> None:
    """With an emulator and no project, events go where google-cloud-firestore's clients look."""
    endpoint = start(GOOGLE_CLOUD_PROJECT="")
    body = envelope()

    endpoint.deliver(encode(body))

    reader = firestore.Client(project="google-cloud-firestore-emulator")
    assert reader.collection("events").document(body["event"]["eventId"]).get().exists


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the key file of a service account that is the default; no request made with it leaves the machine."""
    file = service_account(tmp_path, "http://127.0.0.1:1/token")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    monkeypatch.setattr("receiver.store.TOTAL_SECONDS", 1)
    return file


def test_google_that_cannot_be_reached_ends_in_503(start: Callable[..., Endpoint], account: Path) -> None:
    """With credentials and no emulator the real Firestore is used; while it cannot be reached, the answer is 503."""
    assert account.exists()
    endpoint = start(FIRESTORE_EMULATOR_HOST="")

    response = endpoint.deliver(encode(envelope()))

    assert response.status_code == 503
    assert endpoint.log()[0]["reason"].startswith("Firestore did not confirm within 1 s")


def test_credentials_without_a_project_end_in_503(start: Callable[..., Endpoint], account: Path) -> None:
    """When neither the setting nor the credentials name a project, the log says what to set."""
    assert account.exists()
    endpoint = start(FIRESTORE_EMULATOR_HOST="", GOOGLE_CLOUD_PROJECT="")

    response = endpoint.deliver(encode(envelope()))

    assert response.status_code == 503
    assert endpoint.log()[0]["reason"] == "the credentials name no project: set GOOGLE_CLOUD_PROJECT"


def test_failure_to_find_credentials_is_not_kept(
    start: Callable[..., Endpoint], account: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Once credentials exist, the next delivery uses them, without a new start."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", f"{tmp_path}/later.json")
    endpoint = start(FIRESTORE_EMULATOR_HOST="")

    endpoint.deliver(encode(envelope()))
    account.rename(tmp_path / "later.json")
    endpoint.deliver(encode(envelope()))

    first, second = (line["reason"] for line in endpoint.log())
    assert first == "no Google Cloud credentials (DefaultCredentialsError)"
    assert second.startswith("Firestore did not confirm within 1 s")


def test_event_and_quarantine_share_one_deadline(
    faulted: Endpoint, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The quarantine of an event that Firestore refuses has only the time that the event has left."""
    deadlines: list[float] = []
    create = Store._create

    async def noted(store: Store, *arguments: Any) -> Outcome:
        deadlines.append(arguments[-1])
        return await create(store, *arguments)

    monkeypatch.setattr(Store, "_create", noted)
    proxy.faults.append(answer(grpc.StatusCode.INVALID_ARGUMENT))

    assert faulted.deliver(encode(envelope())).status_code == 400

    assert len(deadlines) == 2
    assert deadlines[0] == deadlines[1]


def test_missing_credentials_end_in_503(
    start: Callable[..., Endpoint], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without credentials nothing is stored: 503, and the log names what is missing."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", f"{tmp_path}/none.json")
    endpoint = start(FIRESTORE_EMULATOR_HOST="")

    responses = [endpoint.deliver(encode(envelope())) for _ in range(2)]

    assert [response.status_code for response in responses] == [503, 503]
    reasons = {line["reason"] for line in endpoint.log()}
    assert reasons == {"no Google Cloud credentials (DefaultCredentialsError)"}
