"""The repair: what an outage lost comes back, and a Data Connector that DT switched off is switched on again."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import chain, repeat
from typing import Any

import grpc
import pytest
from google.api_core.exceptions import InvalidArgument
from google.cloud import firestore

from backfill import cli, writers
from backfill import database as database_module
from backfill import repair as repair_module
from backfill.checkpoint import Checkpoint
from dtcloud.xid import stable_id
from receiver.settings import read_settings
from tests import dt_api, proxy, signing
from tests.conftest import ROOT, StartFunction
from tests.dt_api import DTApi
from tests.dt_history import NOW, SENSOR, make_events, one_sensor, use_firestore
from tests.function import Function
from tests.json_server import JsonServer
from tests.proxy import Forward

Stored = Callable[[], dict[str, dict[str, Any]]]
Report = dict[str, Any]
Repair = Callable[..., tuple[int, Report]]


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[DTApi]:
    """Return a fake of DT's API with one sensor; the environment of this process points to it."""
    with one_sensor(monkeypatch) as api:
        yield api


@pytest.fixture
def repair(
    api: DTApi, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Repair:
    """Return a function that runs the repair in this process, and returns its exit status and report."""
    use_firestore(environ, monkeypatch)
    before = signal.getsignal(signal.SIGTERM)

    def run(*options: str, endpoint: str = "https://endpoint.invalid/") -> tuple[int, Report]:
        capfd.readouterr()
        status = cli.main(
            ["repair", "--dt-project", api.project, "--endpoint", endpoint, "--rate", "1000000", *options]
        )
        signal.signal(signal.SIGTERM, before)
        (line,) = capfd.readouterr().out.splitlines()
        return status, json.loads(line)

    return run


def ids(events: list[Any]) -> set[str]:
    """Return the ids of events."""
    return {event["eventId"] for event in events}


def state(database: firestore.Client) -> dict[str, Any]:
    """Return the checkpoint."""
    return database.document("events_repair/state").get().to_dict() or {}


def test_first_repair(repair: Repair, api: DTApi, database: firestore.Client, stored: Stored) -> None:
    """The first repair fetches 31 days, reports the gaps by device and day, and notes that all is complete."""
    events = make_events(40, hours=24 * 30)
    api.publish(SENSOR, events)
    api.connect("https://endpoint.invalid/")

    status, report = repair()

    assert stored().keys() == ids(events)
    assert (status, report["severity"], report["outcome"]) == (0, "WARNING", "complete")
    counts = ("seen", "alreadyStored", "added", "quarantined", "failed")
    assert [report[name] for name in counts] == [40, 0, 40, 0, 0]
    assert report["oldestEvent"][:19] == events[-1]["timestamp"][:19]
    days = [event["timestamp"][:10] for event in events]
    assert report["gaps"] == {SENSOR: {day: days.count(day) for day in days}}
    assert report["connector"]["status"] == "ACTIVE"
    checkpoint_ = state(database)
    assert NOW <= checkpoint_["completeUntil"] <= checkpoint_["completedAt"]
    assert (checkpoint_["devices"], checkpoint_["lease"]) == ({}, None)


def test_regular_repair_reads_little(repair: Repair, api: DTApi, stored: Stored) -> None:
    """A second repair reads only since the last one, with an overlap of 13 hours, and adds nothing."""
    events = make_events(40, hours=24 * 30)
    api.publish(SENSOR, events)
    api.connect("https://endpoint.invalid/")
    repair()
    api.queries.clear()

    status, report = repair()

    (query,) = api.queries
    start = datetime.fromisoformat(query["startTime"][0])
    assert timedelta(hours=12, minutes=59) < datetime.now(UTC) - start < timedelta(hours=13, minutes=2)
    assert (status, report["severity"]) == (0, "INFO")
    assert (report["seen"], report["added"], report["gaps"]) == (1, 0, {})
    assert stored().keys() == ids(events)


def test_since(repair: Repair, api: DTApi, database: firestore.Client, stored: Stored) -> None:
    """--since replaces the checkpoint; what lies between them is still fetched by the next run."""
    old, gap, new = (make_events(5, until=NOW - timedelta(days=days), hours=1) for days in (20, 10, 1))
    api.publish(SENSOR, old)
    api.connect("https://endpoint.invalid/")
    repair("--since", "25d")
    mark = NOW - timedelta(days=11)
    database.document("events_repair/state").update({"completeUntil": mark})
    api.publish(SENSOR, gap + new)

    repair("--since", "2d")
    between, noted = stored().keys(), state(database)["devices"][SENSOR]
    repair()

    assert between == ids(old + new)
    assert noted == mark
    assert stored().keys() == ids(old + gap + new)
    assert state(database)["devices"] == {}


def test_retention(repair: Repair, api: DTApi, stored: Stored) -> None:
    """Events that are older than the retention time do not come back, whatever --since says."""
    kept = make_events(3, hours=1)
    api.publish(SENSOR, kept + make_events(3, until=NOW - timedelta(days=10, minutes=1), hours=1))
    api.connect("https://endpoint.invalid/")

    repair("--retention-days", "10", "--since", "20d")

    assert stored().keys() == ids(kept)


def test_retention_during_a_long_run(
    repair: Repair, api: DTApi, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What passes the retention time while a run is at work does not come back either."""
    api.publish(SENSOR, make_events(1, until=NOW - timedelta(days=10) + timedelta(minutes=30)))
    api.connect("https://endpoint.invalid/")
    times = chain([NOW] * 3, repeat(NOW + timedelta(hours=1)))
    clock = type("Clock", (datetime,), {"now": lambda _zone: next(times)})
    monkeypatch.setattr(repair_module, "datetime", clock)

    repair("--retention-days", "10", "--since", "20d")

    assert stored() == {}


def test_connector_filters(repair: Repair, api: DTApi, stored: Stored) -> None:
    """Only the event types of the Data Connector are fetched, and its labels alone are stored."""
    wanted = make_events(3, event_type="touch")
    api.publish(SENSOR, wanted + make_events(3))
    api.connect("https://other.invalid", events=["humidity"])
    api.connect("https://endpoint.invalid", events=["touch"], labels=["name"])

    repair()

    documents = stored()
    assert documents.keys() == ids(wanted)
    assert all(document["labels"] == {"name": "Milk fridge"} for document in documents.values())


def test_events_missing_though_the_connector_claims_success(
    repair: Repair, api: DTApi, database: firestore.Client
) -> None:
    """Events that were missing although the connector counts no errors make the severity ERROR, not the status."""
    api.connect("https://endpoint.invalid/")
    api.publish(SENSOR, make_events(1))
    repair()
    database.document("events_repair/state").update({"completeUntil": NOW - timedelta(hours=2)})
    api.publish(SENSOR, make_events(4, until=NOW - timedelta(minutes=30), hours=1))

    status, report = repair()

    assert (status, report["severity"], report["missingThoughClaimed"]) == (0, "ERROR", 4)
    api.publish(SENSOR, make_events(4, until=NOW - timedelta(minutes=40), hours=1))
    database.document("events_repair/state").update({"completeUntil": NOW - timedelta(hours=2)})
    api.metrics["errorCount"] = 7
    assert repair()[1]["severity"] == "WARNING"


@pytest.fixture
def endpoint(function: StartFunction) -> Function:
    """Return the function's process."""
    return function()


def test_revived(repair: Repair, api: DTApi, endpoint: Function, stored: Stored) -> None:
    """A connector that DT switched off is active after a repair, since the endpoint stored a signed delivery."""
    events = make_events(5)
    api.publish(SENSOR, events)
    connector = api.connect(endpoint.url, status="SYSTEM_DISABLED", secret=signing.SECRET)

    status, report = repair(endpoint=endpoint.url)

    assert (connector["status"], status) == ("ACTIVE", 0)
    assert (report["connector"]["status"], report["connector"]["revived"]) == ("ACTIVE", True)
    assert endpoint.outcomes() == {"stored": 1}
    documents = stored()
    assert documents.keys() == ids(events)
    assert "receivedAt" in documents[events[0]["eventId"]]


def test_a_device_that_is_forgotten_before_the_proof(
    repair: Repair, api: DTApi, endpoint: Function, database: firestore.Client, stored: Stored
) -> None:
    """The proof is no event that `forget` deletes, even if its marker is written while the repair looks for one."""
    markers = database.collection("events_forgotten")
    markers.document(SENSOR).set({"before": NOW + timedelta(hours=1)})
    api.publish(SENSOR, make_events(5))
    api.install("second")
    api.publish("second", make_events(5))
    api.connect(endpoint.url, status="SYSTEM_DISABLED", secret=signing.SECRET)

    def forget(handler: Any) -> None:
        markers.document("second").set({"before": NOW + timedelta(hours=1)})
        handler.answer()

    api.faults["events"] += [dt_api.pass_through, forget]

    repair(endpoint=endpoint.url)

    assert stored() == {}
    assert endpoint.outcomes() == {"unverified": 1}


@pytest.mark.parametrize(
    ("secret", "problem"),
    [("another secret, of 32 bytes or more", "answered 400 to a delivery that is signed"), ("", "does not answer")],
)
def test_not_revived(repair: Repair, api: DTApi, endpoint: Function, secret: str, problem: str) -> None:
    """While the endpoint does not accept what the connector would deliver, it stays off, and the severity is ERROR."""
    api.publish(SENSOR, make_events(5))
    url = endpoint.url if secret else "http://127.0.0.1:1/"
    connector = api.connect(url, status="SYSTEM_DISABLED", secret=secret)

    status, report = repair(endpoint=url)

    assert (connector["status"], status, report["severity"]) == ("SYSTEM_DISABLED", 1, "ERROR")
    assert problem in report["connector"]["problem"]
    assert (report["outcome"], report["added"]) == ("complete", 5)


def test_failure_to_enable(repair: Repair, api: DTApi, endpoint: Function, stored: Stored) -> None:
    """If DT does not enable the connector or give its metrics, the history is fetched all the same."""
    events = make_events(5)
    api.publish(SENSOR, events)
    api.connect(endpoint.url, status="SYSTEM_DISABLED", secret=signing.SECRET)
    api.faults["connectors"] += [dt_api.pass_through, dt_api.answer(403), dt_api.answer(403)]

    status, report = repair(endpoint=endpoint.url)

    assert (status, report["severity"], report["outcome"]) == (1, "ERROR", "complete")
    assert "403 from" in report["connector"]["problem"]
    assert stored().keys() == ids(events)


def test_user_disabled(repair: Repair, api: DTApi, endpoint: Function) -> None:
    """A connector that a user switched off stays off."""
    api.publish(SENSOR, make_events(5))
    connector = api.connect(endpoint.url, status="USER_DISABLED", secret=signing.SECRET)

    status, report = repair(endpoint=endpoint.url)

    assert (connector["status"], status, report["severity"]) == ("USER_DISABLED", 0, "WARNING")
    assert endpoint.outcomes() == {}


def test_revived_without_a_secret(repair: Repair, api: DTApi, endpoint: Function) -> None:
    """A connector without a secret is switched on when the function itself refuses an unsigned delivery."""
    api.publish(SENSOR, make_events(5))
    connector = api.connect(endpoint.url, status="SYSTEM_DISABLED")

    status, report = repair(endpoint=endpoint.url)

    assert (connector["status"], status, report["connector"]["revived"]) == ("ACTIVE", 0, True)
    assert endpoint.outcomes() == {"unverified": 1}


class _Stranger(JsonServer):
    def respond(self, method: str, target: str, body: bytes) -> tuple[int, Any]:  # noqa: ARG002 - of the base
        return 400, "unknown request"


def test_another_server_at_the_endpoint(repair: Repair, api: DTApi) -> None:
    """A server that is not the function does not get the connector switched on."""
    api.publish(SENSOR, make_events(5))
    stranger = _Stranger()
    connector = api.connect(stranger.url, status="SYSTEM_DISABLED")

    status, report = repair(endpoint=stranger.url)
    stranger.stop()

    assert (connector["status"], status) == ("SYSTEM_DISABLED", 1)
    assert "to an unsigned delivery" in report["connector"]["problem"]


def test_connector_with_another_form_of_the_url(repair: Repair, api: DTApi) -> None:
    """The connector of the endpoint is found as `deploy.sh` finds it: by scheme, host, port and path."""
    api.connect("https://Endpoint.invalid:443")
    api.connect("https://endpoint.invalid:port/")

    _, report = repair()

    assert report["connector"]["status"] == "ACTIVE"


def test_connector_of_unknown_status(repair: Repair, api: DTApi, stored: Stored) -> None:
    """A connector whose status DT does not give is not switched on; the history is fetched, and the report shows it."""
    api.publish(SENSOR, make_events(5))
    del api.connect("https://endpoint.invalid/")["status"]

    status, report = repair()

    assert (status, report["severity"], report["connector"]["status"]) == (0, "WARNING", "")
    assert "revived" not in report["connector"]
    assert len(stored()) == 5


def test_connector_of_unknown_form(repair: Repair, api: DTApi) -> None:
    """Data Connectors, or metrics, in an unknown form are a problem in the report, in one line."""
    connector = api.connect("https://endpoint.invalid/")
    api.faults["connectors"] += [dt_api.pass_through, dt_api.answer(200, b'{"metrics":7}')]
    without_metrics = repair()
    del connector["name"]
    status, report = repair()

    assert without_metrics[1]["connector"]["problem"] == "DT's answer cannot be read (AttributeError)"
    assert (without_metrics[0], without_metrics[1]["outcome"]) == (0, "complete")
    assert (status, report["severity"]) == (1, "ERROR")
    assert report["problems"] == ["DT's answer cannot be read (KeyError)"]


def test_no_connector(repair: Repair, api: DTApi, stored: Stored) -> None:
    """Without a connector to the endpoint, history is fetched all the same, and the report says so."""
    api.publish(SENSOR, make_events(5))

    status, report = repair()

    assert (status, report["severity"], report["connector"]["status"]) == (0, "WARNING", "none")
    assert len(stored()) == 5


def test_device_that_cannot_be_read(repair: Repair, api: DTApi, database: firestore.Client, stored: Stored) -> None:
    """A device that cannot be read keeps its place in the checkpoint; the next run reads it from there."""
    api.connect("https://endpoint.invalid/")
    api.install("second")
    first, second = make_events(5, hours=24 * 20), make_events(5, hours=24 * 20)
    api.publish(SENSOR, first)
    api.publish("second", second)
    api.forbidden.add("second")

    failed = repair()
    between = stored().keys()
    api.forbidden.clear()
    api.queries.clear()
    whole = repair()

    assert (failed[0], failed[1]["severity"], failed[1]["outcome"]) == (1, "ERROR", "incomplete")
    assert any("device second: the service account may not read" in line for line in failed[1]["problems"])
    assert between == ids(first)
    assert (whole[0], whole[1]["outcome"]) == (0, "complete")
    assert stored().keys() == ids(first + second)
    assert len(api.queries) == 1 + 5  # one window of the first device, five weeks of the second one
    assert state(database)["devices"] == {}


def test_failing_writes(
    repair: Repair, api: DTApi, database: firestore.Client, proxy: proxy.Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device whose events could not be written keeps its place in the checkpoint; the next run writes them."""

    def refuse_events(forward: Forward, context: grpc.ServicerContext) -> bytes:
        if b"/documents/events/" in forward.request:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "")
        return forward()

    api.connect("https://endpoint.invalid/")
    repair()
    mark = NOW - timedelta(days=3)
    database.document("events_repair/state").update({"completeUntil": mark})
    api.publish(SENSOR, make_events(5, hours=48))
    monkeypatch.setattr(writers, "PAUSES", ())
    direct = os.environ["FIRESTORE_EMULATOR_HOST"]
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", proxy.host)
    proxy.otherwise = lambda: refuse_events

    failed = repair()
    noted = state(database)["devices"]
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", direct)
    whole = repair()

    assert (failed[0], failed[1]["severity"], failed[1]["failed"]) == (1, "ERROR", 5)
    assert noted == {SENSOR: mark}
    assert (whole[0], whole[1]["added"]) == (0, 5)


def test_dt_cannot_be_reached(repair: Repair, monkeypatch: pytest.MonkeyPatch) -> None:
    """If DT cannot be reached, the report says so with severity ERROR."""
    monkeypatch.setenv("DT_TOKEN_URL", "http://127.0.0.1:1/oauth2/token")

    status, report = repair()

    assert (status, report["severity"], report["outcome"]) == (1, "ERROR", "incomplete")
    assert "DT cannot be reached" in report["problems"][0]


def test_wrong_endpoint(api: DTApi, capfd: pytest.CaptureFixture[str]) -> None:
    """A wrong argument causes one line and exit status 2."""
    status = cli.main(["repair", "--dt-project", api.project, "--endpoint", "endpoint.invalid"])

    assert status == 2
    assert len(capfd.readouterr().err.splitlines()) == 1


def test_devices_in_the_checkpoint(
    environ: dict[str, str], database: firestore.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint holds as many devices as the documentation says, and Firestore refuses it with 1 % more.

    The emulator knows the limit of a document's size, but not the one of 40,000 index entries; test_indexes.py holds
    the exemption for that.
    """
    documented = re.search(r"up to ([\d,]+) devices", (ROOT / "docs/repair.md").read_text())
    assert documented
    number = int(documented[1].replace(",", ""))
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", environ["FIRESTORE_EMULATOR_HOST"])
    settings = read_settings(environ)

    async def store(number: int) -> None:
        checkpoint = Checkpoint(settings)
        assert await checkpoint.acquire()
        ids = [stable_id(str(each)) for each in range(number)]
        for device_id in ids:
            checkpoint.advance(device_id, NOW - timedelta(days=31))
        await checkpoint.release(ids, NOW)

    asyncio.run(store(number))
    stored = state(database)["devices"]
    with pytest.raises(InvalidArgument):
        asyncio.run(store(number + number // 100))

    assert len(stored) == number


# --- one run at a time -----------------------------------------------------------------------------------------------

_RUN = """\
import sys
from backfill import checkpoint, transfer, cli
checkpoint.LEASE_SECONDS = 1.5
sys.exit(cli.main(sys.argv[1:]))
"""
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def process(api: DTApi, environ: dict[str, str]) -> Iterator[Start]:
    """Return a function that starts a repair, whose lease is short, as a process."""
    started: list[subprocess.Popen[str]] = []

    def start(*options: str) -> subprocess.Popen[str]:
        arguments = ["repair", "--dt-project", api.project, "--endpoint", "https://endpoint.invalid/", *options]
        command = [sys.executable, "-c", _RUN, *arguments]
        environment = os.environ | environ | api.environ
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def finish(process: "subprocess.Popen[str]") -> tuple[int, Report]:
    """Wait for the end of a process, and return its exit status and its report."""
    out, err = process.communicate(timeout=120)
    assert out, err
    return process.returncode, json.loads(out.splitlines()[-1])


def wait_until(condition: Callable[[], Any]) -> None:
    """Return when the condition is true."""
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("the condition never became true")


def test_two_runs_at_once(process: Start, api: DTApi, database: firestore.Client, stored: Stored) -> None:
    """Of two runs at once one writes; the other one sees that the first is alive, and ends."""
    events = make_events(300)
    api.publish(SENSOR, events)
    api.connect("https://endpoint.invalid/")

    first = process("--rate", "60")
    wait_until(stored)
    second = process("--rate", "60")
    second_status, skipped = finish(second)
    status, report = finish(first)

    assert (second_status, skipped["outcome"], skipped["seen"]) == (0, "skipped", 0)
    assert (status, report["outcome"], report["added"]) == (0, "complete", 300)
    assert stored().keys() == ids(events)
    assert all(found.create_time == found.update_time for found in database.collection("events").stream())


def test_killed_and_started_again(process: Start, api: DTApi, database: firestore.Client, stored: Stored) -> None:
    """A run that was killed loses its lease, and the next one goes on where it was."""
    api.connect("https://endpoint.invalid/")
    for number in range(12):
        device = f"sensor{number}"
        api.install(device)
        api.publish(device, make_events(40))

    killed = process("--rate", "60")
    wait_until(lambda: len(state(database).get("devices", {})) == 13)  # written with the first renewal of the lease
    begun = NOW - timedelta(days=1)
    wait_until(lambda: sum(time > begun for time in state(database)["devices"].values()) >= 2)
    killed.kill()
    killed.wait()
    done = {name for name, time in state(database)["devices"].items() if time > begun}
    api.queries.clear()
    status, report = finish(process())

    assert (status, report["outcome"]) == (0, "complete")
    assert len(stored()) == 480
    assert all(found.create_time == found.update_time for found in database.collection("events").stream())
    # A device that was complete is read for the overlap only; each other one in at most five windows of a week.
    recent = [query for query in api.queries if query["startTime"][0] > (NOW - timedelta(hours=14)).isoformat()]
    assert len(recent) >= len(done)
    assert len(api.queries) <= len(done) + 5 * (13 - len(done))


def test_terminated(process: Start, api: DTApi, database: firestore.Client, stored: Stored) -> None:
    """SIGTERM, with which Cloud Run ends a job, ends a run with its report, and gives up the lease."""
    api.publish(SENSOR, make_events(600))
    api.connect("https://endpoint.invalid/")

    running = process("--rate", "60")
    wait_until(stored)
    running.terminate()
    status, report = finish(running)

    assert (status, report["outcome"], report["severity"]) == (130, "interrupted", "WARNING")
    assert 0 < report["added"] < 600
    assert state(database)["lease"] is None


def test_lost_lease(process: Start, api: DTApi, database: firestore.Client, stored: Stored) -> None:
    """A run whose lease was taken, for example while it was frozen, stops, and changes the checkpoint no more."""
    api.publish(SENSOR, make_events(3000))
    api.connect("https://endpoint.invalid/")

    running = process("--rate", "60")
    wait_until(stored)
    document = database.document("events_repair/state")
    lease = {"holder": "another", "until": datetime.now(UTC) + timedelta(hours=1)}
    document.update({"lease": lease})
    status, report = finish(running)

    assert (status, report["severity"]) == (1, "ERROR")
    assert any("another run has taken over" in line for line in report["problems"])
    assert state(database)["lease"] == lease


def test_lost_answer_to_the_lease(
    repair: Repair, api: DTApi, proxy: proxy.Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run whose lease was written, but not confirmed, is the run that has it."""
    api.connect("https://endpoint.invalid/")
    lost: list[bytes] = []

    def lose_answer(forward: Forward, context: grpc.ServicerContext) -> bytes:
        answer = forward()
        if b"holder" in forward.request and not lost:
            lost.append(answer)
            context.abort(grpc.StatusCode.UNAVAILABLE, "")
        return answer

    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", proxy.host)
    proxy.otherwise = lambda: lose_answer

    status, report = repair()

    assert lost
    assert (status, report["outcome"]) == (0, "complete")


def test_lookups(repair: Repair, api: DTApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an answer from Firestore the report says so with severity ERROR."""
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", "127.0.0.1:1")
    monkeypatch.setattr(database_module, "CALL_SECONDS", 0.3)
    monkeypatch.setattr(writers, "PAUSES", ())
    api.connect("https://endpoint.invalid/")

    status, report = repair()

    assert (status, report["severity"]) == (1, "ERROR")
    assert "Firestore does not answer" in report["problems"][0]


@pytest.mark.parametrize("fault", [dt_api.answer(500), dt_api.answer(429, Retry_After="1"), dt_api.truncate_json])
def test_faults_of_dt(repair: Repair, api: DTApi, stored: Stored, fault: dt_api.Fault) -> None:
    """A repair survives DT's errors at each kind of request."""
    events = make_events(5)
    api.publish(SENSOR, events)
    api.connect("https://endpoint.invalid/")
    for kind in ("connectors", "devices", "events"):
        api.faults[kind].append(fault)

    assert repair()[0] == 0
    assert stored().keys() == ids(events)
