"""Creates that share a BatchWrite: each is stored once, and gets the answer to its own create."""

import asyncio
from collections.abc import Sequence

import grpc
import pytest
from google.cloud.firestore import Client

from receiver.batching import LARGE_BYTES, MOST_WRITES, Outcome
from receiver.errors import Unavailable, Unprocessable
from receiver.event import Event
from receiver.settings import read_settings
from receiver.store import Store, new_deadline
from tests.conftest import Documents
from tests.proxy import Forward, Proxy, answer, commit_then, refuse_every_other

STORED, ALREADY_STORED = Outcome.STORED, Outcome.ALREADY_STORED
Result = Outcome | str


@pytest.fixture
def store(environ: dict[str, str], proxy: Proxy) -> Store:
    """Return a store whose Firestore is behind the proxy."""
    return Store(read_settings(environ | {"FIRESTORE_EMULATOR_HOST": proxy.host}))


def events(*names: str, text: str = "") -> list[Event]:
    """Return an event for each key."""
    return [Event(name, {"eventId": name, "text": text}) for name in names]


def many(count: int) -> list[Event]:
    """Return `count` events."""
    return events(*(f"e{number}" for number in range(count)))


class Creator:
    """Creates events through a store at the same time, while another create is in progress."""

    def __init__(self, store: Store, proxy: Proxy) -> None:
        """Initialize."""
        self.store = store
        self.proxy = proxy

    def __call__(self, together: Sequence[Event], before: Sequence[Event] = ()) -> list[Result]:
        """Create `before` one by one, then `together`; return the results of the latter."""
        return asyncio.run(self._run(together, before))

    async def _run(self, together: Sequence[Event], before: Sequence[Event]) -> list[Result]:
        for event in before:
            assert await self.store.create(event, new_deadline()) is STORED
        other = await self.hold()
        results = await asyncio.gather(*map(self.result, together))
        other.cancel()
        return results

    async def hold(self) -> asyncio.Task[Result]:
        """Return a create that the proxy does not answer."""
        calls = self.proxy.calls
        self.proxy.faults.appendleft(self.proxy.hang)
        task = asyncio.create_task(self.result(Event("held", {})))
        while self.proxy.calls == calls:
            await asyncio.sleep(0.01)
        return task

    async def result(self, event: Event) -> Result:
        """Create an event; return the outcome, or the name of the error."""
        try:
            return await self.store.create(event, new_deadline())
        except (Unavailable, Unprocessable) as refusal:
            return type(refusal).__name__


@pytest.fixture
def create(store: Store, proxy: Proxy) -> Creator:
    """Return a function that creates events at the same time."""
    return Creator(store, proxy)


def test_create_that_is_alone_is_not_batched(store: Store, proxy: Proxy, stored: Documents) -> None:
    """A create that finds no other one in progress has a call of its own; those beside it share one."""

    async def run() -> list[Outcome]:
        return await asyncio.gather(*(store.create(event, new_deadline()) for event in many(5)))

    assert asyncio.run(run()) == [STORED] * 5
    assert (proxy.calls, len(stored())) == (2, 5)


@pytest.mark.parametrize(("count", "calls"), [(1, 1), (2, 1), (MOST_WRITES, 1), (2 * MOST_WRITES + 2, 3)])
def test_ready_creates_share_calls(create: Creator, proxy: Proxy, stored: Documents, count: int, calls: int) -> None:
    """Creates that are ready at the same time are sent in as few calls as possible, and each event is stored."""
    created = create(many(count))

    assert created == [STORED] * count
    assert (proxy.calls, len(stored())) == (1 + calls, count)


def test_creates_that_come_one_after_another_share_no_call(create: Creator, proxy: Proxy) -> None:
    """No create waits for another one to come."""
    assert create([], before=many(3)) == []
    assert proxy.calls == 3 + 1


def test_each_create_has_its_own_outcome(create: Creator, proxy: Proxy, database: Client) -> None:
    """In a batch, events that were stored already are left as they are; the others are created."""
    known = events("e1", "e3", text="first")

    created = create(many(5), before=known)

    assert created == [STORED, ALREADY_STORED, STORED, ALREADY_STORED, STORED]
    assert proxy.calls == len(known) + 1 + 1
    texts = {document.id: document.get("text") for document in database.collection("events").stream()}
    assert texts == {"e0": "", "e1": "first", "e2": "", "e3": "first", "e4": ""}


@pytest.mark.parametrize("code", [grpc.StatusCode.ABORTED, grpc.StatusCode.INTERNAL, grpc.StatusCode.DEADLINE_EXCEEDED])
def test_write_that_fails_in_a_batch_is_committed_alone(
    create: Creator, proxy: Proxy, stored: Documents, code: grpc.StatusCode
) -> None:
    """A write that Firestore does not carry out in a batch is sent again in a Commit, whose outcome counts."""
    proxy.faults.append(refuse_every_other(code))

    created = create(many(5))

    assert created == [STORED] * 5
    assert (proxy.calls, len(stored())) == (1 + 1 + 3, 5)


def test_write_that_fails_twice_is_not_acknowledged(create: Creator, proxy: Proxy, stored: Documents) -> None:
    """Only those events of a batch that are stored are acknowledged."""
    internal = grpc.StatusCode.INTERNAL
    proxy.faults.extend([refuse_every_other(internal), answer(internal), answer(internal)])

    created = create(many(4))

    assert created == ["Unavailable", STORED, "Unavailable", STORED]
    assert set(stored()) == {"e1", "e3"}


def test_event_that_is_twice_in_a_batch_is_created_once(create: Creator, proxy: Proxy, stored: Documents) -> None:
    """A duplicate that arrives together with its original changes nothing, and both are acknowledged."""
    created = create(events("same", "other", "same"))

    assert sorted(map(str, created)) == sorted(map(str, [ALREADY_STORED, STORED, STORED]))
    assert proxy.calls == 1 + 1 + 3  # Firestore refuses the batch as a whole
    assert set(stored()) == {"same", "other"}


def test_invalid_write_does_not_affect_the_others(create: Creator, proxy: Proxy, stored: Documents) -> None:
    """Firestore refuses a batch with one invalid write; all others are stored, and only that one is refused."""
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    proxy.faults.extend([answer(invalid), answer(invalid)])

    created = create(many(5))

    assert sorted(map(str, created)) == [str(STORED)] * 4 + ["Unprocessable"]
    assert len(stored()) == 4


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED])
def test_lost_answer_to_a_batch_is_settled(
    create: Creator, proxy: Proxy, stored: Documents, code: grpc.StatusCode
) -> None:
    """After a batch whose answer was lost, the Commit of each write finds that it was carried out."""
    proxy.faults.append(commit_then(code))

    created = create(many(5))

    assert created == [ALREADY_STORED] * 5
    assert len(stored()) == 5


@pytest.mark.parametrize("answered", [b"", b"\xff"], ids=["without a status", "garbled"])
def test_unreadable_answer_to_a_batch_settles_nothing(
    create: Creator, proxy: Proxy, stored: Documents, answered: bytes
) -> None:
    """After an answer that cannot be read, or lacks writes, each write is sent in a Commit of its own."""
    proxy.faults.append(lambda _forward, _context: answered)

    created = create(many(3))

    assert created == [STORED] * 3
    assert (proxy.calls, len(stored())) == (1 + 1 + 3, 3)


def test_firestore_that_never_answers_ends_with_the_deadline(
    create: Creator, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Creates whose batch is not answered are not acknowledged, and end with the deadline."""
    monkeypatch.setattr("receiver.store.TOTAL_SECONDS", 1)
    proxy.faults.append(proxy.hang)

    assert create(many(3)) == ["Unavailable"] * 3


def test_delivery_that_ends_early_does_not_disturb_its_batch(
    create: Creator, store: Store, proxy: Proxy, stored: Documents
) -> None:
    """When a delivery ends before its batch is answered, the others of the batch get their own outcomes."""
    first, second, third = many(3)

    def answer_late(forward: Forward, _context: grpc.ServicerContext) -> bytes:
        proxy.released.wait()
        return forward()

    async def run() -> list[Result | BaseException]:
        await store.create(third, new_deadline())
        held = await create.hold()
        proxy.faults.append(answer_late)
        tasks = [asyncio.create_task(create.result(event)) for event in (first, second, third)]
        while proxy.faults:
            await asyncio.sleep(0.01)
        tasks[1].cancel()
        proxy.released.set()
        held.cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    outcomes = asyncio.run(run())

    assert (outcomes[0], outcomes[2]) == (STORED, ALREADY_STORED)
    assert isinstance(outcomes[1], asyncio.CancelledError)
    assert len(stored()) == 3


def test_large_write_is_not_batched(create: Creator, proxy: Proxy, stored: Documents) -> None:
    """Large documents share no call, so that no call is larger than Firestore accepts."""
    created = create(events(*"abcdefgh", text="x" * LARGE_BYTES))

    assert created == [STORED] * 8
    assert (proxy.calls, len(stored())) == (1 + 8, 8)
    assert MOST_WRITES * LARGE_BYTES < 4 * 1024 * 1024
