"""`check`, `quarantine` and `forget`: Firestore against DT's history, unprocessable bodies, and erasure."""

import asyncio
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any
from unittest.mock import Mock

import pytest
from google.cloud import firestore

from backfill import cli, forget, markers, rate_limit, writers
from backfill.results import ADDED, Results, make_record
from dtcloud import history
from receiver.batching import Outcome
from receiver.event import Event
from tests.conftest import Endpoint
from tests.dt_api import DTApi
from tests.dt_history import NOW, SENSOR, Result, make_events, one_sensor, use_firestore
from tests.events import encode, envelope

NOON = NOW.replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=2)

Stored = Callable[[], dict[str, dict[str, Any]]]
Command = Callable[..., Result]


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[DTApi]:
    """Return a fake of DT's API with one sensor; the environment of this process points to it."""
    with one_sensor(monkeypatch) as api:
        yield api


@pytest.fixture
def command(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Return a function that runs `python -m backfill` in this process, with the test's database."""
    use_firestore(environ, monkeypatch)
    monkeypatch.setattr(markers, "REFRESH_SECONDS", 0.0)
    monkeypatch.setattr(forget, "MARGIN_SECONDS", 0.0)

    def run(*arguments: str) -> Result:
        capfd.readouterr()
        return Result(cli.main(arguments), *capfd.readouterr())

    return run


def bodies(events: list[Any]) -> list[bytes]:
    """Return the bodies in which a Data Connector delivers events, with labels of another time."""
    return [encode({**envelope(), "event": event, "labels": {"name": "Cheese"}}) for event in events]


def test_check_of_complete_documents(command: Command, api: DTApi, endpoint: Endpoint) -> None:
    """A check of equal documents ends with 0, whatever labels the device has had, and whether back-filled or not."""
    events = make_events(6)
    api.publish(SENSOR, events)
    for body in bodies(events[:3]):
        assert endpoint.deliver(body).status_code == 200
    assert command("--dt-project", api.project, "--since", "1d").status == 0

    result = command("check", "--dt-project", api.project, "--since", "1d")

    assert result.status == 0
    assert result.table("total") == [6, 6, 0, 0, 0, 0]
    assert "all are in Firestore" in result.err


def test_check_finds_what_is_missing_or_differs(
    command: Command, api: DTApi, database: firestore.Client, stored: Stored
) -> None:
    """A check lists missing and different documents by device and day, names the fields, and writes nothing."""
    events = make_events(5, until=NOON, hours=1)
    api.publish(SENSOR, events)
    command("--dt-project", api.project, "--since", "4d")
    collection = database.collection("events")
    collection.document(events[0]["eventId"]).delete()
    collection.document(events[1]["eventId"]).update({"data.temperature.value": 28})
    collection.document(events[2]["eventId"]).update({"eventType": firestore.DELETE_FIELD})
    before = stored()

    result = command("check", "--dt-project", api.project, "--since", "4d")

    assert result.status == 1
    rows = re.findall(r"(\S+) +│ (\S+) +│ +(\d+) │ +(\d+) │ +(\d+) │ +(\d+) │", result.out.partition("Gaps")[2])
    assert rows == [(f"{NOON:%Y-%m-%d}", SENSOR, "5", "4", "1", "2")]
    assert f"event {events[1]['eventId']}: data differ" in result.err
    assert f"event {events[2]['eventId']}: eventType differ" in result.err
    assert "1 missing, 2 different" in result.err
    assert stored() == before


def test_check_leaves_out_what_may_have_expired(command: Command, api: DTApi) -> None:
    """Events older than the retention time are not missing."""
    api.publish(SENSOR, make_events(3, until=NOW - timedelta(days=5)))

    assert command("check", "--dt-project", api.project, "--since", "9d", "--retention-days", "3").status == 0
    assert command("check", "--dt-project", api.project, "--since", "9d").status == 1
    assert command("check", "--dt-project", api.project, "--since", "9d", "--retention-days", "1000000").status == 1


def test_quarantine_commands(
    command: Command, endpoint: Endpoint, database: firestore.Client, stored: Stored, quarantined: Stored
) -> None:
    """`list` counts bodies by reason, `show` prints one, `retry` stores what can be stored now, and says what fails."""
    bad, good = encode(envelope(eventId="a/b")), encode(envelope())
    assert endpoint.deliver(bad).status_code == 400
    # As if an earlier version could not have stored this event.
    entry = {"body": good, "reason": "An older limit.", "receivedAt": firestore.SERVER_TIMESTAMP}
    database.document("events_quarantine/f00d").set(entry)
    (bad_key,) = quarantined().keys() - {"f00d"}

    listed = command("quarantine", "list")
    shown = command("quarantine", "show", "f0")
    first, second = command("quarantine", "retry"), command("quarantine", "retry", "f00d")
    left, everything = command("quarantine", "list"), command("quarantine", "list", "--all")

    assert re.search(r"│ An older limit\. +│ +1 +│", listed.out)
    assert bad_key[:12] in listed.out
    assert shown.out.encode() == good + b"\n"
    assert (first.status, first.out) == (1, "1 bodies stored, 1 still in quarantine.\n")
    assert f"{bad_key[:12]}: The event has no eventId" in first.err
    assert (second.status, second.out) == (0, "0 bodies stored, 0 still in quarantine.\n")
    event_id = json.loads(good)["event"]["eventId"]
    assert stored().keys() == {event_id}
    assert quarantined()["f00d"]["resolvedAs"] == event_id
    assert "f00d" not in left.out
    assert event_id in everything.out


def test_keys_with_the_same_beginning(command: Command, database: firestore.Client) -> None:
    """`show` asks for more of the key when it begins several."""
    for key in ("aa", "ab"):
        database.document(f"events_quarantine/{key}").set({"body": b"{}", "reason": "x"})

    result = command("quarantine", "show", "a")

    assert (result.status, result.out) == (2, "")
    assert "several keys in quarantine begin with 'a'" in result.err


def test_empty_quarantine(command: Command) -> None:
    """An empty quarantine has nothing to list, to show or to retry."""
    assert "Nothing is in quarantine." in command("quarantine", "list").out
    assert command("quarantine", "show", "f00d").status == 2
    assert command("quarantine", "retry").status == 0


def test_retry_leaves_a_stored_event_as_it_is(
    command: Command, endpoint: Endpoint, database: firestore.Client, stored: Stored
) -> None:
    """A retry of an event that was stored meanwhile changes nothing but the mark."""
    body = encode(envelope())
    endpoint.deliver(body)
    before = stored()
    database.document("events_quarantine/f00d").set({"body": body, "reason": "x"})

    assert command("quarantine", "retry").status == 0
    assert stored() == before


def target_of(project: str, device: str = SENSOR) -> str:
    """Return the resource name of a device in a DT project."""
    return f"projects/{project}/devices/{device}"


def test_forget(
    command: Command, start: Callable[..., Endpoint], api: DTApi, database: firestore.Client, stored: Stored
) -> None:
    """`forget` deletes all documents of a device, and neither backfill nor repair brings one back."""
    endpoint = start(DEVICES_COLLECTION="devices")
    events = [{**event, "targetName": target_of("a")} for event in make_events(3)]
    moved = [{**event, "targetName": target_of(project)} for project, event in zip("bc", make_events(2), strict=True)]
    others = [{**event, "targetName": target_of("b", "other")} for event in make_events(2)]
    unprocessable = {**make_events(1)[0], "targetName": target_of("a"), "eventId": "a/b"}
    for body in bodies([*events, *moved, *others, unprocessable]):
        assert endpoint.deliver(body).status_code in (200, 400)
    api.publish(SENSOR, events + moved)

    result = command("forget", "--device", SENSOR, "--yes", "--devices", "devices")
    backfilled = command("--dt-project", api.project, "--since", "2d", "--devices", "devices")
    checked = command("check", "--dt-project", api.project, "--since", "2d")
    arguments = ("--dt-project", api.project, "--endpoint", "https://endpoint.invalid", "--devices", "devices")
    repaired = json.loads(command("repair", *arguments).out)

    assert result.status == 0
    assert f"Device {SENSOR}: 7 documents before" in result.out
    assert stored().keys() == {event["eventId"] for event in others}
    assert [device.id for device in database.collection("devices").stream()] == ["other"]
    assert list(database.collection("events_quarantine").stream()) == []
    assert (backfilled.status, backfilled.table("total")) == (0, [0, 0, 0, 0, 0])
    assert "5 events of devices whose documents were deleted" in backfilled.err
    assert checked.status == 0
    assert (repaired["forgotten"], repaired["added"]) == (5, 0)


def test_forget_before(
    command: Command, start: Callable[..., Endpoint], api: DTApi, database: firestore.Client, stored: Stored
) -> None:
    """With --before, later events stay and come back, and the device's state keeps what is later."""
    endpoint = start(DEVICES_COLLECTION="devices")
    old = make_events(3, until=NOON, event_type="touch")
    new = make_events(3, until=NOON + timedelta(days=1), hours=2)
    for body in bodies(old + new[:2]):
        assert endpoint.deliver(body).status_code == 200
    api.publish(SENSOR, old + new)
    border = (NOON + timedelta(minutes=1)).isoformat()

    result = command("forget", "--device", SENSOR, "--before", border, "--yes", "--devices", "devices")
    command("--dt-project", api.project, "--since", "9d", "--devices", "devices")

    assert result.status == 0
    assert stored().keys() == {event["eventId"] for event in new}
    state = database.document(f"devices/{SENSOR}").get().to_dict() or {}
    assert state["newest"].keys() == {"temperature"}


def test_forgotten_quarantine(command: Command, database: firestore.Client, stored: Stored) -> None:
    """A body in quarantine whose event was deleted by `forget` is not stored by a retry."""
    command("forget", "--device", SENSOR, "--yes")
    database.document("events_quarantine/f00d").set({"body": encode(envelope()), "reason": "x"})

    result = command("quarantine", "retry")

    assert (result.status, stored()) == (1, {})
    assert "deleted by forget" in result.err


class _LateMarkers:
    """Markers that another program writes while a page waits to be written."""

    written = False

    async def forgotten(self, _device: str, times: Iterable[datetime | None]) -> list[bool]:
        """Return whether the marker is written, for each time."""
        return [self.written for _ in times]


def test_forgotten_while_a_page_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a page still has to write when its device is forgotten is left out: `forget` does not wait for pages."""
    markers_ = _LateMarkers()

    async def create(_event: Event, _deadline: float) -> Outcome:
        markers_.written = True
        return Outcome.STORED

    monkeypatch.setattr(writers, "Markers", lambda _: markers_)
    monkeypatch.setattr(writers, "creator", lambda *_: create)
    results = Results(dry_run=False)
    writer = writers.DocumentWriter(Mock(), Mock(), rate_limit.RateLimit(100), results)
    page = [make_record(history.Device(SENSOR, {}), event) for event in make_events(3)]

    asyncio.run(writer.write(page))

    assert (results.total, results.forgotten) == ({ADDED: 1}, 2)


def test_forget_asks(command: Command, monkeypatch: pytest.MonkeyPatch, database: firestore.Client) -> None:
    """Without --yes and without an answer nothing is deleted."""
    database.document("events/e").set({"targetName": target_of("a")})
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))

    assert command("forget", "--device", SENSOR).status != 0
    assert database.document("events/e").get().exists


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "--since", "3d"),
        ("--since", "3d", "check", "--dt-project", "p"),
        ("forget", "--device", "a/b"),
        ("forget", "--device", "a", "--before", "yesterday"),
        ("forget", "--device", "a", "--before", "2999-01-01", "--yes"),
        ("quarantine", "show"),
        ("quarantine", "show", "a/b"),
        ("quarantine", "show", ""),
        ("quarantine", "retry", "a/b"),
        ("--since", "3d"),
        (),
    ],
)
def test_wrong_arguments(command: Command, arguments: tuple[str, ...]) -> None:
    """A wrong or missing argument of a command causes one line and exit status 2."""
    result = command(*arguments)

    assert (result.status, len(result.err.splitlines())) == (2, 1)


@pytest.mark.parametrize("path", [["check"], ["forget"], ["repair"], ["quarantine", "list"], ["quarantine", "retry"]])
def test_examples(command: Command, path: list[str]) -> None:
    """Each example in the help of a command can be parsed."""
    text = command(*path, "--help").out
    examples = re.findall(r"^    python -m backfill (.*)$", re.sub(r"\\\n\s*", "", text), re.MULTILINE)

    assert examples
    for example in examples:
        group: Any = cli.command
        words = example.split()
        for name in path:
            group = group.commands[name]
            assert words.pop(0) == name
        assert group.make_context(path[-1], words)
