"""Whatever JSON comes: the stored document equals it, or it is quarantined whole. No request ends in 500."""

import hashlib
import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from functions_framework.aio import create_asgi_app
from google.cloud import firestore
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from receiver.event import parse_event
from tests import signing
from tests.conftest import ROOT


def _nested(depth: int, innermost: Any) -> Any:
    value = innermost
    for level in range(depth):
        value = [value] if level % 3 == 1 else {"m": value}
    return value


TEXT = st.text(st.characters(exclude_categories=[]), max_size=20)
NAMES = TEXT | st.sampled_from(["", "__a__", "receivedAt", "event", "labels", "data", "timestamp", "a.b", "`"])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63) - 2, 2**63 + 2)
    | st.floats()
    | TEXT
    | st.datetimes().map(lambda time: time.isoformat() + "Z")
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=12
)
DEEP = st.builds(_nested, st.integers(17, 22), st.sampled_from([1, [], {}, [1]]))
EVENT = st.fixed_dictionaries({}, optional={"data": JSON | DEEP, "timestamp": SCALARS})
ENVELOPES = st.builds(
    lambda event, more, rest: rest | {"event": more | event},
    EVENT,
    st.dictionaries(NAMES, JSON, max_size=3),
    st.dictionaries(NAMES, JSON, max_size=3),
)


@pytest.fixture(scope="module")
def deliver(firestore_host: str) -> Iterator[Any]:
    """Return a function that delivers a body and reads what is stored for it from both collections."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DT_SIGNATURE_SECRET", signing.SECRET)
        patch.setenv("GOOGLE_CLOUD_PROJECT", "demo-properties")
        patch.setenv("FIRESTORE_EMULATOR_HOST", firestore_host)
        app = create_asgi_app(target="dataconnector_endpoint", source=str(ROOT / "main.py"))
        database = firestore.Client(project="demo-properties")
    with TestClient(app) as client:

        def deliver_body(body: bytes, event_id: str) -> tuple[int, Any, bool]:
            answer = client.post("/", content=body, headers={"X-Dt-Signature": signing.sign(body)})
            document = database.collection("events").document(event_id).get().to_dict()
            quarantine = database.collection("events_quarantine").document(hashlib.sha256(body).hexdigest()).get()
            return answer.status_code, document, quarantine.exists and quarantine.get("body") == body

        yield deliver_body


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(envelope=ENVELOPES)
def test_stored_equal_or_quarantined(deliver: Any, envelope: dict[str, Any]) -> None:
    """The document is the JSON that came, field by field and type by type; or the body is in quarantine, and 400."""
    envelope["event"]["eventId"] = uuid.uuid4().hex  # a new one, also where an example is tried again
    body = json.dumps(envelope).encode()

    status, document, quarantined = deliver(body, envelope["event"]["eventId"])

    if status == 400:
        assert (document, quarantined) == (None, True)
        return
    assert (status, quarantined) == (200, False)
    del document["receivedAt"]
    expected = parse_event(body).fields
    expected.pop("receivedAt", None)
    assert _typed(document) == _typed(expected)
    sent = {**{name: value for name, value in envelope.items() if name != "event"}, **envelope["event"]}
    sent.pop("receivedAt", None)
    for name in sent.keys() - {"timestamp"}:
        assert _typed(document[name]) == _typed(sent[name])


@settings(max_examples=200, deadline=None)
@given(body=st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_signed_body_is_kept(deliver: Any, body: bytes) -> None:
    """Whatever the body: signed, it is quarantined, unless it is an event after all."""
    status, document, quarantined = deliver(body, "none")

    assert (status, document, quarantined) == (400, None, True)


def _typed(value: Any) -> Any:
    """Tell 1 from 1.0 and True, and -0.0 from 0.0, which == does not."""
    if isinstance(value, dict):
        return {name: _typed(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_typed(inner) for inner in value]
    return (type(value).__name__, repr(value)) if isinstance(value, int | float) else value
