"""One line of JSON a request, with the fields of the contract, and without anything that it forbids."""

import json
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from receiver import log
from tests import signing
from tests.conftest import Endpoint
from tests.events import encode, envelope
from tests.proxy import Proxy

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def test_stored_event_has_its_line(endpoint: Endpoint) -> None:
    """A stored event is one INFO line with the event's names, its latency and its lag."""
    body = envelope()

    endpoint.deliver(encode(body))

    (line,) = endpoint.log()
    assert line.pop("latencyMs") > 0
    assert line.pop("lagSeconds") > 0
    assert line == {
        "severity": "INFO",
        "message": "stored",
        "outcome": "stored",
        "status": 200,
        "proof": "secret",
        "eventId": body["event"]["eventId"],
        "eventType": "temperature",
        "targetName": body["event"]["targetName"],
    }


def test_each_outcome_has_its_severity(endpoint: Endpoint) -> None:
    """INFO stored or already stored, WARNING 4xx, ERROR quarantined: each with outcome, status and reason."""
    body = encode(envelope())

    endpoint.deliver(body)
    endpoint.deliver(body)
    endpoint.deliver(body, "bad")
    endpoint.deliver(b"not JSON")
    endpoint.deliver(b"x" * 1024 * 1024 + b"x")
    endpoint.client.get("/")

    lines = endpoint.log()
    assert [(line["severity"], line["outcome"], line["status"], "reason" in line) for line in lines] == [
        ("INFO", "stored", 200, False),
        ("INFO", "already_stored", 200, False),
        ("WARNING", "unverified", 400, True),
        ("ERROR", "quarantined", 400, True),
        ("WARNING", "too_large", 413, True),
        ("WARNING", "method", 405, True),
    ]


def test_quarantined_event_is_named(endpoint: Endpoint) -> None:
    """The line of a quarantined event has its eventId, if it has one."""
    body = envelope(data={"x": [[1]]})

    endpoint.deliver(encode(body))

    assert endpoint.log()[0]["eventId"] == body["event"]["eventId"]


@pytest.mark.parametrize("event_id", [None, "", "a/b", "__reserved__"])
def test_event_without_a_valid_id_is_named(endpoint: Endpoint, event_id: str | None) -> None:
    """The line of an event without a valid eventId has its other names, its lag, and an eventId that is a string."""
    body = envelope(eventId=event_id)

    endpoint.deliver(encode(body))

    (line,) = endpoint.log()
    assert (line["outcome"], line.get("eventId")) == ("quarantined", event_id)
    assert (line["eventType"], line["targetName"]) == ("temperature", body["event"]["targetName"])
    assert line["lagSeconds"] > 0


def test_values_of_a_wrong_type_are_left_out(endpoint: Endpoint) -> None:
    """A name that is not a string and a time that is not one are left out, and a long string is cut."""
    body = envelope(eventType={"secret": 1}, targetName="t" * 10_000, timestamp="yesterday")

    endpoint.deliver(encode(body))

    (line,) = endpoint.log()
    assert {"eventType", "lagSeconds"}.isdisjoint(line)
    assert line["targetName"] == "t" * 1500


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"X-Cloud-Trace-Context": f"{TRACE}/1234;o=1"}, True),
        ({"X-Cloud-Trace-Context": f"{TRACE};o=1"}, True),
        ({"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}, True),
        ({"X-Cloud-Trace-Context": "hostile\r"}, False),
        ({"traceparent": "00-xyz-1-01"}, False),
        ({}, False),
    ],
)
def test_line_is_tied_to_its_trace(
    endpoint: Endpoint, project: str, headers: dict[str, str], *, expected: bool
) -> None:
    """The trace comes from either header, in the form that Cloud Logging reads; an invalid one is ignored."""
    endpoint.deliver(encode(envelope()), **headers)

    (line,) = endpoint.log()
    wanted = f"projects/{project}/traces/{TRACE}" if expected else None
    assert line.get("logging.googleapis.com/trace") == wanted


def test_trace_without_a_known_project(start: Callable[..., Endpoint]) -> None:
    """When no project is set, the line has the trace id alone."""
    endpoint = start(GOOGLE_CLOUD_PROJECT="")

    endpoint.deliver(b"", traceparent=f"00-{TRACE}-00f067aa0ba902b7-01")

    assert endpoint.log()[0]["logging.googleapis.com/trace"] == TRACE


@pytest.mark.parametrize(
    ("level", "outcomes"),
    [
        ("DEBUG", ["stored", "unverified", "quarantined"]),
        ("INFO", ["stored", "unverified", "quarantined"]),
        ("WARNING", ["unverified", "quarantined"]),
        ("ERROR", ["quarantined"]),
        ("CRITICAL", []),
    ],
)
def test_level_is_a_setting(start: Callable[..., Endpoint], level: str, outcomes: list[str]) -> None:
    """LOG_LEVEL is the least severity that is written."""
    endpoint = start(LOG_LEVEL=level)

    endpoint.deliver(encode(envelope()))
    endpoint.deliver(b"", "bad")
    endpoint.deliver(b"not JSON")

    assert [line["outcome"] for line in endpoint.log()] == outcomes


def test_nothing_secret_is_written(endpoint: Endpoint, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither answer nor log repeats a body, a secret or a token."""
    marked = encode(envelope(data={"marked-body": [["x"]]}))
    token = signing.sign(marked)

    answers = [
        endpoint.deliver(marked).text,
        endpoint.deliver(marked, token[:-3] + "AAA").text,
        endpoint.deliver(b'{"marked-body'),
        endpoint.deliver(encode(envelope(data={"__marked-body__": 1}))).text,
    ]

    said = str(answers) + "".join(capfd.readouterr())
    for forbidden in ("marked-body", signing.SECRET, token, token.split(".")[1]):
        assert forbidden not in said


def test_pipe_that_nobody_reads_stops_nothing() -> None:
    """When standard output is a pipe that is full, lines are dropped, and nothing waits for its reader."""
    line = {"severity": "INFO", "message": "x" * 3000}
    reader, writer = os.pipe()
    original = os.dup(1)
    os.dup2(writer, 1)

    def write() -> None:
        for _ in range(100):
            log.write(line, 0)

    writing = threading.Thread(target=write, daemon=True)
    try:
        writing.start()
        writing.join(30)
        blocked = writing.is_alive()
    finally:
        os.dup2(original, 1)
    received = os.read(reader, 1_000_000)
    os.dup2(writer, 1)
    try:
        log.write(line, 0)
    finally:
        os.dup2(original, 1)
    after = os.read(reader, 1_000_000)
    for descriptor in (reader, writer, original):
        os.close(descriptor)

    assert not blocked
    assert received.startswith(json.dumps(line).encode() + b"\n")
    assert len(received) < 100 * 3000
    assert json.loads(after.splitlines()[-1]) == line
    assert after.startswith(b"\n")


def test_unforeseen_failure_is_reported(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unforeseen error is answered 500 with a fixed text; the log has the traceback without the error's text."""
    forbidden = "words of a body"

    def broken(*_arguments: Any, **_more: Any) -> None:
        raise RuntimeError(forbidden)

    monkeypatch.setattr(sys.modules["main"], "parse_event", broken)

    response = endpoint.deliver(encode(envelope()))

    assert (response.status_code, response.text) == (500, "Something unforeseen happened, send again.")
    (line,) = endpoint.log()
    assert (line["severity"], line["outcome"], line["status"]) == ("ERROR", "failed", 500)
    message = line["message"].splitlines()
    assert message[0] == "Traceback (most recent call last):"
    assert any(text.startswith('  File "') and "in broken" in text for text in message)
    assert message[-1].startswith("RuntimeError")
    assert forbidden not in str(line)


def test_text_of_firestore_is_not_in_the_answer(start: Callable[..., Endpoint], proxy: Proxy) -> None:
    """The answer to a failing Firestore is a fixed text; the log has the status that Firestore gave."""
    import grpc  # noqa: PLC0415

    from tests.proxy import answer  # noqa: PLC0415

    endpoint = start(FIRESTORE_EMULATOR_HOST=proxy.host)
    proxy.faults.append(answer(grpc.StatusCode.PERMISSION_DENIED))

    response = endpoint.deliver(encode(envelope()))

    assert (response.status_code, response.text) == (503, "Temporarily unavailable, send again.")
    (line,) = endpoint.log()
    assert (line["severity"], line["outcome"], line["reason"]) == (
        "ERROR",
        "unavailable",
        "Firestore answered PERMISSION_DENIED (the service account needs a role such as roles/datastore.user)",
    )  # fmt: skip
