"""A silent connection is replaced within the same delivery, and a slow Firestore is not taken for a silent one."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import grpc
import grpc.aio
import pytest

from receiver.batching import Outcome
from receiver.channel import COMMIT, _Call
from receiver.errors import Unavailable
from receiver.event import Event
from receiver.settings import read_settings
from receiver.store import Store, new_deadline
from tests.conftest import Documents, Endpoint
from tests.events import encode, envelope
from tests.proxy import Proxy, answer, delay, forward_only
from tests.tcp_proxy import TcpProxy

SILENCE = 1.0  # seconds, in the tests that do not use the real figures


@pytest.fixture
def network(proxy: Proxy) -> Iterator[TcpProxy]:
    """Return the TCP connections between the function and the gRPC proxy."""
    network = TcpProxy(proxy.host)
    yield network
    network.stop()


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the times after which a channel counts as silent."""
    monkeypatch.setattr("receiver.channel.SILENCE_SECONDS", SILENCE)
    monkeypatch.setattr("receiver.channel.GIVE_UP_SECONDS", 2 * SILENCE)


@pytest.fixture
def endpoint(start: Callable[..., Endpoint], network: TcpProxy) -> Endpoint:
    """Return the function, whose Firestore is behind both proxies."""
    return start(FIRESTORE_EMULATOR_HOST=network.host)


@pytest.fixture
def store(environ: dict[str, str], network: TcpProxy) -> Store:
    """Return a store whose Firestore is behind both proxies."""
    return Store(read_settings(environ | {"FIRESTORE_EMULATOR_HOST": network.host}))


def deliver(endpoint: Endpoint, count: int) -> list[int]:
    """Deliver as many new events at once; return the statuses."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda _: endpoint.deliver(encode(envelope())).status_code, range(count)))


async def create(store: Store, event_ids: Sequence[str]) -> list[Outcome]:
    """Create events at the same time."""
    return await asyncio.gather(*(store.create(Event(name, {}), new_deadline()) for name in event_ids))


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition; raise TimeoutError if it does not come true."""
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("seconds", [0, 3])
def test_silent_connection_is_replaced_within_the_delivery(
    endpoint: Endpoint, proxy: Proxy, network: TcpProxy, stored: Documents, seconds: float
) -> None:
    """With the real figures: when the connection goes silent, every delivery is 200, also if a call takes 3 s."""
    deliver(endpoint, 1)
    proxy.otherwise = lambda: delay(seconds)
    network.silence()

    statuses = deliver(endpoint, 8)

    assert statuses == [200] * 8
    assert len(stored()) == 9
    assert network.connections == 2


def test_slow_firestore_is_not_silent(store: Store, proxy: Proxy, network: TcpProxy) -> None:
    """With the real figures: 40 creates at once succeed while each call takes 5 s, with no more calls than needed.

    One Commit and two batches go to the first channel. After 2.5 s without an answer they go to a second one too.
    """

    async def run() -> list[Outcome]:
        await create(store, ["first"])
        proxy.otherwise = lambda: delay(5)
        return await create(store, [f"{number}" for number in range(40)])

    outcomes = asyncio.run(run())

    assert outcomes == [Outcome.STORED] * 40
    assert proxy.calls == 1 + 2 * 3
    assert network.connections == 2


@pytest.mark.usefixtures("fast")
def test_new_channel_takes_over(store: Store, proxy: Proxy, network: TcpProxy) -> None:
    """The channel that answers replaces the silent one for all calls that follow; the silent one is closed."""

    async def run() -> list[int]:
        await create(store, ["a"])
        network.silence()
        await create(store, ["b"])
        calls = [proxy.calls]
        await create(store, ["c"])
        await create(store, ["d"])
        calls.append(proxy.calls)
        await until(lambda: network.open_connections() == 1)
        return calls

    before, after = asyncio.run(run())

    assert after - before == 2
    assert network.connections == 2


@pytest.mark.usefixtures("fast")
def test_each_silence_is_survived(store: Store, network: TcpProxy) -> None:
    """A second channel is not kept idle, where it could go silent with the first: each silence costs one connection."""

    async def run() -> list[Outcome]:
        outcomes = await create(store, ["0"])
        for number in range(1, 4):
            network.silence()
            outcomes += await create(store, [f"{number}{letter}" for letter in "abc"])
        await until(lambda: network.open_connections() == 1)
        return outcomes

    assert set(asyncio.run(run())) == {Outcome.STORED}
    assert 4 <= network.connections <= 8  # on a busy machine, a working channel may seem silent


@pytest.mark.usefixtures("fast")
def test_slow_answer_on_the_first_channel_wins(store: Store, proxy: Proxy, network: TcpProxy) -> None:
    """When the first channel answers after all, it stays in use, and the second channel is closed."""

    async def run() -> list[Outcome]:
        await create(store, ["a"])
        proxy.faults.extend([delay(1.5 * SILENCE), delay(60)])
        outcomes = await create(store, ["b"])
        await until(lambda: network.open_connections() == 1)
        return outcomes + await create(store, ["c"])

    assert asyncio.run(run()) == [Outcome.STORED] * 2
    assert network.connections == 2


def test_other_answers_show_that_the_channel_works(store: Store, proxy: Proxy, network: TcpProxy) -> None:
    """With the real figures: a call that takes 5 s on a channel that answers other calls is not sent again."""

    async def run() -> None:
        await create(store, ["a"])
        proxy.faults.append(delay(5))
        slow = asyncio.create_task(create(store, ["slow"]))
        await until(lambda: proxy.calls == 2)
        number = 0
        while not slow.done():
            number += 1
            await create(store, [f"quick{number}-{text}" for text in "ab"])
            await asyncio.sleep(0.1)
        await slow

    asyncio.run(run())

    assert network.connections == 1


@pytest.mark.usefixtures("fast")
def test_calls_in_progress_survive_the_change(store: Store, network: TcpProxy) -> None:
    """A call that waits on the silent channel is sent again on the channel that has replaced it meanwhile."""

    async def run() -> list[Outcome]:
        await create(store, ["a"])
        network.silence()
        first = asyncio.create_task(create(store, ["b"]))
        await asyncio.sleep(SILENCE / 2)
        later = asyncio.create_task(create(store, ["c", "d"]))
        outcomes = await first + await later
        await until(lambda: network.open_connections() == 1)
        return outcomes

    assert asyncio.run(run()) == [Outcome.STORED] * 3
    assert network.connections == 2


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ALREADY_EXISTS])
def test_error_on_the_second_channel_is_an_answer(
    store: Store, proxy: Proxy, network: TcpProxy, code: grpc.StatusCode
) -> None:
    """An error on the second channel is handled like any other: retried, or the proof that the event is stored."""

    async def run() -> list[Outcome]:
        await create(store, ["a"])
        network.silence()
        proxy.faults.append(answer(code))
        return await create(store, ["b"])

    stored = code is grpc.StatusCode.UNAVAILABLE
    assert asyncio.run(run()) == [Outcome.STORED if stored else Outcome.ALREADY_STORED]


@pytest.mark.usefixtures("fast")
def test_other_channel_that_cannot_connect_is_no_answer(store: Store, proxy: Proxy, network: TcpProxy) -> None:
    """While new connections are refused, a slow answer on the open one still counts, and that one stays in use."""

    async def run() -> list[Outcome]:
        await create(store, ["a"])
        network.refuse()
        proxy.faults.append(delay(3 * SILENCE))
        return await create(store, ["b"]) + await create(store, ["c"])

    assert asyncio.run(run()) == [Outcome.STORED] * 2
    assert network.connections == 1


@pytest.mark.usefixtures("fast")
def test_outage_leaves_nothing_behind(
    store: Store, proxy: Proxy, network: TcpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an outage with many deliveries, batches among them, neither tasks nor connections are left."""
    monkeypatch.setattr("receiver.store.TOTAL_SECONDS", 3 * SILENCE)

    async def run() -> set[asyncio.Task[None]]:
        await create(store, ["a"])
        proxy.otherwise = lambda: proxy.hang
        for number in range(6):
            waves = [store.create(Event(f"{number}-{text}", {}), new_deadline()) for text in "abcd"]
            outcomes = await asyncio.gather(*waves, return_exceptions=True)
            assert {type(outcome) for outcome in outcomes} == {Unavailable}
        proxy.otherwise = lambda: forward_only
        assert await create(store, ["b"]) == [Outcome.STORED]
        await until(lambda: network.open_connections() == 1)
        await until(lambda: len(asyncio.all_tasks()) == 1)
        return asyncio.all_tasks()

    assert len(asyncio.run(run())) == 1


@pytest.mark.usefixtures("fast")
def test_outage_makes_few_connections(
    store: Store, proxy: Proxy, network: TcpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While Firestore answers nothing, all deliveries share one second channel, which is replaced now and then."""
    monkeypatch.setattr("receiver.store.TOTAL_SECONDS", 8 * SILENCE)

    async def refused(name: str, pause: float) -> bool:
        await asyncio.sleep(pause)
        with pytest.raises(Unavailable):
            await store.create(Event(name, {}), new_deadline())
        return True

    async def run() -> list[bool]:
        await create(store, ["a"])
        proxy.otherwise = lambda: proxy.hang
        began = time.monotonic()
        results = await asyncio.gather(*(refused(f"{number}", number * SILENCE / 10) for number in range(60)))
        assert time.monotonic() - began > 10 * SILENCE
        return results

    assert asyncio.run(run()) == [True] * 60
    assert 2 < network.connections <= 2 + 14 * SILENCE / (2 * SILENCE)


@pytest.mark.usefixtures("fast")
def test_firestore_that_comes_back_is_used(
    store: Store, proxy: Proxy, network: TcpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an outage of both channels, a fresh one stores the next delivery."""
    monkeypatch.setattr("receiver.store.TOTAL_SECONDS", 4 * SILENCE)

    async def run() -> list[Outcome]:
        await create(store, ["a"])
        proxy.otherwise = lambda: proxy.hang
        with pytest.raises(Unavailable):
            await create(store, ["b"])
        network.silence()
        proxy.otherwise = lambda: forward_only
        return await create(store, ["c"])

    assert asyncio.run(run()) == [Outcome.STORED]


def test_failure_of_the_other_channel_after_the_answer_changes_nothing(store: Store) -> None:
    """When a call has been answered, a failure on the other channel does not send its request again."""

    async def run() -> bool:
        await create(store, ["a"])
        (connection,) = [task.result() for task in store._connections.values()]
        call = _Call(connection.channels, COMMIT, b"")
        with pytest.raises(grpc.aio.AioRpcError):
            await call.answer()
        failed: asyncio.Task[None] = asyncio.create_task(unavailable())
        await asyncio.wait({failed})
        call._use_other(failed)
        return call._timer.cancelled()

    async def unavailable() -> None:
        raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "", "")

    assert asyncio.run(run())
