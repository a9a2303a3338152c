"""The simulator's faults: their rates, the bodies that they send, and the bytes on the wire."""

import asyncio
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
from google.cloud import firestore
from google.cloud.firestore_v1.types import Document

from local.function import running_function
from local.processes import free_port
from receiver.errors import Unprocessable
from receiver.event import parse_event
from receiver.values import fill_fields
from simulator import faults
from simulator.cli import main
from simulator.faulty_connector import FaultyConnector
from simulator.sensors import default_device, encode, envelope, event
from simulator.signer import Signer
from tests import signing
from tests.soak.ledger import Account, Ledger, documents, expected

NOW = datetime(2026, 5, 16, 8, 13, 15, 361624, UTC)


def rng(seed: int) -> Random:
    """Return a repeatable generator."""
    return Random(seed)  # noqa: S311 - faults, no cryptography


def make_event(number: int) -> dict[str, Any]:
    """Return the body of an event."""
    return envelope(event("temperature", rng=rng(number), now=NOW), default_device("temperature"))


# Rates and bodies


def test_rates_are_kept_and_repeat_with_the_seed() -> None:
    """A fault applies to its share of the events, and to the same events for the same seed."""
    wanted = {"tampered-bodies": 0.2, "duplicates-later": 1.0}

    runs = [[faults.draw(wanted, one) for _ in range(2000)] for one in (rng(1), rng(1), rng(2))]

    counts = Counter(name for drawn in runs[0] for name in drawn)
    assert runs[0] == runs[1] != runs[2]
    assert (set(counts), counts["duplicates-later"]) == (set(wanted), 2000)
    assert 300 < counts["tampered-bodies"] < 500


def test_rate_of_one_fault_leaves_the_others_alone() -> None:
    """The rate of one fault does not change the draws of another."""
    alone = [faults.draw({"unknown-types": 0.3}, one) for one in map(rng, range(200))]
    both = [faults.draw({"unknown-types": 0.3, "slow-bodies": 0.5}, one) for one in map(rng, range(200))]

    assert [drawn - {"slow-bodies"} for drawn in both] == alone


def test_unknown_types_and_fields_are_valid_events() -> None:
    """An event with an unknown type and unknown fields keeps its id and its time, and is a valid document."""
    body = faults.change_schema(make_event(1), frozenset({"unknown-types", "unknown-fields"}))

    parsed = parse_event(encode(body))

    fill_fields(firestore_fields(), parsed.fields)
    assert parsed.event_id == make_event(1)["event"]["eventId"]
    assert parsed.fields["eventType"] not in {"temperature", "vibrations"}
    assert {"schema", "delivery", "sequence", "origin"} <= parsed.fields.keys()
    assert expected(encode(body)) == parsed.fields


def firestore_fields() -> Any:
    """Return the empty fields of a protobuf document."""
    return Document.pb()().fields


def test_unprocessable_body_is_not_a_valid_document() -> None:
    """The receiver refuses every unprocessable body, and no two bodies are equal."""
    bodies = [faults.unprocessable(rng(seed)) for seed in range(200)]

    storable = []
    for body in bodies:
        with suppress(Unprocessable):
            fill_fields(firestore_fields(), parse_event(body).fields)
            storable.append(body)
    assert storable == []
    assert len(set(bodies)) == 200


def test_tampered_body_is_not_what_was_signed() -> None:
    """The copy has the event's id or another one, and differs from the signed body in both cases."""
    body = encode(make_event(1))

    copies = [faults.tampered(body, rng(seed)) for seed in range(20)]

    assert {key for key, _ in copies} == {make_event(1)["event"]["eventId"], make_event(1)["event"]["eventId"] + "t"}
    assert body not in {copy for _, copy in copies}


def test_backfill_is_newest_first() -> None:
    """A burst of old events is due at once, marked as back-filled, and sorted from new to old."""
    burst = list(faults.backfilled(100, rng(1), NOW))

    times = [body["event"]["timestamp"] for _, body in burst]
    assert all(newer > older for newer, older in pairwise(times))
    assert {due for due, _ in burst} == {NOW}
    assert all(body["event"]["data"]["temperature"]["isBackfilled"] for _, body in burst)


def test_morning_is_one_second_of_every_sensor() -> None:
    """10,000 sensors send one heartbeat each within a second."""
    heartbeats = list(faults.morning(10_000, rng(1), NOW))

    assert len({body["event"]["targetName"] for _, body in heartbeats}) == 10_000
    assert len({body["event"]["eventId"] for _, body in heartbeats}) == 10_000
    assert 0 < (heartbeats[-1][0] - NOW).total_seconds() < 1


# On the wire


class Wire:
    """A server that records the bytes of each request and answers 200.

    Attributes:
        received: for each connection, the bytes, and whether the client closed it before the answer.
    """

    def __init__(self) -> None:
        """Has received nothing."""
        self.received: list[tuple[bytes, bool]] = []

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read one request, answer it and close the connection."""
        head = await reader.readuntil(b"\r\n\r\n")
        body = await self._body(head.decode().lower(), reader)
        try:
            await asyncio.wait_for(reader.read(1), 0.3)
            gone = True
        except TimeoutError:
            gone = False
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nOK")
        with suppress(ConnectionError):
            await writer.drain()
        self.received.append((head + body, gone))
        writer.close()

    @staticmethod
    async def _body(head: str, reader: asyncio.StreamReader) -> bytes:
        if "transfer-encoding: chunked" in head:
            return await reader.readuntil(b"\r\n0\r\n\r\n")
        return await reader.readexactly(int(head.partition("content-length: ")[2].split()[0]))


async def deliver_over(wire: Wire, fault: str, body: dict[str, Any]) -> FaultyConnector:
    """Deliver an event with a fault to a `Wire`; return the connector."""
    server = await asyncio.start_server(wire.take, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    async with (
        server,
        FaultyConnector(url, Signer(signing.SECRET), time_factor=100, rates={fault: 1.0}, rng=rng(1)) as sender,
    ):
        await sender.deliver(body)
    return sender


def test_early_close_leaves_before_the_answer() -> None:
    """The first attempt closes the connection after the request; the connector counts an error and tries again."""
    wire = Wire()

    connector = asyncio.run(deliver_over(wire, "early-closes", make_event(1)))

    assert [gone for _, gone in wire.received] == [True, False]
    assert all(received.endswith(encode(make_event(1))) for received, _ in wire.received)
    assert (connector.counters.error, connector.counters.success) == (1, 1)


def test_chunked_body_has_no_content_length() -> None:
    """The whole body is sent in chunks."""
    wire = Wire()

    asyncio.run(deliver_over(wire, "chunked-bodies", make_event(1)))

    ((received, _),) = wire.received
    assert b"content-length" not in received.lower()
    assert received.count(b"\r\n", received.index(b"\r\n\r\n") + 4) >= 10


def test_slow_body_has_a_content_length_and_is_complete() -> None:
    """A body sent in pieces is complete."""
    wire = Wire()

    asyncio.run(deliver_over(wire, "slow-bodies", make_event(1)))

    ((received, _),) = wire.received
    assert f"content-length: {len(encode(make_event(1)))}".encode() in received.lower()
    assert received.endswith(encode(make_event(1)))


# Against the function


@pytest.fixture
def function(environ: dict[str, str], tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Return the URL and the log of a running function."""
    port, log = free_port(), tmp_path / "function.log"
    with running_function(port, log=log, environ=os.environ | environ | {"LOG_LEVEL": "INFO"}):
        yield f"http://127.0.0.1:{port}/", log


def outcomes(log: Path) -> Counter[str]:
    """Count a log's outcomes."""
    return Counter(json.loads(line)["outcome"] for line in log.read_text().splitlines() if line.startswith("{"))


def test_each_fault_gets_its_answer(
    function: tuple[str, Path], database: firestore.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all faults: forged requests are refused, duplicates recognized, unprocessable bodies quarantined."""
    monkeypatch.setattr("simulator.faulty_connector._LATER_SECONDS", (0.1, 0.2))
    url, log = function
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    every = dict.fromkeys(set(faults.NAMES) - {"early-closes"}, 1.0)
    connector = FaultyConnector(url, Signer(signing.SECRET), time_factor=1e6, rates=every, rng=rng(1), observer=ledger)

    async def run() -> None:
        async with connector:
            await asyncio.gather(*(connector.deliver(make_event(number)) for number in range(5)))

    asyncio.run(run())
    account: Account = ledger.settle(documents(database, "events"), documents(database, "events_quarantine"))
    ledger.close()

    counted = outcomes(log)
    assert account.clean, account.lines()
    assert [account.counts[name] for name in ("made", "stored", "forged", "quarantined")] == [5, 5, 15, 5]
    assert (counted["stored"], counted["already_stored"], counted["unverified"]) == (5, 15, 15)
    assert (
        counted["quarantined"] == connector.counters.error == 5 * 21
    )  # an unprocessable body is sent again for 12 hours
    assert set(connector.happened.values()) == {0, 5}


def test_play_takes_the_faults_as_options(
    function: tuple[str, Path], database: firestore.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`play` injects the faults of its options, and succeeds if the valid events were acknowledged."""
    url, log = function
    monkeypatch.setenv("DT_SIGNATURE_SECRET", signing.SECRET)
    command = ["play", "--url", url, "--events", "10", "--rate", "100", "--seed", "1", "--backfill", "5"]

    status = main([*command, "--morning", "5", "--tampered-bodies", "1", "--same-token"])

    assert status == 0
    assert outcomes(log) == {"stored": 20, "unverified": 20}
    assert len(list(documents(database, "events"))) == 20


def test_documents_are_read_page_by_page(database: firestore.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A collection larger than a page is read completely, each document once."""
    monkeypatch.setattr("tests.soak.ledger._PAGE", 3)
    for number in range(7):
        database.collection("events").document(f"e{number}").create({"number": number})

    read = [document.id for document in documents(database, "events")]

    assert read == [f"e{number}" for number in range(7)]
