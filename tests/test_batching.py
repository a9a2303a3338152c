"""Writes that leave together: each is stored once, and gets the answer of its own commit."""

import asyncio
from collections.abc import Sequence

import grpc
import pytest
from google.cloud.firestore import Client

from receiver.batching import LARGE_BYTES, MOST_WRITES
from receiver.errors import Unavailable, Unstorable
from receiver.event import Event
from receiver.settings import read_settings
from receiver.store import Store, time_limit
from tests.conftest import Documents
from tests.proxy import Forward, Proxy, answer, commit_then, refuse_every_other

Outcome = bool | str


@pytest.fixture
def store(environ: dict[str, str], proxy: Proxy) -> Store:
    """Return a store with the proxy for its Firestore."""
    return Store(read_settings(environ | {"FIRESTORE_EMULATOR_HOST": proxy.host}))


def events(*names: str, text: str = "") -> list[Event]:
    """Return an event for each key."""
    return [Event(name, {"eventId": name, "text": text}) for name in names]


def many(count: int) -> list[Event]:
    """Return as many events."""
    return events(*(f"e{number}" for number in range(count)))


def create(store: Store, together: Sequence[Event], before: Sequence[Event] = ()) -> list[Outcome]:
    """Store events at the same moment, after others one by one; return what became of the former."""

    async def outcome(event: Event) -> Outcome:
        try:
            async with time_limit():
                return await store.create(event)
        except (Unavailable, Unstorable) as refusal:
            return type(refusal).__name__

    async def run() -> list[Outcome]:
        for event in before:
            assert await store.create(event)
        return await asyncio.gather(*map(outcome, together))

    return asyncio.run(run())


@pytest.mark.parametrize(("count", "calls"), [(1, 1), (2, 1), (MOST_WRITES, 1), (2 * MOST_WRITES + 2, 3)])
def test_ready_writes_share_calls(store: Store, proxy: Proxy, stored: Documents, count: int, calls: int) -> None:
    """What is ready at the same moment leaves in as few calls as it may, and each event is stored."""
    created = create(store, many(count))

    assert created == [True] * count
    assert (proxy.calls, len(stored())) == (calls, count)


def test_writes_that_come_one_after_another_share_none(store: Store, proxy: Proxy) -> None:
    """Nobody waits for company."""
    assert create(store, [], before=many(3)) == []
    assert proxy.calls == 3


def test_each_write_has_its_own_answer(store: Store, proxy: Proxy, database: Client) -> None:
    """Of a group, those that were stored already are told so and stay as they are; the others are created."""
    known = events("e1", "e3", text="first")

    created = create(store, many(5), before=known)

    assert created == [True, False, True, False, True]
    assert proxy.calls == len(known) + 1
    texts = {document.id: document.get("text") for document in database.collection("events").stream()}
    assert texts == {"e0": "", "e1": "first", "e2": "", "e3": "first", "e4": ""}


@pytest.mark.parametrize("code", [grpc.StatusCode.ABORTED, grpc.StatusCode.INTERNAL, grpc.StatusCode.DEADLINE_EXCEEDED])
def test_write_that_is_refused_alone_commits_alone(
    store: Store, proxy: Proxy, stored: Documents, code: grpc.StatusCode
) -> None:
    """A write of a group that Firestore does not carry out goes again by itself, and is acknowledged for that."""
    proxy.faults.append(refuse_every_other(code))

    created = create(store, many(5))

    assert created == [True] * 5
    assert (proxy.calls, len(stored())) == (1 + 3, 5)


def test_write_that_stays_refused_is_not_acknowledged(store: Store, proxy: Proxy, stored: Documents) -> None:
    """Only those of a group that are stored are acknowledged."""
    internal = grpc.StatusCode.INTERNAL
    proxy.faults.extend([refuse_every_other(internal), answer(internal), answer(internal)])

    created = create(store, many(4))

    assert created == ["Unavailable", True, "Unavailable", True]
    assert set(stored()) == {"e1", "e3"}


def test_document_that_is_there_twice_is_created_once(store: Store, proxy: Proxy, stored: Documents) -> None:
    """A duplicate that comes at the same moment as its original changes nothing, and both are acknowledged."""
    created = create(store, events("same", "other", "same"))

    assert sorted(map(str, created)) == ["False", "True", "True"]
    assert proxy.calls == 1 + 3  # the group is refused as a whole
    assert set(stored()) == {"same", "other"}


def test_invalid_write_does_not_spoil_the_others(store: Store, proxy: Proxy, stored: Documents) -> None:
    """Firestore refuses a group for one invalid write; the others are stored all the same, and it alone is refused."""
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    proxy.faults.extend([answer(invalid), answer(invalid)])

    created = create(store, many(5))

    assert sorted(map(str, created)) == ["True"] * 4 + ["Unstorable"]
    assert len(stored()) == 4


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED])
def test_lost_answer_of_a_group_is_settled(
    store: Store, proxy: Proxy, stored: Documents, code: grpc.StatusCode
) -> None:
    """A group that was committed, and whose answer is lost, is found by each write's own commit."""
    proxy.faults.append(commit_then(code))

    created = create(store, many(5))

    assert created == [False] * 5
    assert len(stored()) == 5


@pytest.mark.parametrize("answered", [b"", b"\xff"], ids=["without a status", "garbled"])
def test_answer_that_makes_no_sense_settles_nothing(
    store: Store, proxy: Proxy, stored: Documents, answered: bytes
) -> None:
    """An answer to a group that cannot be read, or lacks writes, acknowledges nobody: each write commits by itself."""
    proxy.faults.append(lambda _forward, _context: answered)

    created = create(store, many(3))

    assert created == [True] * 3
    assert (proxy.calls, len(stored())) == (1 + 3, 3)


def test_group_that_is_not_answered_leaves_time_for_commits(
    store: Store, proxy: Proxy, stored: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A BatchWrite that hangs is given up in time for each write's own commit."""
    monkeypatch.setattr("receiver.store.TOTAL_SECONDS", 2)
    proxy.faults.append(proxy.hang)

    assert create(store, many(3)) == [True] * 3
    assert len(stored()) == 3


def test_firestore_that_never_answers_ends_with_the_time(
    store: Store, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deliveries whose group and whose own commits hang are not acknowledged, and do not outlive the one total."""
    monkeypatch.setattr("receiver.store.TOTAL_SECONDS", 1)
    proxy.faults.extend([proxy.hang] * 4)

    assert create(store, many(3)) == ["Unavailable"] * 3


def test_delivery_that_gave_up_does_not_disturb_its_group(store: Store, proxy: Proxy, stored: Documents) -> None:
    """A delivery that ends before its group does takes nobody with it, nor does anybody get its answer."""
    first, second, third = many(3)

    def answer_late(forward: Forward, _context: grpc.ServicerContext) -> bytes:
        proxy.released.wait()
        return forward()

    async def deliver(event: Event) -> bool:
        async with time_limit():
            return await store.create(event)

    async def run() -> list[bool | BaseException]:
        await store.create(third)
        proxy.faults.append(answer_late)
        tasks = [asyncio.create_task(deliver(event)) for event in (first, second, third)]
        while proxy.faults:
            await asyncio.sleep(0.01)
        tasks[1].cancel()
        proxy.released.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    outcomes = asyncio.run(run())

    assert (outcomes[0], outcomes[2]) == (True, False)
    assert isinstance(outcomes[1], asyncio.CancelledError)
    assert len(stored()) == 3


def test_large_write_leaves_alone(store: Store, proxy: Proxy, stored: Documents) -> None:
    """Large documents share no call, so that no call is larger than Firestore takes."""
    created = create(store, events(*"abcdefgh", text="x" * LARGE_BYTES))

    assert created == [True] * 8
    assert (proxy.calls, len(stored())) == (8, 8)
    assert MOST_WRITES * LARGE_BYTES < 4 * 1024 * 1024
