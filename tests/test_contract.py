"""Each row of the contract's table of requests, with a look at what is stored after it."""

import asyncio
import hashlib
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from disruptive.events import Event
from google.cloud import firestore

import receiver.store
from tests import signing
from tests.conftest import Documents, Endpoint
from tests.events import DATA, encode, envelope


def test_new_event_is_stored_and_acknowledged(endpoint: Endpoint, stored: Documents) -> None:
    """An authentic, new event is answered 200 OK and is in Firestore, each field as the contract says."""
    body = envelope()
    event = body["event"]

    response = endpoint.deliver(encode(body))

    assert (response.status_code, response.text) == (200, "OK")
    document = stored()[event["eventId"]]
    received = document.pop("receivedAt")
    assert abs(datetime.now(UTC) - received) < timedelta(minutes=5)
    assert document == {
        **event,
        "timestamp": datetime(2026, 5, 16, 8, 13, 15, 361624, tzinfo=UTC),
        "labels": body["labels"],
        "metadata": body["metadata"],
    }


def test_duplicate_changes_nothing(endpoint: Endpoint, database: firestore.Client) -> None:
    """A second delivery of an eventId is answered 200 OK; the document keeps its content and its update time."""
    body = envelope()
    document = database.collection("events").document(body["event"]["eventId"])
    endpoint.deliver(encode(body))
    before = document.get()

    response = endpoint.deliver(encode(body | {"labels": {"name": "changed"}}))

    after = document.get()
    assert (response.status_code, response.text) == (200, "OK")
    assert (after.to_dict(), after.update_time) == (before.to_dict(), before.update_time)
    assert after.create_time == after.update_time


@pytest.mark.parametrize("event_type", DATA)
def test_every_event_type_is_read_back(endpoint: Endpoint, stored: Documents, event_type: str) -> None:
    """DT's own client reads the stored document of each of the 19 event types as the event that was sent."""
    body = envelope(event_type)

    endpoint.deliver(encode(body))

    (document,) = stored().values()
    assert document["data"] == body["event"]["data"]
    read = Event(document | {"timestamp": document["timestamp"].isoformat()})
    assert (read.event_id, read.event_type) == (body["event"]["eventId"], event_type)
    assert read.data is not None


@pytest.mark.parametrize(
    "body",
    [
        {"event": {"eventId": "bare"}},
        envelope("neverSeen", data={"neverSeen": {"x": [{"y": None}]}}, extra="e") | {"envelopeExtra": {"z": 1.5}},
        envelope("ping", data=None, targetName="projects/bhmh0143iktucae701vg"),
        {"event": envelope()["event"]},
        {"event": {"eventId": "e", "eventType": 7, "targetName": None, "timestamp": 3, "data": {}}, "labels": []},
        {"event": {"eventId": "nested", "event": {"event": 1}}},
    ],
    ids=["bare", "unknown type and fields", "ping", "no labels or metadata", "odd types", "event in event"],
)
def test_unknown_shapes_are_stored_as_they_came(endpoint: Endpoint, stored: Documents, body: dict[str, Any]) -> None:
    """Unknown event types and fields, and missing fields or fields of unusual types, are stored as they came."""
    response = endpoint.deliver(encode(body))

    assert response.status_code == 200
    document = stored()[body["event"]["eventId"]]
    document.pop("receivedAt")
    expected = {name: value for name, value in body.items() if name != "event"} | body["event"]
    document["timestamp"] = expected.get("timestamp")
    assert document == {"timestamp": None} | expected


def test_field_of_the_event_wins(start: Callable[..., Endpoint], stored: Documents) -> None:
    """A field of `event` wins over the body's, which is kept in `envelope`; receivedAt and expireAt win over both."""
    body = envelope(labels={"from": "event"}, receivedAt="event", expireAt="event")
    body |= {"receivedAt": "body", "expireAt": "body", "timestamp": "body"}

    response = start(RETENTION_DAYS="2").deliver(encode(body))

    assert response.status_code == 200
    document = stored()[body["event"]["eventId"]]
    assert document["labels"] == {"from": "event"}
    assert isinstance(document["timestamp"], datetime)
    assert isinstance(document["receivedAt"], datetime)
    assert isinstance(document["expireAt"], datetime)
    assert document["envelope"] == {
        "labels": body["labels"], "receivedAt": "body", "expireAt": "body", "timestamp": "body",
    }  # fmt: skip


@pytest.mark.parametrize("sent", ["event", "body", "both"])
def test_envelope_of_the_sender_gives_way(endpoint: Endpoint, stored: Documents, sent: str) -> None:
    """A field that the sender itself names `envelope` is replaced when `envelope` is needed for the body's fields."""
    body = envelope(labels="event") | {"labels": "body"}
    expected: dict[str, Any] = {"labels": "body"}
    if sent != "body":
        body["event"]["envelope"] = "event's"
    if sent != "event":
        body["envelope"] = "body's"
    if sent == "both":
        expected["envelope"] = "body's"

    endpoint.deliver(encode(body))

    assert stored()[body["event"]["eventId"]]["envelope"] == expected


@pytest.mark.parametrize("where", ["event", "body"])
def test_envelope_of_the_sender_is_kept_when_no_name_is_used_twice(
    endpoint: Endpoint, stored: Documents, where: str
) -> None:
    """Without a name that both `event` and the body use, a field named `envelope` is stored like any other."""
    body = envelope()
    (body["event"] if where == "event" else body)["envelope"] = {"sender": 1}

    endpoint.deliver(encode(body))

    assert stored()[body["event"]["eventId"]]["envelope"] == {"sender": 1}


def test_retention_gives_every_document_an_expiry(
    start: Callable[..., Endpoint], stored: Documents, quarantined: Documents
) -> None:
    """With RETENTION_DAYS, events and quarantine get expireAt, that many days from now."""
    endpoint = start(RETENTION_DAYS="400")

    endpoint.deliver(encode(envelope()))
    endpoint.deliver(b"not JSON")

    expected = datetime.now(UTC) + timedelta(days=400)
    for document in [*stored().values(), *quarantined().values()]:
        assert abs(document["expireAt"] - expected) < timedelta(minutes=5)


def test_without_retention_there_is_no_expiry(endpoint: Endpoint, stored: Documents, quarantined: Documents) -> None:
    """Without RETENTION_DAYS no document has expireAt."""
    endpoint.deliver(encode(envelope()))
    endpoint.deliver(b"not JSON")

    documents = [*stored().values(), *quarantined().values()]
    assert [("expireAt" in document) for document in documents] == [False, False]


def test_collection_and_database_are_settings(
    start: Callable[..., Endpoint], environ: dict[str, str], database: firestore.Client
) -> None:
    """EVENTS_COLLECTION and FIRESTORE_DATABASE name where events and quarantine go."""
    endpoint = start(EVENTS_COLLECTION="Mine", FIRESTORE_DATABASE="other-db")

    endpoint.deliver(encode(envelope()))
    endpoint.deliver(b"not JSON")

    other = firestore.Client(project=environ["GOOGLE_CLOUD_PROJECT"], database="other-db")
    assert len(list(other.collection("Mine").stream())) == 1
    assert len(list(other.collection("Mine_quarantine").stream())) == 1
    assert list(database.collection("events").stream()) == []


UNPROCESSABLE = {
    "not JSON": b"{",
    "not UTF-8": b'{"event":{"eventId":"\xff"}}',
    "UTF-16": encode(envelope()).decode().encode("utf-16"),
    "empty": b"",
    "a list": b"[]",
    "no event": b'{"labels":{}}',
    "event no object": b'{"event":"x"}',
    "NaN": encode(envelope(data={"x": float("nan")})),
    "Infinity": encode(envelope(data={"x": float("-inf")})),
    "a float beyond 64 bits": b'{"event":{"eventId":"a","data":{"x":1e999}}}',
    "an integer beyond 64 bits": encode(envelope(data={"x": 2**63})),
    "an integer of 5,000 digits": b'{"event":{"eventId":"a","data":{"x":' + b"9" * 5000 + b"}}}",
    "a repeated field name": b'{"event":{"eventId":"a","eventId":"b"}}',
    "array in array": encode(envelope(data={"x": [[1]]})),
    "empty field name": encode(envelope(data={"": 1})),
    "reserved field name": encode(envelope(data={"__x__": 1})),
    "reserved field name at the top": encode(envelope() | {"____": 1}),
    "field name of 1,501 bytes": encode(envelope(data={"é" * 750 + "e": 1})),
    "lone surrogate in the eventId": b'{"event":{"eventId":"\\ud800"}}',
    "lone surrogate": b'{"event":{"eventId":"a","data":{"x":"\\ud800"}}}',
    "lone surrogate as a name": b'{"event":{"eventId":"a","data":{"\\ud800":1}}}',
    "hostile depth": b'{"event":{"eventId":"a","data":' + b"[" * 39_000 + b"]" * 39_000 + b"}}",
    "too large for a document": encode(envelope(data={"n": [1] * 30_000, "x": "a" * 900_000})),
    "40,000 negative numbers and a long text": encode(envelope(data={"n": [-1] * 39_900, "x": "a" * 800_000})),
    "too many values": encode(envelope(data={"x": [-1] * 340_000})),
    "40,001 commas": b"," * 40_001,
}


@pytest.mark.parametrize("body", UNPROCESSABLE.values(), ids=UNPROCESSABLE)
def test_unprocessable_event_is_quarantined(
    endpoint: Endpoint, stored: Documents, quarantined: Documents, body: bytes
) -> None:
    """An authentic body that is not a valid document is answered 400 and one line, and quarantined in full."""
    response = endpoint.deliver(body)

    assert response.status_code == 400
    assert len(response.text.splitlines()) == 1
    assert response.text != "Could not verify request."
    assert stored() == {}
    document = quarantined()[hashlib.sha256(body).hexdigest()]
    assert isinstance(document.pop("receivedAt"), datetime)
    assert document == {"body": body, "reason": response.text}


@pytest.mark.parametrize("number", ["9" * 5000, "1e999", "-1e999"])
def test_reason_names_the_number(endpoint: Endpoint, quarantined: Documents, number: str) -> None:
    """JSON with a number too large for 64 bits is not called invalid JSON, however many digits the number has."""
    response = endpoint.deliver(b'{"event":{"eventId":"a","data":%s}}' % number.encode())

    (document,) = quarantined().values()
    assert response.text == document["reason"] == "The body contains a number beyond 64 bits."


def test_most_structure_that_is_accepted(endpoint: Endpoint, stored: Documents) -> None:
    """A body with exactly 40,000 of the characters , : [ { is accepted."""
    body = encode({"event": {"eventId": "many", "text": "," * 39_994}})
    assert sum(body.count(character) for character in b",:[{") == 40_000

    assert endpoint.deliver(body).status_code == 200
    assert len(stored()["many"]["text"]) == 39_994


@pytest.mark.parametrize(
    ("innermost", "depth", "status"),
    [
        ("1", 20, 200),
        ("1", 21, 400),
        ("{}", 19, 200),
        ("{}", 20, 400),
        ("[]", 20, 200),
        ("[]", 21, 400),
        ("[1]", 19, 200),
        ("[1]", 20, 400),
    ],
)
def test_twenty_levels_are_the_limit(endpoint: Endpoint, innermost: str, depth: int, status: int) -> None:
    """Exactly those events are refused as too deep that Firestore refuses."""
    nested = '{"m":' * (depth - 1) + innermost + "}" * (depth - 1)
    body = b'{"event":{"eventId":"deep","data":{"m":' + nested.encode() + b"}}}"

    response = endpoint.deliver(body)

    assert response.status_code == status


@pytest.mark.parametrize(
    "event_id",
    [
        None, 7, "", "a/b", ".", "..", "__x__", "____", "a\n", "\x00", "\x7f", "\x85", "é" * 750 + "e", ["a"],
    ],
)  # fmt: skip
def test_unusable_event_id_goes_to_quarantine(
    endpoint: Endpoint, stored: Documents, quarantined: Documents, event_id: Any
) -> None:
    """An event whose eventId is not a valid document key is answered 400 and quarantined."""
    body = encode(envelope(eventId=event_id))

    response = endpoint.deliver(body)

    assert (response.status_code, "eventId" in response.text) == (400, True)
    assert (stored(), len(quarantined())) == ({}, 1)


@pytest.mark.parametrize("event_id", ["x", "...", "__x", "x__", "___", "é" * 750, "emu" + "0" * 20, "a b?#%*[]`"])
def test_usable_event_id_is_the_key(endpoint: Endpoint, stored: Documents, event_id: str) -> None:
    """Any other string is the document key, unchanged."""
    response = endpoint.deliver(encode(envelope(eventId=event_id)))

    assert response.status_code == 200
    assert stored()[event_id]["eventId"] == event_id


def test_unprocessable_event_is_quarantined_once(endpoint: Endpoint, quarantined: Documents) -> None:
    """A retry of an unprocessable event is answered the same and changes nothing."""
    first = endpoint.deliver(b"not JSON")
    before = quarantined()

    second = endpoint.deliver(b"not JSON")

    assert (second.status_code, second.text) == (first.status_code, first.text)
    assert quarantined() == before


def test_body_of_one_mebibyte_is_read(endpoint: Endpoint, quarantined: Documents) -> None:
    """A body of exactly 1 MiB is read, but too large to be quarantined: the answer is 503.

    The largest value of a Firestore field is 89 bytes smaller than 1 MiB.
    """
    body = b"x" * 1024 * 1024

    response = endpoint.deliver(body)

    assert response.status_code == 503
    assert quarantined() == {}


@pytest.mark.parametrize("announced", [True, False])
def test_body_beyond_one_mebibyte_is_refused(
    endpoint: Endpoint, stored: Documents, quarantined: Documents, *, announced: bool
) -> None:
    """A body over 1 MiB is answered 413, whether or not it announces its length, and nothing is stored."""
    body = b"x" * (1024 * 1024 + 1)
    headers = {"X-Dt-Signature": signing.sign(body)}

    response = endpoint.client.post("/", content=body if announced else iter([body]), headers=headers)

    assert response.status_code == 413
    assert (stored(), quarantined()) == ({}, {})


def test_announced_length_beyond_the_limit_is_refused_unread(endpoint: Endpoint) -> None:
    """A signed request that announces more than 1 MiB is answered 413 before any of its body arrives."""
    headers = [(b"x-dt-signature", signing.sign(b"").encode()), (b"content-length", b"1048577")]
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": headers}
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("the body was read")

    async def send(message: Any) -> None:
        sent.append(message)

    assert endpoint.client.portal is not None
    endpoint.client.portal.call(endpoint.client.app, scope, receive, send)

    assert sent[0]["status"] == 413


def test_times_of_the_contract() -> None:
    """A body has 10 s, Firestore 8 s, and the answer comes within 10 s in all."""
    main = sys.modules["main"]

    assert (main.BODY_SECONDS, receiver.store.TOTAL_SECONDS) == (10, 8)
    assert main.ANSWER_SECONDS < 10


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"])
def test_only_post_is_allowed(endpoint: Endpoint, stored: Documents, method: str) -> None:
    """Any other method is answered 405 with `Allow: POST`, even if the request is signed."""
    body = encode(envelope())

    response = endpoint.client.request(method, "/", content=body, headers={"X-Dt-Signature": signing.sign(body)})

    assert (response.status_code, response.headers["Allow"]) == (405, "POST")
    assert stored() == {}


@pytest.mark.parametrize("url", ["/", "/any/path", "/?query=1", "/robots.txt", "//x/%2e%2e"])
def test_path_and_query_do_not_matter(endpoint: Endpoint, stored: Documents, url: str) -> None:
    """An event is accepted at any path and query, with the header name in any case."""
    body = encode(envelope())

    response = endpoint.client.post(url, content=body, headers={"x-DT-signature": signing.sign(body)})

    assert response.status_code == 200
    assert len(stored()) == 1


def test_event_in_small_chunks_is_accepted(endpoint: Endpoint, stored: Documents) -> None:
    """The chunks of a body are joined before it is verified."""
    body = encode(envelope())
    chunks = (body[at : at + 7] for at in range(0, len(body), 7))

    response = endpoint.client.post("/", content=chunks, headers={"X-Dt-Signature": signing.sign(body)})

    assert response.status_code == 200
    assert len(stored()) == 1


@pytest.mark.parametrize(
    ("timestamp", "expected"),
    [
        ("2026-05-16T08:13:15Z", datetime(2026, 5, 16, 8, 13, 15, tzinfo=UTC)),
        ("2026-05-16t08:13:15.1z", datetime(2026, 5, 16, 8, 13, 15, 100000, tzinfo=UTC)),
        ("2026-05-16T08:13:15.123456999Z", datetime(2026, 5, 16, 8, 13, 15, 123456, tzinfo=UTC)),
        ("2026-05-16T10:13:15.5+02:00", datetime(2026, 5, 16, 8, 13, 15, 500000, tzinfo=UTC)),
        ("1969-12-31T23:59:59.000001Z", datetime(1969, 12, 31, 23, 59, 59, 1, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC)),
        ("9999-12-31T23:59:59.999999Z", datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)),
        ("0001-01-01T00:00:00+01:00", None),
        ("2026-02-30T00:00:00Z", None),
        ("2026-05-16T08:13:60Z", None),
        ("2026-05-16T24:00:00Z", None),
        ("2026-05-16T08:13:15+00:60", None),
        ("2026-05-16T08:13:15-01:99", None),
        ("2026-05-16T08:13:15+24:00", None),
        ("2026-05-16 08:13:15Z", None),
        ("2026-05-16T08:13:15", None),
        ("20260516T081315Z", None),
        ("2026-W20-6T08:13:15Z", None),
        ("٢٠٢٦-05-16T08:13:15Z", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_timestamp_becomes_a_timestamp(
    endpoint: Endpoint, stored: Documents, timestamp: str, expected: datetime | None
) -> None:
    """An RFC 3339 time is stored as a Timestamp with microseconds; any other value is stored unchanged."""
    endpoint.deliver(encode(envelope(timestamp=timestamp)))

    (document,) = stored().values()
    assert document["timestamp"] == (timestamp if expected is None else expected)


@pytest.mark.parametrize("ending", ["the sender goes away", "nothing more comes"])
def test_body_that_does_not_arrive_is_refused(
    endpoint: Endpoint, stored: Documents, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    """A body that does not arrive in full, or not within the time limit, is answered 400; nothing is stored."""
    monkeypatch.setattr(sys.modules["main"], "BODY_SECONDS", 0.2)
    body = encode(envelope())
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": []}
    scope["headers"] = [(b"x-dt-signature", signing.sign(body).encode())]
    first = [{"type": "http.request", "body": body[:-1], "more_body": True}]
    sent: list[Any] = []

    async def receive() -> Any:
        if not first and ending == "nothing more comes":
            await asyncio.sleep(60)
        return first.pop() if first else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    assert endpoint.client.portal is not None
    endpoint.client.portal.call(endpoint.client.app, scope, receive, send)

    assert sent[0]["status"] == 400
    assert stored() == {}
    reasons = {
        "the sender goes away": "the sender closed the connection before the end of the body",
        "nothing more comes": "the body did not arrive within 0.2 s",
    }
    assert endpoint.log()[0]["reason"] == reasons[ending]
