"""What the viewer reads, from the official emulator, which can listen, and from the embedded store, which cannot."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain
from typing import Any

import grpc
import pytest
from google.api_core.exceptions import Aborted, GoogleAPICallError, PermissionDenied
from google.cloud import firestore
from google.cloud.firestore import AsyncClient
from google.cloud.firestore_v1.types import Document, ListenResponse, TargetChange

from tests.events import envelope
from tests.query_recorder import QueryRecorder
from tests.tcp_proxy import TcpProxy
from tests.viewer import store
from viewer import connection, queries
from viewer import feed as feed_module
from viewer.connection import Source, StoreError
from viewer.documents import read
from viewer.feed import Feed
from viewer.listener import Result
from viewer.model import read_event
from viewer.queries import AHEAD, EPOCH, LATE, Queries

NOW = datetime(2026, 5, 16, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
_CHANGE = TargetChange.TargetChangeType


def use(host: str, monkeypatch: pytest.MonkeyPatch) -> Source:
    """Return an empty project of a Firestore, with a collection of devices."""
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", host)
    return Source(f"demo-{uuid.uuid4().hex[:12]}", "(default)", "events", "devices")


@pytest.fixture(params=["emulator_host", "embedded_host"])
def source(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Source:
    """Return an empty project, of a Firestore that can listen, and of one that cannot."""
    return use(request.getfixturevalue(request.param), monkeypatch)


@pytest.fixture
def listening(emulator_host: str, monkeypatch: pytest.MonkeyPatch) -> Source:
    """Return an empty project of a Firestore that can listen."""
    return use(emulator_host, monkeypatch)


@asynccontextmanager
async def running_feed(source: Source) -> AsyncIterator[Feed]:
    """Return a feed after its first read."""
    feed = Feed(Queries(source), lambda: True)
    await feed._step()
    assert feed.error is None
    yield feed
    feed._stop()


async def step_until(feed: Feed, condition: Callable[[], object]) -> None:
    """Look for changes until a condition holds."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)
            await feed._step()


def store_devices(database: firestore.Client, seen: dict[int, datetime]) -> None:
    """Write the documents of devices, by their numbers and the times when they were last seen."""
    batch = database.batch()
    for number, at in seen.items():
        newest = {"touch": {"eventId": "e", "timestamp": at, "data": {"touch": {}}}}
        device = {"targetName": target(number), "lastSeen": at, "newest": newest}
        batch.set(database.document(f"devices/d{number}"), device)
    batch.commit()


def quarantined(feed: Feed) -> list[str]:
    """Return the keys of the quarantine documents that are shown."""
    return [key for key, _ in feed.quarantine or ()]


def body(number: int, minutes: float = 0) -> dict[str, Any]:
    """Return the body of an event of one of many devices."""
    at = (datetime.now(UTC) - timedelta(minutes=minutes)).isoformat()
    return envelope(eventId=f"event{number}", targetName=f"projects/p/devices/d{number}", timestamp=at)


def target(number: int) -> str:
    """Return the `targetName` of a device."""
    return f"projects/p/devices/d{number}"


@contextmanager
def faulted(target: str, method: str, fault: Callable[[bytes, Any], Iterator[bytes] | None]) -> Iterator[str]:
    """Run a proxy that answers the calls of a method itself, if `fault` returns an answer to the first request.

    Args:
        target: `HOST:PORT` of the Firestore.
        method: `Listen`, for example.
        fault: gets the first request and the context of a call; returns serialized responses, or None to forward it.

    Yields:
        `HOST:PORT` of the proxy.
    """

    class Proxy(QueryRecorder):
        def service(self, details: Any) -> Any:
            handler = super().service(details)
            if not details.method.endswith(f"/{method}"):
                return handler

            def handle(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
                first = next(requests)
                answer = fault(first, context)
                yield from answer or handler.stream_stream(chain([first], requests), context)

            return grpc.stream_stream_rpc_method_handler(handle)

    proxy = Proxy(target)
    yield proxy.host
    proxy.stop()


def refuse_quarantine(request: bytes, _context: Any) -> Iterator[bytes] | None:
    """Refuse a listener of the quarantine."""
    if b"events_quarantine" not in request:
        return None
    cause = {"code": grpc.StatusCode.PERMISSION_DENIED.value[0], "message": "no"}
    change = {"target_change_type": _CHANGE.REMOVE, "target_ids": [1], "cause": cause}
    return iter([ListenResponse.serialize(ListenResponse(target_change=change))])


def spoil_quarantine(request: bytes, _context: Any) -> Iterator[bytes] | None:
    """Send a message that cannot be read to a listener of the quarantine."""
    return iter([b"\xff"]) if b"events_quarantine" in request else None


def unimplemented(_request: bytes, context: Any) -> Iterator[bytes]:
    """Answer as a server that does not know the method."""
    context.abort(grpc.StatusCode.UNIMPLEMENTED, "unknown")
    return iter(())


class TestFeed:
    """Reads are few, and do not grow."""

    def test_looks_cost_no_more_with_more_events(self, source: Source) -> None:
        """A new event costs one or two reads, however many are stored; a look without one costs at most one."""
        database = firestore.Client(project=source.project)
        store(database, [body(number, 1) for number in range(queries.RECENT + 50)])

        async def follow() -> None:
            async with running_feed(source) as feed:
                first = feed.queries.connection.reads
                assert first <= 2 * queries.RECENT + 1
                listens = feed.queries.connection.supports_listeners
                for _ in range(5):
                    await feed._step()
                idle = feed.queries.connection.reads - first
                assert idle == (0 if listens else 5)
                store(database, [body(1000, 300)])  # late: its timestamp is older than that of all others
                await step_until(feed, lambda: target(1000) in feed.sensors.by_target)
                assert feed.error is None
                store(database, [body(1001, 300)])
                await step_until(feed, lambda: target(1001) in feed.sensors.by_target)
                if listens:
                    assert feed.queries.connection.reads - first == 2

        asyncio.run(follow())

    def test_without_news_the_version_stays(self, source: Source) -> None:
        """A look that finds nothing new does not make the pages draw again."""
        store(firestore.Client(project=source.project), [body(1)])

        async def follow() -> None:
            async with running_feed(source) as feed:
                version = feed.version
                for _ in range(3):
                    await feed._step()
                assert feed.version == version
                assert [event.event_id for event in feed.events] == ["event1"]

        asyncio.run(follow())

    def test_a_fleet_is_read_in_pages(self, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
        """All devices are read, in pages, up to the limit, the last seen first."""
        monkeypatch.setattr(queries, "PAGE", 10)
        monkeypatch.setattr(queries, "DEVICES", 30)
        database, now = firestore.Client(project=source.project), datetime.now(UTC)
        store_devices(database, {number: now - number * HOUR for number in range(35)})

        async def load() -> None:
            async with running_feed(source) as feed:
                assert set(feed.sensors.by_target) == {target(number) for number in range(30)}
                assert feed.loaded

        asyncio.run(load())

    def test_without_devices_the_latest_events_tell(self, source: Source) -> None:
        """Without a collection of devices, the sensors are those of the latest events."""
        plain = Source(source.project, source.database, source.collection, None)
        store(firestore.Client(project=source.project), [body(1), body(2, 120)])

        async def load() -> None:
            async with running_feed(plain) as feed:
                assert set(feed.sensors.by_target) == {target(1), target(2)}

        asyncio.run(load())

    def test_many_events_at_once_are_shown(self, source: Source) -> None:
        """More events between two looks than a listener of the emulator finds are shown, each once."""
        database = firestore.Client(project=source.project)
        count = 2 * queries._OF_EMULATOR

        async def follow() -> None:
            async with running_feed(source) as feed:
                for start in range(0, count, 20):
                    await asyncio.to_thread(store, database, [body(number) for number in range(start, start + 20)])
                await step_until(feed, lambda: len(feed.sensors.by_target) >= count)
                shown = [event.event_id for event in feed.events]
                assert sorted(shown) == sorted(f"event{number}" for number in range(count))
                assert len(feed._new_events._sent) <= queries._OF_EMULATOR

        asyncio.run(follow())

    def test_sensors_of_a_burst_are_up_to_date(self, source: Source) -> None:
        """If more events come at once than the query finds, the sensors are read from the documents of the devices."""
        database, count = firestore.Client(project=source.project), queries.RECENT + 50
        store(database, [body(0)])

        async def follow() -> None:
            async with running_feed(source) as feed:
                store_devices(database, dict.fromkeys(range(1, count), datetime.now(UTC)))
                await asyncio.to_thread(store, database, [body(number) for number in range(1, count)])
                await step_until(feed, lambda: len(feed.sensors.by_target) == count)

        asyncio.run(follow())

    def test_a_document_that_changes_is_shown_once(self, source: Source) -> None:
        """An event whose document changes right after its creation is shown once, with its last data."""
        database = firestore.Client(project=source.project)

        async def follow() -> None:
            async with running_feed(source) as feed:
                store(database, [body(1)])
                database.document("events/event1").update({"data": {"temperature": {"value": 7}}})
                await asyncio.sleep(0.5)
                await step_until(feed, lambda: feed.events)
                await feed._step()
                assert [(event.event_id, event.value) for event in feed.events] == [("event1", "7 °C")]

        asyncio.run(follow())

    def test_the_quarantine_is_read_when_the_page_opens(self, source: Source) -> None:
        """What was resolved while no page showed the quarantine is not shown when one is opened again."""
        documents = firestore.Client(project=source.project).collection("events_quarantine")
        for key in "ab":
            documents.document(key).set({"body": b"{}", "receivedAt": NOW + HOUR * (key == "b")})

        async def follow() -> None:
            async with running_feed(source) as feed:
                for pages in (1, 0):
                    feed.quarantine_pages = pages
                    await feed._step()
                assert quarantined(feed) == ["b", "a"]
                documents.document("a").update({"resolvedAt": NOW})
                feed.quarantine_pages = 1
                await feed._step()
                assert quarantined(feed) == ["b"]

        asyncio.run(follow())

    def test_the_quarantine_is_read_when_it_changes(self, source: Source) -> None:
        """What backfill put in quarantine is shown, what is resolved is not; while nothing changes, reads stay few."""
        database, now = firestore.Client(project=source.project), datetime.now(UTC)
        documents = database.collection("events_quarantine")
        for number in range(5):
            documents.document(f"{number}").set({"body": b"{}", "receivedAt": now - number * HOUR})
        documents.document("0").update({"resolvedAt": now, "resolvedAs": "e"})
        documents.document("backfilled").set({"body": b"{}", "backfilledAt": now - HOUR / 2})

        async def follow() -> None:
            async with running_feed(source) as feed:
                feed.quarantine_pages = 1
                await feed._step()
                assert quarantined(feed) == ["backfilled", "1", "2", "3", "4"]
                before = feed.queries.connection.reads
                await feed._step()
                expected = (
                    0 if feed.queries.connection.supports_listeners else 3
                )  # one of events, the newest of both kinds
                assert feed.queries.connection.reads - before == expected
                documents.document("new").set({"body": b"{}", "backfilledAt": now + HOUR})
                await step_until(feed, lambda: quarantined(feed)[0] == "new")

        asyncio.run(follow())


class TestListening:
    """Where Firestore can listen, it sends what changes."""

    def test_what_is_resolved_or_deleted_disappears(self, listening: Source) -> None:
        """A quarantine document that is resolved, and one that is deleted, are no longer shown."""
        documents = firestore.Client(project=listening.project).collection("events_quarantine")
        for key in "abc":
            documents.document(key).set({"body": b"{}", "receivedAt": NOW})

        async def follow() -> None:
            async with running_feed(listening) as feed:
                feed.quarantine_pages = 1
                await feed._step()
                assert set(quarantined(feed)) == {"a", "b", "c"}
                documents.document("a").update({"resolvedAt": NOW})
                await step_until(feed, lambda: set(quarantined(feed)) == {"b", "c"})
                documents.document("b").delete()
                await step_until(feed, lambda: set(quarantined(feed)) == {"c"})
                feed.quarantine_pages = 0
                await feed._step()
                assert [query.began_at for query in feed._quarantine] == [None, None]

        asyncio.run(follow())

    def test_a_listener_is_renewed(self, listening: Source, monkeypatch: pytest.MonkeyPatch) -> None:
        """A listener is renewed from a little before the newest event, so that what is shown is hardly read again."""
        monkeypatch.setattr(feed_module, "_RENEW", timedelta(0))
        monkeypatch.setattr(queries, "LATE", timedelta(0))
        database = firestore.Client(project=listening.project)
        store(database, [body(number) for number in range(30)])

        async def follow() -> None:
            async with running_feed(listening) as feed:
                first = feed.queries.connection.reads
                for _ in range(4):
                    await feed._step()
                assert feed.queries.connection.reads - first == 4  # a query that finds nothing costs one read
                store(database, [body(1000)])
                await step_until(feed, lambda: target(1000) in feed.sensors.by_target)
                feed._stop()
                async with asyncio.timeout(20):
                    while len(asyncio.all_tasks()) > 1:
                        await asyncio.sleep(0.02)

        asyncio.run(follow())

    def test_a_lost_connection_is_noticed_and_replaced(
        self, listening: Source, emulator_host: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """When Firestore closes the connection the feed connects again, and says so only if that fails."""
        proxy = TcpProxy(emulator_host)
        monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", proxy.host)
        database = AsyncClient(project=listening.project)

        async def follow() -> None:
            async with running_feed(listening) as feed:
                proxy.close_connections()
                await step_until(feed, lambda: proxy.connections > 1)
                assert feed.error is None
                await database.document("events/late").set({"eventId": "late", "receivedAt": datetime.now(UTC)})
                await step_until(feed, lambda: [event.event_id for event in feed.events] == ["late"])
                proxy.refuse()
                proxy.close_connections()
                await step_until(feed, lambda: feed.error)
                assert feed.error == "Firestore does not answer (ServiceUnavailable)."

        asyncio.run(follow())

    def test_an_event_may_come_late_in_the_cloud(self, listening: Source, monkeypatch: pytest.MonkeyPatch) -> None:
        """By `timestamp`, an event is new if it comes a little after one with a later timestamp."""
        monkeypatch.setattr(Source, "is_local", False)
        database = firestore.Client(project=listening.project)
        store(database, [body(1)])

        async def follow() -> None:
            async with running_feed(listening) as feed:
                store(database, [body(2, minutes=0.5 * LATE.total_seconds() / 60)])
                await step_until(feed, lambda: target(2) in feed.sensors.by_target)
                assert len(feed.events) == 2

        asyncio.run(follow())

    def test_an_old_event_is_not_shown_again(self, listening: Source, monkeypatch: pytest.MonkeyPatch) -> None:
        """An event that the query still finds, but which others have replaced among the latest, is not new again."""
        monkeypatch.setattr(Source, "is_local", False)
        for module in (queries, feed_module):
            monkeypatch.setattr(module, "RECENT", 3)
        database = firestore.Client(project=listening.project)
        store(database, [body(3, 0.3)])

        async def follow() -> None:
            async with running_feed(listening) as feed:
                for number, minutes in ((1, 0.5), (2, 0.4), (4, 0.2)):
                    store(database, [body(number, minutes)])
                    await step_until(feed, partial(feed.sensors.by_target.get, target(number)))
                version = feed.version
                for _ in range(3):
                    await feed._step()
                assert feed.version == version
                assert [event.event_id for event in feed.events] == ["event1", "event2", "event4"]
                database.document("events/event4").delete()  # so that event1 is one of the newest three again
                await step_until(feed, lambda: "event4" not in {each.key for each in feed._new_events._sent.values()})
                await feed._step()
                assert [event.event_id for event in feed.events] == ["event1", "event2", "event4"]

        asyncio.run(follow())

    def test_after_silence_the_devices_are_read(
        self, listening: Source, emulator_host: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After a silence with more events than a query finds, all sensors are up to date, also with the page open."""
        proxy = TcpProxy(emulator_host)
        monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", proxy.host)
        monkeypatch.setattr(queries, "_OF_EMULATOR", 3)
        monkeypatch.setattr(connection, "_SECONDS", 2.0)
        patch = pytest.MonkeyPatch()
        patch.setenv("FIRESTORE_EMULATOR_HOST", emulator_host)
        database = firestore.Client(project=listening.project)
        patch.undo()
        store(database, [body(0)])

        async def follow() -> None:
            async with running_feed(listening) as feed:
                feed.quarantine_pages = 1
                await feed._step()
                proxy.silence()
                store(database, [body(number) for number in range(1, 8)])
                store_devices(database, dict.fromkeys(range(1, 8), datetime.now(UTC)))
                await feed._step()
                assert target(7) not in feed.sensors.by_target
                monkeypatch.setattr(feed_module, "_RENEW", timedelta(0))  # as after fifteen minutes
                await feed._step()
                monkeypatch.setattr(feed_module, "_RENEW", timedelta(minutes=15))
                await feed._step()
                assert feed.error == "Firestore does not answer (TimeoutError)."
                await step_until(feed, lambda: feed.error is None)
                assert set(feed.sensors.by_target) == {target(number) for number in range(8)}

        asyncio.run(follow())
        proxy.stop()

    def test_a_message_that_cannot_be_read(
        self, listening: Source, emulator_host: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After a message that cannot be read, as the emulator sends them under load, Firestore is polled."""
        with faulted(emulator_host, "Listen", spoil_quarantine) as host:
            monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", host)
            database = firestore.Client(project=listening.project)

            async def follow() -> None:
                async with running_feed(listening) as feed:
                    assert feed._new_events.began_at
                    feed.quarantine_pages = 1
                    await feed._step()
                    assert not feed.queries.connection.supports_listeners
                    store(database, [body(1)])
                    await step_until(feed, lambda: target(1) in feed.sensors.by_target)
                    assert feed._new_events.began_at is None

            asyncio.run(follow())

    def test_only_the_quarantine_is_refused(
        self, listening: Source, emulator_host: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """If the quarantine may not be read, the page says so, and events go on; the quarantine does not look empty."""
        with faulted(emulator_host, "Listen", refuse_quarantine) as host:
            monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", host)
            database = firestore.Client(project=listening.project)

            async def follow() -> None:
                async with running_feed(listening) as feed:
                    feed.quarantine_pages = 1
                    await feed._step()
                    assert (
                        feed.error == "Google Cloud refuses to read: the account needs the role roles/datastore.viewer."
                    )
                    assert feed.quarantine is None
                    store(database, [body(1)])
                    await step_until(feed, lambda: target(1) in feed.sensors.by_target)

            asyncio.run(follow())


class TestResult:
    """What a query finds, by the messages that Firestore sends to a listener."""

    def test_documents_come_and_go(self) -> None:
        """A result is complete after CURRENT and a change without targets; documents leave it in three ways."""
        result = Result()

        assert not result.add(_target(_CHANGE.ADD, [1]))
        assert not any(result.add(_found(key)) for key in "abcd")
        assert not result.add(_target(_CHANGE.NO_CHANGE))
        assert not result.add(_target(_CHANGE.CURRENT, [1]))
        assert result.add(_target(_CHANGE.NO_CHANGE))
        assert set(result.documents) == set("abcd")
        result.add(_message(document_delete={"document": "a"}))
        result.add(_message(document_remove={"document": "b"}))
        result.add(_message(document_change={"document": Document(name="c"), "removed_target_ids": [1]}))
        assert not result.add(_message(filter={"target_id": 1, "count": 1}))
        assert set(result.documents) == {"d"}

    def test_an_unknown_message_changes_nothing(self) -> None:
        """A message of a kind that the client does not know is passed over."""
        assert not Result().add(_message())

    def test_a_reset_begins_again(self) -> None:
        """After RESET, Firestore sends all documents again, and the result is complete only after that."""
        result = Result()
        result.add(_found("a"))
        result.add(_target(_CHANGE.CURRENT, [1]))
        result.add(_target(_CHANGE.RESET, [1]))

        assert not result.add(_target(_CHANGE.NO_CHANGE))
        assert result.documents == {}

    @pytest.mark.parametrize(
        ("message", "error"),
        [
            ({"filter": {"target_id": 1, "count": 7}}, Aborted),
            (
                {
                    "target_change": {
                        "target_change_type": _CHANGE.REMOVE,
                        "cause": {"code": grpc.StatusCode.PERMISSION_DENIED.value[0], "message": "no"},
                    }
                },
                PermissionDenied,
            ),
        ],
        ids=["count", "refused"],
    )
    def test_a_listener_fails(self, message: dict[str, Any], error: type[GoogleAPICallError]) -> None:
        """A query that Firestore refuses, and a number of documents that is another one, are errors."""
        with pytest.raises(error):
            Result().add(_message(**message))


def _message(**content: Any) -> Any:
    return ListenResponse.pb(ListenResponse(**content))


def _target(kind: Any, ids: list[int] | None = None) -> Any:
    return _message(target_change={"target_change_type": kind, "target_ids": ids or []})


def _found(name: str) -> Any:
    return _message(document_change={"document": Document(name=name), "target_ids": [1]})


def test_a_failure_has_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that does not answer is an error of the feed, and so is a document that is asked for."""
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", "127.0.0.1:9")
    source = Source("demo-x", "(default)", "events", None)

    async def fail() -> str | None:
        feed = Feed(Queries(source), lambda: True)
        await feed._step()
        with pytest.raises(StoreError):
            await feed.queries.document("e")
        return feed.error

    assert asyncio.run(fail()) == "Firestore does not answer (ServiceUnavailable)."


def test_no_failure_ends_the_feed(
    emulator_host: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without credentials, and after a fault of its own, the feed says so once in the log, and looks again."""
    source = use(emulator_host, monkeypatch)
    said: list[str | None] = []

    async def follow() -> None:
        feed = Feed(Queries(source), lambda: True)
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("FIRESTORE_EMULATOR_HOST")
            patch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/missing")
            await feed._step()
            said.append(feed.error)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Queries, "position", None)
            store(firestore.Client(project=source.project), [body(1)])
            await feed._step()
            await feed._step()
            said.append(feed.error)
        await feed._step()
        said.append(feed.error)
        assert set(feed.sensors.by_target) == {target(1)}
        feed._stop()

    asyncio.run(follow())

    assert said == [
        "There are no usable Google Cloud credentials (DefaultCredentialsError).",
        "The viewer has failed (TypeError); its output says more.",
        None,
    ]
    assert [record.exc_info is not None for record in caplog.records if record.name == "viewer.feed"] == [True]


def test_an_unknown_call_is_an_error(emulator_host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """UNIMPLEMENTED for a query, as a wrong server answers, is an error like others."""
    with faulted(emulator_host, "RunQuery", unimplemented) as host:
        source = use(host, monkeypatch)

        async def fail() -> str | None:
            feed = Feed(Queries(source), lambda: True)
            await feed._step()
            return feed.error

        assert asyncio.run(fail()) == "Firestore does not answer (MethodNotImplemented)."


def test_documents_are_read_as_the_client_reads_them(source: Source) -> None:
    """Each kind of value becomes the value that Firestore's own client makes of it; a place becomes a map."""
    client = firestore.Client(project=source.project)
    values = {"text": "é", "whole": 2**60, "real": 1.5, "yes": True, "nothing": None, "bytes": b"\0", "time": NOW}
    fields = {"timestamp": NOW, **values, "list": [1, "a", {"b": [None]}], "map": dict(values), "empty": []}
    client.document("events/one").set(fields | {"place": firestore.GeoPoint(1, 2)})

    (found,) = asyncio.run(read(AsyncClient(project=source.project).collection("events").limit(5), 10.0))

    stored = client.document("events/one").get().to_dict() or {}
    assert found == ("one", stored | {"place": {"latitude": 1, "longitude": 2}})


def test_a_cloud_is_queried_by_an_indexed_field(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the cloud, events are new by `timestamp`; one of the future does not hide those that follow."""
    monkeypatch.delenv("FIRESTORE_EMULATOR_HOST", raising=False)
    reader = Queries(Source("p", "(default)", "events", None))

    def position(at: datetime) -> datetime:
        return reader.position(read_event("e", {"timestamp": at}))

    assert position(NOW) == NOW
    before = datetime.now(UTC)
    assert before <= position(before + AHEAD / 2) <= datetime.now(UTC)
    assert position(datetime(2999, 1, 1, tzinfo=UTC)) == EPOCH
