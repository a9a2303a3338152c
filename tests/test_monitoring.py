"""Metrics, alert policies and the dashboard, made by the genuine gcloud; and what they refer to exists."""

import copy
import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from receiver import log
from receiver.batching import Outcome
from receiver.errors import Failed, TooLarge, Unavailable, Unprocessable, Unverified, WrongMethod
from tests import monitoring_plane  # noqa: F401 - adds its routes to the control plane
from tests.cloud_run import GoogleCloud
from tests.conftest import ROOT
from tests.control_plane import State
from tests.events import DATA
from tests.test_deploy import Deployer, _gcloud_root

PROJECT = "demo-monitoring"
NAME = "dataconnector-endpoint"
ALERTS = {"outcomes", "requests", "silence", "unverified", "lag"}
ADDRESS, OTHER = "a.person@example.com", "b@example.com"
Finished = subprocess.CompletedProcess[str]
Json = dict[str, Any]

# https://cloud.google.com/monitoring/api/metrics_gcp_p_z#gcp-run and …/metrics_gcp_d_h#gcp-firestore, read in 2026: by
# metric type its labels, and by resource type its labels.
METRICS = {
    "run.googleapis.com/request_count": {"response_code", "response_code_class"},
    "run.googleapis.com/request_latencies": {"response_code", "response_code_class"},
    "run.googleapis.com/container/instance_count": {"state"},
    "firestore.googleapis.com/document/write_ops_count": {"op"},
}
RESOURCES = {
    "cloud_run_revision": {"project_id", "service_name", "revision_name", "location", "configuration_name"},
    "firestore.googleapis.com/Database": {"resource_container", "location", "database_id"},
}
_SCRIPT = """\
source deploy/common.sh
APIS=''
source deploy/monitoring.sh
source deploy/options.sh
flags+=" dry-run" values+=" name project"
SCRATCH=$(mktemp -d)
trap explain_failure EXIT
read_options "$@"
check_monitoring
REGION=europe-west1 DATABASE='(default)' NAME=${NAME:-dataconnector-endpoint} IN_PROJECT=("--project=$PROJECT")
plan_monitoring
$ACTION
report_monitoring
"""


class Monitor:
    """Runs the functions of deploy/monitoring.sh, without the other steps of deploy.sh."""

    def __init__(self, deployer: Deployer) -> None:
        """Use this deployer's gcloud."""
        self.deployer = deployer
        self.plane = deployer.plane

    def run(self, *options: str, action: str = "ensure_monitoring", **environ: str) -> Finished:
        """Run a function with options of deploy.sh."""
        command = ["bash", "-euo", "pipefail", "-c", _SCRIPT, "deploy.sh", f"--project={PROJECT}", *options]
        return self.deployer.shell(command, ACTION=action, **environ)

    def policies(self) -> dict[str, Json]:
        """Return the alert policies, by the name of their file."""
        found = self.plane.state.monitoring["alertPolicies"].values()
        return {policy["userLabels"]["alert"]: policy for policy in found}

    def changes(self) -> list[str]:
        """Return method and path of each change of the last run."""
        return [f"{call.method} {call.path}" for call in self.plane.changes()]


@pytest.fixture(scope="module")
def deployer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployer]:
    """Return a deployer on a Google Cloud."""
    sdk = _gcloud_root()
    plane = GoogleCloud(PROJECT, "127.0.0.1:1", lambda *_: "")
    deployer = Deployer(plane, tmp_path_factory.mktemp("monitoring"), sdk)
    yield deployer
    deployer.stop()
    plane.stop()


@pytest.fixture
def empty(deployer: Deployer) -> Monitor:
    """Return a monitor on a Google Cloud without dashboards and policies."""
    deployer.plane.state = State(enabled=["logging.googleapis.com", "monitoring.googleapis.com"])
    deployer.plane.errors = {}
    return Monitor(deployer)


@pytest.fixture(scope="module")
def first(deployer: Deployer) -> tuple[Finished, State]:
    """Make everything once, with alerts to two addresses; the first policy is refused twice, as its metric is new."""
    deployer.plane.state = State(enabled=["logging.googleapis.com", "monitoring.googleapis.com"])
    deployer.plane.errors = {"POST .*/alertPolicies": (404, 'Cannot find metric that matches type = "x".', 2)}
    run = Monitor(deployer).run("--alert-email", ADDRESS, "--alert-email", OTHER, METRIC_SECONDS="20")
    return run, copy.deepcopy(deployer.plane.state)


@pytest.fixture
def made(deployer: Deployer, first: tuple[Finished, State]) -> Monitor:
    """Return a monitor on a Google Cloud in the state after the first run."""
    deployer.plane.state = copy.deepcopy(first[1])
    deployer.plane.errors = {}
    return Monitor(deployer)


def test_everything_is_made(first: tuple[Finished, State], made: Monitor) -> None:
    """One run makes the metrics, the dashboard, a channel for each address, and a policy for each file."""
    run, state = first

    assert run.returncode == 0, run.stderr
    assert set(state.metrics) == {f"{NAME}-{suffix}" for suffix in ("outcomes", "lag", "refusals")}
    assert state.metrics[f"{NAME}-lag"]["metricDescriptor"]["valueType"] == "DISTRIBUTION"
    assert list(state.monitoring["dashboards"]) == [f"projects/{PROJECT}/dashboards/{NAME}"]
    assert f"monitoring/dashboards/builder/{NAME}?project={PROJECT}" in run.stdout
    channels = state.monitoring["notificationChannels"]
    assert [each["labels"] for each in channels.values()] == [{"email_address": ADDRESS}, {"email_address": OTHER}]
    assert set(made.policies()) == ALERTS
    for policy in made.policies().values():
        assert policy["notificationChannels"] == list(channels)
        assert policy["userLabels"]["function"] == NAME


def test_a_policy_on_a_new_metric_is_retried(first: tuple[Finished, State]) -> None:
    """A policy is repeated while Google does not know its new metric."""
    assert first[0].stderr.count("Trying again in") == 2


def test_a_metric_that_stays_unknown_ends_the_wait(empty: Monitor) -> None:
    """The repetition ends in the end, here after a shortened time, with Google's own reason."""
    empty.plane.errors = {"POST .*/alertPolicies": (404, "Cannot find metric that matches type.", 99)}

    run = empty.run("--alert-email", ADDRESS, METRIC_SECONDS="1")

    assert run.returncode == 1
    assert "Cannot find metric" in run.stderr
    assert run.stderr.count("Trying again in") <= 2


@pytest.mark.parametrize("options", [["--alert-email", ADDRESS, "--alert-email", OTHER], []])
def test_a_second_run_changes_nothing(made: Monitor, options: list[str]) -> None:
    """The same options change nothing, and without options the policies stay as they are."""
    run = made.run(*options)

    assert run.returncode == 0, run.stderr
    assert made.changes() == []


def test_a_change_by_hand_stays(made: Monitor) -> None:
    """What a person changed in a policy or in the dashboard stays until the file changes."""
    made.policies()["lag"]["conditions"][0]["conditionThreshold"]["thresholdValue"] = 7200
    for dashboard in made.plane.state.monitoring["dashboards"].values():
        dashboard["displayName"] = "ours"

    made.run("--alert-email", ADDRESS, "--alert-email", OTHER)

    assert made.changes() == []


def test_a_changed_file_updates_its_policy(made: Monitor) -> None:
    """A policy of another version of its file is replaced; one that was disabled stays disabled."""
    made.policies()["lag"]["userLabels"]["digest"] = "of an earlier version"
    made.policies()["lag"].update(enabled=False, conditions=[])
    name = made.policies()["lag"]["name"]

    run = made.run("--alert-email", ADDRESS, "--alert-email", OTHER)

    assert run.returncode == 0, run.stderr
    assert made.changes() == [f"PATCH /monitoring/v3/{name}"]
    assert made.policies()["lag"]["enabled"] is False
    assert len(made.policies()["lag"]["conditions"]) == 1


def test_other_channels(made: Monitor) -> None:
    """Another address or a channel's name replaces the channels of all policies, and changes nothing else in them."""
    channel = f"projects/{PROJECT}/notificationChannels/2"
    before = {alert: policy["userLabels"] for alert, policy in made.policies().items()}

    run = made.run("--alert-channel", channel)

    assert run.returncode == 0, run.stderr
    assert {alert: policy["userLabels"] for alert, policy in made.policies().items()} == before
    assert {tuple(policy["notificationChannels"]) for policy in made.policies().values()} == {(channel,)}
    assert len(made.plane.state.monitoring["notificationChannels"]) == 2


def test_a_changed_dashboard_and_metric_are_updated(made: Monitor) -> None:
    """A dashboard of another version of its file is replaced, with its etag, and so is a metric with another filter."""
    dashboard = made.plane.state.monitoring["dashboards"][f"projects/{PROJECT}/dashboards/{NAME}"]
    dashboard["gridLayout"]["widgets"][-1]["text"]["content"] = "of an earlier version"
    made.plane.state.metrics[f"{NAME}-lag"]["filter"] = "another"

    run = made.run()

    assert run.returncode == 0, run.stderr
    assert made.changes() == [
        f"PUT /logging/v2/projects/{PROJECT}/metrics/{NAME}-lag",
        f"PATCH /monitoring/v1/projects/{PROJECT}/dashboards/{NAME}",
    ]
    made.run()
    assert made.changes() == []


def test_a_dry_run_can_be_pasted(empty: Monitor, first: tuple[Finished, State]) -> None:
    """--dry-run changes nothing; its output, pasted into a shell, makes the same as a run."""
    printed = empty.run("--dry-run", "--alert-email", ADDRESS, "--alert-email", OTHER)
    asked = empty.changes()
    commands = "".join(line for line in printed.stdout.splitlines(keepends=True) if re.match("gcloud|sed", line))

    pasted = empty.deployer.shell(["bash", "-euo", "pipefail", "-c", commands])

    assert printed.returncode == 0, printed.stderr
    assert asked == []
    assert pasted.returncode == 0, pasted.stderr
    assert asdict(empty.plane.state) == asdict(first[1])


def test_none_removes_the_policies(made: Monitor) -> None:
    """--alert-email none deletes the policies of this function, and leaves others, channels and the dashboard."""
    theirs = {"name": "theirs", "displayName": "theirs", "userLabels": {"function": f"{NAME}-2"}}
    made.plane.state.monitoring["alertPolicies"]["theirs"] = theirs

    run = made.run("--alert-email", "none")

    assert run.returncode == 0, run.stderr
    assert list(made.plane.state.monitoring["alertPolicies"]) == ["theirs"]
    assert len(made.plane.state.monitoring["notificationChannels"]) == 2
    assert len(made.plane.state.monitoring["dashboards"]) == 1


def test_removal(made: Monitor) -> None:
    """--remove takes away policies, dashboard and metrics, and a second time nothing."""
    run = made.run(action="remove_monitoring")
    left = made.plane.state
    again = made.run(action="remove_monitoring")

    assert (run.returncode, again.returncode) == (0, 0), run.stderr + again.stderr
    assert not left.monitoring["alertPolicies"]
    assert not left.monitoring["dashboards"]
    assert list(left.metrics) == []
    assert made.changes() == []


@pytest.mark.parametrize(
    ("option", "value"),
    [("--alert-email", "nobody"), ("--alert-email", "a@b,c@d"), ("--alert-channel", "my channel")],
)
def test_wrong_addresses(option: str, value: str, empty: Monitor) -> None:
    """An address or channel that cannot be one is refused with exit status 2, before anything is read."""
    run = empty.run(option, value)

    assert run.returncode == 2
    assert option in run.stderr
    assert run.stderr.count("\n") == 1
    assert empty.plane.calls == []


@pytest.mark.parametrize("tracks", [("alpha",), ("beta", "alpha"), ("", "beta")])
def test_the_release_track_is_found(tracks: tuple[str, ...], tmp_path: Path) -> None:
    """A command group is used in the most stable release track that this gcloud has it in."""
    has = " ".join(f'"{track} monitoring policies --help"'.replace('" ', '"') for track in tracks)
    (tmp_path / "gcloud").write_text(f'#!/bin/bash\nfor each in {has}; do [ "$*" = "$each" ] && exit 0; done; exit 2\n')
    (tmp_path / "gcloud").chmod(0o755)
    script = 'source deploy/common.sh; APIS=; source deploy/monitoring.sh; find_group policies; echo "${FOUND[@]}"'
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin"}

    run = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=ROOT, env=environ, capture_output=True, text=True, check=True
    )

    assert run.stdout.strip() == f"{tracks[0]} monitoring policies".strip()


# --- what the filters refer to ---------------------------------------------------------------------------------------


def filters(state: State) -> Iterator[tuple[str, str]]:
    """Yield each filter of the policies and the dashboard, with the name of the file."""
    for policy in state.monitoring["alertPolicies"].values():
        for condition in policy["conditions"]:
            if "conditionThreshold" in condition:
                yield policy["userLabels"]["alert"], condition["conditionThreshold"]["filter"]
    for dashboard in state.monitoring["dashboards"].values():
        text = json.dumps(dashboard)
        for found in re.findall(r'"filter": ("(?:[^"\\]|\\.)*")', text):
            yield "dashboard", json.loads(found)


def log_lines() -> list[Json]:
    """Return a line of the log for each outcome, as the function writes it."""
    fields = {"eventId": "e", "eventType": "touch", "targetName": "t", "timestamp": datetime.now(UTC)}
    refusals = [Failed("x"), TooLarge("x"), Unavailable("x"), Unprocessable("x"), Unverified("x"), WrongMethod("x")]
    about = log.about(fields, 0.0)
    return [about | log.stored(outcome) for outcome in Outcome] + [about | log.refused(each) for each in refusals]


def test_filters_refer_to_metrics_that_exist(first: tuple[Finished, State]) -> None:
    """Each filter names a metric of Google's or one that is made here, its resource, and labels that these have."""
    state = first[1]
    own = {
        f"logging.googleapis.com/user/{name}": set(each.get("labelExtractors", {}))
        for name, each in state.metrics.items()
    }
    own[f"logging.googleapis.com/user/{NAME}-outcomes"] = {"outcome"}
    found = list(filters(state))

    assert len(found) > 12
    for file, text in found:
        (metric,) = re.findall(r'metric\.type="([^"]+)"', text)
        (resource,) = re.findall(r'resource\.type="([^"]+)"', text)
        assert metric in METRICS | own, file
        assert set(re.findall(r"metric\.labels\.(\w+)", text)) <= (METRICS | own)[metric], text
        assert set(re.findall(r"resource\.labels\.(\w+)", text)) <= RESOURCES[resource], text
        assert "FUNCTION" not in text


def test_filters_name_outcomes_of_the_log() -> None:
    """Each outcome that a policy names is one that the function writes, and each severe one is named by a policy."""
    written = {line["outcome"] for line in log_lines()}
    text = "".join(path.read_text() for path in (ROOT / "deploy/alerts").glob("*.yaml"))
    named = {
        word for words in re.findall(r"metric\.labels\.outcome=(\S+)", text) for word in re.findall(r'"(\w+)"', words)
    }

    assert named <= written
    assert {line["outcome"] for line in log_lines() if line["severity"] == "ERROR"} <= named


def test_metrics_read_fields_of_the_log(first: tuple[Finished, State]) -> None:
    """Filters and extractors of the log-based metrics read fields that the function or Cloud Run's request log has."""
    for path in (ROOT / "deploy/metrics").glob("*.json"):
        metric = json.loads(path.read_text())
        text = json.dumps([metric["filter"], metric.get("labelExtractors"), metric.get("valueExtractor")])
        fields = set(re.findall(r"jsonPayload\.(\w+)", text))

        assert fields <= {key for line in log_lines() for key in line}, path
        assert set(re.findall(r"httpRequest\.(\w+)", text)) <= {"status"}, path
        assert set(metric.get("labelExtractors", {})) == {
            each["key"] for each in metric["metricDescriptor"].get("labels", ())
        }
    assert first[1].metrics[f"{NAME}-lag"]["filter"].startswith("resource.type=cloud_run_revision")


def test_the_lag_leaves_out_what_sensors_back_fill() -> None:
    """The metric of the lag leaves out each event type whose data can be back-filled."""
    back_filled = {kind for kind, data in DATA.items() if "isBackfilled" in data.get(kind, {})}
    text = json.loads((ROOT / "deploy/metrics/lag.json").read_text())["filter"]
    (left_out,) = re.findall(r"NOT jsonPayload\.eventType=\(([^)]*)\)", text)

    assert set(left_out.split(" OR ")) == back_filled


def test_silence_is_seen_without_any_time_series(first: tuple[Finished, State], made: Monitor) -> None:
    """The policy for silence asks for the absence of Cloud Run's own metric, which does not depend on the log level."""
    (condition,) = made.policies()["silence"]["conditions"]
    query = condition["conditionPrometheusQueryLanguage"]["query"]

    match = re.fullmatch(r"absent_over_time\(run_googleapis_com:request_count\{(.*)\}\[1h\]\)", query)
    assert match, query
    labels = dict(re.findall(r'(\w+)="([^"]+)"', match[1]))
    assert labels == {"monitored_resource": "cloud_run_revision", "service_name": NAME, "response_code_class": "2xx"}
    assert first[0].returncode == 0


def test_each_policy_says_what_to_do(made: Monitor) -> None:
    """The documentation of each policy has a command with this project, and names a section of the runbook."""
    headings = re.findall(r"^#+ (.*)$", (ROOT / "docs/operations.md").read_text(), re.MULTILINE)

    for policy in made.policies().values():
        text = policy["documentation"]["content"]
        assert policy["documentation"]["mimeType"] == "text/markdown"
        assert len(text) < 10_240
        assert re.search(r"^    (gcloud|\./deploy\.sh) .*" + PROJECT, text, re.MULTILINE)
        (section,) = re.findall(r'docs/operations\.md, section\s+"([^"]+)"', text)
        assert section in headings
        assert not re.search(r"\b(FUNCTION|PROJECT|REGION|DIGEST)\b", json.dumps(policy))
