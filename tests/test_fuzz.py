"""Hostile input, by the fuzzer and by hand; and whether the fuzzer finds broken promises."""

import asyncio
import random
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local.processes import ROOT
from tests import signing
from tests.conftest import Endpoint
from tests.events import encode, envelope
from tests.function import post_all
from tests.fuzz import hostile
from tests.fuzz import runner as fuzz
from tests.fuzz.hostile import CLOSED, NO_ROUTE, NOT_HTTP, STORED, UNVERIFIED, Request
from tests.fuzz.oracles import Answer, Ledger, event_id
from tests.fuzz.runner import Fuzzer, Target, exchange
from tests.fuzz.tokens import sign


@pytest.fixture(scope="module")
def target(firestore_host: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """Return the function's process with the tests' Firestore."""
    with ExitStack() as stack:
        yield fuzz.open_target(stack, firestore_host, tmp_path_factory.mktemp("fuzz"), f"demo-{uuid.uuid4().hex[:12]}")


@pytest.fixture(scope="module")
def embedded_target(embedded_host: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """Return the function's process with an embedded store."""
    with ExitStack() as stack:
        yield fuzz.open_target(stack, embedded_host, tmp_path_factory.mktemp("fuzz"), f"demo-{uuid.uuid4().hex[:12]}")


def test_hostile_requests_do_no_damage(target: Target) -> None:
    """No 500, no hang, no memory growth; nothing is stored unsigned, and the log holds no secret."""
    run = Fuzzer(target, seed=1)

    run.run(range(1500), seconds=300, say=lambda _line: None)

    assert run.ledger.findings == []
    assert run.ledger.kinds.total() == 1500
    assert run.ledger.verdicts.keys() >= {"stored", "quarantined", "unverified", "method", "not HTTP", "closed"}


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(request=st.randoms(use_true_random=False).map(hostile.make))
def test_each_request_gets_a_right_answer(embedded_target: Target, request: Request) -> None:
    """Each request gets a right answer; a failing request is shrunk to the smallest one that fails."""
    ledger = Ledger()

    ledger.judge(request, asyncio.run(exchange(embedded_target.port, request)), "as above")

    assert ledger.findings == []


def test_slow_clients_do_not_block_others(target: Target) -> None:
    """With 1,000 idle connections and 50 that send a byte every 0.2 s, each valid delivery is stored."""
    made, before = [envelope() for _ in range(200)], target.keys("events")
    late = encode(envelope())
    head = hostile.post(late, sign(late)).removesuffix(late)

    async def drip(at_once: bytes, slowly: bytes) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", target.port)
        try:
            writer.write(at_once)
            for byte in slowly:
                await asyncio.sleep(0.2)
                writer.write(bytes([byte]))
        finally:
            writer.transport.abort()

    async def run() -> tuple[list[int], int]:
        slow = [asyncio.create_task(drip(head, late) if each % 2 else drip(b"", head + late)) for each in range(50)]
        url, bodies = f"http://127.0.0.1:{target.port}/", [encode(one) for one in made]
        statuses = await asyncio.to_thread(lambda: asyncio.run(post_all(url, bodies)))
        still_slow = sum(not task.done() for task in slow)
        for task in slow:
            task.cancel()
        return statuses, still_slow

    with ExitStack() as idle:
        for _ in range(1000):
            idle.enter_context(socket.create_connection(("127.0.0.1", target.port)))
        statuses, still_slow = asyncio.run(run())

    assert (statuses, still_slow) == ([200] * 200, 50)
    assert target.keys("events") - before == {one["event"]["eventId"] for one in made}


def _request(line: bytes = b"POST / HTTP/1.1", *headers: bytes, body: bytes | None = None) -> Request:
    body = encode(envelope()) if body is None else body
    return Request("by hand", (hostile.post(body, sign(body), line=line, headers=headers),), frozenset(), (body,))


@pytest.mark.parametrize("path", [b"/a%0Ab", b"/%0A/", b"*"])
def test_path_without_a_route_stores_nothing(embedded_target: Target, path: bytes) -> None:
    """A path with a newline, or the target *, does not reach the function: functions-framework answers 404 or 307."""
    request = _request(b"POST " + path + b" HTTP/1.1")

    (answer,) = asyncio.run(exchange(embedded_target.port, request))

    assert answer.verdict == NO_ROUTE
    assert event_id(request.signed[0]) not in embedded_target.keys("events")


def test_second_signature_is_ignored(embedded_target: Target) -> None:
    """Of two signatures the first one counts, whichever of them is valid."""
    valid_first = _request(b"POST / HTTP/1.1", b"X-Dt-Signature: x")
    invalid_first = _request(b"POST / HTTP/1.1\r\nX-Dt-Signature: x")

    verdicts = [asyncio.run(exchange(embedded_target.port, one))[0].verdict for one in (valid_first, invalid_first)]

    assert verdicts == [STORED, UNVERIFIED]


def test_body_after_an_upgrade_is_not_stored(embedded_target: Target) -> None:
    """The HTTP parser passes on an empty body after an upgrade, and the function refuses it."""
    request = _request(b"POST / HTTP/1.1", b"Connection: upgrade", b"Upgrade: websocket")

    (answer,) = asyncio.run(exchange(embedded_target.port, request))

    assert answer.verdict == UNVERIFIED


def test_request_smuggled_in_a_body_is_not_answered(embedded_target: Target) -> None:
    """A request with two contradicting lengths is refused, and a request hidden in its body is not processed."""
    hidden = _request()
    size = b"%d" % len(hidden.pieces[0])
    request = _request(
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked", b"Content-Length: " + size, body=hidden.pieces[0]
    )

    (answer,) = asyncio.run(exchange(embedded_target.port, request))

    assert answer.verdict in {NOT_HTTP, CLOSED}
    assert event_id(hidden.signed[0]) not in embedded_target.keys("events")


def test_very_long_token_is_refused(endpoint: Endpoint) -> None:
    """A token far longer than DT's is refused before it is decoded, which would delay other requests."""
    body = encode(envelope())
    token = signing.token(signing.claims_of(body) | {"padding": "x" * 100_000})

    response = endpoint.deliver(body, token)

    assert response.status_code == 400
    assert endpoint.log()[0]["reason"] == "the token is too long"


# --- the fuzzer finds broken promises -------------------------------------------------------------------------------


def test_same_seed_makes_the_same_requests() -> None:
    """A seed and a number determine the kind and the bodies of a request, so that a finding can be repeated."""
    requests = [[hostile.make(random.Random(f"7:{number}")) for number in range(200)] for _ in range(2)]  # noqa: S311 - repeatable

    first, second = ([(one.kind, one.signed) for one in made] for made in requests)

    assert first == second
    assert len({kind for kind, _ in first}) > 30


def test_wrong_answers_are_found(embedded_target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """A valid request that is refused (here: because of another secret) is found, with the command to repeat it."""
    run = Fuzzer(embedded_target, seed=6)
    monkeypatch.setattr(signing, "SECRET", "not-the-secret-of-the-function")
    monkeypatch.setattr(signing.sign, "__defaults__", (signing.SECRET,))

    run.run(range(20), seconds=60, say=lambda _line: None)

    assert any(
        one.startswith("valid") and "python -m tests.fuzz --seed 6 --first" in one for one in run.ledger.findings
    )


def test_missing_answer_is_found(embedded_target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that is neither answered nor closed is a finding."""
    monkeypatch.setattr(fuzz, "_HANG", 0.3)
    unfinished = Request("unfinished", (b"POST / HTTP/1.1\r\n",), frozenset({STORED}))
    monkeypatch.setattr(fuzz, "make", lambda _rng: unfinished)
    run = Fuzzer(embedded_target, seed=3)

    run.run(range(1), seconds=60, say=lambda _line: None)

    assert run.ledger.findings[0].startswith("unfinished: no answer")


@pytest.mark.parametrize(
    ("verdict", "raw"),
    [
        ("status 500", b""),
        ("status 503", b""),
        (STORED, signing.SECRET.encode()),
        (STORED, b'{"labels":{"mark":"mark-of-a-body"}}'),
        (STORED, b"eyJhbGciOiJIUzI1NiJ9.e30.x"),
    ],
)
def test_bad_answer_is_found(verdict: str, raw: bytes) -> None:
    """A status that is never right, and an answer that repeats a secret, a body or a token, are findings."""
    ledger = Ledger()

    ledger.judge(Request("any", (b"x",), frozenset({STORED})), [Answer(verdict, raw)], "again")

    assert len(ledger.findings) == 1
    assert "again" in ledger.findings[0]


@pytest.mark.parametrize(
    ("events", "quarantine"),
    [({"known", "foreign"}, set()), ({"known"}, {"0" * 64}), (set(), set())],
    ids=["unsigned event", "unsigned quarantine document", "missing acknowledged event"],
)
def test_wrong_store_is_found(events: set[str], quarantine: set[str]) -> None:
    """A stored document that was not signed, and an acknowledged event that is not stored, are findings."""
    ledger = Ledger()
    request = Request("any", (b"x",), frozenset({STORED}), (encode(envelope(eventId="known")),))
    ledger.enter(request)
    ledger.judge(request, [Answer(STORED)], "again")

    ledger.check_store(events, quarantine)

    assert len(ledger.findings) == 1


@pytest.mark.parametrize(
    "line",
    [
        "Traceback (most recent call last):",
        "[]",
        '{"severity": "ERROR", "message": "x", "outcome": "failed", "status": 500}',
        '{"severity": "INFO", "message": "x", "outcome": "quarantined", "status": 400}',
        '{"severity": "INFO", "message": "stored", "outcome": "stored", "status": 200, "x": "mark-of-a-body"}',
        '{"severity": "INFO", "message": "stored", "outcome": "stored", "status": 200, "x": "eyJhbGciOi"}',
    ],
)
def test_bad_log_line_is_found(line: str) -> None:
    """A line that is not a JSON object, reports a failure, or holds a secret, token or body is a finding."""
    ledger = Ledger()

    ledger.check_log(['{"severity": "INFO", "message": "stored", "outcome": "stored", "status": 200}', line])

    assert len(ledger.findings) == 1
    assert ledger.findings[0].startswith("line 2 of the log ")


def test_growth_is_found() -> None:
    """Memory that grows during the run is a finding; constant memory is not."""
    ledger = Ledger()

    ledger.check_memory([100_000_000 + 10_000 * number for number in range(100)])
    level = list(ledger.findings)
    ledger.check_memory([100_000_000 + 1_000_000 * number for number in range(100)])

    assert level == []
    assert len(ledger.findings) == 1


def _command(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.fuzz", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=120)


def test_command_reports() -> None:
    """The command ends with status 0 and its counts when every promise held."""
    finished = _command("--requests", "40", "--seed", "5", "--store", "embedded")

    assert (finished.returncode, finished.stdout.splitlines()[-1]) == (0, "every promise held")
    assert finished.stdout.startswith("40 requests in ")
    assert "40 of 40 requests" in finished.stderr


@pytest.mark.parametrize(
    "arguments", [("--requests", "none"), ("--requests", "0"), ("--store", "mysql"), ("--sed", "1")]
)
def test_bad_arguments_are_refused(arguments: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong argument ends with status 2 and one line."""
    assert fuzz.main(arguments) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
