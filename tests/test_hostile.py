"""Hostile input, by the fuzzer and by hand; and that the fuzzer sees what it looks for."""

import asyncio
import random
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local.processes import ROOT
from tests import signing
from tests.conftest import Endpoint
from tests.events import encode, envelope
from tests.fuzz import hostile
from tests.fuzz import runner as fuzz
from tests.fuzz.hostile import CLOSED, NO_ROUTE, NOT_HTTP, STORED, UNVERIFIED, Request
from tests.fuzz.oracles import Answer, Ledger, event_id
from tests.fuzz.runner import Fuzz, Target, exchange
from tests.test_process import post_all


@pytest.fixture
def target(firestore_host: str, project: str, tmp_path: Path) -> Iterator[Target]:
    """Return the function's process before each Firestore."""
    with ExitStack() as parts:
        yield fuzz.open_target(parts, firestore_host, tmp_path, project)


@pytest.fixture(scope="module")
def embedded_target(embedded_host: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """Return one process of the function for many examples."""
    with ExitStack() as parts:
        yield fuzz.open_target(
            parts, embedded_host, tmp_path_factory.mktemp("hostile"), f"demo-{uuid.uuid4().hex[:12]}"
        )


def test_hostile_requests_do_no_damage(target: Target) -> None:
    """No 500, no hang, no growth of memory, nothing stored that was not signed, no line of the log with a secret."""
    run = Fuzz(target, seed=1)

    run.run(range(1500), seconds=300, say=lambda _line: None)

    assert run.ledger.findings == []
    assert run.ledger.kinds.total() == 1500
    assert run.ledger.verdicts.keys() >= {"stored", "quarantined", "unverified", "method", "not HTTP", "closed"}


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(request=st.randoms(use_true_random=False).map(hostile.make))
def test_each_request_gets_a_right_answer(embedded_target: Target, request: Request) -> None:
    """Each request gets an answer that is right for it; one that does not is shrunk to the smallest that fails."""
    ledger = Ledger()

    ledger.judge(request, asyncio.run(exchange(embedded_target.port, request)), "as above")

    assert ledger.findings == []


def test_lazy_clients_do_not_stop_honest_ones(target: Target) -> None:
    """Beside 1,000 idle connections and 50 that send a byte now and then, each honest delivery is stored."""
    made = [envelope() for _ in range(200)]
    late = encode(envelope())
    head = hostile.post(late, hostile.sign(late)).removesuffix(late)

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
    assert target.keys("events") == {one["event"]["eventId"] for one in made}


def _request(line: bytes = b"POST / HTTP/1.1", *headers: bytes, body: bytes | None = None) -> Request:
    body = encode(envelope()) if body is None else body
    return Request(
        "by hand", (hostile.post(body, hostile.sign(body), line=line, headers=headers),), frozenset(), (body,)
    )


@pytest.mark.parametrize("path", [b"/a%0Ab", b"/%0A/", b"*"])
def test_path_that_is_not_routed_stores_nothing(embedded_target: Target, path: bytes) -> None:
    """A path with a newline, or the target *, does not reach the function: functions-framework answers 404 or 307."""
    request = _request(b"POST " + path + b" HTTP/1.1")

    (answer,) = asyncio.run(exchange(embedded_target.port, request))

    assert answer.verdict == NO_ROUTE
    assert event_id(request.signed[0]) not in embedded_target.keys("events")


def test_second_signature_does_not_count(embedded_target: Target) -> None:
    """Of two signatures the first one counts, whichever of them is true."""
    true_first = _request(b"POST / HTTP/1.1", b"X-Dt-Signature: x")
    false_first = _request(b"POST / HTTP/1.1\r\nX-Dt-Signature: x")

    verdicts = [asyncio.run(exchange(embedded_target.port, one))[0].verdict for one in (true_first, false_first)]

    assert verdicts == [STORED, UNVERIFIED]


def test_body_behind_an_upgrade_is_never_stored_unverified(embedded_target: Target) -> None:
    """The HTTP parser takes what follows an upgrade for another protocol; the function refuses the empty body."""
    request = _request(b"POST / HTTP/1.1", b"Connection: upgrade", b"Upgrade: websocket")

    (answer,) = asyncio.run(exchange(embedded_target.port, request))

    assert answer.verdict == UNVERIFIED


def test_request_smuggled_in_a_body_is_not_answered(embedded_target: Target) -> None:
    """Two lengths that contradict one another are refused as a whole; what hides behind the shorter one is not read."""
    hidden = _request()
    size = b"%d" % len(hidden.pieces[0])
    request = _request(
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked", b"Content-Length: " + size, body=hidden.pieces[0]
    )

    (answer,) = asyncio.run(exchange(embedded_target.port, request))

    assert answer.verdict in {NOT_HTTP, CLOSED}
    assert event_id(hidden.signed[0]) not in embedded_target.keys("events")


def test_endless_token_is_refused_unread(endpoint: Endpoint) -> None:
    """A token far longer than any true one is refused before it is decoded: that would keep all others waiting."""
    body = encode(envelope())
    token = signing.token(signing.claims_of(body) | {"padding": "x" * 100_000})

    response = endpoint.deliver(body, token)

    assert response.status_code == 400
    assert endpoint.log()[0]["reason"] == "the token is too long"


# --- the fuzzer sees what it looks for ------------------------------------------------------------------------------


def test_same_seed_makes_the_same_requests() -> None:
    """A seed and a number name one request: its kind and its bodies are made again, so that a finding can be."""
    requests = [[hostile.make(random.Random(f"7:{number}")) for number in range(200)] for _ in range(2)]  # noqa: S311 - made to repeat

    first, second = ([(one.kind, one.signed) for one in made] for made in requests)

    assert first == second
    assert len({kind for kind, _ in first}) > 30


def test_wrong_answers_are_found(embedded_target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function that refuses what is honest (here: for want of the secret) is found, with the command to repeat it."""
    run = Fuzz(embedded_target, seed=2)
    monkeypatch.setattr(signing, "SECRET", "not-the-secret-of-the-function")
    monkeypatch.setattr(signing.sign, "__defaults__", (signing.SECRET,))

    run.run(range(20), seconds=60, say=lambda _line: None)

    assert any(
        one.startswith("honest") and "python -m tests.fuzz --seed 2 --first" in one for one in run.ledger.findings
    )


def test_silence_is_found(embedded_target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that is neither answered nor closed ends as a finding."""
    monkeypatch.setattr(fuzz, "_HANG", 0.3)
    unfinished = Request("unfinished", (b"POST / HTTP/1.1\r\n",), frozenset({STORED}))
    monkeypatch.setattr(fuzz, "make", lambda _rng: unfinished)
    run = Fuzz(embedded_target, seed=3)

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
    ids=["an event nobody signed", "a quarantine nobody signed", "an acknowledged event that is missing"],
)
def test_wrong_store_is_found(events: set[str], quarantine: set[str]) -> None:
    """What is stored and was not signed, and what was acknowledged and is not stored, are findings."""
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
    """A line that is no JSON object, tells of a failure, or holds a secret, token or body is found by its number."""
    ledger = Ledger()

    ledger.check_log(['{"severity": "INFO", "message": "stored", "outcome": "stored", "status": 200}', line])

    assert len(ledger.findings) == 1
    assert ledger.findings[0].startswith("line 2 of the log ")


def test_growth_is_found() -> None:
    """Memory that grows from the run's first part to its last is a finding; memory that is level is none."""
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
def test_bad_arguments_are_refused(
    arguments: tuple[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong argument ends with status 2 and one line."""
    monkeypatch.setattr(sys, "argv", ["fuzz", *arguments])

    with pytest.raises(SystemExit) as end:
        fuzz.main()

    assert end.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
