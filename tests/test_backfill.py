"""Backfill: history from a fake of DT's REST API becomes the documents that the function writes."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import disruptive
import grpc
import pytest
from google.cloud import firestore

import receiver.store
from backfill import cli, writers
from backfill import database as database_module
from backfill.rate_limit import RateLimit
from backfill.time_window import TimeWindow, parse_time
from dtcloud import rest
from dtcloud.history import History, HistoryError
from receiver.batching import MOST_WRITES
from simulator.fleet import Fleet
from simulator.sensors import PROJECT_ID, Device
from tests import dt_api, proxy
from tests.conftest import ROOT, Endpoint
from tests.dt_api import DTApi
from tests.dt_history import NOW, SENSOR, Result, make_events, one_sensor, use_firestore
from tests.events import DATA, encode, envelope

DAY = TimeWindow(NOW - timedelta(days=1), NOW)
Stored = Callable[[], dict[str, dict[str, Any]]]


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[DTApi]:
    """Return a fake of DT's API with one sensor; the environment of this process points to it."""
    with one_sensor(monkeypatch) as api:
        yield api


Backfill = Callable[..., Result]


@pytest.fixture
def backfill(
    api: DTApi, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Backfill:
    """Return a function that runs `python -m backfill` in this process, by default for the last day."""
    use_firestore(environ, monkeypatch)
    return lambda *options, since="1d": command(capfd, "--dt-project", api.project, "--since", since, *options)


def command(capfd: pytest.CaptureFixture[str], *options: str) -> Result:
    """Run the command line."""
    capfd.readouterr()
    return Result(cli.main(options), *capfd.readouterr())


def fetch_pages(
    api: DTApi, *, device: str = SENSOR, window: TimeWindow = DAY, event_types: Sequence[str] = ()
) -> list[list[Any]]:
    """Return the pages of a device's history."""

    async def fetch() -> list[list[Any]]:
        source = History(api.project, os.environ)
        (found,) = await source.devices([device], None)
        return [page async for page in source.events(found, window.since, window.until, event_types)]

    return asyncio.run(fetch())


def document(body: dict[str, Any]) -> dict[str, Any]:
    """Return the document that a body becomes, without the server timestamp."""
    fields = {**body, **body["event"]}
    del fields["event"]
    return fields | {"timestamp": datetime.fromisoformat(fields["timestamp"])}


def unstamped(documents: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the documents without their server timestamps."""
    stamps = ("receivedAt", "backfilledAt")
    return {key: {name: doc[name] for name in doc if name not in stamps} for key, doc in documents.items()}


def update_times(database: firestore.Client) -> dict[str, Any]:
    """Return when each document was last written."""
    return {document.id: document.update_time for document in database.collection("events").stream()}


def test_pages(api: DTApi) -> None:
    """A history of 2,500 events is read in pages of up to 1,000: each event once, newest first."""
    events = make_events(2500)
    api.publish(SENSOR, events)

    pages = fetch_pages(api)

    assert [len(page) for page in pages] == [1000, 1000, 500]
    assert [event for page in pages for event in page] == events


def test_window(api: DTApi) -> None:
    """Only events between --since and --until are requested."""
    events = make_events(240, hours=24)
    api.publish(SENSOR, events)
    window = TimeWindow(NOW - timedelta(hours=3), NOW - timedelta(hours=2))

    pages = fetch_pages(api, window=window)

    assert pages == [events[20:31]]


def test_event_types(api: DTApi) -> None:
    """Only the requested event types are returned."""
    wanted = make_events(3, event_type="touch") + make_events(3, event_type="humidity")
    api.publish(SENSOR, wanted + make_events(3))

    (page,) = fetch_pages(api, event_types=["touch", "humidity"])

    assert {event["eventId"] for event in page} == {event["eventId"] for event in wanted}
    assert api.queries[0]["eventTypes"] == ["touch", "humidity"]


def test_devices(api: DTApi) -> None:
    """All pages of a project's devices are read, and only the named labels are kept."""
    for number in range(6):
        api.install(f"sensor{number}", "co2", "102543", name=f"Room {number}", room="1", owner="x")
    api.devices_a_page = 3

    devices = asyncio.run(History(api.project, os.environ).devices([], frozenset({"name", "room"})))

    assert [device.id for device in devices] == [SENSOR, *(f"sensor{number}" for number in range(6))]
    assert devices[-1].envelope == {
        "labels": {"name": "Room 5", "room": "1"},
        "metadata": {
            "deviceId": "sensor5",
            "projectId": api.project,
            "deviceType": "co2",
            "productNumber": "102543",
        },
    }


@pytest.mark.parametrize(
    "fault",
    [
        dt_api.answer(500),
        dt_api.answer(503),
        dt_api.answer(502, b"<html>Bad Gateway</html>"),
        dt_api.answer(429),
        dt_api.answer(429, Retry_After="Sat, 21 Nov 2026 05:54:11 GMT"),
        dt_api.demand_pause,
        dt_api.truncate_body,
        dt_api.truncate_json,
        dt_api.revoke_tokens,
    ],
    ids=["500", "503", "html", "429", "429-date", "429-retry-after", "truncated-body", "truncated-json", "401"],
)
def test_faults(api: DTApi, fault: dt_api.Fault) -> None:
    """A page that fails once is requested again, after Retry-After at the earliest; each event comes once."""
    events = make_events(2500)
    api.publish(SENSOR, events)
    api.faults["events"] += [dt_api.pass_through, fault]

    pages = fetch_pages(api)

    assert [event for page in pages for event in page] == events
    assert not api.faults["events"]
    assert api.too_early == 0


def test_silence_is_shown(api: DTApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """While DT does not answer, the progress says so, with the address, before the request times out."""
    monkeypatch.setattr(rest, "_NOTICE_SECONDS", 0.05)
    answered = threading.Event()

    def wait(handler: Any) -> None:
        answered.wait(30)
        handler.answer()

    api.faults["devices"].append(wait)

    async def fetch() -> str:
        source = History(api.project, os.environ)
        task = asyncio.create_task(source.devices([SENSOR], None))
        while not (line := source.api.waits.line()):
            await asyncio.sleep(0.01)
        answered.set()
        await task
        assert source.api.waits.line() == ""
        return line

    assert asyncio.run(fetch()) == f"DT has not answered yet ({api.url}/projects/{api.project}/devices/{SENSOR})"


def test_pause_for_all_requests(api: DTApi) -> None:
    """While DT demands a pause, no other request is sent either."""
    api.install("second")
    api.faults["devices"].append(dt_api.demand_pause)

    async def fetch() -> None:
        source = History(api.project, os.environ)
        first = asyncio.create_task(source.devices([SENSOR], None))
        while not source.api.waits.reason:
            await asyncio.sleep(0.01)
        await source.devices(["second"], None)
        await first

    asyncio.run(fetch())

    assert api.too_early == 0


@pytest.mark.parametrize("status", [400, 404, 410])
def test_expired_page_token(api: DTApi, status: int) -> None:
    """When DT refuses a page token, the walk starts again at the oldest event that came; each event comes once."""
    events = make_events(3500)
    api.publish(SENSOR, events)
    expired = dt_api.answer(status)
    api.faults["events"] += [dt_api.pass_through, expired, dt_api.pass_through, dt_api.pass_through, expired]

    pages = fetch_pages(api)

    assert [event for page in pages for event in page] == events
    assert not api.faults["events"]
    assert "pageToken" not in api.queries[1]


def test_page_token_that_is_never_accepted(api: DTApi) -> None:
    """A walk that comes no further ends with an error."""
    api.publish(SENSOR, [{**event, "timestamp": NOW.isoformat()} for event in make_events(1500)])
    api.faults["events"] += [dt_api.pass_through, dt_api.answer(400)] * 3

    with pytest.raises(HistoryError, match="refuses the request"):
        fetch_pages(api)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (dt_api.answer(500), "a server error"),
        (dt_api.answer(429), "too many requests"),
        (dt_api.truncate_body, "cannot be read"),
        (dt_api.answer(200, b'{"error":"no events"}'), "no list of events"),
        (dt_api.answer(200, b'{"events":[],"nextPageToken":"MA=="}'), "itself"),
    ],
)
def test_lasting_faults(api: DTApi, monkeypatch: pytest.MonkeyPatch, answer: dt_api.Fault, words: str) -> None:
    """If the API keeps failing, an error names the failure."""
    monkeypatch.setattr(disruptive, "request_attempts", 1)
    api.faults["events"] += [answer] * 20

    with pytest.raises(HistoryError, match=words):
        fetch_pages(api)


def test_unreachable(api: DTApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the API cannot be reached, an error says so."""
    monkeypatch.setattr(disruptive, "request_attempts", 1)
    monkeypatch.setenv("DT_TOKEN_URL", "http://127.0.0.1:1/oauth2/token")

    with pytest.raises(HistoryError, match="cannot be reached"):
        fetch_pages(api)


def test_netrc(api: DTApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials of ~/.netrc replace no access token."""
    (tmp_path / "netrc").write_text("default login anonymous password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    api.publish(SENSOR, make_events(1))

    assert sum(map(len, fetch_pages(api))) == 1


def test_redirected_sign_in(api: DTApi) -> None:
    """A redirect is refused: the signed assertion, which is worth an access token, goes to no other host."""
    other = DTApi()
    api.faults["token"].append(dt_api.answer(307, Location=other.token_url))

    with pytest.raises(HistoryError, match="307 from"):
        fetch_pages(api)
    other.stop()

    assert not other.tokens


@pytest.mark.parametrize(
    ("variable", "value"),
    [("DT_SERVICE_ACCOUNT_SECRET", "wrong-secret"), ("DT_SERVICE_ACCOUNT_KEY_ID", "other-key")],
)
def test_refused_account(backfill: Backfill, monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    """If DT refuses the service account, one line names the variables and shows no credential."""
    monkeypatch.setenv(variable, value)

    result = backfill()

    assert result.status == 2
    assert len(result.err.splitlines()) == 1
    assert "DT_SERVICE_ACCOUNT_SECRET" in result.err
    assert not any(word in result.err + result.out for word in (value, dt_api.SECRET, dt_api.EMAIL, dt_api.KEY_ID))


def test_missing_credentials(backfill: Backfill, monkeypatch: pytest.MonkeyPatch) -> None:
    """If credentials for DT are missing, one line names them."""
    monkeypatch.delenv("DT_SERVICE_ACCOUNT_KEY_ID")
    monkeypatch.setenv("DT_SERVICE_ACCOUNT_EMAIL", "")

    result = backfill()

    assert result.status == 2
    missing = "DT_SERVICE_ACCOUNT_KEY_ID, DT_SERVICE_ACCOUNT_EMAIL"
    assert re.fullmatch(rf"python -m backfill: set {missing} to .*\n", result.err)


def test_missing_google_credentials(backfill: Backfill, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an emulator and without Google credentials, one line says so before anything is fetched."""
    monkeypatch.delenv("FIRESTORE_EMULATOR_HOST")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json")

    result = backfill()

    assert result.status == 2
    assert "gcloud auth application-default login" in result.err
    assert len(result.err.splitlines()) == 1


@pytest.mark.parametrize(
    "options",
    [
        ("--dt-project", "someone-elses"),
        ("--device", "unknown"),
        ("--dt-project", "a/b"),
        ("--since", "yesterday"),
        ("--since", "2026-05-16T08:00:00"),
        ("--since", "0h"),
        ("--rate", "0"),
        ("--retention-days", "1"),
        ("--database", "No Database"),
        ("--collection", "a/b"),
    ],
    ids=" ".join,
)
def test_wrong_arguments(backfill: Backfill, options: tuple[str, ...]) -> None:
    """A wrong argument causes one line and exit status 2."""
    result = backfill(*options)

    assert result.status == 2
    assert len(result.err.splitlines()) == 1
    assert result.out == ""


def test_forbidden_project(backfill: Backfill, api: DTApi) -> None:
    """A project that the service account may not read causes one line and exit status 2."""
    api.faults["devices"].append(dt_api.answer(403))

    result = backfill()

    assert result.status == 2
    assert "may not read this project" in result.err


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("3d", NOW - timedelta(days=3)),
        ("12h", NOW - timedelta(hours=12)),
        ("30m", NOW - timedelta(minutes=30)),
        ("2026-05-16", datetime(2026, 5, 16, tzinfo=UTC)),
        ("2026-05-16T08:13:15Z", datetime(2026, 5, 16, 8, 13, 15, tzinfo=UTC)),
        ("2026-05-16t10:13:15.5+02:00", datetime(2026, 5, 16, 8, 13, 15, 500_000, tzinfo=UTC)),
    ],
)
def test_times(text: str, time: datetime) -> None:
    """A time is days, hours or minutes ago, a date in UTC, or an RFC 3339 time."""
    assert parse_time(text, NOW) == time


def test_rate_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rate starts at 500 a second, grows by half every five minutes, and never exceeds the maximum."""
    now, pauses = [0.0], []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    def rates(seconds: float) -> tuple[float, float]:
        now[0] = seconds
        return ramp.rate, capped.rate

    async def wait_three_times() -> None:
        for _ in range(3):
            await ramp.wait()

    monkeypatch.setattr(asyncio, "sleep", sleep)
    ramp, capped = RateLimit(clock=lambda: now[0]), RateLimit(600, clock=lambda: now[0])

    found = [rates(seconds) for seconds in (0.0, 299.0, 300.0, 600.0)]
    asyncio.run(wait_three_times())

    assert found == [(500, 500), (500, 500), (750, 600), (1125, 600)]
    assert pauses == pytest.approx([1 / 1125, 2 / 1125])


def test_documents_equal_delivered_ones(backfill: Backfill, api: DTApi, endpoint: Endpoint, stored: Stored) -> None:
    """For each event type, a backfilled document equals a delivered one except for the name of its timestamp."""
    bodies = [envelope(event_type, timestamp=NOW.strftime("%Y-%m-%dT%H:%M:%S.%fZ")) for event_type in DATA]
    api.devices.clear()
    api.install(SENSOR, "temperature", name="Milk fridge", room="Küche", owner="not on the connector")
    twins = [{**body["event"], "eventId": "twin" + body["event"]["eventId"]} for body in bodies]
    api.publish(SENSOR, twins)
    for body in bodies:
        body["metadata"] |= {"projectId": api.project, "deviceType": "temperature"}
        assert endpoint.deliver(encode(body)).status_code == 200

    result = backfill("--labels", "name,room", since="10m")

    documents = stored()
    assert result.status == 0
    assert len(documents) == 2 * len(DATA)
    for body in bodies:
        event_id = body["event"]["eventId"]
        ours, twin = documents[event_id], documents["twin" + event_id]
        assert isinstance(ours.pop("receivedAt"), datetime)
        assert isinstance(twin.pop("backfilledAt"), datetime)
        assert twin == ours | {"eventId": "twin" + event_id}


def test_outage(backfill: Backfill, api: DTApi, endpoint: Endpoint, database: firestore.Client, stored: Stored) -> None:
    """After 13 hours in which a third of the events was discarded, one backfill stores every missing event.

    Documents that the connector stored are unchanged, the table counts each event, and a second run adds nothing.
    """
    seconds, count = 13 * 3600, 450
    start = datetime.now(UTC) - timedelta(seconds=seconds * 1.2)
    fleet = Fleet(24, seed=6).play(start, rate=count / seconds)
    bodies = [body for _, (_, body) in zip(range(count), fleet, strict=False)]
    publish(api, bodies)
    discarded = Random(6)  # noqa: S311 - no cryptography
    delivered = [body for body in bodies if discarded.random() > 1 / 3]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(endpoint.deliver, map(encode, delivered)))
    assert {answer.status_code for answer in answers} == {200}
    before = update_times(database)

    first = backfill(since="20h")
    after = update_times(database)
    second = backfill(since="20h")

    assert unstamped(stored()) == {body["event"]["eventId"]: document(body) for body in bodies}
    assert {key: after[key] for key in before} == before
    assert update_times(database) == after
    assert (first.status, second.status) == (0, 0)
    assert first.table("total") == [count, len(delivered), count - len(delivered), 0, 0]
    assert second.table("total") == [count, count, 0, 0, 0]
    types = [body["event"]["eventType"] for body in bodies]
    assert {name: first.table(name)[0] for name in types} == {name: types.count(name) for name in types}
    days = [body["event"]["timestamp"][:10] for body in bodies]
    assert {day: first.table(day)[0] for day in days} == {day: days.count(day) for day in days}


def publish(api: DTApi, bodies: list[dict[str, Any]]) -> None:
    """Add the devices and events of a fleet's bodies to the API."""
    api.project = PROJECT_ID
    api.devices.clear()
    sources = {body["metadata"]["deviceId"]: body for body in bodies}
    for device_id, body in sources.items():
        source = Device(device_id, body["metadata"]["deviceType"], body["labels"])
        api.install(device_id, source.type, body["metadata"]["productNumber"], **source.labels)
    for body in bodies:
        api.publish(body["metadata"]["deviceId"], [body["event"]])


def test_beyond_the_documented_history(backfill: Backfill, api: DTApi, stored: Stored) -> None:
    """DT is asked for 40 days although it documents 31; the report says how old the oldest event is that came."""
    kept = make_events(2, until=NOW - timedelta(days=30, hours=23), hours=0.01)
    api.publish(SENSOR, kept + make_events(2, until=NOW - timedelta(days=31, hours=1)))

    result = backfill(since="40d")

    assert result.status == 0
    assert datetime.fromisoformat(api.queries[0]["startTime"][0]) <= NOW - timedelta(days=39, hours=23)
    oldest = min(event["timestamp"] for event in kept)[:19]
    assert f"oldest event that came is of {oldest}Z, 9 d 0 h younger than --since asks for: DT keeps 31" in result.err
    assert stored().keys() == {event["eventId"] for event in kept}


def test_window_before_the_documented_history(backfill: Backfill, api: DTApi, stored: Stored) -> None:
    """A window of which DT documents nothing is requested nevertheless; the report says that no event came."""
    result = backfill("--until", "40d", since="50d")

    assert (result.status, len(api.queries)) == (0, 1)
    assert "No event came." in result.err
    assert stored() == {}


def test_history_that_reaches_back_far_enough(backfill: Backfill, api: DTApi, stored: Stored) -> None:
    """`--since 31d` stays within the 31 days while the request is under way, and an old event is just reported."""
    oldest = datetime.now(UTC) - timedelta(days=31) + timedelta(minutes=1, seconds=30)
    events = make_events(2, until=oldest, hours=0.001)
    api.publish(SENSOR, events)

    result = backfill(since="31d")

    start = datetime.fromisoformat(api.queries[0]["startTime"][0])
    assert timedelta(days=31, minutes=-1, seconds=-30) < datetime.now(UTC) - start < timedelta(days=31)
    assert "younger" not in result.err
    assert stored().keys() == {event["eventId"] for event in events}


def test_dry_run(backfill: Backfill, api: DTApi, endpoint: Endpoint, stored: Stored) -> None:
    """A dry run lists the days and devices that lack documents, and writes nothing."""
    noon = NOW.replace(hour=12, minute=0) - timedelta(days=2)
    older, newer = make_events(5, until=noon, hours=1), make_events(4, until=noon + timedelta(days=1), hours=1)
    api.publish(SENSOR, older + newer)
    api.install("complete")
    api.publish("complete", make_events(3, until=noon, hours=1))
    delivered = [
        *older[:2],
        *newer,
        *api.select("complete", {"startTime": ["2026-01-01T00:00:00Z"], "endTime": ["2999-01-01T00:00:00Z"]}),
    ]
    for event in delivered:
        assert endpoint.deliver(encode(envelope() | {"event": event})).status_code == 200
    before = stored()

    dry = backfill("--dry-run", since="4d")

    assert stored() == before
    gaps = dry.out.partition("Gaps")[2]
    assert re.findall(r"(\S+) +│ (\S+) +│ +(\d+) │ +(\d+) │ +(\d+) │", gaps) == [
        (f"{noon:%Y-%m-%d}", SENSOR, "5", "2", "3")
    ]
    assert dry.table("total") == [12, 9, 3, 0, 0]
    assert (dry.status, "3 missing" in dry.err) == (1, True)
    assert backfill(since="4d").status == 0
    assert backfill("--dry-run", since="4d").status == 0


def test_quarantine(backfill: Backfill, api: DTApi, stored: Stored, quarantined: Stored) -> None:
    """An unprocessable event of history is quarantined and counted; the others are stored."""
    good, *bad = make_events(4)
    bad[0]["eventId"] = "a/b"
    bad[1]["data"] = {"x": [[1]]}
    bad[2]["data"] = {"x": "\ud800"}
    api.publish(SENSOR, [good, *bad])

    result = backfill("--retention-days", "30")

    kept = quarantined().values()
    assert stored().keys() == {good["eventId"]}
    assert {json.dumps(json.loads(entry["body"])["event"]) for entry in kept} == {json.dumps(event) for event in bad}
    assert all(entry["backfilledAt"] < entry["expireAt"] for entry in [*kept, *stored().values()])
    assert result.table("total") == [4, 0, 1, 3, 0]
    assert result.status == 0


def test_the_retention_time_begins_with_the_write(backfill: Backfill, api: DTApi, stored: Stored) -> None:
    """An event that is older than the retention time is stored, and expires that many days from now on."""
    api.publish(SENSOR, make_events(3, until=NOW - timedelta(days=11)))

    result = backfill("--retention-days", "10", since="12d")

    assert result.status == 0
    ends = [document["expireAt"] - datetime.now(UTC) for document in stored().values()]
    assert len(ends) == 3
    assert all(timedelta(days=10, minutes=-5) < end <= timedelta(days=10) for end in ends)


def test_options(backfill: Backfill, api: DTApi, database: firestore.Client, stored: Stored) -> None:
    """--device, --event-type, --until and --collection select the events and the collection."""
    wanted = make_events(3, event_type="touch", hours=2, until=NOW - timedelta(hours=3))
    api.publish(SENSOR, wanted + make_events(3) + make_events(3, event_type="touch", hours=1))
    api.install("other")
    api.publish("other", make_events(3, event_type="touch"))

    result = backfill("--device", SENSOR, "--event-type", "touch", "--until", "2h", "--collection", "restored")

    assert result.status == 0
    assert {found.id for found in database.collection("restored").stream()} == {event["eventId"] for event in wanted}
    assert stored() == {}


def test_device_that_cannot_be_read(
    backfill: Backfill, api: DTApi, monkeypatch: pytest.MonkeyPatch, stored: Stored
) -> None:
    """A device whose history cannot be read is named; the others are finished, and the next run completes it."""
    monkeypatch.setattr(disruptive, "request_attempts", 1)
    events = make_events(3)
    api.publish(SENSOR, events)
    api.install("forbidden")
    api.forbidden.add("forbidden")
    api.faults["events"] += [dt_api.answer(500)] * 12

    failed = backfill("--device", SENSOR)
    api.faults["events"].clear()
    partly = backfill()
    api.forbidden.clear()
    whole = backfill()

    assert (failed.status, partly.status, whole.status) == (1, 1, 0)
    source = f"{api.url}/projects/{api.project}/devices/{SENSOR}/events"
    assert f"device {SENSOR}: DT answers with a server error (500 from {source})\n" in failed.err
    assert "device forbidden: the service account may not read" in partly.err
    assert "1 of 2 devices" in partly.err
    assert "again" in partly.err
    assert stored().keys() == {event["eventId"] for event in events}


@pytest.fixture
def faulted(
    backfill: Backfill, database: firestore.Client, proxy: proxy.Proxy, monkeypatch: pytest.MonkeyPatch
) -> tuple[Backfill, proxy.Proxy]:
    """Return the command behind a proxy that injects faults, and the proxy; the tests' readers bypass it."""
    assert database.project == os.environ["GOOGLE_CLOUD_PROJECT"]
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", proxy.host)
    monkeypatch.setattr(writers, "PAUSES", (0.0, 0.0, 0.0))
    return backfill, proxy


def test_failing_writes(faulted: tuple[Backfill, proxy.Proxy], api: DTApi, stored: Stored) -> None:
    """Writes that fail temporarily are repeated one by one, and no event is lost."""
    command, between = faulted
    events = make_events(120)
    api.publish(SENSOR, events)
    codes = grpc.StatusCode
    faults = [proxy.answer(codes.ABORTED), proxy.answer(codes.INTERNAL), proxy.commit_then(codes.UNAVAILABLE)]
    between.faults.append(proxy.forward_only)  # the read of the markers
    between.faults += [fault for fault in faults for _ in range(5)]

    result = command()

    assert result.status == 0
    assert stored().keys() == {event["eventId"] for event in events}
    assert result.table("total")[0] == 120
    assert result.table("total")[3:] == [0, 0]
    assert not between.faults


def test_refusing_firestore(faulted: tuple[Backfill, proxy.Proxy], api: DTApi, stored: Stored) -> None:
    """When Firestore refuses every write the backfill stops, counts the failures, and says what to do."""
    command, between = faulted
    api.publish(SENSOR, make_events(1500))
    between.faults += [proxy.answer(grpc.StatusCode.PERMISSION_DENIED)] * 10_000

    result = command()

    assert result.status == 1
    assert result.table("total") == [1000, 0, 0, 0, 1000]
    assert "stopped: Firestore answered PERMISSION_DENIED" in result.err
    assert "Run the same command again" in result.err
    assert stored() == {}


def test_slow_firestore(
    faulted: tuple[Backfill, proxy.Proxy], api: DTApi, monkeypatch: pytest.MonkeyPatch, stored: Stored
) -> None:
    """A write that Firestore does not confirm in time counts as failed, never as added."""
    command, between = faulted
    monkeypatch.setattr(receiver.store, "TOTAL_SECONDS", 2.0)
    monkeypatch.setattr(writers, "PAUSES", ())
    api.publish(SENSOR, make_events(MOST_WRITES + 10))
    between.faults += [proxy.forward_only] * 2  # the read of the markers, and the first commit
    between.otherwise = lambda: between.hang

    result = command()

    assert result.status == 1
    seen, _, added, _, failed = result.table("total")
    assert (seen, added + failed) == (MOST_WRITES + 10, MOST_WRITES + 10)
    assert 1 <= added == len(stored()) <= MOST_WRITES
    assert f"{failed} events: Firestore did not confirm within" in result.err


def test_dry_run_without_firestore(backfill: Backfill, api: DTApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dry run that Firestore does not answer stops, says so, and counts no event as missing."""
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", "127.0.0.1:1")
    monkeypatch.setattr(database_module, "CALL_SECONDS", 0.3)
    api.publish(SENSOR, make_events(3))

    result = backfill("--dry-run")

    assert result.status == 1
    assert "stopped: Firestore does not answer" in result.err
    assert result.table("total") == [0, 0, 0, 0, 0]


@pytest.fixture
def process(api: DTApi, environ: dict[str, str]) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Return a function that starts `python -m backfill` as a process."""
    started: list[subprocess.Popen[str]] = []

    def start(*options: str) -> subprocess.Popen[str]:
        arguments = ["--dt-project", api.project, "--since", "2d", *options]
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "backfill", *arguments],
                cwd=ROOT,
                env=os.environ | environ | api.environ,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def wait_until(condition: Callable[[], Any]) -> None:
    """Return when the condition is true."""
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("the condition never became true")


def test_killed_and_started_again(
    process: Callable[..., subprocess.Popen[str]], api: DTApi, database: firestore.Client, stored: Stored
) -> None:
    """Killed at random times and started again, a backfill stores each event once."""
    rng = Random(17)  # noqa: S311 - no cryptography
    events = make_events(500)
    api.publish(SENSOR, events[:250])
    api.install("second")
    api.publish("second", events[250:])

    statuses, counts = [], []
    for _ in range(2):
        running = process("--rate", "100")
        wait_until(stored)
        time.sleep(rng.uniform(0, 0.5))
        running.kill()
        statuses.append(running.wait())
        counts.append(len(stored()))
    last = process()
    out, _ = last.communicate()

    assert statuses == [-signal.SIGKILL] * 2
    assert 0 < counts[0] <= counts[1] < len(events)
    assert last.returncode == 0
    assert stored().keys() == {event["eventId"] for event in events}
    assert all(found.create_time == found.update_time for found in database.collection("events").stream())
    seen, already_stored, added, *others = Result(0, out, "").table("total")
    assert (seen, already_stored + added, others) == (500, 500, [0, 0])
    assert already_stored >= counts[1]  # a commit in progress at the kill may still have been applied


def test_interrupted(process: Callable[..., subprocess.Popen[str]], api: DTApi, stored: Stored) -> None:
    """Ctrl-C ends a backfill with a summary and status 130, even while it waits for an hour's Retry-After."""
    api.install("second")
    for device in (SENSOR, "second"):  # the one that is requested first gets its page, the other one the 429
        api.publish(device, make_events(1000))
    api.faults["events"] += [
        dt_api.pass_through,
        dt_api.answer(429, Retry_After="3600"),
    ]

    running = process("--rate", "100")
    wait_until(lambda: len(stored()) > 20)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=30)

    assert running.returncode == 130
    assert re.search(r"Interrupted: 0 of 2 devices read, \d+ events seen", err)
    assert "Traceback" not in err
    assert 20 < Result(130, out, err).table("total")[0] < 1000


def test_long_retry_after(process: Callable[..., subprocess.Popen[str]], api: DTApi) -> None:
    """A long Retry-After is shown at once, with its reason and its countdown."""
    api.publish(SENSOR, make_events(3))
    api.faults["events"].append(dt_api.answer(429, Retry_After="3600"))

    running = process()
    assert running.stderr is not None
    line = running.stderr.readline()

    source = f"429 from {api.url}/projects/{api.project}/devices/{SENSOR}/events"
    assert re.search(rf"too many requests \({re.escape(source)}\); next attempt in (1 h|59 min \d\d s)\n", line)


def test_unreachable_for_a_while(process: Callable[..., subprocess.Popen[str]], api: DTApi, stored: Stored) -> None:
    """While DT cannot be reached the command says so and goes on trying; it completes once DT answers."""
    port = int(api.url.split(":")[2].split("/")[0])
    api.stop()

    running = process()
    assert running.stderr is not None
    line = running.stderr.readline()
    late = DTApi(port)
    late.install(SENSOR)
    late.publish(SENSOR, make_events(3))
    _, err = running.communicate(timeout=60)
    late.stop()

    assert re.search(rf"DT cannot be reached.*{re.escape(api.token_url)}\); next attempt in \d+ s\n", line)
    assert running.returncode == 0, err
    assert len(stored()) == 3


_MEASURED = """\
import re, sys
from pathlib import Path
from backfill.cli import main
main(sys.argv[1:])
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_memory(api: DTApi, embedded_host: str, project: str) -> None:
    """40,000 events need hardly more memory than 4,000: only one page of each device is held."""
    event = make_events(1, event_type="touch")[0]
    times = [(NOW - timedelta(seconds=250 * number)).strftime("%Y-%m-%dT%H:%M:%S.%fZ") for number in range(10_000)]
    api.devices.clear()
    for device in (SENSOR, "second", "third", "fourth"):
        api.install(device)
        api.publish(device, [{**event, "eventId": f"{device}{at[:19]}", "timestamp": at} for at in times])
    environ = {"FIRESTORE_EMULATOR_HOST": embedded_host, "GOOGLE_CLOUD_PROJECT": project}

    def run(since: str) -> tuple[int, int]:
        arguments = ["--dt-project", api.project, "--since", since, "--dry-run"]
        done = subprocess.run(
            [sys.executable, "-c", _MEASURED, *arguments],
            cwd=ROOT,
            env=os.environ | environ | api.environ,
            capture_output=True,
            text=True,
            check=True,
        )
        return Result(0, done.stdout, "").table("total")[0], int(done.stdout.split()[-1])

    few, some_kilobytes = run(times[999])
    many, most_kilobytes = run("31d")

    assert (few, many) == (4_000, 40_000)
    assert most_kilobytes < some_kilobytes + 8_000


def test_help(capfd: pytest.CaptureFixture[str]) -> None:
    """--help names every environment variable that is read, and each of its examples can be parsed."""
    text = command(capfd, "--help").out

    for name in ("KEY_ID", "SECRET", "EMAIL"):
        assert f"DT_SERVICE_ACCOUNT_{name}" in text
    assert all(name in text for name in ("DT_API_URL", "DT_TOKEN_URL", "FIRESTORE_EMULATOR_HOST"))
    examples = re.findall(r"^    python -m backfill (.*)$", text.replace("\\\n", ""), re.MULTILINE)
    assert len(examples) == 3
    assert all(cli.command.make_context("backfill", example.split()) for example in examples)
