"""deploy/data_connector.py, which makes the Data Connector, against a stand-in for DT's REST API."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.json_server import JsonServer

URL = "https://dataconnector-endpoint-abc.a.run.app"
SECRET = "the first line of the signature secret"
Json = dict[str, Any]


class DtApi(JsonServer):
    """The Data Connectors of one DT project.

    Attributes:
        connectors: those that there are.
        calls: method and body of each change.
        status: of every answer.
        url: where it listens.
    """

    def __init__(self) -> None:
        """Start it, without a connector."""
        self.connectors: list[Json] = []
        self.calls: list[tuple[str, Json]] = []
        self.status = 200
        super().__init__()

    def respond(self, method: str, target: str, body: bytes) -> tuple[int, Json]:
        """Answer one request, or refuse it as DT does."""
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
def api() -> Iterator[DtApi]:
    """Return the stand-in."""
    api = DtApi()
    yield api
    api.stop()


def connect(api: DtApi, *options: str, secret: str = SECRET, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command with a service account's credentials."""
    names = ("DT_SERVICE_ACCOUNT_KEY_ID", "DT_SERVICE_ACCOUNT_SECRET", "DT_SERVICE_ACCOUNT_EMAIL")
    credentials = dict.fromkeys(names, "x") | {"DT_API_URL": api.url, "DT_TOKEN_URL": f"{api.url}/token"}
    return subprocess.run(
        [sys.executable, "-m", "deploy.data_connector", "--project", "p", "--url", URL, *options],
        cwd=ROOT,
        env=os.environ | credentials | environ,
        input=secret,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_connector_is_created(api: DtApi) -> None:
    """In a project without one, a connector is made: endpoint, secret's first line, labels, event types."""
    options = ["--labels", "name, room", "--event-types", "temperature,touch"]

    run = connect(api, *options, secret=f"{SECRET}\nthe old one, below it\n")

    assert run.returncode == 0, run.stderr
    assert "is created" in run.stdout
    ((method, body),) = api.calls
    assert method == "POST"
    assert body["httpConfig"] == {"url": URL, "signatureSecret": SECRET}
    assert (body["labels"], body["events"]) == (["name", "room"], ["temperature", "touch"])
    assert (body["type"], body["status"], body["displayName"]) == ("HTTP_PUSH", "ACTIVE", "dataconnector-endpoint")
    assert SECRET not in run.stdout + run.stderr


def test_a_second_run_changes_nothing(api: DtApi) -> None:
    """A connector that is as it should be is left alone."""
    connect(api, "--labels", "name")

    run = connect(api, "--labels", "name")

    assert "as it should be" in run.stdout
    assert [method for method, _ in api.calls] == ["POST"]


def test_a_connector_is_updated(api: DtApi) -> None:
    """A new secret goes to the connector of that endpoint; its own headers stay, and DT's switching it off ends."""
    connect(api)
    api.connectors[0]["httpConfig"]["headers"] = {"X-Mine": "1"}
    api.connectors[0]["status"] = "SYSTEM_DISABLED"

    run = connect(api, secret="a newer secret")

    assert "is updated" in run.stdout
    method, body = api.calls[-1]
    assert method == "PATCH"
    assert body["httpConfig"] == {"url": URL, "signatureSecret": "a newer secret", "headers": {"X-Mine": "1"}}
    assert body["status"] == "ACTIVE"


def test_a_connector_that_a_person_switched_off_stays_off(api: DtApi) -> None:
    """USER_DISABLED is the user's choice."""
    connect(api)
    api.connectors[0]["status"] = "USER_DISABLED"

    connect(api, secret="a newer secret")

    assert "status" not in api.calls[-1][1]


def test_a_refusal_is_said(api: DtApi) -> None:
    """What DT's API refuses ends with status 1 and one line."""
    api.status = 403

    run = connect(api)

    assert run.returncode == 1
    assert "DT's API refuses (Forbidden)" in run.stderr


@pytest.mark.parametrize(
    ("secret", "environ", "word"),
    [(SECRET, {"DT_SERVICE_ACCOUNT_SECRET": ""}, "DT_SERVICE_ACCOUNT_SECRET"), ("\n", {}, "no signature secret")],
)
def test_what_is_missing_is_named(api: DtApi, secret: str, environ: dict[str, str], word: str) -> None:
    """Without a credential or a secret it ends with status 2 and says what to set."""
    run = connect(api, secret=secret, **environ)

    assert run.returncode == 2
    assert word in run.stderr
    assert api.calls == []
