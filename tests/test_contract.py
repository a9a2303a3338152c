"""Each row of the contract's table of requests, with a look at what is stored after it."""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from disruptive.events import Event
from google.cloud import firestore

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
    """Unknown event types and fields, and missing or odd known ones, are stored as they came."""
    response = endpoint.deliver(encode(body))

    assert response.status_code == 200
    document = stored()[body["event"]["eventId"]]
    document.pop("receivedAt")
    expected = {name: value for name, value in body.items() if name != "event"} | body["event"]
    document["timestamp"] = expected.get("timestamp")
    assert document == {"timestamp": None} | expected


def test_field_of_the_event_wins(start: Callable[..., Endpoint], stored: Documents) -> None:
    """A field of `event` wins over the body's, and receivedAt and expireAt win over both."""
    body = envelope(labels={"from": "event"}, receivedAt="event", expireAt="event")
    body |= {"receivedAt": [["unstorable, were it kept"]], "expireAt": "body", "timestamp": "body"}

    response = start(RETENTION_DAYS="2").deliver(encode(body))

    assert response.status_code == 200
    document = stored()[body["event"]["eventId"]]
    assert document["labels"] == {"from": "event"}
    assert isinstance(document["timestamp"], datetime)
    assert isinstance(document["receivedAt"], datetime)
    assert isinstance(document["expireAt"], datetime)


def test_retention_gives_every_document_an_expiry(
    start: Callable[..., Endpoint], stored: Documents, quarantined: Documents
) -> None:
    """With RETENTION_DAYS, events and quarantine get expireAt, that many days from now."""
    endpoint = start(RETENTION_DAYS="400")

    endpoint.deliver(encode(envelope()))
    endpoint.deliver(b"poison")

    expected = datetime.now(UTC) + timedelta(days=400)
    for document in [*stored().values(), *quarantined().values()]:
        assert abs(document["expireAt"] - expected) < timedelta(minutes=5)


def test_without_retention_there_is_no_expiry(endpoint: Endpoint, stored: Documents, quarantined: Documents) -> None:
    """Without RETENTION_DAYS no document has expireAt."""
    endpoint.deliver(encode(envelope()))
    endpoint.deliver(b"poison")

    documents = [*stored().values(), *quarantined().values()]
    assert [("expireAt" in document) for document in documents] == [False, False]


def test_collection_and_database_are_settings(
    start: Callable[..., Endpoint], environ: dict[str, str], database: firestore.Client
) -> None:
    """EVENTS_COLLECTION and FIRESTORE_DATABASE name where events and quarantine go."""
    endpoint = start(EVENTS_COLLECTION="Mine", FIRESTORE_DATABASE="other-db")

    endpoint.deliver(encode(envelope()))
    endpoint.deliver(b"poison")

    other = firestore.Client(project=environ["GOOGLE_CLOUD_PROJECT"], database="other-db")
    assert len(list(other.collection("Mine").stream())) == 1
    assert len(list(other.collection("Mine_quarantine").stream())) == 1
    assert list(database.collection("events").stream()) == []


POISON = {
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
    "hostile depth": b'{"event":{"eventId":"a","data":' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
    "too large for a document": encode(envelope(data={"x": [1] * 140_000})),
}


@pytest.mark.parametrize("body", POISON.values(), ids=POISON)
def test_poison_goes_to_quarantine(endpoint: Endpoint, stored: Documents, quarantined: Documents, body: bytes) -> None:
    """An authentic body that can be no document is answered 400 and one line, and kept whole in the quarantine."""
    response = endpoint.deliver(body)

    assert response.status_code == 400
    assert len(response.text.splitlines()) == 1
    assert response.text != "Could not verify request."
    assert stored() == {}
    document = quarantined()[hashlib.sha256(body).hexdigest()]
    assert isinstance(document.pop("receivedAt"), datetime)
    assert document == {"body": body, "reason": response.text}


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
    """What is refused as too deep before it is sent is just what Firestore refuses."""
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
    """An eventId that can be no document key is answered 400 and quarantined."""
    body = encode(envelope(eventId=event_id))

    response = endpoint.deliver(body)

    assert (response.status_code, "eventId" in response.text) == (400, True)
    assert (stored(), len(quarantined())) == ({}, 1)


@pytest.mark.parametrize("event_id", ["x", "...", "__x", "x__", "___", "é" * 750, "emu" + "0" * 20, "a b?#%*[]`"])
def test_usable_event_id_is_the_key(endpoint: Endpoint, stored: Documents, event_id: str) -> None:
    """Any other string is the document's key, as it is."""
    response = endpoint.deliver(encode(envelope(eventId=event_id)))

    assert response.status_code == 200
    assert stored()[event_id]["eventId"] == event_id


def test_poison_twice_is_kept_once(endpoint: Endpoint, quarantined: Documents) -> None:
    """A retry of a poisonous body is answered the same and changes nothing."""
    first = endpoint.deliver(b"poison")
    before = quarantined()

    second = endpoint.deliver(b"poison")

    assert (second.status_code, second.text) == (first.status_code, first.text)
    assert quarantined() == before


def test_body_of_one_mebibyte_is_taken(endpoint: Endpoint, quarantined: Documents) -> None:
    """A body of exactly 1 MiB is within the limit; as it is too large for a document with its key, it is no event.

    It is not even kept: a value ends 89 bytes below 1 MiB. The sender hears 503 and tries again.
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


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"])
def test_only_post_is_allowed(endpoint: Endpoint, stored: Documents, method: str) -> None:
    """Any other method is answered 405 with `Allow: POST`, though the request be signed."""
    body = encode(envelope())

    response = endpoint.client.request(method, "/", content=body, headers={"X-Dt-Signature": signing.sign(body)})

    assert (response.status_code, response.headers["Allow"]) == (405, "POST")
    assert stored() == {}


@pytest.mark.parametrize("url", ["/", "/any/path", "/?query=1", "/robots.txt", "//x/%2e%2e"])
def test_path_and_query_do_not_matter(endpoint: Endpoint, stored: Documents, url: str) -> None:
    """An event is taken at any path and query, with its header's name in any case."""
    body = encode(envelope())

    response = endpoint.client.post(url, content=body, headers={"x-DT-signature": signing.sign(body)})

    assert response.status_code == 200
    assert len(stored()) == 1


def test_event_in_small_chunks_is_taken(endpoint: Endpoint, stored: Documents) -> None:
    """A chunked body is put together before it is verified."""
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
    """An RFC 3339 time is stored to the microsecond in UTC; anything else stays the string it is."""
    endpoint.deliver(encode(envelope(timestamp=timestamp)))

    (document,) = stored().values()
    assert document["timestamp"] == (timestamp if expected is None else expected)


def test_sender_that_goes_away_is_not_acknowledged(endpoint: Endpoint, stored: Documents) -> None:
    """A body that breaks off proves nothing: 400, though nobody hears it, and nothing is stored."""
    body = encode(envelope())
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": []}
    scope["headers"] = [(b"x-dt-signature", signing.sign(body).encode())]
    messages = iter([{"type": "http.request", "body": body, "more_body": True}, {"type": "http.disconnect"}])
    sent: list[Any] = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    assert endpoint.client.portal is not None
    endpoint.client.portal.call(endpoint.client.app, scope, receive, send)

    assert sent[0]["status"] == 400
    assert endpoint.log()[0]["outcome"] == "unverified"
    assert stored() == {}
