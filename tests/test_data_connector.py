"""`python -m deploy.data_connector` and `python -m deploy.organization`, against a fake of DT's REST API."""

import io
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import disruptive
import httpx
import pytest

import command_line
from deploy import data_connector, organization
from dtcloud import data_connectors
from tests import signing
from tests.conftest import StartFunction
from tests.events import encode, envelope
from tests.json_server import JsonServer

URL = "https://dataconnector-endpoint-abc.a.run.app"
SECRET = "the first line of the signature secret"
TOKEN = "ya29.an-access-token"
Json = dict[str, Any]


class DataConnectorApi(JsonServer):
    """A fake of DT's REST API: the Data Connectors of one project, its organization, and the emulator of sensors.

    Attributes:
        connectors: the Data Connectors.
        calls: method and body of each change to a Data Connector.
        actions: method and path of each other change.
        sensors: the resource names of the emulated sensors.
        status: status of every response; 200 answers normally.
        emulator_status: the same for the emulator.
        seconds: how long the response to the creation of a connector takes.
        deliver: sends the events of a device, named by its resource name, to the endpoint.
        url: the base URL.
    """

    def __init__(self) -> None:
        """Start without a connector."""
        self.connectors: list[Json] = []
        self.calls: list[tuple[str, Json]] = []
        self.actions: list[tuple[str, str]] = []
        self.sensors: list[str] = []
        self.status = self.emulator_status = 200
        self.seconds = 0.0
        self.deliver: Callable[[str], Any] = lambda _: None
        super().__init__()

    def respond(self, method: str, target: str, body: bytes) -> tuple[int, Json]:
        """Answer a request, or refuse it in DT's form."""
        status = self.emulator_status if target.startswith("/emulator/") else self.status
        return status, self._answer(method, target, body) if status == 200 else {"error": "No.", "code": status}

    def _answer(self, method: str, path: str, body: bytes) -> Json:
        if path == "/token":
            return {"access_token": "t", "expires_in": 3600}
        if path.startswith("/emulator/"):
            return self._emulate(method, path.removeprefix("/emulator/"), body)
        if "/dataconnectors" not in path:
            return {"name": path[1:], "organization": "organizations/bvj2geou3pbc8h9hv4j0"}
        if path.endswith(":metrics"):
            return {"metrics": {"successCount": 7, "errorCount": 2, "latency99p": "0.250s"}}
        if method == "GET":
            return {"dataConnectors": self.connectors, "nextPageToken": ""}
        return self._change(method, path, body)

    def _change(self, method: str, path: str, body: bytes) -> Json:
        if method == "DELETE" or path.endswith(":sync"):
            self.actions.append((method, path))
            self.connectors = [each for each in self.connectors if method != "DELETE" or f"/{each['name']}" != path]
            if path.endswith(":sync"):
                self.deliver("projects/p/devices/bchonod7rihjtvdmd2vg")
            return {}
        self.calls.append((method, json.loads(body)))
        if method == "POST":
            self.add(**json.loads(body))
            time.sleep(self.seconds)
            return self.connectors[-1]
        (changed,) = (each for each in self.connectors if f"/{each['name']}" == path)
        changed.update(json.loads(body))
        return changed

    def _emulate(self, method: str, path: str, body: bytes) -> Json:
        self.actions.append((method, path))
        if path.endswith(":publish"):
            self.deliver(path.removesuffix(":publish"))
        elif method == "DELETE":
            self.sensors.remove(path)
        else:
            self.sensors.append(f"{path}/emu{len(self.sensors):020}")
            return {"name": self.sensors[-1], **json.loads(body)}
        return {}

    def add(self, **fields: Any) -> Json:
        """Add a connector; a field that is None is left out, as DT does with some."""
        made = {"name": f"projects/p/dataconnectors/c{len(self.connectors) + 1}", "type": "HTTP_PUSH"}
        made |= {"status": "ACTIVE", "displayName": "theirs", "labels": [], "events": []} | fields
        self.connectors.append({key: value for key, value in made.items() if value is not None})
        return self.connectors[-1]


@pytest.fixture
def api() -> Iterator[DataConnectorApi]:
    """Return a fake API without a connector."""
    api = DataConnectorApi()
    yield api
    api.stop()


Connect = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def connect(api: DataConnectorApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Connect:
    """Return a function that runs the command in this process, with the credentials of a service account."""
    names = ("DT_SERVICE_ACCOUNT_KEY_ID", "DT_SERVICE_ACCOUNT_SECRET", "DT_SERVICE_ACCOUNT_EMAIL")
    credentials = dict.fromkeys(names, "x") | {"DT_API_URL": api.url, "DT_TOKEN_URL": f"{api.url}/token"}
    credentials["DT_EMULATOR_URL"] = f"{api.url}/emulator"
    for setting in ("base_url", "emulator_base_url", "default_auth"):
        monkeypatch.setattr(disruptive, setting, getattr(disruptive, setting))

    def run(
        *options: str, secret: str = SECRET, command: Any = data_connector.command, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        for name, value in (credentials | environ).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "stdin", io.StringIO(secret))
        capsys.readouterr()
        endpoint = ["--url", URL] if command is data_connector.command else []
        status = command_line.run(command, ["--project", "p", *endpoint, *options], name="data_connector")
        return subprocess.CompletedProcess([], status, *capsys.readouterr())

    return run


def test_a_connector_is_created(api: DataConnectorApi, connect: Connect) -> None:
    """A new connector has the endpoint, the first line of the secret, the labels and the event types."""
    options = ["--labels", "name, room", "--event-types", "temperature,touch"]

    run = connect(*options, secret=f"{SECRET}\nthe old one, below it\n")

    assert run.returncode == 0, run.stderr
    assert "is created" in run.stdout
    ((method, body),) = api.calls
    assert method == "POST"
    assert body["httpConfig"] == {"url": URL, "signatureSecret": SECRET}
    assert (body["labels"], body["events"]) == (["name", "room"], ["temperature", "touch"])
    assert (body["type"], body["status"], body["displayName"]) == ("HTTP_PUSH", "ACTIVE", "dataconnector-endpoint")
    assert SECRET not in run.stdout + run.stderr


def test_a_second_run_changes_nothing(api: DataConnectorApi, connect: Connect) -> None:
    """A connector that is already as wanted is not changed."""
    connect("--labels", "name")

    run = connect("--labels", "name")

    assert "is unchanged" in run.stdout
    assert [method for method, _ in api.calls] == ["POST"]


def test_a_connector_is_updated(api: DataConnectorApi, connect: Connect) -> None:
    """The connector of the endpoint gets a new secret and is enabled again; its own headers stay."""
    connect()
    api.connectors[0]["httpConfig"]["headers"] = {"X-Mine": "1"}
    api.connectors[0]["status"] = "SYSTEM_DISABLED"

    run = connect(secret="a newer secret")

    assert "is updated" in run.stdout
    assert "signature secret: set → set" in run.stdout
    assert "status: SYSTEM_DISABLED → ACTIVE" in run.stdout
    method, body = api.calls[-1]
    assert method == "PATCH"
    assert body["httpConfig"] == {"url": URL, "signatureSecret": "a newer secret", "headers": {"X-Mine": "1"}}
    assert body["status"] == "ACTIVE"


def test_a_connector_that_a_user_disabled_stays_disabled(api: DataConnectorApi, connect: Connect) -> None:
    """The status USER_DISABLED is not changed, and the output says what it means."""
    connect()
    api.connectors[0]["status"] = "USER_DISABLED"

    run = connect(secret="a newer secret")

    assert "status" not in api.calls[-1][1]
    assert "USER_DISABLED" in run.stdout
    assert "enable it in DT Studio" in run.stdout


@pytest.mark.parametrize("theirs", [f"{URL}/", URL.upper().replace("HTTPS", "https"), f"{URL}:443"])
def test_a_connector_is_recognized_by_its_endpoint(api: DataConnectorApi, connect: Connect, theirs: str) -> None:
    """Scheme, host and path decide; the case of the host, the default port and a slash at the end do not."""
    api.add(httpConfig={"url": theirs, "signatureSecret": SECRET})

    run = connect()

    assert "The Data Connector theirs is unchanged" in run.stdout
    assert api.calls == []


@pytest.mark.parametrize("theirs", [f"{URL}/other", "https://another.a.run.app", URL.replace("https", "http")])
def test_a_connector_of_another_endpoint_is_left_alone(api: DataConnectorApi, connect: Connect, theirs: str) -> None:
    """A connector that has the wanted name, but another endpoint, stays as it is, and a new one is created."""
    api.add(displayName="dataconnector-endpoint", httpConfig={"url": theirs, "signatureSecret": "another secret"})

    connect()

    assert [method for method, _ in api.calls] == ["POST"]
    assert api.connectors[0]["httpConfig"]["url"] == theirs
    assert len(api.connectors) == 2


def test_labels_and_event_types_stay_unless_given(api: DataConnectorApi, connect: Connect) -> None:
    """An update without --labels and --event-types leaves both; `none` and `all` empty them; the change is shown."""
    api.add(labels=["name"], events=["touch"], httpConfig={"url": URL, "signatureSecret": "an older secret"})

    run = connect()
    kept = (api.connectors[0]["labels"], api.connectors[0]["events"])
    given = connect("--labels", "none", "--event-types", "all")

    assert kept == (["name"], ["touch"])
    assert "labels" not in run.stdout
    assert (api.connectors[0]["labels"], api.connectors[0]["events"]) == ([], [])
    assert "labels: name → none" in given.stdout
    assert "event types: touch → all" in given.stdout


def test_connectors_of_any_form_are_read(api: DataConnectorApi, connect: Connect) -> None:
    """Connectors without a secret or headers, with null labels, or of another type do not disturb."""
    api.add(type="GOOGLE_CLOUD_PUBSUB", pubsubConfig={"topic": "t"}, events=None)
    api.add(httpConfig={"url": "https://x.invalid"}, labels=None, displayName=None)
    api.add(httpConfig={"url": URL, "signatureSecret": "", "headers": None})

    run = connect()

    assert run.returncode == 0, run.stderr
    ((method, body),) = api.calls
    assert method == "PATCH"
    assert body == {"httpConfig": {"url": URL, "signatureSecret": SECRET}}
    assert "signature secret: none → set" in run.stdout


def test_each_connector_of_the_endpoint_is_updated(api: DataConnectorApi, connect: Connect) -> None:
    """If two connectors send to the endpoint, both get the secret, and the output says that there are two."""
    for number in (1, 2):
        api.add(displayName=f"number {number}", httpConfig={"url": URL, "signatureSecret": "an older secret"})

    run = connect()

    assert [each["httpConfig"]["signatureSecret"] for each in api.connectors] == [SECRET, SECRET]
    assert "2 Data Connectors send to this endpoint" in run.stdout


def test_a_slow_answer_makes_one_connector(
    api: DataConnectorApi, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A creation that takes longer than the time-out of the `disruptive` package is awaited, not repeated."""
    monkeypatch.setattr(disruptive, "request_timeout", 0.4)
    api.seconds = 1

    run = connect()

    assert "is created" in run.stdout
    assert len(api.connectors) == 1


def test_a_creation_without_an_answer_is_not_repeated(
    api: DataConnectorApi, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A creation that is not answered in time fails; the next run finds the connector that was created after all."""
    monkeypatch.setattr(data_connectors, "CREATE_TIMEOUT", 0.4)
    api.seconds = 1

    first = connect()
    second = connect()

    assert first.returncode == 1
    assert "did not answer in time" in first.stderr
    assert "is unchanged" in second.stdout
    assert len(api.connectors) == 1


def test_the_limit_of_connectors(api: DataConnectorApi, connect: Connect) -> None:
    """With 10 connectors no eleventh is requested; the error names the limit and those that exist."""
    for number in range(10):
        api.add(displayName=f"number {number}", httpConfig={"url": f"https://x.invalid/{number}"})

    run = connect()

    assert run.returncode == 1
    assert "DT allows 10" in run.stderr
    assert "number 9" in run.stderr
    assert api.calls == []


def test_without_a_secret(api: DataConnectorApi, connect: Connect) -> None:
    """--no-secret creates a connector without a secret, and leaves the secret of an existing one."""
    created = connect("--no-secret", secret="")
    config = dict(api.connectors[0]["httpConfig"])
    api.connectors[0]["httpConfig"]["signatureSecret"] = "their own"
    again = connect("--no-secret", secret="")

    assert "is created" in created.stdout
    assert config == {"url": URL}
    assert "is unchanged" in again.stdout
    assert api.connectors[0]["httpConfig"]["signatureSecret"] == "their own"


def test_disconnect(api: DataConnectorApi, connect: Connect) -> None:
    """--disconnect deletes the connector of the endpoint and no other; without one it says so."""
    api.add(httpConfig={"url": "https://x.invalid"})
    connect()

    run = connect("--disconnect", secret="")
    again = connect("--disconnect", secret="")

    assert "is deleted" in run.stdout
    assert [each["httpConfig"]["url"] for each in api.connectors] == ["https://x.invalid"]
    assert again.returncode == 0
    assert "No Data Connector" in again.stdout


def test_the_organization_is_looked_up(api: DataConnectorApi, connect: Connect) -> None:
    """`python -m deploy.organization` prints the organization's id; an unknown project is one line, exit status 1."""
    run = connect(command=organization.command)
    api.status = 404
    unknown = connect(command=organization.command)

    assert (run.returncode, run.stdout) == (0, "bvj2geou3pbc8h9hv4j0\n")
    assert unknown.returncode == 1
    assert unknown.stderr.count("\n") == 1
    assert "does not know the project" in unknown.stderr


@pytest.fixture
def prove(
    api: DataConnectorApi, connect: Connect, function: StartFunction, environ: dict[str, str], firestore_host: str
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that proves a connector, through which DT's fake delivers to the real function."""
    url = function().url
    project = environ["GOOGLE_CLOUD_PROJECT"]
    documents = f"http://{firestore_host}/v1/projects/{project}/databases/(default)/documents/events"

    def deliver(target: str) -> None:
        body = encode(envelope("touch", targetName=target))
        status = httpx.post(url, content=body, headers={"X-Dt-Signature": signing.sign(body)}, timeout=30).status_code
        assert status == 200

    api.deliver = deliver
    # The emulator takes only its own token for reading beside the security rules.
    return lambda *options: connect(
        "--prove", "--documents", documents, "--patience", "20", *options, secret=f"owner\n{SECRET}\n"
    )


def test_a_proof_by_an_emulated_sensor(
    api: DataConnectorApi, prove: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """--prove publishes an event by an emulated sensor, finds it in Firestore, and prints DT's count."""
    run = prove()

    assert run.returncode == 0, run.stderr
    assert re.search(r"an event from DT is in Firestore: touch of projects/p/devices/emu0{20}", run.stdout)
    assert "7 delivered, 2 failed, 99 % answered within 0.250s" in run.stdout
    assert api.sensors == []
    assert not [path for _, path in api.actions if path.endswith(":sync")]


@pytest.mark.parametrize("reason", ["emulator", "event types"])
def test_a_proof_by_sync(
    api: DataConnectorApi, prove: Callable[..., subprocess.CompletedProcess[str]], reason: str
) -> None:
    """Without an emulated sensor, or if touch events are not sent, --prove lets DT send the newest events again."""
    api.emulator_status = 403 if reason == "emulator" else 200

    run = prove(*(["--event-types", "temperature"] if reason == "event types" else []))

    assert run.returncode == 0, run.stderr
    assert "in Firestore: touch of projects/p/devices/bchonod7rihjtvdmd2vg" in run.stdout
    assert ("DT made no emulated sensor: DT forbids it" in run.stdout) == (reason == "emulator")


def test_a_failed_proof(api: DataConnectorApi, prove: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """If no event arrives, the exit status is 1, DT's count is printed, and the emulated sensor is deleted."""
    api.deliver = lambda _: None

    run = prove("--patience", "0.1")

    assert run.returncode == 1
    assert "no event from DT was stored within 0.1 s" in run.stderr
    assert "7 delivered, 2 failed" in run.stdout
    assert api.sensors == []


def test_a_disabled_connector_cannot_be_proved(
    api: DataConnectorApi, prove: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """A connector that a user disabled is named as the reason, and no event is published."""
    api.add(status="USER_DISABLED", httpConfig={"url": URL, "signatureSecret": SECRET})

    run = prove()

    assert run.returncode == 1
    assert "enable it in DT Studio" in run.stderr
    assert api.actions == []


def test_an_error_of_the_api_is_reported(api: DataConnectorApi, connect: Connect) -> None:
    """A request that DT's API refuses causes one line and exit status 1."""
    api.status = 403

    run = connect()

    assert run.returncode == 1
    assert run.stderr.count("\n") == 1
    assert "role Project Developer" in run.stderr


@pytest.mark.parametrize(
    ("options", "given", "word"),
    [
        ([], {"DT_SERVICE_ACCOUNT_SECRET": ""}, "DT_SERVICE_ACCOUNT_SECRET"),
        ([], {"secret": "\n"}, "no signature secret"),
        (["--prove"], {}, "--documents"),
        (["--prove", "--documents", "http://x/events"], {"secret": TOKEN}, "no signature secret"),
        (["--prove", "--no-secret", "--documents", "http://x/events"], {"secret": "\n"}, "no access token"),
    ],
)
def test_what_is_missing_is_named(
    api: DataConnectorApi, connect: Connect, options: list[str], given: dict[str, str], word: str
) -> None:
    """A missing credential, secret, token or option causes exit status 2 and a line that names it."""
    run = connect(*options, **given)

    assert run.returncode == 2
    assert word in run.stderr
    assert api.calls == []
