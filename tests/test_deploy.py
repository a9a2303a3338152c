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
from tests.cloud_run import GoogleCloud
from tests.conftest import ROOT
from tests.control_plane import State
from tests.events import encode, envelope
from tests.test_data_connector import DataConnectorApi

PROJECT = "demo-deploy"
MEMBER = f"serviceAccount:dataconnector-endpoint@{PROJECT}.iam.gserviceaccount.com"
FUNCTION = f"projects/{PROJECT}/locations/europe-west1/functions/dataconnector-endpoint"
BUILDER = f"serviceAccount:dataconnector-build@{PROJECT}.iam.gserviceaccount.com"
METRIC = "dataconnector-endpoint-outcomes"
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

    def __init__(self, plane: GoogleCloud, folder: Path, sdk: Path) -> None:
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
    plane = GoogleCloud(PROJECT, emulator_host, runtime.deploy)
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
    deployer.plane.state.unlisted.clear()  # time passes
    deployer.plane.state.fresh.clear()
    return run, copy.deepcopy(deployer.plane.state), list(deployer.plane.calls)


@pytest.fixture
def cloud(deployer: Deployer, first: tuple[Finished, State, list[Any]]) -> Deployer:
    """Return a deployer on a Google Cloud in the state after the first run."""
    deployer.plane.reset(copy.deepcopy(first[1]))
    return deployer


@pytest.fixture
def empty(deployer: Deployer) -> Deployer:
    """Return a deployer on an empty Google Cloud."""
    deployer.plane.reset(State())
    return deployer


def secret_of(plane: GoogleCloud, version: int) -> str:
    """Return a version of the signature secret."""
    return plane.state.secrets[SECRET][version - 1].decode()


def deliver(plane: GoogleCloud, secret: str, body: bytes | None = None) -> int:
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


def environment(plane: GoogleCloud) -> dict[str, str]:
    """Return the environment of the deployed function."""
    return dict(plane.state.functions[FUNCTION]["serviceConfig"]["environmentVariables"])


def pinned(plane: GoogleCloud) -> str:
    """Return the version of the secret that the deployed function uses."""
    (secret,) = plane.state.functions[FUNCTION]["serviceConfig"]["secretEnvironmentVariables"]
    return str(secret["version"])


def changed(plane: GoogleCloud) -> list[str]:
    """Return what the last run changed, without the deletion of the synthetic event."""
    return [f"{call.method} {call.path}" for call in plane.changes() if "/documents/" not in call.path]


def test_the_first_run_creates_everything(first: tuple[Finished, State, list[Any]]) -> None:
    """One run creates everything in an empty project: APIs, database, account with one permission, secret, metric."""
    run, state, _ = first

    assert run.returncode == 0, run.stderr
    assert {"run.googleapis.com", "firestore.googleapis.com", "secretmanager.googleapis.com"} <= set(state.enabled)
    database = state.databases["(default)"]
    assert (database["type"], database["locationId"]) == ("FIRESTORE_NATIVE", "europe-west1")
    assert database["deleteProtectionState"] == "DELETE_PROTECTION_ENABLED"
    assert state.roles["dataconnectorEventCreator"]["includedPermissions"] == ["datastore.entities.create"]
    binding, *others = state.policies[f"projects/{PROJECT}"]["bindings"]
    assert binding["members"] == [MEMBER]
    assert binding["role"] == f"projects/{PROJECT}/roles/dataconnectorEventCreator"
    assert {role for each in others for role in [each["role"]] if each["members"] == [BUILDER]} == {
        "roles/storage.objectViewer",
        "roles/artifactregistry.writer",
        "roles/logging.logWriter",
    }
    assert binding["condition"]["expression"] == f'resource.name=="projects/{PROJECT}/databases/(default)"'
    (binding,) = state.policies[f"projects/{PROJECT}/secrets/{SECRET}"]["bindings"]
    assert binding == {"members": [MEMBER], "role": "roles/secretmanager.secretAccessor"}
    assert re.fullmatch(rb"[0-9a-f]{64}\n", state.secrets[SECRET][0])
    assert "resource.labels.service_name=dataconnector-endpoint " in state.metrics[METRIC]["filter"]


def test_the_deployed_function(first: tuple[Finished, State, list[Any]]) -> None:
    """The function is public, runs as its own account, pins the secret's version, and has the documented limits."""
    function = first[1].functions[FUNCTION]
    service = function["serviceConfig"]
    public = first[1].policies[FUNCTION.replace("/functions/", "/services/")]["bindings"]

    assert public == [{"members": ["allUsers"], "role": "roles/run.invoker"}]
    assert function["buildConfig"]["runtime"] == "python313"
    assert function["buildConfig"]["entryPoint"] == "dataconnector_endpoint"
    assert function["buildConfig"]["serviceAccount"].endswith(BUILDER.partition(":")[2])
    assert service["serviceAccountEmail"] == MEMBER.partition(":")[2]
    (secret,) = service["secretEnvironmentVariables"]
    assert (secret["key"], secret["secret"], secret["version"]) == ("DT_SIGNATURE_SECRET", SECRET, "1")
    digest = service["environmentVariables"]["SOURCE_DIGEST"]
    assert re.fullmatch("[0-9a-f]{40}", digest)
    assert service["environmentVariables"] == {
        "SOURCE_DIGEST": digest,
        "DEPLOYED_WITH": f"python313,{BUILDER.partition(':')[2]},0,10",
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
    assert (service["minInstanceCount"], service["maxInstanceCount"]) == (0, 10)


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


def test_what_is_not_known_everywhere_is_retried(first: tuple[Finished, State, list[Any]]) -> None:
    """Errors that pass by themselves are repeated: a new API, a new account, an operation on a new database."""
    run, _, calls = first

    assert "An API is not enabled everywhere yet. Trying again in 1 s" in run.stderr
    assert "does not exist." in run.stderr
    assert "another operation is in progress" in run.stderr
    assert len([call for call in calls if call.path.endswith(f"projects/{PROJECT}:setIamPolicy")]) == 5
    assert "Check operation" not in run.stderr


def test_the_second_run_changes_nothing(cloud: Deployer) -> None:
    """A second run changes nothing; it only delivers its synthetic event and deletes it."""
    run = cloud.run("--yes")

    assert run.returncode == 0, run.stderr
    assert changed(cloud.plane) == []
    assert "→" not in run.stderr


def test_a_later_run_keeps_what_it_is_not_told(cloud: Deployer) -> None:
    """Options change what they name, and stay in later runs; "none" unsets; the plan shows what changes."""
    options = ["--retention-days", "30", "--devices", "sensors", "--organization-id", "orgA", "--memory", "1GiB"]
    options += ["--index", "labels.room", "--no-request-log"]
    before = asdict(cloud.plane.state)

    run = cloud.run("--yes", *options, DEPLOY_LOG_LEVEL="DEBUG", DEPLOY_TIMEOUT="1m")
    after = asdict(cloud.plane.state)
    made = environment(cloud.plane)
    again = cloud.run("--yes", *options, DEPLOY_LOG_LEVEL="DEBUG", DEPLOY_TIMEOUT="1m")
    same = changed(cloud.plane)
    rotated = cloud.run("--dry-run", "--rotate-secret")
    back = cloud.run("--dry-run", "--retention-days", "none", "--devices", "none", "--request-log")

    assert (run.returncode, again.returncode) == (0, 0), run.stderr + again.stderr
    parts = {"fields", "functions", "bundle", "services", "revisions", "indexes", "roles", "sinks"}
    assert {part for part in after if after[part] != before[part]} <= parts
    assert (made["RETENTION_DAYS"], made["DEVICES_COLLECTION"], made["LOG_LEVEL"]) == ("30", "sensors", "DEBUG")
    assert made["DT_ORGANIZATION_ID"] == "orgA"
    service = after["functions"][FUNCTION]["serviceConfig"]
    assert (service["availableMemory"], service["timeoutSeconds"], service["maxInstanceCount"]) == ("1Gi", 60, 10)
    assert same == []
    expiring = [name.split("/")[5] for name, field in after["fields"].items() if "ttlConfig" in field]
    assert expiring == ["events", "events_quarantine"]
    assert "sensors/newest" in {"/".join(name.split("/")[5::2]) for name in after["fields"]}
    labels = [[each["fieldPath"] for each in index["fields"][:-1]] for index in after["indexes"][-2:]]
    assert labels == [["labels.room", "timestamp"]] * 2
    (exclusion,) = after["sinks"]["_Default"]["exclusions"]
    assert exclusion["name"] == "dataconnector-endpoint-requests"
    assert "httpRequest.status<400" in exclusion["filter"]
    role = after["roles"]["dataconnectorEventCreator"]["includedPermissions"]
    assert role == [f"datastore.entities.{each}" for each in ("create", "get", "update")]
    assert re.search(r"Retention +none → 30\nDT org. +none → orgA\n", run.stderr)
    (planned,) = re.findall("(?m)^.*→.*$", rotated.stderr)
    assert planned.endswith("→ dt-signature-secret, version 1, with a new secret before the present one")
    assert "RETENTION_DAYS=30;DT_ORGANIZATION_ID=orgA" in rotated.stdout
    assert "--memory=1Gi --timeout=60s" in rotated.stdout
    assert "ttl" not in rotated.stdout
    assert back.stdout.count("--disable-ttl") == 2
    assert "--remove-env-vars=DEVICES_COLLECTION,RETENTION_DAYS" in back.stdout
    *_, narrowed, shown = re.findall("gcloud (?:functions deploy|iam roles update|logging sinks update).*", back.stdout)
    assert "--permissions=datastore.entities.create " in narrowed
    assert "--remove-exclusions=dataconnector-endpoint-requests" in shown


def test_what_was_changed_by_hand(cloud: Deployer) -> None:
    """Differences made by hand are corrected; what deploy.sh does not manage stays; further flags are passed on."""
    state = cloud.plane.state
    state.databases["(default)"]["deleteProtectionState"] = "DELETE_PROTECTION_DISABLED"
    state.roles["dataconnectorEventCreator"]["includedPermissions"].append("datastore.entities.delete")
    state.metrics[METRIC]["filter"] = "severity>=ERROR"
    state.functions[FUNCTION]["state"] = "DEPLOYING"
    (container,) = state.services["dataconnector-endpoint"]["spec"]["template"]["spec"]["containers"]
    for variable in container["env"]:
        if variable["name"] == "LOG_EXECUTION_ID":
            variable["value"] = "true"
        if variable["name"] == "DT_SIGNATURE_SECRET":
            variable["valueFrom"]["secretKeyRef"]["key"] = "latest"

    run = cloud.run("--dry-run", "--pitr", "--", "--update-labels=team=iot", "--vpc-connector=mine")
    lines = run.stdout.splitlines()

    assert run.returncode == 0, run.stderr
    assert "Another deployment of the function is in progress" in run.stderr
    assert "delete protection off → on, point-in-time recovery off → on" in run.stderr
    assert [line.split(" --format")[0] for line in lines[:2]] == [
        "gcloud firestore databases update '--database=(default)' --delete-protection --enable-pitr",
        "gcloud iam roles update dataconnectorEventCreator --permissions=datastore.entities.create",
    ]
    (deployed,) = [line for line in lines if line.startswith("gcloud functions deploy")]
    assert "LOG_EXECUTION_ID=false" in deployed
    assert "--update-secrets=DT_SIGNATURE_SECRET=dt-signature-secret:1" in deployed
    assert "--vpc-connector=mine" in deployed
    assert not re.search("--(clear|set)-|--ingress|--allow-unauth", deployed)
    assert f"gcloud logging metrics update {METRIC}" in lines[-1]


def test_changes_of_data_are_confirmed(cloud: Deployer) -> None:
    """Another collection is confirmed on its own; a database that does not fit and a denied read end the run."""
    asked = cloud.run("--collection", "other", "--retention-days", "30", given="y\nn\n")
    databases = cloud.plane.state.databases
    refused = []
    for change in ({"databaseEdition": "ENTERPRISE"}, {"type": "DATASTORE_MODE"}, {"locationId": "us-central1"}):
        databases["other"] = databases["(default)"] | change
        refused.append(cloud.run("--yes", "--database", "other").stderr)
    cloud.plane.errors = {"GET /secretmanager": (403, "Permission denied.", 9)}
    denied = cloud.run("--dry-run")

    assert asked.returncode == 1
    assert "Events      events → other" in asked.stderr
    assert "Retention   none → 30" in asked.stderr
    assert "Stored events stay in (default)/events" in asked.stderr
    assert "Nothing was changed" in asked.stderr
    for text, reason in zip(refused, ("Enterprise edition", "Datastore mode", "is in us-central1"), strict=True):
        assert reason in text
    assert denied.returncode == 1
    assert "step 4 of 8" in denied.stderr
    assert "Permission denied." in denied.stderr
    assert cloud.plane.changes() == []


def test_only_a_public_key(empty: Deployer) -> None:
    """With --organization-id alone no secret is created, mounted or read; with --secret too, both are used."""
    alone = empty.run("--dry-run", "--organization-id", "orgA,orgB").stdout
    options = ["--organization-id", "orgA", "--secret", "mine", "--secret-locations", "europe-west1,europe-west4"]
    both = empty.run("--dry-run", *options).stdout

    assert "DT_ORGANIZATION_ID=orgA,orgB" in alone
    assert "SIGNATURE_SECRET" not in alone
    assert "gcloud secrets" not in alone
    assert "--no-secret" in alone
    assert "DT_ORGANIZATION_ID=orgA" in both
    assert "--update-secrets=DT_SIGNATURE_SECRET=mine:1" in both
    assert "--replication-policy=user-managed --locations=europe-west1,europe-west4" in both
    assert "--no-secret" not in both


def test_the_smoke_test_without_a_secret(cloud: Deployer) -> None:
    """Without a secret an unsigned and a forged event are refused, and the first true event is named as the proof."""
    url = cloud.plane.state.functions[FUNCTION]["serviceConfig"]["uri"]
    script = [shutil.which("python3") or "python3", "deploy/smoke_test.py", "--no-secret", "--url", url]

    run = cloud.shell([*script, "--documents", "http://127.0.0.1:1/v1/x/events"], TOKEN)

    assert run.returncode == 0, run.stderr
    for line in ("an unsigned event: 400", "a forged event: 400", "the first event that DT sends is the proof"):
        assert line in run.stderr


def interrupted(cloud: Deployer, *options: str, changes: str = "^(?!PUT /upload)") -> Iterator[Finished]:
    """Run deploy.sh again and again, each time with the response to one more change lost, until it succeeds."""
    cloud.plane.interrupts = changes
    for _ in range(30):
        run = cloud.run("--yes", *options)
        yield run
        if run.returncode == 0:
            return
        assert "failed, see the error above" in run.stderr
        assert "run the same command again" in run.stderr
    raise AssertionError("deploy.sh does not come to an end")


ADVICE = {
    2: "Owner or Editor",
    3: "roles/iam.serviceAccountAdmin",
    4: "roles/secretmanager.admin",
    5: "roles/datastore.indexAdmin",
    6: "cloud-build/builds",
    7: "gcloud functions logs read",
    8: "The endpoint itself is ready",
}


def test_an_interrupted_deployment_goes_on(empty: Deployer, first: tuple[Finished, State, list[Any]]) -> None:
    """Interrupted after each change, and run again each time, it makes what one run makes, and explains each step."""
    empty.plane.propagates = False

    runs = list(interrupted(empty))

    made, wanted = asdict(empty.plane.state), asdict(first[1])
    assert {part for part in made if made[part] != wanted[part]} <= {*BY_RUN, "secret_data"}
    assert len(made["secrets"][SECRET]) <= 2
    assert deliver(empty.plane, secret_of(empty.plane, int(pinned(empty.plane))).strip()) == 200
    steps = {int(match[1]): run.stderr for run in runs if (match := re.search("step ([0-9]) of 8 ", run.stderr))}
    assert set(steps) == set(ADVICE)
    assert [step for step, text in steps.items() if ADVICE[step] not in text] == []


def test_an_interrupted_rotation_goes_on(cloud: Deployer) -> None:
    """A rotation that is interrupted after any change goes on; whatever DT may sign with is never refused."""
    old = secret_of(cloud.plane, 1).strip()

    statuses = []
    for run in interrupted(cloud, "--rotate-secret"):
        statuses.append(deliver(cloud.plane, old))
        if "All deliveries go back" in run.stderr:
            assert cloud.plane.state.services["dataconnector-endpoint"]["spec"]["traffic"][0]["percent"] == 100
    rotated = int(pinned(cloud.plane))
    new, *rest = secret_of(cloud.plane, rotated).split()
    both = [deliver(cloud.plane, old), deliver(cloud.plane, new)]
    early = cloud.run("--yes", "--retire-secret")
    label = cloud.plane.state.secret_data[SECRET]["labels"]["rotated"]
    later = int(label.partition("-")[2]) - 13 * 3600
    cloud.plane.state.secret_data[SECRET]["labels"]["rotated"] = f"{rotated}-{later}"
    cloud.plane.interrupted = set()
    retired = list(interrupted(cloud, "--retire-secret"))
    done = cloud.run("--yes", "--retire-secret")
    cloud.plane.interrupted = set()
    back = list(interrupted(cloud, "--rollback"))

    assert statuses
    assert set(statuses) == {200}
    assert new != old
    assert rest == [old]
    assert both == [200, 200]
    assert early.returncode == 1
    assert "run again in 13 hours" in early.stderr
    assert len(retired) > 1
    assert secret_of(cloud.plane, int(pinned(cloud.plane))).split() == [new]
    assert [deliver(cloud.plane, old), deliver(cloud.plane, new)] == [200, 200]
    assert done.returncode == 0
    assert "there is none to retire" in done.stderr
    assert [run.returncode for run in back] == [1, 1, 0]  # interrupted when it sends deliveries back, and in its test
    assert "which is not the newest revision" in back[1].stderr


BY_RUN = {"secrets", "functions", "bundle", "services", "revisions", "unlisted", "fresh", "policies", "enabled"}


def test_a_secret_that_cannot_be_read_is_not_replaced(cloud: Deployer) -> None:
    """A run that cannot read the old secret adds no version; one that is disabled is named with its cure."""
    cloud.plane.errors = {r"GET .*versions/1:access": (403, "Permission denied on the secret.", 9)}
    given = cloud.run("--secret-stdin", given="another secret, which lacks the one that the function uses")
    cloud.plane.errors = {r"GET .*versions/1:access": (403, "Permission denied on the secret.", 9)}
    denied = cloud.run("--yes", "--rotate-secret")
    cloud.plane.errors = {}
    cloud.plane.state.disabled.add((SECRET, 1))
    disabled = cloud.run("--yes")

    assert (given.returncode, denied.returncode) == (1, 1)
    assert len(cloud.plane.state.secrets[SECRET]) == 1
    assert disabled.returncode == 1
    assert "gcloud secrets versions enable 1 --secret=dt-signature-secret" in disabled.stderr


def test_secrets_of_two_connectors_are_no_rotation(cloud: Deployer) -> None:
    """Of two secrets that no rotation has made, none is an old one: --rotate-secret refuses, and no time starts."""
    cloud.plane.state.secrets[SECRET] = [b"secret of one connector\nsecret of another connector\n"]

    run = cloud.run("--yes", "--rotate-secret")

    assert run.returncode == 1
    assert "has 2 secrets that --rotate-secret has not made" in run.stderr
    assert "rotated" not in cloud.plane.state.secret_data[SECRET].get("labels", {})
    assert len(cloud.plane.state.secrets[SECRET]) == 1


def test_a_secret_in_a_plain_variable_is_not_dropped(cloud: Deployer) -> None:
    """A secret that the function has in a plain variable moves to Secret Manager, and only if the new value has it."""
    (container,) = cloud.plane.state.services["dataconnector-endpoint"]["spec"]["template"]["spec"]["containers"]
    container["env"] = [each for each in container["env"] if each["name"] != "DT_SIGNATURE_SECRET"]
    container["env"].append({"name": "DT_SIGNATURE_SECRET", "value": "a secret in a plain variable"})

    drops = cloud.run("--secret-stdin", given="another secret")
    moves = cloud.run("--dry-run", "--secret-stdin", given="another secret\na secret in a plain variable\n")

    assert drops.returncode == 1
    assert "a plain variable of the function has a secret that the new value lacks" in drops.stderr
    assert moves.returncode == 0, moves.stderr
    assert "--remove-env-vars=DT_SIGNATURE_SECRET" in moves.stdout
    assert "a secret in a plain variable" not in drops.stderr + moves.stdout + moves.stderr


def test_a_given_secret(cloud: Deployer) -> None:
    """--secret-stdin stores the given secrets once, and refuses to drop one in use; only --show-secret prints one."""
    mine, old = "a secret of my own, long enough for anyone", secret_of(cloud.plane, 1).strip()

    drops = cloud.run("--secret-stdin", given=mine)
    quoted = cloud.run("--secret-stdin", given=f'"{mine}"')
    cloud.plane.old_instances = 1
    given = cloud.run("--secret-stdin", given=f"\n  {mine}  \n{old}", SHELLOPTS="xtrace")
    again = cloud.run("--secret-stdin", "--show-secret", given=f"{mine}\n{old}")
    unchanged = changed(cloud.plane)

    assert (drops.returncode, quoted.returncode) == (1, 1)
    assert "has a secret that the new value lacks" in drops.stderr
    assert "without quotes" in quoted.stderr
    assert (given.returncode, again.returncode) == (0, 0), given.stderr[-2000:] + again.stderr
    assert [version.decode().split("\n") for version in cloud.plane.state.secrets[SECRET][1:]] == [[mine, old, ""]]
    assert mine not in given.stdout + given.stderr
    assert "+ ensure_function" in given.stderr
    assert cloud.plane.old_instances == 0  # an instance that refused the first delivery was not the end
    assert mine in again.stdout
    assert unchanged == []
    assert [deliver(cloud.plane, secret) for secret in (mine, old)] == [200, 200]
    cloud.outputs.remove(again.stdout + again.stderr)


def test_a_bad_revision_is_rolled_back(cloud: Deployer) -> None:
    """A new revision that fails the smoke test gets no deliveries, nor by --rollback; the same command tries again."""
    service = cloud.plane.state.services["dataconnector-endpoint"]
    before = service["status"]["traffic"][0]["revisionName"]
    cloud.plane.faulty = {f"dataconnector-endpoint-{cloud.plane.made + 1:05}-abc"}

    failed = cloud.run("--yes", "--log-level", "WARNING", "--retention-days", "30", DEPLOY_PATIENCE="0")
    serving = cloud.plane.state.services["dataconnector-endpoint"]["status"]["traffic"]
    plain = cloud.run("--dry-run")
    repeated = cloud.run("--yes", "--log-level", "WARNING")
    by_hand = cloud.run("--yes", "--rollback")
    deliveries = cloud.plane.endpoints["dataconnector-endpoint"].statuses[-3:]
    further = cloud.run("--yes", "--rollback", "--force")
    last = cloud.plane.state.services["dataconnector-endpoint"]["status"]["traffic"]

    assert failed.returncode == 1
    assert f"All deliveries go back to the revision before, {before}." in failed.stderr
    assert [(each["revisionName"], each["percent"]) for each in serving] == [(before, 100)]
    assert "Log level   INFO\n" in plain.stderr
    assert f"Traffic     {before} → the newest revision" in plain.stderr
    assert repeated.returncode == 0, repeated.stderr
    assert environment(cloud.plane)["LOG_LEVEL"] == "WARNING"
    assert "RETENTION_DAYS" not in environment(cloud.plane)  # the failed revision had it, and this run did not name it
    assert by_hand.returncode == 0, by_hand.stderr
    assert [(each["revisionName"], each["percent"]) for each in last] == [(before, 100)]  # not the one that failed
    assert "a new event: 200" in by_hand.stderr
    assert deliveries == [200, 200, 400]
    assert further.returncode == 1
    assert f"There is no revision before {before} that can serve" in further.stderr


def test_settings_of_a_revision_that_was_rolled_back(
    cloud: Deployer, first: tuple[Finished, State, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What only the function's last deployment shows does not come from one that was rolled back or that failed."""
    cloud.plane.faulty = {f"dataconnector-endpoint-{cloud.plane.made + 1:05}-abc"}
    options = ["--runtime", "python312", "--build-service-account", "another-builder"]
    options += ["--min-instances", "1", "--max-instances", "5"]
    with monkeypatch.context() as patch:
        patch.setattr(cloud.plane, "deploy", lambda *_: "")
        failed = cloud.run("--yes", *options, DEPLOY_PATIENCE="0")
    last = cloud.plane.state.functions[FUNCTION]

    later = cloud.run("--dry-run")
    cloud.plane.reset(copy.deepcopy(first[1]))
    function = cloud.plane.state.functions[FUNCTION]
    function["state"], function["serviceConfig"]["maxInstanceCount"] = "FAILED", 1000
    unbuilt = cloud.run("--dry-run")
    function["state"] = "ACTIVE"
    by_hand = cloud.run("--dry-run")

    assert "Instances ≤ 10\n" in unbuilt.stderr
    assert "Instances ≤ 1000\n" in by_hand.stderr
    assert "All deliveries go back" in failed.stderr
    assert (last["buildConfig"]["runtime"], last["serviceConfig"]["maxInstanceCount"]) == ("python312", 5)
    assert later.returncode == 0, later.stderr
    assert re.findall("(?m)^(?:Runtime|Instances).*", later.stderr) == [
        "Runtime     python313",
        "Instances ≥ 0",
        "Instances ≤ 10",
    ]
    (command,) = re.findall("gcloud functions deploy .*", later.stdout)
    for option in ("--runtime=python313 ", "--min-instances=0 ", "--max-instances=10 "):
        assert option in command
    assert f"--build-service-account=projects/{PROJECT}/serviceAccounts/dataconnector-build@" in command


def test_a_machine_that_cannot_test_does_not_roll_back(cloud: Deployer, tmp_path: Path) -> None:
    """Without a connection, or the right to delete its document, the new revision stays; the same command tests it."""
    python = tmp_path / "python3"
    proxy = '*smoke_test.py*) export http_proxy=http://127.0.0.1:1 no_proxy="" ;;'
    python.write_text(f'#!/bin/sh\ncase "$*" in {proxy} esac\nexec {cloud.folder}/bin/python3 "$@"\n')
    python.chmod(0o755)
    path = f"{tmp_path}:{cloud.folder}/bin:{os.environ['PATH']}"

    unreachable = cloud.run("--yes", "--log-level", "WARNING", PATH=path, DEPLOY_PATIENCE="0")
    cloud.plane.errors = {"DELETE .*/documents/": (403, "Missing or insufficient permissions.", 1)}
    forbidden = cloud.run("--yes", "--log-level", "ERROR")
    (serving,) = cloud.plane.state.services["dataconnector-endpoint"]["status"]["traffic"]
    before, newest = (f"dataconnector-endpoint-{cloud.plane.made - back:05}-abc" for back in (1, 0))
    tested = cloud.run("--yes", "--log-level", "ERROR")
    unchanged = changed(cloud.plane)
    cloud.plane.faulty = {newest}
    wrong = cloud.run("--yes", DEPLOY_PATIENCE="0")

    for run in (unreachable, forbidden):
        assert run.returncode == 1
        assert "All deliveries go back" not in run.stderr
        last = run.stderr.splitlines()[-1]
        assert "What is deployed stays, because this machine could not test it: check its connection to http" in last
        assert "run the same command again" in last
    assert "127.0.0.1 refuses the connection" in unreachable.stderr
    assert serving["revisionName"] == newest
    assert tested.returncode == 0, tested.stderr
    assert unchanged == []
    assert wrong.returncode == 1
    assert f"Deliveries still go to {newest}. If it is at fault: ./deploy.sh --rollback sends" in wrong.stderr
    assert f"sends them back to {before}." in wrong.stderr
    assert changed(cloud.plane) == []


def test_a_rollback_is_tested(cloud: Deployer) -> None:
    """A rollback to a revision that answers wrongly too fails, also when repeated, and names the one further back."""
    oldest = cloud.plane.state.services["dataconnector-endpoint"]["status"]["traffic"][0]["revisionName"]
    wrong = f"dataconnector-endpoint-{cloud.plane.made + 1:05}-abc"
    for level in ("WARNING", "ERROR"):
        cloud.run("--yes", "--log-level", level)
    cloud.plane.faulty = {wrong}

    failed = cloud.run("--yes", "--rollback", DEPLOY_PATIENCE="0")
    again = cloud.run("--yes", "--rollback", DEPLOY_PATIENCE="0")
    further = cloud.run("--yes", "--rollback", "--force")

    assert (failed.returncode, again.returncode) == (1, 1)
    assert "Deliveries go to" in again.stderr + again.stdout
    assert f"Deliveries still go to {wrong}. If it is at fault: ./deploy.sh --rollback --force" in failed.stderr
    assert f"sends them back to {oldest}." in failed.stderr
    assert further.returncode == 0, further.stderr
    serving = cloud.plane.state.services["dataconnector-endpoint"]["status"]["traffic"]
    assert [(each["revisionName"], each["percent"]) for each in serving] == [(oldest, 100)]


def test_an_organization_that_forbids_public_services(cloud: Deployer) -> None:
    """Where nobody may give everyone a role, the check of the role is disabled; where that is forbidden, it is said."""
    service = "projects/demo-deploy/locations/europe-west1/services/dataconnector-endpoint"
    del cloud.plane.state.policies[service]
    cloud.plane.state.constraints = {"allUsers", "requireInvokerIam"}
    refused = cloud.run("--yes")
    cloud.plane.state.constraints = {"allUsers"}
    run = cloud.run("--yes")
    again = cloud.run("--dry-run")

    assert refused.returncode == 1
    assert "DT cannot call a function that is not public" in refused.stderr
    assert run.returncode == 0, run.stderr
    annotations = cloud.plane.state.services["dataconnector-endpoint"]["metadata"]["annotations"]
    assert annotations["run.googleapis.com/invoker-iam-disabled"] == "True"
    assert "gcloud run" not in again.stdout


def test_removal(cloud: Deployer) -> None:
    """--remove takes away all but the database, even if interrupted; what is not its own or is in use stays."""
    other = copy.deepcopy(cloud.plane.state)
    name = FUNCTION.replace("dataconnector-endpoint", "other")
    other.functions[name] = {**other.functions[FUNCTION], "name": name}

    removed = list(interrupted(cloud, "--remove", "--with-events", changes="DELETE .*/(functions|secrets|roles|b)/"))
    state = copy.deepcopy(cloud.plane.state)
    default = {"email": f"default@{PROJECT}.iam.gserviceaccount.com", "displayName": "Default"}
    cloud.plane.state.accounts.append(default)
    editor = {"role": "roles/editor", "members": [f"serviceAccount:{default['email']}"]}
    cloud.plane.state.policies[f"projects/{PROJECT}"]["bindings"] = [editor]
    again = cloud.run("--yes", "--remove", "--account", "default")
    foreign = changed(cloud.plane)
    cloud.plane.reset(other)
    kept = cloud.run("--yes", "--remove")

    assert (again.returncode, kept.returncode) == (0, 0), again.stderr + kept.stderr
    assert len(removed) > 1
    assert foreign == []
    assert (state.functions, state.secrets, state.accounts, state.metrics) == ({}, {}, [], {})
    assert (state.repositories, state.buckets) == (set(), set())
    assert state.roles["dataconnectorEventCreator"]["deleted"] is True
    assert set(state.databases) == {"(default)"}
    assert set(state.deleted) == {"events", "events_quarantine"}
    assert state.policies[f"projects/{PROJECT}"].get("bindings", []) == []
    assert list(other.functions) == [name]
    assert other.secrets
    assert other.repositories
    assert len(other.accounts) == 2
    assert other.deleted == []


def test_another_function_of_the_account_keeps_its_permissions(cloud: Deployer) -> None:
    """What another function or service of the same account may need stays: permissions for devices, the secret."""
    state = cloud.plane.state
    permissions = [f"datastore.entities.{each}" for each in ("create", "get", "update")]
    state.roles["dataconnectorEventCreator"]["includedPermissions"] = permissions
    narrowed = cloud.run("--dry-run")
    name = FUNCTION.replace("dataconnector-endpoint", "other")
    state.functions[name] = {**state.functions[FUNCTION], "name": name}

    shared = cloud.run("--dry-run")
    del state.functions[name]
    state.services["other"] = copy.deepcopy(state.services["dataconnector-endpoint"])
    state.services["other"]["metadata"]["name"] = "other"  # docs/deploy.md, "Other hosts": no function
    removed = cloud.run("--remove", "--dry-run")

    assert (narrowed.returncode, shared.returncode) == (0, 0), narrowed.stderr + shared.stderr
    assert removed.returncode == 0, removed.stderr
    assert "gcloud functions delete dataconnector-endpoint" in removed.stdout
    assert not re.search("gcloud (secrets|iam) .*delete", removed.stdout)
    assert "gcloud iam roles update" in narrowed.stdout
    assert "gcloud iam roles update" not in shared.stdout


def test_dry_run(empty: Deployer, first: tuple[Finished, State, list[Any]]) -> None:
    """--dry-run changes nothing; its output, pasted into a shell, creates what a run creates."""
    printed = empty.run("--dry-run")
    asked = empty.plane.changes()
    empty.plane.propagates = False

    pasted = empty.shell(["bash", "-euo", "pipefail", "-c", printed.stdout])

    assert printed.returncode == 0, printed.stderr
    assert asked == []
    assert pasted.returncode == 0, pasted.stderr
    made, wanted = asdict(empty.plane.state), asdict(first[1])
    differing = {part for part in made if made[part] != wanted[part]}
    assert differing <= BY_RUN
    made, wanted = made["functions"][FUNCTION], wanted["functions"][FUNCTION]
    assert made["serviceConfig"] == wanted["serviceConfig"]


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


def test_confirmation(empty: Deployer) -> None:
    """Without --yes it shows project and region and asks; any answer but yes changes nothing."""
    run = empty.run(given="n\n")

    assert run.returncode == 1
    assert PROJECT in run.stderr
    assert "europe-west1" in run.stderr
    assert "Nothing was changed" in run.stderr
    assert empty.plane.changes() == []


def test_project_and_region_from_gcloud(empty: Deployer) -> None:
    """Without options, project and region come from gcloud's configuration, and are shown."""
    command = ["bash", str(ROOT / "deploy.sh")]
    configured = {"CLOUDSDK_CORE_PROJECT": PROJECT, "CLOUDSDK_RUN_REGION": "us-central1"}

    run = empty.shell(command, "n\n", **configured)

    assert re.search(rf"Project +{PROJECT}\nRegion +us-central1\n", run.stderr)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--retention-days", "1"], "--retention-days"),
        (["--collection", "a/b"], "--collection"),
        (["--log-level=LOUD"], "--log-level"),
        (["--memory"], "--memory"),
        (["--destroy"], "--destroy"),
        (["--rotate-secret", "--retire-secret"], "exclude each other"),
        (["--retire-secret", "--connect-dt-project", "p"], "sign with the new secret for 13 hours"),
        (["--name", "a" * 50], "at most 49"),
        (["--connect-dt-project", "p"], "DT_SERVICE_ACCOUNT_KEY_ID"),
        (["--with-events"], "needs --remove"),
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


SCRIPTS = [ROOT / "deploy.sh", *sorted((ROOT / "deploy").glob("*.sh"))]


def test_functions_of_the_scripts_are_short() -> None:
    """No function of deploy.sh is longer than 25 lines, and nothing is evaluated."""
    text = "\n".join(path.read_text() for path in SCRIPTS)
    functions = re.findall(r"(?ms)^([a-z_]+)\(\) \{\n(.*?)^\}$", text)

    assert len(functions) > 50
    assert [name for name, body in functions if body.count("\n") > 25] == []
    assert not re.search(r"(?m)^\s*eval\b", text)


def test_the_oldest_bash(deployer: Deployer) -> None:
    """Bash 3.2, as on macOS, reads every script and plans a deployment."""
    bash = os.environ.get("BASH_3_2", "/bin/bash")
    version = subprocess.run([bash, "--version"], capture_output=True, text=True, check=True).stdout
    if "version 3.2" not in version:
        pytest.skip("bash 3.2 is not installed; BASH_3_2 names it")
    deployer.plane.reset(State())
    for script in SCRIPTS:
        subprocess.run([bash, "-n", script], check=True)

    run = deployer.shell([bash, str(ROOT / "deploy.sh"), "--project", PROJECT, "--region", "europe-west1", "--dry-run"])

    assert run.returncode == 0, run.stderr
    assert "gcloud functions deploy" in run.stdout


@pytest.mark.parametrize(
    ("project", "email"),
    [
        ("my-project", "endpoint@my-project.iam.gserviceaccount.com"),
        ("example.com:my-project", "endpoint@my-project.example.com.iam.gserviceaccount.com"),
    ],
)
def test_the_account_of_a_project_of_a_domain(project: str, email: str) -> None:
    """The project id of a domain, example.com:my-project, has its domain last in the address of an account."""
    script = f"PROJECT={project}; source deploy/settings.sh; account_email endpoint"

    assert subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout == email


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
