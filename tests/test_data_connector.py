"""`python -m deploy.data_connector`, against a fake of DT's REST API."""

import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import disruptive
import pytest

import command_line
from deploy.data_connector import command
from tests.json_server import JsonServer

URL = "https://dataconnector-endpoint-abc.a.run.app"
SECRET = "the first line of the signature secret"
Json = dict[str, Any]


class DataConnectorApi(JsonServer):
    """A fake of DT's REST API: the Data Connectors of one project.

    Attributes:
        connectors: the Data Connectors.
        calls: method and body of each change.
        status: status of every response; 200 answers normally.
        url: the base URL.
    """

    def __init__(self) -> None:
        """Start without a connector."""
        self.connectors: list[Json] = []
        self.calls: list[tuple[str, Json]] = []
        self.status = 200
        super().__init__()

    def respond(self, method: str, target: str, body: bytes) -> tuple[int, Json]:
        """Answer a request, or refuse it in DT's form."""
        return self.status, self._answer(method, target, body) if self.status == 200 else {"error": "No.", "code": 403}

    def _answer(self, method: str, path: str, body: bytes) -> Json:
        if path == "/token":
            return {"access_token": "t", "expires_in": 3600}
        if method == "GET":
            return {"dataConnectors": self.connectors, "nextPageToken": ""}
        self.calls.append((method, json.loads(body)))
        if method == "POST":
            self.connectors.append({"name": "projects/p/dataconnectors/c1", **json.loads(body)})
            self.connectors[-1]["httpConfig"].setdefault("headers", {})
        else:
            self.connectors[0].update(json.loads(body))
        return self.connectors[0]


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
    for setting in ("base_url", "default_auth"):
        monkeypatch.setattr(disruptive, setting, getattr(disruptive, setting))

    def run(*options: str, secret: str = SECRET, **environ: str) -> subprocess.CompletedProcess[str]:
        for name, value in (credentials | environ).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "stdin", io.StringIO(secret))
        capsys.readouterr()
        status = command_line.run(command, ["--project", "p", "--url", URL, *options], name="data_connector")
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
    method, body = api.calls[-1]
    assert method == "PATCH"
    assert body["httpConfig"] == {"url": URL, "signatureSecret": "a newer secret", "headers": {"X-Mine": "1"}}
    assert body["status"] == "ACTIVE"


def test_a_connector_that_a_user_disabled_stays_disabled(api: DataConnectorApi, connect: Connect) -> None:
    """The status USER_DISABLED is not changed."""
    connect()
    api.connectors[0]["status"] = "USER_DISABLED"

    connect(secret="a newer secret")

    assert "status" not in api.calls[-1][1]


def test_an_error_of_the_api_is_reported(api: DataConnectorApi, connect: Connect) -> None:
    """A request that DT's API refuses causes one line and exit status 1."""
    api.status = 403

    run = connect()

    assert run.returncode == 1
    assert run.stderr.count("\n") == 1
    assert "DT's API refused the request (Forbidden)" in run.stderr


@pytest.mark.parametrize(
    ("secret", "environ", "word"),
    [(SECRET, {"DT_SERVICE_ACCOUNT_SECRET": ""}, "DT_SERVICE_ACCOUNT_SECRET"), ("\n", {}, "no signature secret")],
)
def test_a_missing_credential_or_secret_is_named(
    api: DataConnectorApi, connect: Connect, secret: str, environ: dict[str, str], word: str
) -> None:
    """A missing credential or secret causes exit status 2 and a line that names it."""
    run = connect(secret=secret, **environ)

    assert run.returncode == 2
    assert word in run.stderr
    assert api.calls == []
