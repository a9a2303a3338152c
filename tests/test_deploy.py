"""deploy.sh with the genuine gcloud against a fake control plane; the deployed function runs on this machine."""

import copy
import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.cloud import firestore

from tests import gcloud_server, monitoring_plane, signing  # noqa: F401 - monitoring_plane adds its routes
from tests.buildpack import Runtime
from tests.conftest import ROOT
from tests.control_plane import ControlPlane, State
from tests.events import encode, envelope
from tests.test_data_connector import DataConnectorApi

PROJECT = "demo-deploy"
MEMBER = f"serviceAccount:dataconnector-endpoint@{PROJECT}.iam.gserviceaccount.com"
FUNCTION = f"projects/{PROJECT}/locations/europe-west1/functions/dataconnector-endpoint"
SECRET = "dt-signature-secret"
TOKEN = "ya29.an-access-token-that-nobody-may-see"
Finished = subprocess.CompletedProcess[str]


class Deployer:
    """Runs deploy.sh as a user does, and records everything that must not contain a secret.

    Attributes:
        plane: the fake of Google Cloud.
        folder: holds gcloud's own files, and the command lines in `commands`.
        outputs: the output of each run.
    """

    def __init__(self, plane: ControlPlane, folder: Path, sdk: Path) -> None:
        """Isolate gcloud: its configuration is in the folder, and each API that it calls is the fake."""
        self.plane, self.folder = plane, folder
        self.outputs: list[str] = []
        self._bin = folder / "bin"
        self._bin.mkdir()
        gcloud_server.install(self._bin, folder / "gcloud.socket", folder / "commands")
        for tool in ("openssl", "python3"):
            self._record(tool)
        (folder / "token").write_text(TOKEN)
        self._environ = {
            "PATH": f"{self._bin}:{os.environ['PATH']}",
            "HOME": str(folder),
            "CLOUDSDK_ROOT_DIR": str(sdk),
            "CLOUDSDK_CONFIG": str(folder / "gcloud"),
            "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE": str(folder / "token"),
            "CLOUDSDK_CORE_CHECK_GCE_METADATA": "false",
            "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
            "DEPLOY_PATIENCE": "20",
            **plane.environ(),
        }
        self._server = subprocess.Popen(
            [_bundled_python(sdk), gcloud_server.__file__, sdk, folder / "gcloud.socket"], env=self._environ
        )
        for _ in range(600):
            if (folder / "gcloud.socket").exists():
                return
            time.sleep(0.1)
        raise AssertionError("gcloud was not loaded within a minute")

    def stop(self) -> None:
        """Stop the gcloud server."""
        self._server.kill()
        self._server.wait()

    def run(self, *options: str, given: str = "", **environ: str) -> Finished:
        """Run deploy.sh on the project."""
        command = ["bash", str(ROOT / "deploy.sh"), "--project", PROJECT, "--region", "europe-west1", *options]
        return self.shell(command, given, **environ)

    def shell(self, command: list[str], given: str = "", **environ: str) -> Finished:
        """Run a command in the environment of deploy.sh."""
        self.plane.calls.clear()
        run = subprocess.run(
            command, cwd=ROOT, env=self._environ | environ, input=given, text=True, capture_output=True, check=False
        )
        self.outputs.append(run.stdout + run.stderr)
        return run

    def _record(self, tool: str) -> None:
        script = f'#!/bin/sh\necho "{tool} $*" >>{self.folder}/commands\nexec {shutil.which(tool)} "$@"\n'
        (self._bin / tool).write_text(script)
        (self._bin / tool).chmod(0o755)


def _gcloud_root() -> Path:
    gcloud = shutil.which("gcloud")
    if gcloud is None:
        assert os.environ.get("CI") != "true", "CI needs gcloud"
        pytest.skip("gcloud is not installed")
    environ = {"PATH": os.environ["PATH"], "CLOUDSDK_CONFIG": "/nonexistent"}
    command = [gcloud, "info", "--format=value(installation.sdk_root)"]
    return Path(subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout.strip())


def _bundled_python(sdk: Path) -> str:
    bundled = sdk / "platform/bundledpythonunix/bin/python3"
    return str(bundled) if bundled.exists() else shutil.which("python3") or "python3"


@pytest.fixture(scope="module")
def deployer(emulator_host: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployer]:
    """Return a deployer on an empty Google Cloud."""
    folder = tmp_path_factory.mktemp("deploy")
    sdk = _gcloud_root()
    runtime = Runtime(folder, emulator_host)
    runtime.build("python313", ROOT / "requirements.txt")
    plane = ControlPlane(PROJECT, emulator_host, lambda bundle, body: runtime.deploy(bundle, body, plane.state.secrets))
    deployer = Deployer(plane, folder, sdk)
    yield deployer
    deployer.stop()
    runtime.stop()
    plane.stop()


@pytest.fixture(scope="module")
def first(deployer: Deployer) -> tuple[Finished, State, list[Any]]:
    """Deploy once, to a Google Cloud that does not know the new service account at first."""
    deployer.plane.errors = {f"projects/{PROJECT}:setIamPolicy": (400, f"{MEMBER} does not exist.", 1)}
    run = deployer.run("--yes")
    return run, copy.deepcopy(deployer.plane.state), list(deployer.plane.calls)


@pytest.fixture
def cloud(deployer: Deployer, first: tuple[Finished, State, list[Any]]) -> Deployer:
    """Return a deployer on a Google Cloud in the state after the first run."""
    deployer.plane.state = copy.deepcopy(first[1])
    deployer.plane.errors = {}
    return deployer


@pytest.fixture
def empty(deployer: Deployer) -> Deployer:
    """Return a deployer on an empty Google Cloud."""
    deployer.plane.state = State()
    deployer.plane.errors = {}
    return deployer


def secret_of(plane: ControlPlane, version: int) -> str:
    """Return a version of the signature secret."""
    return plane.state.secrets[SECRET][version - 1].decode()


def deliver(plane: ControlPlane, secret: str, body: bytes | None = None) -> int:
    """Deliver an event to the deployed function."""
    body = body or encode(envelope())
    url = plane.state.functions[FUNCTION]["serviceConfig"]["uri"]
    return httpx.post(url, content=body, headers={"X-Dt-Signature": signing.sign(body, secret)}).status_code


def events(host: str) -> list[Any]:
    """Return the documents of the deployed function's collection."""
    os.environ["FIRESTORE_EMULATOR_HOST"] = host
    try:
        return list(firestore.Client(project=PROJECT).collection("events").stream())
    finally:
        del os.environ["FIRESTORE_EMULATOR_HOST"]


def test_the_first_run_creates_everything(first: tuple[Finished, State, list[Any]]) -> None:
    """One run creates everything in an empty project: APIs, database, account with one permission, secret, metric."""
    run, state, _ = first

    assert run.returncode == 0, run.stderr
    assert {"run.googleapis.com", "firestore.googleapis.com", "secretmanager.googleapis.com"} <= set(state.enabled)
    database = state.databases["(default)"]
    assert (database["type"], database["locationId"]) == ("FIRESTORE_NATIVE", "europe-west1")
    assert database["deleteProtectionState"] == "DELETE_PROTECTION_ENABLED"
    assert state.roles["dataconnectorEventCreator"]["includedPermissions"] == ["datastore.entities.create"]
    (binding,) = state.policies[f"projects/{PROJECT}"]["bindings"]
    assert binding["members"] == [MEMBER]
    assert binding["role"] == f"projects/{PROJECT}/roles/dataconnectorEventCreator"
    assert binding["condition"]["expression"] == f'resource.name=="projects/{PROJECT}/databases/(default)"'
    (binding,) = state.policies[f"projects/{PROJECT}/secrets/{SECRET}"]["bindings"]
    assert binding == {"members": [MEMBER], "role": "roles/secretmanager.secretAccessor"}
    assert re.fullmatch(rb"[0-9a-f]{64}\n", state.secrets[SECRET][0])
    assert "dataconnector-endpoint-outcomes" in state.metrics


def test_the_deployed_function(first: tuple[Finished, State, list[Any]]) -> None:
    """The function is public, runs as its own account, pins the secret's version, and has the documented limits."""
    function = first[1].functions[FUNCTION]
    service = function["serviceConfig"]
    public = first[1].policies[FUNCTION.replace("/functions/", "/services/")]["bindings"]

    assert public == [{"members": ["allUsers"], "role": "roles/run.invoker"}]
    assert function["buildConfig"]["runtime"] == "python313"
    assert function["buildConfig"]["entryPoint"] == "dataconnector_endpoint"
    assert service["serviceAccountEmail"] == MEMBER.partition(":")[2]
    (secret,) = service["secretEnvironmentVariables"]
    assert (secret["key"], secret["secret"], secret["version"]) == ("DT_SIGNATURE_SECRET", SECRET, "1")
    assert service["environmentVariables"] == {
        "GOOGLE_CLOUD_PROJECT": PROJECT,
        "FUNCTION_USE_ASGI": "true",
        "FIRESTORE_DATABASE": "(default)",
        "EVENTS_COLLECTION": "events",
        "SIGNATURE_LEEWAY_SECONDS": "10",
        "LOG_LEVEL": "INFO",
        "LOG_EXECUTION_ID": "false",
    }
    assert (service["maxInstanceRequestConcurrency"], service["availableCpu"]) == (80, "1")
    assert (service["availableMemory"], service["timeoutSeconds"]) == ("512Mi", 30)
    assert (service["minInstanceCount"], service["maxInstanceCount"]) == (0, 100)


def test_indexes(first: tuple[Finished, State, list[Any]]) -> None:
    """Queries of a device or a type by time have an index; fields without queries have none; nothing expires."""
    state = first[1]
    indexed = [[(each["fieldPath"], each["order"]) for each in index["fields"][:-1]] for index in state.indexes]
    wanted = json.loads((ROOT / "deploy/firestore.indexes.json").read_text())["indexes"]
    exempt = {"/".join(name.split("/")[5::2]) for name, field in state.fields.items() if field["indexConfig"] == {}}

    assert indexed == [[(each["fieldPath"], each["order"]) for each in index["fields"]] for index in wanted]
    assert {f"events/{name}" for name in ("eventId", "receivedAt", "expireAt", "data", "labels", "metadata")} <= exempt
    assert {"events_quarantine/body", "events_quarantine/expireAt"} <= exempt
    assert not any("ttlConfig" in field for field in state.fields.values())


def test_the_uploaded_bundle_stores_an_event(cloud: Deployer, emulator_host: str) -> None:
    """The bundle, built in a clean environment of its runtime, stores a signed event; no synthetic event remains."""
    made = envelope()

    status = deliver(cloud.plane, secret_of(cloud.plane, 1).strip(), encode(made))

    assert status == 200
    stored = {document.id for document in events(emulator_host)}
    assert made["event"]["eventId"] in stored
    assert not [key for key in stored if key.startswith("deploy-")]


def test_the_smoke_test_reports_each_delivery(first: tuple[Finished, State, list[Any]]) -> None:
    """The first run reports the new, the repeated and the tampered delivery, and the deletion."""
    run = first[0]

    for line in ("a new event: 200", "the same event again: 200", "a tampered event: 400", "and is deleted"):
        assert line in run.stderr


def test_a_new_account_is_retried(first: tuple[Finished, State, list[Any]]) -> None:
    """A binding that is refused because the account is not known yet is repeated."""
    run, _, calls = first

    assert "Trying again in 1 s" in run.stderr
    assert len([call for call in calls if call.path.endswith(f"projects/{PROJECT}:setIamPolicy")]) == 2


def test_the_second_run_changes_nothing(cloud: Deployer) -> None:
    """A second run changes nothing; it only delivers its synthetic event and deletes it."""
    run = cloud.run("--yes")

    assert run.returncode == 0, run.stderr
    assert [(call.method, call.path.split("/documents/")[0]) for call in cloud.plane.changes()] == [
        ("DELETE", f"/firestore/v1/projects/{PROJECT}/databases/(default)")
    ]


def test_retention_changes_only_ttl_and_function(cloud: Deployer) -> None:
    """--retention-days enables TTL on both collections and sets the variable; a run without it disables TTL."""
    before = asdict(cloud.plane.state)

    run = cloud.run("--yes", "--retention-days", "30")
    after = asdict(cloud.plane.state)
    changes = [call.path.rpartition("/")[2] for call in cloud.plane.changes()[:-1]]
    back = cloud.run("--yes", "--dry-run")

    assert run.returncode == 0, run.stderr
    assert changes[:4] == ["expireAt", "expireAt", "upload", "dataconnector-endpoint"]
    assert {part for part in after if after[part] != before[part]} <= {"fields", "functions", "bundle"}
    expiring = [name.split("/")[5] for name, field in after["fields"].items() if "ttlConfig" in field]
    assert expiring == ["events", "events_quarantine"]
    environment = after["functions"][FUNCTION]["serviceConfig"]["environmentVariables"]
    assert environment["RETENTION_DAYS"] == "30"
    assert back.stdout.count("--disable-ttl") == 2


def test_devices(cloud: Deployer) -> None:
    """--devices sets the variable, exempts fields, and lets the function read and update; a run without it does not."""
    run = cloud.run("--yes", "--devices", "sensors")
    role = cloud.plane.state.roles["dataconnectorEventCreator"]["includedPermissions"]
    environment = cloud.plane.state.functions[FUNCTION]["serviceConfig"]["environmentVariables"]
    exempt = {"/".join(name.split("/")[5::2]) for name in cloud.plane.state.fields}
    again = cloud.run("--yes", "--dry-run", "--devices", "sensors")
    back = cloud.run("--yes", "--dry-run")

    assert run.returncode == 0, run.stderr
    assert role == [f"datastore.entities.{each}" for each in ("create", "get", "update")]
    assert environment["DEVICES_COLLECTION"] == "sensors"
    assert {"sensors/metadata", "sensors/newest"} <= exempt
    assert "roles update" not in again.stdout
    assert "--permissions=datastore.entities.create --format" in back.stdout


def test_an_indexed_label(cloud: Deployer) -> None:
    """--index creates the index of a label with the time in both directions, once."""
    run = cloud.run("--yes", "--index", "labels.room", "--index", "labels.floor")
    made = [[(each["fieldPath"], each["order"]) for each in x["fields"][:-1]] for x in cloud.plane.state.indexes[-4:]]
    again = cloud.run("--yes", "--dry-run", "--index", "labels.room")

    assert run.returncode == 0, run.stderr
    assert made == [
        [(label, "ASCENDING"), ("timestamp", order)]
        for label in ("labels.room", "labels.floor")
        for order in ("ASCENDING", "DESCENDING")
    ]
    assert "composite create" not in again.stdout


def test_only_a_public_key(empty: Deployer) -> None:
    """With --organization-id alone no secret is created, mounted or read; with --secret too, both are used."""
    alone = empty.run("--dry-run", "--organization-id", "orgA,orgB").stdout
    both = empty.run("--dry-run", "--organization-id", "orgA", "--secret", "mine").stdout

    assert "DT_ORGANIZATION_ID=orgA,orgB" in alone
    assert "--clear-secrets" in alone
    assert "gcloud secrets" not in alone
    assert "--no-secret" in alone
    assert "DT_ORGANIZATION_ID=orgA" in both
    assert "--set-secrets=DT_SIGNATURE_SECRET=mine:1" in both
    assert "--no-secret" not in both


def test_the_smoke_test_without_a_secret(cloud: Deployer) -> None:
    """Without a secret an unsigned and a forged event are refused, and the first true event is named as the proof."""
    url = cloud.plane.state.functions[FUNCTION]["serviceConfig"]["uri"]
    script = [shutil.which("python3") or "python3", "deploy/smoke_test.py", "--no-secret", "--url", url]

    run = cloud.shell([*script, "--documents", "http://127.0.0.1:1/v1/x/events"], TOKEN)

    assert run.returncode == 0, run.stderr
    for line in ("an unsigned event: 400", "a forged event: 400", "the first event that DT sends is the proof"):
        assert line in run.stderr


def test_rotation(cloud: Deployer) -> None:
    """During a rotation both secrets are accepted; each step is a revision, and a second rotation is refused."""
    old = secret_of(cloud.plane, 1).strip()

    rotated = cloud.run("--yes", "--rotate-secret")
    new, *rest = secret_of(cloud.plane, 2).split()
    both = [deliver(cloud.plane, old), deliver(cloud.plane, new)]
    again = cloud.run("--yes", "--rotate-secret")
    retired = cloud.run("--yes", "--retire-secret")
    at_last = [deliver(cloud.plane, old), deliver(cloud.plane, new)]

    assert (rotated.returncode, retired.returncode) == (0, 0), rotated.stderr + retired.stderr
    assert new != old
    assert rest == [old]
    assert both == [200, 200]
    assert again.returncode == 1
    assert "A rotation is in progress" in again.stderr
    assert secret_of(cloud.plane, 3).split() == [new]
    assert at_last == [400, 200]
    (pinned,) = cloud.plane.state.functions[FUNCTION]["serviceConfig"]["secretEnvironmentVariables"]
    assert pinned["version"] == "3"


def test_a_secret_that_cannot_be_read_is_not_replaced(cloud: Deployer) -> None:
    """A rotation that cannot read the old secret adds no version without it."""
    cloud.plane.errors = {r"GET .*versions/1:access": (403, "Permission denied on the secret.", 9)}

    run = cloud.run("--yes", "--rotate-secret")

    assert run.returncode == 1
    assert len(cloud.plane.state.secrets[SECRET]) == 1


def test_a_given_secret(cloud: Deployer) -> None:
    """--secret-stdin stores the given secret once; only --show-secret prints it."""
    mine = "a secret of my own, long enough for anyone"

    given = cloud.run("--secret-stdin", given=f"\n  {mine}  \n")
    again = cloud.run("--secret-stdin", "--show-secret", given=mine)

    assert (given.returncode, again.returncode) == (0, 0), given.stderr + again.stderr
    assert [version.decode().strip() for version in cloud.plane.state.secrets[SECRET][1:]] == [mine]
    assert mine not in given.stdout + given.stderr
    assert mine in again.stdout
    assert deliver(cloud.plane, mine) == 200
    cloud.outputs.remove(again.stdout + again.stderr)


def test_dry_run(empty: Deployer, first: tuple[Finished, State, list[Any]]) -> None:
    """--dry-run changes nothing; its output, pasted into a shell, creates what a run creates."""
    printed = empty.run("--dry-run")
    asked = empty.plane.changes()

    pasted = empty.shell(["bash", "-euo", "pipefail", "-c", printed.stdout])

    assert printed.returncode == 0, printed.stderr
    assert asked == []
    assert pasted.returncode == 0, pasted.stderr
    made, wanted = asdict(empty.plane.state), asdict(first[1])
    differing = {part for part in made if made[part] != wanted[part]}
    assert differing <= {"secrets", "functions", "bundle"}
    made, wanted = made["functions"][FUNCTION], wanted["functions"][FUNCTION]
    assert {**made["serviceConfig"], "uri": ""} == {**wanted["serviceConfig"], "uri": ""}


STEPS = {
    1: ("GET /cloudresourcemanager", "Check that gcloud is logged in"),
    2: ("POST .*services:batchEnable", "Owner or Editor"),
    3: ("POST .*/serviceAccounts", "roles/iam.serviceAccountAdmin"),
    4: ("GET /secretmanager", "roles/secretmanager.admin"),
    5: ("GET .*/indexes", "roles/datastore.indexAdmin"),
    6: ("GET /cloudfunctions/v2/.*/functions", "cloudbuild.builds.builder"),
    7: ("DELETE /firestore", "gcloud functions logs read"),
    8: ("GET /logging", "The endpoint itself is ready"),
}


@pytest.mark.parametrize("step", STEPS)
def test_a_failing_step_is_explained(step: int, cloud: Deployer) -> None:
    """A step that fails reports its number, the reason, and what to do."""
    pattern, advice = STEPS[step]
    cloud.plane.errors = {pattern: (403, "Forbidden by the fake.", 99)}
    if step == 2:
        cloud.plane.state.enabled.clear()
    if step == 3:
        cloud.plane.state.accounts.clear()

    run = cloud.run("--yes")

    assert run.returncode == 1
    assert f"step {step} of 8" in run.stderr
    assert "Forbidden by the fake" in run.stderr or "answered with 403" in run.stderr
    assert advice in run.stderr
    assert "run the same command again" in run.stderr


def test_the_data_connector_is_created(cloud: Deployer) -> None:
    """--connect-dt-project creates a Data Connector with the endpoint, the secret and the labels."""
    api = DataConnectorApi()
    names = ("DT_SERVICE_ACCOUNT_KEY_ID", "DT_SERVICE_ACCOUNT_SECRET", "DT_SERVICE_ACCOUNT_EMAIL")
    environ = dict.fromkeys(names, "x") | {"DT_API_URL": api.url, "DT_TOKEN_URL": f"{api.url}/token"}

    run = cloud.run("--yes", "--connect-dt-project", "p", "--dt-labels", "name,room", **environ)
    api.stop()

    assert run.returncode == 0, run.stderr
    (connector,) = api.connectors
    assert connector["httpConfig"]["signatureSecret"] == secret_of(cloud.plane, 1).strip()
    assert connector["httpConfig"]["url"] == cloud.plane.state.functions[FUNCTION]["serviceConfig"]["uri"]
    assert connector["labels"] == ["name", "room"]


def test_disabled_billing_is_reported(cloud: Deployer) -> None:
    """A project without billing is refused before anything is created."""
    cloud.plane.state.billing = False

    run = cloud.run("--yes")

    assert run.returncode == 1
    assert "Billing is disabled" in run.stderr
    assert cloud.plane.changes() == []


def test_an_emulator_in_the_environment_is_refused(deployer: Deployer) -> None:
    """FIRESTORE_EMULATOR_HOST stops a deployment before its first call."""
    run = deployer.run("--yes", FIRESTORE_EMULATOR_HOST="127.0.0.1:8080")

    assert run.returncode == 1
    assert "FIRESTORE_EMULATOR_HOST is set" in run.stderr
    assert deployer.plane.calls == []


def test_confirmation(deployer: Deployer) -> None:
    """Without --yes it shows project and region and asks; any answer but yes changes nothing."""
    run = deployer.run(given="n\n")

    assert run.returncode == 1
    assert PROJECT in run.stderr
    assert "europe-west1" in run.stderr
    assert "Nothing was changed" in run.stderr
    assert deployer.plane.calls == []


def test_project_and_region_from_gcloud(deployer: Deployer) -> None:
    """Without options, project and region come from gcloud's configuration, and are shown."""
    command = ["bash", str(ROOT / "deploy.sh")]
    configured = {"CLOUDSDK_CORE_PROJECT": "demo-configured", "CLOUDSDK_RUN_REGION": "us-central1"}

    run = deployer.shell(command, "n\n", **configured)

    assert re.search(r"Project +demo-configured\nRegion +us-central1\n", run.stderr)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--retention-days", "1"], "--retention-days"),
        (["--collection", "a/b"], "--collection"),
        (["--log-level=LOUD"], "--log-level"),
        (["--memory"], "--memory"),
        (["--destroy"], "--destroy"),
        (["--rotate-secret", "--retire-secret"], "exclude each other"),
    ],
)
def test_wrong_options(options: list[str], word: str) -> None:
    """A wrong option causes exit status 2 and one line that names it."""
    run = subprocess.run(["bash", "deploy.sh", *options], cwd=ROOT, capture_output=True, text=True, check=False)

    assert run.returncode == 2
    assert word in run.stderr
    assert run.stderr.count("\n") == 1


def test_help() -> None:
    """--help lists every option, with examples."""
    run = subprocess.run(["bash", "deploy.sh", "--help"], cwd=ROOT, capture_output=True, text=True, check=True)

    sources = [(ROOT / "deploy.sh").read_text(), *(path.read_text() for path in (ROOT / "deploy").glob("*.sh"))]
    registered = re.findall(r'^(?:flags|values|lists)\+="([^"]+)"', "\n".join(sources), re.MULTILINE)
    options = {f"--{name}" for names in registered for name in names.replace("\\\n", "").split()}
    assert "--retention-days" in options
    assert options <= set(re.findall(r"--[a-z-]+", run.stdout))
    assert "examples:" in run.stdout


def test_scripts_are_clean() -> None:
    """Shellcheck finds nothing in the project's shell scripts."""
    shellcheck = shutil.which("shellcheck", path=f"{ROOT}/.venv/bin:{os.environ['PATH']}")
    if shellcheck is None:
        assert os.environ.get("CI") != "true", "CI needs shellcheck"
        pytest.skip("shellcheck is not installed")
    scripts = ["deploy.sh", "run.sh", "test.sh"]

    run = subprocess.run([shellcheck, "-x", *scripts], cwd=ROOT, capture_output=True, text=True, check=False)
    sourced = subprocess.run(
        [shellcheck, "-s", "bash", "local/venv.sh"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert (run.returncode, sourced.returncode) == (0, 0), run.stdout + sourced.stdout


def test_the_procfile_starts_the_function(tmp_path: Path, emulator_host: str, project: str) -> None:
    """The command of the Procfile starts the function, which stores a signed event."""
    name, _, command = (ROOT / "Procfile").read_text().strip().partition(": ")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environ = {
        "PATH": f"{ROOT}/.venv/bin:/usr/bin:/bin",
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "DT_SIGNATURE_SECRET": signing.SECRET,
        "GOOGLE_CLOUD_PROJECT": project,
        "FIRESTORE_EMULATOR_HOST": emulator_host,
    }
    body = encode(envelope())
    transport = httpx.HTTPTransport(retries=8)  # pauses of 0, 0.5, 1, 2 … s until the function listens

    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(["sh", "-c", f"exec {command}"], cwd=ROOT, env=environ, stdout=log, stderr=log)
    try:
        with httpx.Client(transport=transport, timeout=30) as client:
            answer = client.post(
                f"http://127.0.0.1:{port}/", content=body, headers={"X-Dt-Signature": signing.sign(body)}
            )
    finally:
        process.terminate()
        process.wait()

    assert name == "web"
    assert (answer.status_code, answer.text) == (200, "OK")


def test_no_secret_is_shown(cloud: Deployer) -> None:
    """After all tests: no secret or access token is on a command line, in an output or in gcloud's own files."""
    secrets = {line for version in cloud.plane.state.secrets[SECRET] for line in version.decode().split("\n") if line}
    files = [path.read_text("utf-8", "replace") for path in (cloud.folder / "gcloud").rglob("*") if path.is_file()]
    commands = (cloud.folder / "commands").read_text()

    shown = "\n".join([*cloud.outputs, *files, commands])

    assert "versions" in commands
    assert len(secrets) >= 1
    assert [secret for secret in {*secrets, TOKEN} if secret in shown] == []
