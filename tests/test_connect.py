"""deploy/connect.sh: how deploy.sh connects DT, looks up the organization, proves the connection and undoes it."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.test_data_connector import URL, DataConnectorApi

Finished = subprocess.CompletedProcess[str]

_SCRIPT = """\
source deploy/common.sh
source deploy/smoke.sh
source deploy/connect.sh
source deploy/options.sh
flags+=" dry-run" values+=" organization-id"
SCRATCH=$(mktemp -d)
trap explain_failure EXIT
read_options "$@"
check_connect
NAME=dataconnector-endpoint PROJECT=$P DATABASE='(default)' COLLECTION=events IN_PROJECT=("--project=$P") PYTHON=python3
URL=$U URL_OPTION=--url=$U SECRET=${S:-} VERSION=1 SECRET_LINES=(printf '%s\\n' "${S:-}")
plan_connect
$ACTION
echo "organization: $ORGANIZATION_ID"
"""


@pytest.fixture
def api() -> Iterator[DataConnectorApi]:
    """Return a fake API without a connector."""
    api = DataConnectorApi()
    yield api
    api.stop()


Connect = Callable[..., Finished]


@pytest.fixture
def connect(api: DataConnectorApi, project: str, tmp_path: Path) -> Connect:
    """Return a function that runs a function of connect.sh with options of deploy.sh."""
    names = ("DT_SERVICE_ACCOUNT_KEY_ID", "DT_SERVICE_ACCOUNT_SECRET", "DT_SERVICE_ACCOUNT_EMAIL")
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "P": project,
        "U": URL,
        **dict.fromkeys(names, "x"),
        "DT_API_URL": api.url,
        "DT_TOKEN_URL": f"{api.url}/token",
        "DT_EMULATOR_URL": f"{api.url}/emulator",
    }

    def run(*options: str, action: str = "connect", **changes: str) -> Finished:
        command = ["bash", "-euo", "pipefail", "-c", _SCRIPT, "deploy.sh", *options]
        return subprocess.run(
            command, cwd=ROOT, env=environ | {"ACTION": action} | changes, capture_output=True, text=True, check=False
        )

    return run


def test_a_connector_without_a_secret(api: DataConnectorApi, connect: Connect) -> None:
    """Without a secret the Data Connector is created without one."""
    run = connect("--connect-dt-project", "p")

    assert run.returncode == 0, run.stderr
    assert "is created" in run.stdout
    assert api.connectors[0]["httpConfig"] == {"url": URL}


def test_a_connector_with_a_secret(api: DataConnectorApi, connect: Connect) -> None:
    """With a secret the Data Connector gets it by standard input; labels and event types change only if given."""
    connect("--connect-dt-project", "p", "--dt-labels", "name,room", S="the secret")
    run = connect("--connect-dt-project", "p", "--dt-event-types", "touch", S="the secret")

    assert run.returncode == 0, run.stderr
    (connector,) = api.connectors
    assert connector["httpConfig"]["signatureSecret"] == "the secret"
    assert (connector["labels"], connector["events"]) == (["name", "room"], ["touch"])


def test_the_organization_is_looked_up(api: DataConnectorApi, connect: Connect) -> None:
    """`--organization-id auto` takes that of the DT project; a given one stays; without a DT project it is refused."""
    looked_up = connect("--connect-dt-project", "p", "--organization-id", "auto", action=":")
    given = connect("--connect-dt-project", "p", "--organization-id", "abc", action=":")
    refused = connect("--organization-id", "auto", action=":")

    assert "organization: bvj2geou3pbc8h9hv4j0" in looked_up.stdout, looked_up.stderr
    assert "organization: abc" in given.stdout, given.stderr
    assert refused.returncode == 2
    assert api.calls == []


def test_a_project_that_dt_refuses_ends_the_first_step(api: DataConnectorApi, connect: Connect) -> None:
    """A DT project or service account that DT does not accept ends deploy.sh before it changes anything."""
    api.status = 404

    run = connect("--connect-dt-project", "p", action="echo too late")

    assert run.returncode == 1
    assert "does not know the project" in run.stderr
    assert "too late" not in run.stdout


@pytest.mark.parametrize(
    ("options", "environ", "word"),
    [
        (["--connect-dt-project", "p"], {"DT_SERVICE_ACCOUNT_EMAIL": ""}, "DT_SERVICE_ACCOUNT_EMAIL"),
        (["--prove"], {}, "--connect-dt-project"),
    ],
)
def test_what_is_missing_is_named(
    api: DataConnectorApi, connect: Connect, options: list[str], environ: dict[str, str], word: str
) -> None:
    """A missing credential or option causes exit status 2 and one line."""
    run = connect(*options, **environ)

    assert run.returncode == 2
    assert word in run.stderr
    assert run.stderr.count("\n") == 1
    assert api.calls == []


def test_a_proof(connect: Connect, project: str) -> None:
    """--prove passes an access token and then the secret to the command, by standard input."""
    run = connect("--dry-run", "--connect-dt-project", "p", "--prove", S="mine")
    without = connect("--dry-run", "--connect-dt-project", "p", "--prove")

    start = f"bash deploy/credentials.sh {project}"
    assert run.stdout.startswith(f"{start} mine 1 | .venv/bin/python -m deploy.data_connector --project=p ")
    assert without.stdout.startswith(f"{start} | .venv/bin/python -m deploy.data_connector --project=p ")
    assert "--no-secret --prove" in without.stdout
    assert f"/v1/projects/{project}/databases/(default)/documents/events'" in run.stdout


def test_the_wait_comes_after_the_connection(connect: Connect) -> None:
    """With --wait-for-event the Data Connector is made first, because DT sends nothing before."""
    run = connect("--dry-run", "--connect-dt-project", "p", "--wait-for-event")

    first, second = run.stdout.splitlines()[:2]
    assert "deploy.data_connector" in first
    assert "deploy/smoke_test.py" in second
    assert "--wait-for-event=1800" in second
    assert "documents/events" in second


def test_disconnect(api: DataConnectorApi, connect: Connect) -> None:
    """--remove deletes the Data Connector of the endpoint, if the DT project is given."""
    connect("--connect-dt-project", "p")

    without = connect(action="disconnect")
    left = len(api.connectors)
    run = connect("--connect-dt-project", "p", action="disconnect")

    assert (without.returncode, left) == (0, 1)
    assert run.returncode == 0, run.stderr
    assert api.connectors == []
