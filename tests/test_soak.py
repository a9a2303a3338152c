"""A short soak, its ledger, the sabotages that it must find, and outages of 12 hours in seconds."""

import asyncio
import hashlib
import heapq
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pytest
from google.cloud import firestore

from local.function import running_function
from local.processes import free_port
from simulator.faulty_connector import FaultyConnector
from simulator.retry import EVENT_LIFETIME
from simulator.sensors import default_device, encode, envelope, event
from simulator.signer import Signer
from tests import signing
from tests.soak.__main__ import main
from tests.soak.fault_injector import FAULTS
from tests.soak.forger import FORGERIES
from tests.soak.ledger import PROMISES, Account, Ledger, canonical, documents, expected
from tests.soak.schedule import draw_schedule
from tests.soak.signer import PROOFS

ROOT = Path(__file__).parent.parent
NOW = datetime(2026, 5, 16, 8, 13, 15, 361624, UTC)
HOUR = 3600.0
BURSTS = ("--backfill", "100", "--morning", "100")
FACTOR = ("--time-factor", "20000")  # 12 hours are 2 s


def rng(seed: int) -> Random:
    """Return a repeatable generator."""
    return Random(seed)  # noqa: S311 - faults, no cryptography


def soak(folder: Path, project: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Run a soak of the project in a folder; return its exit status, its JSON and its output."""
    file = folder / "ledger.json"
    command = [sys.executable, "-m", "tests.soak", "--json", str(file), *arguments]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False, timeout=300)
    assert file.exists(), done.stderr
    return done.returncode, json.loads(file.read_text() or "{}"), done.stdout + done.stderr


# The schedule

KINDS = {kind: fault.seconds for kind, fault in FAULTS.items()}


def test_schedule_is_repeatable_by_seed() -> None:
    """The same seed gives the same schedule, another seed another one."""
    schedules = [draw_schedule(seed, 300, KINDS) for seed in (1, 1, 2)]

    assert schedules[0] == schedules[1] != schedules[2]
    assert 300 <= sum(episode.length for episode in schedules[0]) < 315


def test_schedule_has_every_kind_before_it_repeats_one() -> None:
    """A run that is long enough has every kind of fault."""
    schedule = draw_schedule(3, 300, KINDS)

    rounds = [{episode.kind for episode in schedule[start : start + len(KINDS)]} for start in (0, len(KINDS))]
    assert rounds == [set(KINDS), set(KINDS)]


# The ledger


class Sent:
    """An event that a ledger has recorded."""

    def __init__(self, ledger: Ledger, number: int, *, acknowledged: bool = True) -> None:
        """Make and record the event."""
        content = event("temperature", rng=rng(number), now=NOW)
        self.key: str = content["eventId"]
        self.body = encode(envelope(content, default_device("temperature")))
        ledger.made(self.key, self.body)
        if acknowledged:
            ledger.acknowledged(self.body)

    @property
    def document(self) -> dict[str, Any]:
        """The fields that the function would store."""
        return {**expected(self.body), "receivedAt": firestore.SERVER_TIMESTAMP}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Return an empty ledger."""
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    yield ledger
    ledger.close()


def settle(ledger: Ledger, database: firestore.Client) -> Account:
    """Compare a ledger with all documents of a database."""
    return ledger.settle(documents(database, "events"), documents(database, "events_quarantine"))


def broken(account: Account) -> dict[str, int]:
    """Return the promises that do not hold."""
    return {promise: account.counts[promise] for promise in PROMISES if account.counts[promise]}


def test_ledger_of_kept_promises(ledger: Ledger, database: firestore.Client) -> None:
    """Events stored as sent, an unprocessable body in quarantine and a forged body not stored: clean."""
    sent = [Sent(ledger, number) for number in range(3)]
    ledger.forged("forged", b"{}")
    ledger.unprocessable(b"not JSON")
    for one in sent:
        database.collection("events").document(one.key).create(one.document)
    key = hashlib.sha256(b"not JSON").hexdigest()
    quarantined = {"body": b"not JSON", "reason": "x", "receivedAt": firestore.SERVER_TIMESTAMP}
    database.collection("events_quarantine").document(key).create(quarantined)

    account = settle(ledger, database)

    assert (account.clean, broken(account)) == (True, {})
    names = ("made", "acknowledged", "stored", "forged", "unprocessable", "quarantined")
    assert [account.counts[name] for name in names] == [3, 3, 3, 1, 1, 1]


def missing(_: Sent, __: Ledger, ___: Any) -> None:
    """Store nothing."""


def altered(sent: Sent, _: Ledger, events: Any) -> None:
    """Store a whole number as a float."""
    events.document(sent.key).create(sent.document | {"labels": {"name": 1.0}})


def with_a_text_as_time(sent: Sent, _: Ledger, events: Any) -> None:
    """Store the time as a string."""
    events.document(sent.key).create(sent.document | {"timestamp": "2026-05-16T08:13:15.361624Z"})


def rewritten(sent: Sent, _: Ledger, events: Any) -> None:
    """Store it twice, with the same content."""
    events.document(sent.key).create(sent.document)
    events.document(sent.key).set(sent.document)


def invented(sent: Sent, _: Ledger, events: Any) -> None:
    """Store an event that was not sent."""
    events.document(sent.key).create(sent.document)
    events.document("invented").create(sent.document | {"eventId": "invented"})


def forged(sent: Sent, ledger: Ledger, events: Any) -> None:
    """Store a forged event."""
    events.document(sent.key).create(sent.document)
    body = encode({"event": {"eventId": "f", "timestamp": "2026-05-16T08:13:15Z"}})
    ledger.forged("f", body)
    ledger.acknowledged(body)
    events.document("f").create(expected(body) | {"receivedAt": firestore.SERVER_TIMESTAMP})


def dropped(sent: Sent, ledger: Ledger, events: Any) -> None:
    """Acknowledge an unprocessable body without storing it."""
    events.document(sent.key).create(sent.document)
    ledger.unprocessable(b"not JSON")
    ledger.acknowledged(b"not JSON")


@pytest.mark.parametrize(
    ("act", "promises"),
    [
        (missing, {"acknowledged but missing"}),
        (altered, {"stored with a field that differs"}),
        (with_a_text_as_time, {"stored with a field that differs"}),
        (rewritten, {"stored twice or rewritten"}),
        (invented, {"stored but never sent"}),
        (forged, {"forged and stored", "forged and acknowledged"}),
        (dropped, {"unprocessable and not in quarantine", "unprocessable and acknowledged"}),
    ],
)
def test_ledger_of_a_broken_promise(
    ledger: Ledger, database: firestore.Client, act: Callable[..., None], promises: set[str]
) -> None:
    """A broken promise is counted under its own name alone, and the account is not clean."""
    act(Sent(ledger, 1), ledger, database.collection("events"))

    account = settle(ledger, database)

    assert (account.clean, broken(account)) == (False, dict.fromkeys(promises, 1))


def test_ledger_of_a_valid_event_in_quarantine(ledger: Ledger, database: firestore.Client) -> None:
    """A valid event in quarantine is a broken promise, and is listed as discarded and not stored."""
    sent = Sent(ledger, 1, acknowledged=False)
    ledger.discarded(sent.body, "400: no")
    key = hashlib.sha256(sent.body).hexdigest()
    database.collection("events_quarantine").document(key).create({"body": sent.body, "reason": "x"})

    account = settle(ledger, database)

    assert broken(account) == {"valid and in quarantine": 1}
    assert account.keys["discarded: 400: no"] == account.keys["discarded and not stored"] == [sent.key]


def test_ledger_of_nothing_is_not_clean(ledger: Ledger, database: firestore.Client) -> None:
    """An account without an acknowledged event is not clean."""
    Sent(ledger, 1, acknowledged=False)

    account = settle(ledger, database)

    assert (account.clean, broken(account)) == (False, {"neither acknowledged nor discarded": 1})


@pytest.mark.parametrize(
    ("one", "other"), [(1, 1.0), (1, True), (0, False), ("1", 1), (None, ""), (NOW, NOW.isoformat()), ([], {})]
)
def test_ledger_tells_types_apart(one: Any, other: Any) -> None:
    """Values of different Firestore types differ, even if Python compares them as equal."""
    assert canonical({"a": one}) == canonical({"a": one})
    assert canonical({"a": one}) != canonical({"a": other})


# The soak


# The seed whose schedule has every kind of fault in the shortest time.
_SHORT = ("--minutes", "0.78", "--seed", "57254", "--rate", "12", "--sensors", "50", "--devices", *FACTOR, *BURSTS)
_SABOTAGE = ("--minutes", "0.06", "--seed", "7", "--rate", "15", "--sensors", "50", "--store", "embedded", *FACTOR)
Soaks = dict[str, Future[tuple[int, dict[str, Any], str]]]


@pytest.fixture(scope="module")
def soaks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Soaks]:
    """Return the results of a short soak and of one for each sabotage; two run at a time, because they mostly wait."""

    def run_sabotaged(change: tuple[str, str, str], arguments: tuple[str, ...]) -> tuple[int, dict[str, Any], str]:
        folder = tmp_path_factory.mktemp("sabotage")
        return soak(folder, sabotaged(folder, *change), *_SABOTAGE, *arguments)

    with ThreadPoolExecutor(2) as pool:
        futures = {"short": pool.submit(soak, tmp_path_factory.mktemp("soak"), ROOT, *_SHORT)}
        futures |= {name: pool.submit(run_sabotaged, *sabotage[:2]) for name, sabotage in SABOTAGES.items()}
        yield futures
        pool.shutdown(wait=False, cancel_futures=True)


def test_short_soak_is_clean(soaks: Soaks) -> None:
    """With every kind of fault, each acknowledged event is stored once, and nothing else is stored."""
    status, figures, said = soaks["short"].result()

    assert (status, figures["clean"]) == (0, True), said
    assert set(KINDS) - {"kill Firestore"} <= set(figures["faults"])
    assert min(figures["senderFaults"].values()) > 0
    assert figures["proofs"].keys() == set(PROOFS)
    assert min(figures["proofs"].values()) > 0
    assert figures["forgeries"].keys() == FORGERIES.keys()
    assert figures["ledger"]["stored"] >= figures["ledger"]["acknowledged"] > 300
    assert "CLEAN: every promise holds." in said


@pytest.mark.parametrize(
    ("arguments", "named"),
    [(("--store", "spanner"), "--store"), (("--duplicates-later", "2"), "0<=x<=1"), (("--only", "x"), "--only")],
)
def test_wrong_argument_is_reported_in_one_line(
    arguments: tuple[str, ...], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong argument ends with exit status 2 and one line."""
    status = main(arguments)

    output = capsys.readouterr()
    assert (status, output.out, output.err.count("\n")) == (2, "", 1)
    assert named in output.err


SABOTAGES: dict[str, tuple[tuple[str, str, str], tuple[str, ...], str]] = {
    "acknowledge before the commit": (
        (
            "main.py",
            "return await create(event, end)",
            "receive.task = asyncio.create_task(create(event, end)); return Outcome.STORED",
        ),
        ("--only", "kill the function before a commit", "--only", "answer DEADLINE_EXCEEDED"),
        "acknowledged but missing",
    ),
    "treat ABORTED as stored": (
        (
            "receiver/store.py",
            "if error.code() is grpc.StatusCode.ALREADY_EXISTS:",
            "if error.code() in (grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.ABORTED):",
        ),
        ("--only", "answer ABORTED"),
        "acknowledged but missing",
    ),
    "acknowledge a whole batch": (
        ("receiver/batching.py", "_OUTCOMES.get(status.code) for", "Outcome.STORED for"),
        ("--only", "refuse single writes of a batch", "--minutes", "0.15", "--rate", "100", "--morning", "500"),
        "acknowledged but missing",
    ),
    "set in place of create": (
        ("receiver/store.py", "write.current_document.exists = False", "pass"),
        ("--only", "delay commits", "--duplicates-after-success", "0.5"),
        "stored twice or rewritten",
    ),
    "skip the checksum": (
        ("receiver/authentication.py", "\n            check_checksums(claims, body)\n", "\n            pass\n"),
        ("--only", "drop connections", "--tampered-bodies", "0.5"),
        "forged and stored",
    ),
    "skip the organization": (
        ("receiver/public_key.py", " or organization not in organizations", ""),
        ("--only", "rotate keys"),
        "forged and stored",
    ),
    "skip the signature by public key": (
        ("receiver/public_key.py", '_JWS.decode(token.text, key, algorithms=["ES256"])', "pass"),
        ("--only", "rotate keys"),
        "forged and stored",
    ),
    "fetch keys for each unknown id": (
        ("receiver/key_set.py", "if now - self._attempted <", "if False and now - self._attempted <"),
        ("--only", "rotate keys", "--minutes", "0.09"),  # the last kind of forgery, also on a slow machine
        "keys fetched too often",
    ),
    "answer 503 to another organization": (
        (
            "receiver/public_key.py",
            'raise Unverified("the token is from another organization")',
            'raise __import__("receiver.errors").errors.Unavailable("x")',
        ),
        ("--only", "rotate keys"),
        "forged and not refused",
    ),
}


def sabotaged(folder: Path, file: str, before: str, after: str) -> Path:
    """Copy the project with one line of its source replaced."""
    copy = folder / "project"
    for part in ("receiver", "command_line", "local", "dtcloud", "simulator", "tests"):
        shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "main.py", copy)
    source = (copy / file).read_text()
    assert source.count(before) == 1
    (copy / file).write_text(source.replace(before, after))
    return copy


@pytest.mark.parametrize("name", SABOTAGES)
def test_sabotage_is_found(soaks: Soaks, name: str) -> None:
    """A function that breaks a promise fails the soak, and the ledger names the promise."""
    promise = SABOTAGES[name][2]

    status, figures, said = soaks[name].result()

    assert (status, figures["clean"]) == (1, False), said
    assert figures["ledger"][promise] > 0
    assert f"{promise} " in said
    assert "BROKEN" in said
    assert len(figures["keys"][promise]) > 0


# Twelve hours


class Clock:
    """The clock of the retry policy: it advances to the next attempt as soon as all deliveries wait for one.

    Attributes:
        now: seconds since the start.
    """

    def __init__(self) -> None:
        """Starts at 0."""
        self.now = 0.0
        self._numbers = count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    async def sleep(self, seconds: float) -> None:
        """Wait for a time on this clock."""
        waiting = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now + seconds, next(self._numbers), waiting))
        await waiting

    async def run(self, tasks: list[asyncio.Task[None]], alarm: float, ring: Callable[[], object]) -> None:
        """Advance until all tasks are done; call `ring` before the first time that is not before `alarm`."""
        while alive := sum(not task.done() for task in tasks):
            if len(self._sleepers) < alive:
                await asyncio.sleep(0.001)
                continue
            at, _, waiting = heapq.heappop(self._sleepers)
            if self.now < alarm <= at:
                ring()
            self.now = at
            waiting.set_result(None)
            await asyncio.sleep(0)


@pytest.mark.parametrize("outage", [(12 - 1 / 60, 0), (13, 3)])
def test_outage_loses_only_what_the_connector_discards(
    tmp_path: Path, ledger: Ledger, environ: dict[str, str], database: firestore.Client, outage: tuple[float, int]
) -> None:
    """With an event every 25 minutes, an outage of 11 h 59 min loses none, one of 13 h those older than 12 h."""
    hours, lost = outage
    clock, port = Clock(), free_port()
    url = f"http://127.0.0.1:{port}/"
    connector = FaultyConnector(url, Signer(signing.SECRET), sleep=clock.sleep, observer=ledger)
    source = default_device("temperature")
    times = [number * 25 * 60.0 for number in range(31)]
    bodies = [envelope(event("temperature", rng=rng(index), now=NOW), source) for index in range(31)]

    async def deliver(time: float, body: dict[str, Any]) -> None:
        await clock.sleep(time)
        await connector.deliver(body)

    async def run(end_outage: Callable[[], object]) -> None:
        async with connector:
            tasks = [asyncio.create_task(deliver(*one)) for one in zip(times, bodies, strict=True)]
            await clock.run(tasks, hours * HOUR, end_outage)

    with ExitStack() as life:
        function = running_function(port, log=tmp_path / "function.log", environ=os.environ | environ)
        asyncio.run(run(lambda: life.enter_context(function)))
    account = settle(ledger, database)

    too_old = [
        body["event"]["eventId"] for time, body in zip(times, bodies, strict=True)
        if time + EVENT_LIFETIME < hours * HOUR
    ]  # fmt: skip
    assert len(too_old) == lost
    assert sorted(account.keys.get("discarded and not stored", [])) == sorted(too_old)
    assert connector.counters.discarded == lost
    assert (account.counts["acknowledged"], account.counts["stored"]) == (31 - lost, 31 - lost)
    assert (account.clean, broken(account)) == (True, {})
