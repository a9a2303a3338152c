"""The newest state of each device: what is kept, races, order, faults and content that others wrote."""

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.cloud import firestore
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from receiver.batching import Outcome
from receiver.devices import Devices
from receiver.event import parse_event
from receiver.settings import read_settings
from receiver.store import Store, new_deadline
from tests.conftest import ROOT, Documents, Endpoint
from tests.dt_api import DTApi
from tests.function import Function, post_all
from tests.proxy import Fault, Forward, Proxy, answer, delay, forward_only
from tests.tcp_proxy import TcpProxy

START = datetime(2026, 5, 16, 8, tzinfo=UTC)
TARGET = "projects/p/devices/d"


def body(event_id: str, seconds: int = 0, event_type: str = "touch", value: Any = 1, **around: Any) -> bytes:
    """Return the body of an event of the device, so many seconds after the start."""
    event = {
        "eventId": event_id,
        "targetName": TARGET,
        "eventType": event_type,
        "timestamp": (START + timedelta(seconds=seconds)).isoformat(),
        "data": {"value": value},
    }
    return json.dumps({"event": event | around.pop("event", {}), **around}).encode()


@pytest.fixture
def function(start: Callable[..., Endpoint]) -> Endpoint:
    """Return the function with a collection of devices."""
    return start(DEVICES_COLLECTION="devices")


@pytest.fixture
def faulted(start: Callable[..., Endpoint], proxy: Proxy) -> Endpoint:
    """Return the function with a collection of devices, whose Firestore is behind the proxy."""
    return start(DEVICES_COLLECTION="devices", FIRESTORE_EMULATOR_HOST=proxy.host)


@pytest.fixture
def devices(database: firestore.Client) -> Documents:
    """Return a function that reads all documents of devices, by key."""
    return lambda: {doc.id: doc.to_dict() or {} for doc in database.collection("devices").stream()}


def test_nothing_is_kept_without_the_setting(endpoint: Endpoint, devices: Documents) -> None:
    """Without DEVICES_COLLECTION no document of a device is written."""
    assert endpoint.deliver(body("a")).status_code == 200
    assert devices() == {}


def test_first_event_creates_the_document(function: Endpoint, devices: Documents) -> None:
    """The document has the fields of the contract."""
    response = function.deliver(body("a", labels={"room": "1"}, metadata={"deviceType": "touch"}))

    assert response.status_code == 200
    assert devices() == {
        "d": {
            "targetName": TARGET,
            "labels": {"room": "1"},
            "metadata": {"deviceType": "touch"},
            "lastSeen": START,
            "newest": {"touch": {"eventId": "a", "timestamp": START, "data": {"value": 1}}},
        }
    }


def test_older_event_changes_only_its_type(function: Endpoint, devices: Documents) -> None:
    """An older event of another type enters newest, and leaves lastSeen and labels as they are."""
    function.deliver(body("a", 10, labels={"room": "new"}))
    function.deliver(body("b", 5, "motion", labels={"room": "old"}))
    function.deliver(body("c", 1, "motion"))

    device = devices()["d"]
    assert device["lastSeen"] == START + timedelta(seconds=10)
    assert device["labels"] == {"room": "new"}
    assert {name: entry["eventId"] for name, entry in device["newest"].items()} == {"touch": "a", "motion": "b"}


def test_nothing_is_written_where_nothing_changes(
    function: Endpoint, devices: Documents, database: firestore.Client
) -> None:
    """A duplicate keeps the update time of the document."""
    function.deliver(body("a"))
    before = database.document("devices/d").get().update_time
    function.deliver(body("a"))

    assert database.document("devices/d").get().update_time == before
    assert len(devices()) == 1


def test_labels_are_removed_and_fields_of_others_stay(
    function: Endpoint, devices: Documents, database: firestore.Client
) -> None:
    """A newest event without labels and metadata removes them; a field that others added stays."""
    function.deliver(body("a", labels={"room": "1"}, metadata={"m": 1}))
    database.document("devices/d").update({"note": "mine"})
    function.deliver(body("b", 1))

    device = devices()["d"]
    assert "labels" not in device
    assert "metadata" not in device
    assert device["note"] == "mine"


@pytest.mark.parametrize("event_type", ["a.b", "`", "\\", "a b", "é", "1", "a\\`b"])
def test_odd_types_are_quoted(function: Endpoint, devices: Documents, event_type: str) -> None:
    """A type that is not a plain field name is one field of newest."""
    function.deliver(body("a", 0, event_type))
    function.deliver(body("b", 1, event_type))

    newest = devices()["d"]["newest"]
    assert list(newest) == [event_type]
    assert newest[event_type]["eventId"] == "b"


def nested(levels: int) -> Any:
    """Return a map of so many levels."""
    return {"x": nested(levels - 1)} if levels else 1


LEFT_ALONE: list[dict[str, Any]] = [
    {"targetName": 1},
    {"targetName": "projects/p"},
    {"targetName": "projects/p/devices/__x__"},
    {"eventType": 1},
    {"eventType": ""},
    {"eventType": "__x__"},
    {"timestamp": "yesterday"},
    {"data": nested(19)},
]


@pytest.mark.parametrize("change", LEFT_ALONE, ids=[f"{index}" for index in range(len(LEFT_ALONE))])
def test_what_does_not_fit_is_left_alone(
    function: Endpoint, devices: Documents, stored: Documents, change: dict[str, Any]
) -> None:
    """An event that a document of a device cannot hold is stored and acknowledged."""
    assert function.deliver(body("a", event=change)).status_code == 200
    assert list(stored()) == ["a"]
    assert devices() == {}


def test_event_without_data(function: Endpoint, devices: Documents) -> None:
    """An event without data has an entry without data."""
    event = json.loads(body("a"))
    del event["event"]["data"]

    assert function.deliver(json.dumps(event).encode()).status_code == 200
    assert devices()["d"]["newest"]["touch"] == {"eventId": "a", "timestamp": START}


def test_refused_device_write_is_left_alone(faulted: Endpoint, proxy: Proxy, devices: Documents) -> None:
    """INVALID_ARGUMENT to the write of the device leaves it alone: 200."""
    faulted.deliver(body("warm-up", event={"targetName": "none"}))
    proxy.faults.extend([forward_only, forward_only, answer(grpc.StatusCode.INVALID_ARGUMENT)])

    assert faulted.deliver(body("a")).status_code == 200
    assert devices() == {}


@pytest.mark.parametrize("code", [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.PERMISSION_DENIED])
def test_failed_read_is_healed_by_the_retry(
    faulted: Endpoint, proxy: Proxy, devices: Documents, code: grpc.StatusCode
) -> None:
    """A failed read of the device is 503, and the retry of the stored event brings the device up to date."""
    proxy.faults.extend([forward_only, answer(code)])

    first = faulted.deliver(body("a"))
    assert (first.status_code, devices()) == (503, {})
    assert faulted.deliver(body("a")).status_code == 200
    assert devices()["d"]["newest"]["touch"]["eventId"] == "a"


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.ABORTED, grpc.StatusCode.UNAVAILABLE]
)
def test_conflict_is_tried_again(faulted: Endpoint, proxy: Proxy, devices: Documents, code: grpc.StatusCode) -> None:
    """A conflict, or a failure that passes, is followed by another read and write."""
    proxy.faults.extend([forward_only, forward_only, answer(code)])

    assert faulted.deliver(body("a")).status_code == 200
    assert list(devices()) == ["d"]


def test_write_that_never_succeeds_is_not_acknowledged(faulted: Endpoint, proxy: Proxy, stored: Documents) -> None:
    """503 at the deadline when only the device cannot be written."""
    proxy.faults.append(forward_only)
    proxy.otherwise = lambda: answer(grpc.StatusCode.UNAVAILABLE)

    assert faulted.deliver(body("a")).status_code == 503
    assert list(stored()) == ["a"]


@pytest.mark.parametrize(
    "content",
    [
        {"newest": "text"},
        {"newest": {"touch": "text"}},
        {"newest": {"touch": {"timestamp": 1, "eventId": 2}}},
        {"newest": {"touch": {}}, "lastSeen": 5},
        {"lastSeen": "text", "labels": 1, "targetName": 7},
    ],
    ids=str,
)
def test_content_of_others_is_replaced(
    function: Endpoint, devices: Documents, database: firestore.Client, content: dict[str, Any]
) -> None:
    """A value of the wrong type counts as missing: the delivery is acknowledged and replaces it."""
    database.document("devices/d").set(content)

    assert function.deliver(body("a")).status_code == 200
    assert devices()["d"] == {
        "targetName": TARGET,
        "lastSeen": START,
        "newest": {"touch": {"eventId": "a", "timestamp": START, "data": {"value": 1}}},
    }


def make_devices(environ: dict[str, str]) -> Devices:
    """Return a writer as a process of its own would have it."""
    return Devices("devices", Store(read_settings(environ)))


def test_many_deliveries_for_one_device(environ: dict[str, str], devices: Documents) -> None:
    """200 deliveries at once in one process all succeed, and the newest event wins."""

    async def deliver() -> list[Outcome]:
        writer, end = make_devices(environ), new_deadline()
        return await asyncio.gather(*(writer.create(parse_event(body(f"e{n:03}", n)), end) for n in range(200)))

    assert asyncio.run(deliver()) == [Outcome.STORED] * 200
    assert devices()["d"]["newest"]["touch"]["eventId"] == "e199"


def test_race_between_processes(environ: dict[str, str], devices: Documents) -> None:
    """Two writers that share nothing, with 32 deliveries each, end with the newest."""

    def deliver(first: int) -> None:
        async def create() -> None:
            writer, end = make_devices(environ), new_deadline()
            events = [parse_event(body(f"e{n:02}", n)) for n in range(first, 64, 2)]
            await asyncio.gather(*(writer.create(event, end) for event in events))

        asyncio.run(create())

    with ThreadPoolExecutor() as pool:
        list(pool.map(deliver, [0, 1]))
    assert devices()["d"]["newest"]["touch"]["eventId"] == "e63"
    assert devices()["d"]["lastSeen"] == START + timedelta(seconds=63)


@pytest.fixture
def processes(environ: dict[str, str], proxy: Proxy, tmp_path: Path) -> Iterator[list[Function]]:
    """Return two processes of the function with a collection of devices; the Firestore of the first is the proxy's."""
    settings = environ | {"DEVICES_COLLECTION": "devices"}
    with ExitStack() as life:
        started = [Function(settings | {"FIRESTORE_EMULATOR_HOST": proxy.host}, tmp_path / "0.log")]
        life.callback(started[0].kill)
        started.append(Function(settings, tmp_path / "1.log"))
        life.callback(started[1].kill)
        yield started


def test_race_between_functions(processes: list[Function], proxy: Proxy, devices: Documents) -> None:
    """Deliveries for one device at the same time, to two processes of which one is slow, end with the newest."""
    proxy.otherwise = lambda: delay(0.03)
    bodies = [body(f"e{n:03}", n, f"type{n % 3}", labels={"n": str(n)}) for n in range(60)]

    with ThreadPoolExecutor() as pool:
        parts = (bodies[::2], bodies[1::2][::-1])
        answers = pool.map(lambda each: asyncio.run(post_all(each[0].url, each[1])), zip(processes, parts, strict=True))
        statuses = [status for part in answers for status in part]

    device = devices()["d"]
    assert statuses == [200] * 60
    assert {kind: entry["eventId"] for kind, entry in device["newest"].items()} == {
        "type0": "e057",
        "type1": "e058",
        "type2": "e059",
    }
    assert (device["labels"], device["lastSeen"]) == ({"n": "59"}, START + timedelta(seconds=59))


@pytest.mark.parametrize(("late", "other"), [("old", "new"), ("new", "old")])
def test_write_between_read_and_write(
    processes: list[Function], proxy: Proxy, devices: Documents, late: str, other: str
) -> None:
    """If another process writes the device between read and write, the write is refused, and the newest stays."""
    bodies = {"old": body("old", 0, labels={"is": "old"}), "new": body("new", 1, labels={"is": "new"})}
    held, released = threading.Event(), threading.Event()

    def hold(forward: Forward, _context: grpc.ServicerContext) -> bytes:
        held.set()
        released.wait(5)
        return forward()

    proxy.faults.extend([forward_only, forward_only, hold])  # event, read of the device, its write
    with ThreadPoolExecutor() as pool:
        first = pool.submit(asyncio.run, post_all(processes[0].url, [bodies[late]]))
        assert held.wait(5)
        second = asyncio.run(post_all(processes[1].url, [bodies[other]]))
        released.set()

    assert (first.result(), second) == ([200], [200])
    assert proxy.calls == 4 + (late == "new")  # the device is read again, and written again if it is older
    assert devices()["d"]["newest"]["touch"]["eventId"] == "new"
    assert devices()["d"]["labels"] == {"is": "new"}


@pytest.mark.parametrize("call", [2, 3], ids=["read", "write"])
def test_silence_during_the_update_of_a_device(
    start: Callable[..., Endpoint], proxy: Proxy, devices: Documents, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    """A connection that goes silent while the device is read or written is replaced: 200, and the device is right."""
    monkeypatch.setattr("receiver.channel.SILENCE_SECONDS", 1.0)
    network = TcpProxy(proxy.host)

    def silence(forward: Forward, _context: grpc.ServicerContext) -> bytes:
        answered = forward()
        network.silence()
        return answered

    faults: list[Fault] = [forward_only] * (call - 1)
    proxy.faults.extend([*faults, silence])
    endpoint = start(DEVICES_COLLECTION="devices", FIRESTORE_EMULATOR_HOST=network.host)

    status = endpoint.deliver(body("a")).status_code
    network.stop()

    assert status == 200
    assert network.connections == 2
    assert devices()["d"]["newest"]["touch"]["eventId"] == "a"


def test_backfill_brings_devices_up_to_date(
    function: Endpoint, environ: dict[str, str], devices: Documents, stored: Documents
) -> None:
    """`python -m backfill --devices` adds what it fetches to the devices, and puts no older state back."""
    api, now = DTApi(), datetime.now(UTC)
    api.install("d", name="from the API")
    target = f"projects/{api.project}/devices/d"

    def event(event_id: str, event_type: str, minutes: int) -> dict[str, Any]:
        at = (now - timedelta(minutes=minutes)).isoformat()
        names = {"eventId": event_id, "targetName": target, "eventType": event_type}
        return names | {"timestamp": at, "data": {"id": event_id}}

    api.publish("d", [event("a", "touch", 30), event("b", "touch", 10), event("c", "motion", 20)])
    delivered = {"event": event("z", "touch", 5), "labels": {"name": "delivered"}}  # the API does not have it yet
    assert function.deliver(json.dumps(delivered).encode()).status_code == 200

    command = [sys.executable, "-m", "backfill", "--dt-project", api.project, "--since", "1d", "--devices", "devices"]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | environ | api.environ, capture_output=True, timeout=60, check=False
    )
    api.stop()

    assert done.returncode == 0, done.stderr
    assert sorted(stored()) == ["a", "b", "c", "z"]
    device = devices()["d"]
    assert {kind: entry["eventId"] for kind, entry in device["newest"].items()} == {"touch": "z", "motion": "c"}
    assert device["labels"] == {"name": "delivered"}
    assert device["lastSeen"] == now - timedelta(minutes=5)


def test_events_that_fit_only_one_by_one(environ: dict[str, str], devices: Documents) -> None:
    """If Firestore cannot hold all waiting states together, each is written on its own."""

    async def deliver() -> list[Outcome]:
        writer, end = make_devices(environ), new_deadline()
        large = "x" * 600_000
        events = [parse_event(body(f"e{n}", n, f"type{n}", large)) for n in range(3)]
        return await asyncio.gather(*(writer.create(event, end) for event in events))

    assert asyncio.run(deliver()) == [Outcome.STORED] * 3
    assert len(devices()["d"]["newest"]) == 1


EVENTS = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from(["touch", "a.b"]), st.booleans()), min_size=1, max_size=5
).flatmap(
    lambda items: st.tuples(
        st.just(items),
        st.lists(st.sampled_from(range(len(items))), max_size=5).flatmap(
            lambda again: st.permutations([*range(len(items)), *again])
        ),
    )
)


@given(drawn=EVENTS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_order_ends_in_the_same_document(
    environ: dict[str, str], database: firestore.Client, drawn: tuple[list[tuple[int, str, bool]], list[int]]
) -> None:
    """Any order and duplication of a set of events ends in the document that the definition gives."""
    items, order = drawn
    bodies = [
        body(f"e{n}", seconds, kind, n, **({"labels": {"n": str(n)}} if labelled else {}))
        for n, (seconds, kind, labelled) in enumerate(items)
    ]
    database.document("devices/d").delete()

    async def deliver() -> None:
        writer = make_devices(environ)
        for n in order:
            await writer.create(parse_event(bodies[n]), new_deadline())

    asyncio.run(deliver())
    ranked = sorted(range(len(items)), key=lambda n: (items[n][0], f"e{n}"))
    last = ranked[-1]
    expected: dict[str, Any] = {
        "targetName": TARGET,
        "lastSeen": START + timedelta(seconds=items[last][0]),
        "newest": {
            items[n][1]: {
                "eventId": f"e{n}",
                "timestamp": START + timedelta(seconds=items[n][0]),
                "data": {"value": n},
            }
            for n in ranked
        },
    }
    if items[last][2]:
        expected["labels"] = {"n": str(last)}
    assert database.document("devices/d").get().to_dict() == expected


def test_calls_of_a_delivery(faulted: Endpoint, proxy: Proxy) -> None:
    """A new event costs its own write, a read and a write; a duplicate or an older event costs no second write."""
    calls = []
    for each in (body("a", 5), body("a", 5), body("b", 1), body("c", 9)):
        before = proxy.calls
        assert faulted.deliver(each).status_code == 200
        calls.append(proxy.calls - before)

    assert calls == [3, 2, 2, 3]
