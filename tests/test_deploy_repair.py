"""`deploy.sh --repair-schedule` with the genuine gcloud against a fake control plane; the job's bundle runs here."""

import copy
import io
import json
import re
import subprocess
import uuid
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from google.cloud import firestore

from tests import control_plane, monitoring_plane, repair_plane  # noqa: F401 - mounts its routes
from tests.buildpack import Runtime
from tests.cloud_run import GoogleCloud
from tests.conftest import ROOT
from tests.control_plane import APIS, ControlPlane, State
from tests.dt_api import EMAIL, KEY_ID, SECRET, DTApi
from tests.events import envelope
from tests.test_deploy import PROJECT, Deployer, Finished, _gcloud_root

REPAIR = "dataconnector-endpoint-repair"
MEMBER = f"serviceAccount:{REPAIR}@{PROJECT}.iam.gserviceaccount.com"
DT_KEY = "dataconnector-endpoint-dt-key"
DT_PROJECT = "c0md3pm0p7bet3vico8g"
FOLDERS = {"backfill", "command_line", "dtcloud", "receiver"}
KEY = {"DT_SERVICE_ACCOUNT_KEY_ID": KEY_ID, "DT_SERVICE_ACCOUNT_SECRET": SECRET, "DT_SERVICE_ACCOUNT_EMAIL": EMAIL}
_STEP = """\
set -euo pipefail
trap 'rm -rf "$SCRATCH"' EXIT
SCRATCH=$(mktemp -d)
for name in common options project settings account secret monitoring repair remove; do source deploy/$name.sh; done
APIS='' APIS_ENABLED='' CONNECT_DT_PROJECT='' SECRET_STDIN=''
read_options "$@"
check_repair
PROJECT=demo-deploy REGION=europe-west1 NAME=dataconnector-endpoint ACCOUNT=dataconnector-endpoint PYTHON=python3
IN_PROJECT=(--project=$PROJECT) DATABASE='(default)' COLLECTION=events DEVICES='' RETENTION_DAYS=365
URL=https://endpoint.example
step 8 "the connection" ""
RENDER=(-e "s/FUNCTION/$NAME/g" -e "s/PROJECT/$PROJECT/g" -e "s/REGION/$REGION/g")
plan_repair
ensure_repair
"""


def proxy(plane: ControlPlane) -> dict[str, str]:
    """Return the settings by which gcloud finds the fake although it puts a region before the host of Cloud Run's API.

    The fake is gcloud's HTTP proxy, so that it answers for any host.
    """
    settings = {"TYPE": "http_no_tunnel", "ADDRESS": "127.0.0.1", "PORT": plane.url.rpartition(":")[2]}
    return {f"CLOUDSDK_PROXY_{name}": value for name, value in settings.items()}


def project() -> State:
    """Return the state of a project in which the function is deployed: all APIs that this takes are enabled."""
    return State(enabled=[f"{api}.googleapis.com" for api in (*APIS, "upload")])


class Step:
    """Runs the repair's step of deploy.sh in a project whose endpoint is deployed."""

    def __init__(self, deployer: Deployer) -> None:
        """Use the project as it is."""
        self.plane = deployer.plane
        self._deployer = deployer

    def run(self, *options: str, given: str = "", script: str = _STEP, **environ: str) -> Finished:
        """Run the step with these options."""
        command = ["bash", "-c", script, "deploy.sh", *options]
        return self._deployer.shell(command, given, **environ, **proxy(self.plane))


@pytest.fixture(scope="module")
def deployer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployer]:
    """Return gcloud on a fake Google Cloud that also has Cloud Run jobs and Cloud Scheduler."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(control_plane, "ROUTES", [*repair_plane.ROUTES, *control_plane.ROUTES])
        patch.setattr(control_plane, "APIS", [*control_plane.APIS, "cloudscheduler"])
        plane = GoogleCloud(PROJECT, "127.0.0.1:1", lambda *_: "")
        deployer = Deployer(plane, tmp_path_factory.mktemp("deploy"), _gcloud_root())
        yield deployer
        deployer.stop()
        plane.stop()


@pytest.fixture
def step(deployer: Deployer) -> Step:
    """Return the step on a project without a repair."""
    deployer.plane.reset(project())
    return Step(deployer)


SCHEDULE = ("--repair-schedule", "17 */6 * * *", "--repair-dt-project", DT_PROJECT)


@pytest.fixture(scope="module")
def first(deployer: Deployer) -> tuple[Finished, State]:
    """Switch the repair on, and return the run and the state after it."""
    deployer.plane.reset(project())
    run = Step(deployer).run(*SCHEDULE, **KEY)
    deployer.plane.state.unlisted.clear()  # time passes
    deployer.plane.state.fresh.clear()
    return run, copy.deepcopy(deployer.plane.state)


@pytest.fixture
def present(deployer: Deployer, first: tuple[Finished, State]) -> Step:
    """Return the step on a project in which the repair is switched on."""
    deployer.plane.reset(copy.deepcopy(first[1]))
    return Step(deployer)


def container(step: Step) -> dict[str, Any]:
    """Return the job's container."""
    task = repair_plane.jobs(step.plane)[REPAIR]["spec"]["template"]["spec"]["template"]["spec"]
    found: dict[str, Any] = task["containers"][0]
    return found


def test_first_run(first: tuple[Finished, State], present: Step) -> None:
    """One run creates the account with its rights, the secret, the job and its schedule."""
    run, state = first

    assert run.returncode == 0, run.stderr
    assert "cloudscheduler.googleapis.com" in state.enabled
    permissions = ["create", "get", "list", "update"]
    assert state.roles["dataconnectorRepair"]["includedPermissions"] == [f"datastore.entities.{p}" for p in permissions]
    (binding,) = state.policies[f"projects/{PROJECT}"]["bindings"]
    assert (binding["members"], binding["role"]) == ([MEMBER], f"projects/{PROJECT}/roles/dataconnectorRepair")
    assert binding["condition"]["expression"] == f'resource.name=="projects/{PROJECT}/databases/(default)"'
    (binding,) = state.policies[f"projects/{PROJECT}/secrets/{DT_KEY}"]["bindings"]
    assert binding == {"members": [MEMBER], "role": "roles/secretmanager.secretAccessor"}
    (binding,) = state.policies[f"projects/{PROJECT}/locations/europe-west1/jobs/{REPAIR}"]["bindings"]
    assert binding == {"members": [MEMBER], "role": "roles/run.invoker"}
    assert state.secrets == {DT_KEY: [f"{KEY_ID}\n{SECRET}\n{EMAIL}\n".encode()]}
    schedule = repair_plane.schedules(present.plane)[REPAIR]
    assert (schedule["schedule"], schedule["timeZone"]) == ("17 */6 * * *", "Etc/UTC")
    target = schedule["httpTarget"]
    assert target["oauthToken"]["serviceAccountEmail"] == MEMBER.partition(":")[2]
    assert target["uri"].endswith(f"/v2/projects/{PROJECT}/locations/europe-west1/jobs/{REPAIR}:run")


def test_job(present: Step) -> None:
    """The job runs as its own account, with the function's settings and the newest version of the secret."""
    task = repair_plane.jobs(present.plane)[REPAIR]["spec"]["template"]["spec"]["template"]["spec"]
    environment = {each["name"]: each.get("value") for each in container(present)["env"]}
    (key,) = (each["valueFrom"] for each in container(present)["env"] if "valueFrom" in each)

    assert task["serviceAccountName"] == MEMBER.partition(":")[2]
    assert task["timeoutSeconds"] == "86400"
    assert environment.pop("DT_SERVICE_ACCOUNT_KEY") is None
    assert environment == {
        "GOOGLE_CLOUD_PROJECT": PROJECT,
        "FIRESTORE_DATABASE": "(default)",
        "EVENTS_COLLECTION": "events",
        "RETENTION_DAYS": "365",
        "DT_PROJECT": DT_PROJECT,
        "DT_ENDPOINT": "https://endpoint.example",
    }
    assert key == {"secretKeyRef": {"key": "latest", "name": DT_KEY}}


@pytest.mark.parametrize("options", [SCHEDULE, ()])
def test_another_run_changes_nothing(present: Step, options: tuple[str, ...]) -> None:
    """A second run with the same options, or with none, changes nothing."""
    run = present.run(*options, **(KEY if options else {}))

    assert run.returncode == 0, run.stderr
    assert present.plane.changes() == []


def test_only_what_differs_changes(present: Step) -> None:
    """Another schedule changes the schedule, another key adds a version, a paused schedule is resumed.

    What a run takes for the Data Connector of another DT project is not the repair's.
    """
    run = present.run("--repair-schedule", "0 3 * * *")
    schedule = [call.path for call in present.plane.changes()]
    assert run.returncode == 0, run.stderr
    connects = _STEP.replace("CONNECT_DT_PROJECT=''", "CONNECT_DT_PROJECT=another")
    present.run(script=connects, **KEY | {"DT_SERVICE_ACCOUNT_SECRET": "another"})
    connected = [call.path for call in present.plane.changes()]
    present.run(*SCHEDULE[2:], **KEY | {"DT_SERVICE_ACCOUNT_SECRET": "another"})
    key = [call.path for call in present.plane.changes()]
    repair_plane.schedules(present.plane)[REPAIR]["state"] = "PAUSED"
    present.run()

    assert [path.rpartition("/")[2] for path in schedule] == [REPAIR]
    assert connected == []
    assert [path.rpartition("/")[2] for path in key] == [f"{DT_KEY}:addVersion"]
    assert repair_plane.schedules(present.plane)[REPAIR]["state"] == "ENABLED"
    assert repair_plane.schedules(present.plane)[REPAIR]["schedule"] == "0 3 * * *"


def test_alert_policies(present: Step) -> None:
    """With an address there is a policy for errors and one for missing runs, by the schedule; `none` removes them."""
    run = present.run("--alert-email", "ops@example.com")
    assert run.returncode == 0, run.stderr
    policies = {each["userLabels"]["alert"]: each for each in present.plane.state.monitoring["alertPolicies"].values()}
    present.run()
    unchanged = present.plane.changes()
    present.run("--repair-schedule", "0 3 * * *")
    daily = [each for each in present.plane.changes() if "alertPolicies" in each.path]
    present.run("--repair-schedule", "none")

    assert policies.keys() == {"repair-errors", "repair-absent"}
    log = policies["repair-errors"]["conditions"][0]["conditionMatchedLog"]
    assert log["filter"].endswith(f'resource.labels.job_name="{REPAIR}" AND severity>=ERROR')
    absent = policies["repair-absent"]["conditions"][0]["conditionPrometheusQueryLanguage"]
    assert absent["query"].endswith(f'job_name="{REPAIR}",result="succeeded"}}[21600s])')
    assert absent["duration"] == "21600s"
    assert all(len(each["notificationChannels"]) == 1 for each in policies.values())
    assert unchanged == []
    assert len(daily) == 1
    assert present.plane.state.monitoring["alertPolicies"] == {}


def test_none_takes_it_away(present: Step) -> None:
    """`none` removes all that the repair needed, and a second time finds nothing."""
    first = present.run("--repair-schedule", "none")
    state = present.plane.state
    second = present.run("--repair-schedule", "none")

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert (repair_plane.jobs(present.plane), repair_plane.schedules(present.plane)) == ({}, {})
    assert (state.accounts, state.secrets, state.policies[f"projects/{PROJECT}"].get("bindings", [])) == ([], {}, [])
    assert present.plane.changes() == []


def test_an_interrupted_removal_goes_on(present: Step) -> None:
    """Interrupted after the account or after the role was deleted, and run again, the removal leaves neither."""
    present.plane.interrupts = "DELETE .*/(serviceAccounts|roles)/"

    runs = [present.run("--repair-schedule", "none") for _ in range(3)]

    state = present.plane.state
    assert [run.returncode for run in runs] == [1, 1, 0], runs[-1].stderr
    assert present.plane.changes() == []
    assert state.roles["dataconnectorRepair"]["deleted"] is True
    assert (state.accounts, state.policies[f"projects/{PROJECT}"].get("bindings", [])) == ([], [])


def test_the_role_of_another_repair_stays(present: Step) -> None:
    """The role stays while the repair of another function has it."""
    policy = present.plane.state.policies[f"projects/{PROJECT}"]
    other = f"serviceAccount:other-repair@{PROJECT}.iam.gserviceaccount.com"
    policy["bindings"].append({**copy.deepcopy(policy["bindings"][0]), "members": [other]})
    present.plane.state.accounts.append({"email": other.partition(":")[2], "displayName": "Repairs"})

    run = present.run("--repair-schedule", "none")

    assert run.returncode == 0, run.stderr
    assert "deleted" not in present.plane.state.roles["dataconnectorRepair"]
    assert [each["members"] for each in present.plane.state.policies[f"projects/{PROJECT}"]["bindings"]] == [[other]]


def test_without_a_repair(step: Step) -> None:
    """Without the option and without a repair, nothing is looked for that would need another API."""
    step.plane.reset(State(enabled=["run.googleapis.com"]))

    runs = step.run(), step.run("--repair-schedule", "none")

    assert [run.returncode for run in runs] == [0, 0], runs
    assert step.plane.changes() == []
    assert not any("cloudscheduler" in call.path for call in step.plane.calls)


def test_key_from_standard_input(step: Step) -> None:
    """The key may come from standard input; it is on no command line and in no output."""
    run = step.run(*SCHEDULE, "--dt-key-stdin", given=f"{KEY_ID}\n{SECRET}\n{EMAIL}\n")

    assert run.returncode == 0, run.stderr
    assert step.plane.state.secrets[DT_KEY] == [f"{KEY_ID}\n{SECRET}\n{EMAIL}\n".encode()]


def test_no_secret_is_shown(deployer: Deployer, present: Step) -> None:
    """No command line and no output of any run holds the secret of the DT service account, `bash -x` included."""
    script = _STEP.replace("set -euo", "set -xeuo")
    deployer.shell(["bash", "-c", script, "deploy.sh", *SCHEDULE, "--dry-run"], **KEY, **proxy(present.plane))

    assert SECRET not in (deployer.folder / "commands").read_text()
    assert not any(SECRET in output for output in deployer.outputs)


@pytest.mark.parametrize(
    ("options", "environ", "words"),
    [
        (SCHEDULE, {}, "set DT_SERVICE_ACCOUNT_KEY_ID, DT_SERVICE_ACCOUNT_SECRET, DT_SERVICE_ACCOUNT_EMAIL"),
        ((*SCHEDULE, "--dt-key-stdin"), {}, "Standard input must hold key id, secret and e-mail address"),
        (SCHEDULE[:2], KEY, "set --repair-dt-project"),
    ],
)
def test_what_is_missing(
    step: Step, deployer: Deployer, options: tuple[str, ...], environ: dict[str, str], words: str
) -> None:
    """Without a key or a DT project, exit status 2 and one line that says what to set; nothing is changed."""
    settings: dict[str, Any] = environ | proxy(step.plane)
    run = deployer.run("--yes", *options, **settings)

    assert run.returncode == 2
    assert words in run.stderr.splitlines()[-1]
    assert step.plane.changes() == []


def test_a_stored_key_that_stays(present: Step, deployer: Deployer) -> None:
    """Where a key is stored a run needs none; one that is given must have all of its parts all the same."""
    before = copy.deepcopy(present.plane.state.secrets)
    kept = present.run(*SCHEDULE)
    settings: dict[str, Any] = proxy(present.plane)
    refused = deployer.run("--dt-key-stdin", given="one line", **settings)

    assert kept.returncode == 0, kept.stderr
    assert refused.returncode == 2
    assert "Standard input must hold key id, secret and e-mail address" in refused.stderr.splitlines()[-1]
    assert present.plane.changes() == []
    assert present.plane.state.secrets == before


@pytest.mark.parametrize(
    "options",
    [
        ("--repair-schedule", "daily"),
        ("--repair-schedule", "* * *"),
        ("--repair-schedule", "61 * * * *"),
        ("--repair-dt-project", "a/b"),
    ],
)
def test_wrong_options(deployer: Deployer, options: tuple[str, ...]) -> None:
    """A wrong value causes exit status 2 and one line that names the option, and changes nothing."""
    run = deployer.run("--yes", *options)

    assert run.returncode == 2
    assert options[0] in run.stderr.splitlines()[-1]
    assert deployer.plane.changes() == []


def test_dry_run(step: Step, deployer: Deployer) -> None:
    """A dry run of deploy.sh shows each command of the repair, and changes nothing."""
    environ: dict[str, Any] = KEY | proxy(step.plane)
    run = deployer.run("--dry-run", *SCHEDULE, **environ)

    assert run.returncode == 0, run.stderr
    assert step.plane.changes() == []
    assert f"gcloud run jobs deploy {REPAIR} " in run.stdout
    assert f"gcloud scheduler jobs create http {REPAIR} " in run.stdout
    assert f"gcloud secrets versions add {DT_KEY} --data-file=-" in run.stdout
    assert "Repair      17 */6 * * *, of the DT project" in run.stderr


def test_lock() -> None:
    """The job's lock has the versions and hashes of the development's lock."""

    def packages(path: str) -> dict[str, str]:
        blocks = re.split(r"\n(?=\S)", re.sub(r"(?m)^ *#.*\n", "", (ROOT / path).read_text()))
        return {block.partition("==")[0]: re.sub(r" ;[^\\]*", " ", block).strip() for block in blocks}

    locked, of_development = packages("deploy/repair/requirements.txt"), packages("requirements-dev.txt")

    assert {"click", "google-cloud-firestore", "requests", "rich"} <= locked.keys()
    assert {name: of_development.get(name) for name in locked} == locked


def test_bundle(present: Step, emulator_host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The uploaded bundle, in an environment with its own lock alone, repairs: by the command of its Procfile."""
    with zipfile.ZipFile(io.BytesIO(present.plane.state.bundle)) as archive:
        archive.extractall(tmp_path / "source")
    runtime = Runtime(tmp_path, emulator_host)
    binaries = runtime.build("python313", tmp_path / "source" / "requirements.txt").result()
    api = DTApi()
    api.project = DT_PROJECT
    api.install("sensor")
    event = envelope(timestamp=datetime.now(UTC).isoformat())["event"]
    api.publish("sensor", [event])
    api.connect("https://endpoint.example")
    project = f"demo-{uuid.uuid4().hex[:8]}"
    environ = {
        **{each["name"]: each.get("value", "") for each in container(present)["env"]},
        "DT_SERVICE_ACCOUNT_KEY": present.plane.state.secrets[DT_KEY][0].decode(),
        "CLOUD_RUN_JOB": REPAIR,
        "FIRESTORE_EMULATOR_HOST": emulator_host,
        "GOOGLE_CLOUD_PROJECT": project,
        "DT_API_URL": api.url,
        "DT_TOKEN_URL": api.token_url,
        "PATH": f"{binaries}:/usr/bin:/bin",
    }
    command = (tmp_path / "source" / "Procfile").read_text().removeprefix("web: ")
    run = subprocess.run(
        ["/bin/sh", "-c", command], cwd=tmp_path / "source", env=environ, capture_output=True, text=True, check=False
    )
    api.stop()
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", emulator_host)

    assert run.returncode == 0, run.stderr
    report = json.loads(run.stdout)
    assert (report["outcome"], report["added"]) == ("complete", 1)
    assert firestore.Client(project=project).document(f"events/{event['eventId']}").get().exists
    folders = {path.relative_to(tmp_path / "source").parts[0] for path in (tmp_path / "source").rglob("*.*")}
    assert folders == {*FOLDERS, "requirements.txt", ".python-version"}
