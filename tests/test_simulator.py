"""The sender: signatures, events, the retry policy, the Data Connector and the command line."""

import asyncio
import base64
import hashlib
import hmac
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count, islice, pairwise
from pathlib import Path
from random import Random
from typing import Any

import jwt
import pytest
from disruptive.events import Event

from dtcloud.signature import sign
from dtcloud.xid import xid
from receiver.errors import Unverified
from simulator import public_key, scenarios
from simulator.cli import main
from simulator.connector import Attempt, Connector
from simulator.fleet import Fleet
from simulator.identity_provider import KEYS_PATH, IdentityProvider
from simulator.keys import KeyFile, Keys
from simulator.retry import EVENT_LIFETIME, backoff, pause_before_retry
from simulator.sensors import EVENT_TYPES, ORGANIZATION_ID, default_device, device, encode, envelope, event
from simulator.signature import check
from simulator.signer import Signer

ROOT = Path(__file__).parent.parent
SECRET = "0123456789abcdef0123456789abcdef"
NOW = datetime(2026, 5, 16, 8, 13, 15, 361624, UTC)
BODY = b'{"event":{"eventId":"c5h2mtm0f2pl1hvqvmo0"}}'


# The signature


def decode_by_hand(token: str, secret: str) -> tuple[Any, Any]:
    """Check a token's signature with hmac alone, and return its header and claims."""
    head, claims, signature = token.split(".")
    digest = hmac.new(secret.encode(), f"{head}.{claims}".encode(), hashlib.sha256).digest()
    assert signature == base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    return tuple(json.loads(base64.urlsafe_b64decode(part + "==")) for part in (head, claims))


def test_signature_is_the_documented_one() -> None:
    """An independent verifier reads exactly DT's header and claims."""
    token = sign(BODY, SECRET, now=1_700_000_000.9, jti="c7fa4e77gf87eif6j3tg")

    header, claims = decode_by_hand(token, SECRET)

    assert header == {"alg": "HS256", "typ": "JWT"}
    assert claims == {
        "checksum": hashlib.sha1(BODY).hexdigest(),  # noqa: S324 - the sender's choice
        "checksum_sha256": hashlib.sha256(BODY).hexdigest(),
        "iat": 1_700_000_000,
        "exp": 1_700_003_600,
        "jti": "c7fa4e77gf87eif6j3tg",
    }


def test_each_signature_has_its_own_id() -> None:
    """Two tokens for one body differ in `jti` alone."""
    tokens = [sign(BODY, SECRET, now=1_700_000_000) for _ in range(2)]

    first, second = (decode_by_hand(token, SECRET)[1] for token in tokens)

    assert first.pop("jti") != second.pop("jti")
    assert first == second


def test_the_bytes_of_a_secret_are_the_key() -> None:
    """A secret in the environment need not be UTF-8: its bytes are the key, for the signer as for the function."""
    raw = b"\xff" + SECRET.encode()
    secret = raw.decode("utf-8", "surrogateescape")

    token = sign(BODY, secret, now=1_700_000_000)

    signed, _, signature = token.rpartition(".")
    digest = hmac.digest(raw, signed.encode(), "sha256")
    assert signature == base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    assert check(BODY, token, [secret], now=1_700_000_000)["iat"] == 1_700_000_000


def test_check_returns_the_claims() -> None:
    """A token is valid if it was signed with any of the secrets."""
    token = sign(BODY, SECRET, now=1_700_000_000, jti="x")

    claims = check(BODY, token, ["another" * 8, SECRET], now=1_700_000_000)

    assert claims["jti"] == "x"


@pytest.mark.parametrize(
    ("body", "secret", "lifetime"), [(b"{}", SECRET, 3600), (BODY, "another" * 8, 3600), (BODY, SECRET, -60)]
)
def test_check_refuses(body: bytes, secret: str, lifetime: float) -> None:
    """A token for another body, with another secret or with a past expiry is refused."""
    token = sign(BODY, SECRET, now=1_700_000_000, lifetime=lifetime)

    with pytest.raises(Unverified):
        check(body, token, [secret], now=1_700_000_000)


# The keys of the identity provider


def test_keys_are_shared_by_a_private_file(tmp_path: Path) -> None:
    """Another process sees the same keys and each rotation; the last key stays published; only the owner can read."""
    ours, theirs = KeyFile(tmp_path / "keys.json"), KeyFile(tmp_path / "keys.json")
    ours.create("https://issuer.example")
    first = theirs.newest()

    second, third = ours.rotate(), ours.rotate()

    assert [key.key_id for key in theirs.read()] == [third.key_id, second.key_id]
    assert len({first.key_id, second.key_id, third.key_id}) == 3
    assert theirs.newest().private_key.private_numbers() == third.private_key.private_numbers()
    assert theirs.newest().issuer == "https://issuer.example"
    assert stat.S_IMODE((tmp_path / "keys.json").stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [tmp_path / "keys.json"]


def test_keys_outlive_their_file(tmp_path: Path) -> None:
    """A sender goes on with the keys it has read when the file is gone; without any it raises OSError."""
    keys = KeyFile(tmp_path / "keys.json")
    with pytest.raises(FileNotFoundError):
        keys.newest()
    keys.create("https://issuer.example")
    key = keys.newest()

    (tmp_path / "keys.json").unlink()

    assert keys.newest() is key


def test_identity_provider_publishes_the_keys_of_its_file(tmp_path: Path) -> None:
    """A rotation by another process is published without a restart, and private keys never are."""
    with IdentityProvider(keys=KeyFile(tmp_path / "keys.json")) as provider:
        key = KeyFile(tmp_path / "keys.json").rotate()
        published = json.loads(provider.respond(KEYS_PATH)[1])["keys"]

    assert published[0] == key.public_jwk()
    assert [set(jwk) for jwk in published] == [{"kty", "crv", "x", "y", "use", "alg", "kid"}] * 2


# Events


def rng(seed: int) -> Random:
    """Return a repeatable generator."""
    return Random(seed)  # noqa: S311 - sensor values, no cryptography


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_event_type_is_read_by_dts_own_client(event_type: str) -> None:
    """`disruptive` reads each type, and the body has DT's members in DT's order."""
    source = default_device(event_type)

    body = encode(envelope(event(event_type, rng=rng(1), now=NOW), source))

    parsed = json.loads(body)
    read = Event(parsed["event"])
    assert (read.event_type, read.device_id) == (event_type, source.id)
    assert type(read.data).__name__.lower() == event_type.lower()
    assert getattr(read.data, "timestamp", None) == NOW
    assert parsed["event"]["timestamp"] == "2026-05-16T08:13:15.361624Z"
    assert list(parsed) == ["event", "labels", "metadata"]
    assert list(parsed["event"]) == ["eventId", "targetName", "eventType", "data", "timestamp"]
    assert list(parsed["metadata"]) == ["deviceId", "projectId", "deviceType", "productNumber"]
    assert 400 <= len(body) <= 1000
    assert len(EVENT_TYPES) == 19


def test_whole_numbers_have_no_decimal_point() -> None:
    """DT writes 27 degrees as `27`."""
    body = encode(event("temperature", rng=rng(1), now=NOW, value=27.0))

    assert b'"value":27,' in body


def test_ids_rise_with_time_and_do_not_collide() -> None:
    """An id has 20 characters of `[0-9a-v]`, sorts by its microsecond, and two of one microsecond differ."""
    times = [NOW + timedelta(microseconds=step) for step in (0, 1, 2, 10**6, 10**9)]

    ids = [xid(time, os.urandom) for time in times]

    assert ids == sorted(ids)
    assert all(re.fullmatch("[0-9a-v]{20}", made) for made in ids)
    assert xid(NOW, os.urandom) != xid(NOW, os.urandom)


def test_fridge_warms_while_its_door_is_open() -> None:
    """The temperature rises while the door is open and falls while it is closed."""
    readings = islice(scenarios.fridge(device("temperature", "inside"), device("contact", "door"), rng(3)), 400)

    celsius, spells = 4.0, {"OPEN": list[float](), "CLOSED": list[float]()}
    door, at_change = "CLOSED", celsius
    for reading in readings:
        if reading.event_type == "temperature":
            celsius = reading.value
        else:
            spells[door].append(celsius - at_change)
            door, at_change = reading.value, celsius
    assert len(spells["OPEN"]) > 3
    assert all(change > 1 for change in spells["OPEN"])
    assert all(change < -1 for change in spells["CLOSED"][2:])


def test_room_fills_and_airs_out() -> None:
    """CO2 rises with motion and falls without; the desk follows the motion sensor."""
    sensors = (device("co2", "air"), device("motion", "motion"), device("deskOccupancy", "desk"))
    readings = list(islice(scenarios.room(*sensors, rng(3)), 300))

    states = {"MOTION_DETECTED": "OCCUPIED", "NO_MOTION_DETECTED": "NOT_OCCUPIED"}
    changes = [at for at, reading in enumerate(readings) if reading.event_type == "motion"]
    for start, end in pairwise(changes):
        levels = [reading.value for reading in readings[start:end] if reading.event_type == "co2"]
        assert readings[start + 1].value == states[readings[start].value]
        assert levels == sorted(levels, reverse=readings[start].value == "NO_MOTION_DETECTED")
    assert len(changes) > 5


# The fleet


def test_fleet_is_repeatable_by_seed() -> None:
    """The same seed gives the same events; another seed, or no seed, gives others."""
    runs = [list(islice(Fleet(24, seed).play(NOW, rate=5), 200)) for seed in (7, 7, 8, None, None)]

    assert runs[0] == runs[1]
    ids = [{body["event"]["eventId"] for _, body in run} for run in runs[1:]]
    assert all(len(own) == 200 for own in ids)
    assert len(set().union(*ids)) == 800


@pytest.mark.parametrize("seed", range(20))
def test_fleet_shows_every_type_early(seed: int) -> None:
    """All 19 event types occur among the first 60 events, each in a body of the size that DT sends."""
    bodies = [body for _, body in islice(Fleet(24, seed).play(NOW, rate=5), 60)]

    assert {body["event"]["eventType"] for body in bodies} == set(EVENT_TYPES)
    assert all(400 <= len(encode(body)) <= 1000 for body in bodies)


@pytest.mark.parametrize("rate", [None, 0.5, 200.0])
def test_fleet_keeps_the_order_of_time(rate: float | None) -> None:
    """Events are due one after another from now on, and the timestamp of each is its due time."""
    events = list(islice(Fleet(24, 1).play(NOW, rate), 500))

    times = [due for due, _ in events]
    assert times == sorted(times)
    assert times[0] >= NOW
    assert all(datetime.fromisoformat(body["event"]["timestamp"]) == due for due, body in events)


def test_fleet_continues_where_it_stopped() -> None:
    """A second `play` starts at its own time with the readings that follow."""
    fleet = Fleet(24, 1)
    before = [body["event"]["eventId"] for _, body in islice(fleet.play(NOW), 100)]

    due, body = next(fleet.play(NOW + timedelta(days=1)))

    assert timedelta(days=1) <= due - NOW < timedelta(days=1, hours=1)
    assert body["event"]["eventId"] not in before


@pytest.mark.parametrize("size", [1, 4, 12, 500])
def test_fleet_has_the_given_size(size: int) -> None:
    """Exactly the given number of sensors publish events, in addition to the Cloud Connectors."""
    fleet = Fleet(size, 1)

    sources = {
        body["metadata"]["deviceId"]
        for _, body in islice(fleet.play(NOW, rate=100), 5000)
        if body["metadata"]["deviceType"] != "ccon"
    }

    assert sources == {sensor.id for sensor in fleet.sensors}
    assert len(sources) == size


# The retry policy


def test_backoff_doubles_to_an_hour() -> None:
    """The pause is 8 seconds, doubles with each failure, and is an hour at most."""
    pauses = [backoff(failures, 0.1) for failures in range(1, 12)]

    assert pauses == [8, 16, 32, 64, 128, 256, 512, 1024, 2048, 3600, 3600]
    assert backoff(10**9, 0.1) == 3600


def test_backoff_spares_a_slow_endpoint() -> None:
    """A pause is at least four times the response time."""
    assert [backoff(failures, 9.5) for failures in (1, 2, 3, 4)] == [38, 38, 38, 64]


def attempts_until(acknowledged: Callable[[float], bool], response_time: float) -> tuple[list[float], bool]:
    """Return an event's age at each attempt, and whether the last one succeeded, without waiting."""
    ages, age = [0.0], 0.0
    for failures in count(1):
        if acknowledged(age):
            return ages, True
        age += response_time
        pause = pause_before_retry(failures, age=age, response_time=response_time)
        if pause is None:
            return ages, False
        age += pause
        ages.append(age)
    raise AssertionError


@pytest.mark.parametrize("response_time", [0.001, 1.0, 10.0])
def test_event_is_discarded_after_12_hours(response_time: float) -> None:
    """Without an acknowledgement pauses grow to an hour, and the last attempt is at the end of the 12 hours."""
    ages, acknowledged = attempts_until(lambda _: False, response_time)

    assert not acknowledged
    assert ages[-1] == pytest.approx(EVENT_LIFETIME) == 12 * 3600
    assert max(later - earlier for earlier, later in pairwise(ages)) <= 3600 + response_time


@pytest.mark.parametrize("response_time", [0.001, 1.0, 10.0])
@pytest.mark.parametrize(("hours", "kept"), [(1, True), (12 - 1 / 60, True), (13, False)])
def test_outage_within_12_hours_loses_nothing(hours: float, response_time: float, *, kept: bool) -> None:
    """An event from the start of an outage survives 11 h 59 min of it, but not 13 h."""
    _, acknowledged = attempts_until(lambda age: age >= hours * 3600, response_time)

    assert acknowledged is kept


# The Data Connector


class Endpoint:
    """An HTTP server that records requests and answers with given statuses.

    Attributes:
        url: of the server.
        answers: returns the status for each request, by its number from 1.
        requests: the headers and body of each.
        connections: the clients' addresses.
        hold: no request is answered unless it is set.
    """

    def __init__(self) -> None:
        """Starts the server; it answers 200."""
        self.answers: Callable[[int], int] = lambda _: 200
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.connections: set[Any] = set()
        self.hold = threading.Event()
        self.hold.set()
        endpoint, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with lock:
                    endpoint.requests.append((dict(self.headers.items()), body))
                    endpoint.connections.add(self.client_address)
                    status = endpoint.answers(len(endpoint.requests))
                endpoint.hold.wait(30)
                self.send_response(status)
                self.send_header("Content-Length", "4")
                self.end_headers()
                self.wfile.write(b"said")

            def log_message(self, *_: Any) -> None:
                """Print nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Stop the server."""
        self.hold.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def server() -> Iterator[Endpoint]:
    """Return an endpoint that answers 200."""
    endpoint = Endpoint()
    yield endpoint
    endpoint.stop()


def deliver(connector: Connector, *bodies: bytes) -> list[Attempt]:
    """Deliver bodies concurrently."""

    async def run() -> list[Attempt]:
        async with connector:
            return await asyncio.gather(*(connector.deliver(body) for body in bodies))

    return asyncio.run(run())


def test_connector_delivers_a_signed_body(server: Endpoint) -> None:
    """The endpoint receives the unchanged body as JSON with a valid signature."""
    (delivery,) = deliver(Connector(server.url, Signer(SECRET)), BODY)

    ((headers, body),) = server.requests
    assert body == BODY
    assert headers["Content-Type"] == "application/json"
    assert decode_by_hand(headers["X-Dt-Signature"], SECRET)[1]["checksum_sha256"] == hashlib.sha256(BODY).hexdigest()
    assert (delivery.acknowledged, delivery.number, delivery.status, delivery.answer) == (True, 1, 200, "said")


PUBLIC_KEY = public_key.new_key("https://issuer.example", 1_700_000_000)


def verify_by_public_key(
    token: str, key: public_key.SigningKey = PUBLIC_KEY, *, expires: bool = True
) -> dict[str, Any]:
    """Verify a public-key token with PyJWT alone, and return its claims."""
    assert jwt.get_unverified_header(token) == {"alg": "ES256", "kid": key.key_id, "typ": "JWT"}
    public = key.private_key.public_key()
    return jwt.decode(token, public, algorithms=["ES256"], issuer=key.issuer, options={"verify_exp": expires})


@pytest.mark.parametrize(
    ("signer", "headers"),
    [
        (Signer(SECRET), {"X-Dt-Signature"}),
        (Signer(None, lambda: PUBLIC_KEY, "mine"), {"DT-Asymmetric-Signature"}),
        (Signer(SECRET, lambda: PUBLIC_KEY, "mine"), {"X-Dt-Signature", "DT-Asymmetric-Signature"}),
    ],
)
def test_connector_sends_a_header_for_each_proof(server: Endpoint, signer: Signer, headers: set[str]) -> None:
    """A signer with a secret, a key or both sends exactly their headers, each over the raw body."""
    deliver(Connector(server.url, signer), BODY)

    ((sent, _),) = server.requests
    digest = hashlib.sha256(BODY).hexdigest()
    assert {name for name in sent if "signature" in name.lower()} == headers
    if signer.secret:
        assert decode_by_hand(sent["X-Dt-Signature"], SECRET)[1]["checksum_sha256"] == digest
    if signer.key:
        claims = verify_by_public_key(sent["DT-Asymmetric-Signature"])
        assert (claims["checksum_sha256"], claims["sub"], claims["exp"] - claims["iat"]) == (digest, "mine", 300)


def test_each_attempt_is_signed_with_the_key_of_its_time(server: Endpoint) -> None:
    """After a rotation, retries carry tokens of the new key."""
    keys = Keys()
    keys.create("https://issuer.example")
    server.answers = lambda number: 503 if number < 3 else 200

    def rotate(_: Attempt) -> None:
        keys.rotate()

    deliver(Connector(server.url, Signer(None, keys.newest, "mine"), time_factor=1e4, on_attempt=rotate), BODY)

    tokens = [headers["DT-Asymmetric-Signature"] for headers, _ in server.requests]
    assert len({jwt.get_unverified_header(token)["kid"] for token in tokens}) == 3


@pytest.mark.parametrize("signer", [Signer(SECRET), Signer(SECRET, lambda: PUBLIC_KEY, "mine")])
def test_forger_makes_invalid_signatures_of_the_same_kinds(signer: Signer) -> None:
    """A forger's headers are complete, and none of them verifies; neither do expired ones."""
    true = signer.headers(BODY, now=1_700_000_000)
    forged = signer.forger().headers(BODY, now=1_700_000_000)
    expired = signer.headers(BODY, now=1_700_000_000, lifetime=-60)

    assert forged.keys() == expired.keys() == true.keys()
    for headers in (forged, expired):
        with pytest.raises(Unverified):
            check(BODY, headers["X-Dt-Signature"], [SECRET], now=1_700_000_000)
    if signer.key:
        with pytest.raises(jwt.InvalidSignatureError):
            verify_by_public_key(forged["DT-Asymmetric-Signature"])
        with pytest.raises(jwt.ExpiredSignatureError):
            verify_by_public_key(expired["DT-Asymmetric-Signature"])
        assert verify_by_public_key(true["DT-Asymmetric-Signature"], expires=False)


def test_a_signer_shows_neither_secret_nor_key() -> None:
    """The representation of a signer and of a key contains no secret."""
    shown = f"{Signer(SECRET, lambda: PUBLIC_KEY)!r} {PUBLIC_KEY!r} {Connector('http://a/', Signer(SECRET))!r}"

    assert SECRET not in shown
    assert "PrivateKey" not in shown


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_connector_takes_any_2xx(server: Endpoint, status: int) -> None:
    """Any 2xx acknowledges an event."""
    server.answers = lambda _: status

    (delivery,) = deliver(Connector(server.url, Signer(SECRET)), BODY)

    assert (delivery.acknowledged, delivery.number) == (True, 1)


@pytest.mark.parametrize("status", [302, 400, 404, 429, 500, 503])
def test_connector_retries_all_else(server: Endpoint, status: int) -> None:
    """Any other status, also 4xx, is counted, and the event is sent again with the policy's pauses."""
    server.answers = lambda number: status if number <= 3 else 200
    attempts: list[Attempt] = []
    connector = Connector(server.url, Signer(SECRET), time_factor=1e4, on_attempt=attempts.append)

    (delivery,) = deliver(connector, BODY)

    assert (delivery.acknowledged, delivery.number) == (True, 4)
    assert [(attempt.number, attempt.status) for attempt in attempts] == [
        (1, status),
        (2, status),
        (3, status),
        (4, 200),
    ]
    assert [attempt.retry_in for attempt in attempts] == [8, 16, 32, None]
    assert {body for _, body in server.requests} == {BODY}
    counters = connector.counters
    assert (counters.events, counters.success, counters.error, counters.discarded) == (1, 1, 3, 0)
    assert counters.last_error == f"{status}: said"


@pytest.mark.parametrize(("fresh_tokens", "different"), [(True, 3), (False, 1)])
def test_connector_signs_each_attempt_or_only_the_first(
    server: Endpoint, different: int, *, fresh_tokens: bool
) -> None:
    """A retry carries its own token, or the first attempt's, as `fresh_tokens` says."""
    server.answers = lambda number: 503 if number < 3 else 200

    deliver(Connector(server.url, Signer(SECRET), time_factor=1e4, fresh_tokens=fresh_tokens), BODY)

    assert len({headers["X-Dt-Signature"] for headers, _ in server.requests}) == different


def test_connector_gives_up_after_12_hours(server: Endpoint) -> None:
    """An event that is never acknowledged is discarded and counted."""
    server.answers = lambda _: 500
    connector = Connector(server.url, Signer(SECRET), time_factor=1e7)

    (delivery,) = deliver(connector, BODY)

    counters = connector.counters
    assert (delivery.acknowledged, delivery.status) == (False, 500)
    assert delivery.number == counters.error == len(server.requests) == 21
    assert (counters.success, counters.discarded, counters.waiting) == (0, 1, 0)


def test_connector_gives_up_after_its_own_limit(server: Endpoint) -> None:
    """An event is discarded after `event_lifetime`, with the last attempt at its end."""
    server.answers = lambda _: 500
    attempts: list[Attempt] = []
    connector = Connector(server.url, Signer(SECRET), time_factor=1e4, event_lifetime=60, on_attempt=attempts.append)

    deliver(connector, BODY)

    pauses = [attempt.retry_in for attempt in attempts]
    assert pauses[:3] == [8, 16, 32]
    assert pauses[3] is None
    assert connector.counters.discarded == 1


def test_connector_knows_when_it_tries_again(server: Endpoint) -> None:
    """While events wait for a retry, the time to the nearest one is known."""
    server.answers = lambda number: 503 if number < 3 else 200
    known: list[float | None] = []

    async def note(_: float) -> None:
        known.append(connector.next_attempt)

    connector = Connector(server.url, Signer(SECRET), sleep=note)
    deliver(connector, BODY)

    assert known == pytest.approx([8, 16], abs=1)
    assert connector.next_attempt is None


def test_connector_does_not_wait_for_ever(server: Endpoint) -> None:
    """No answer within the limit is a failure, and the next attempt follows."""
    server.hold.clear()
    attempts: list[Attempt] = []

    def release(attempt: Attempt) -> None:
        attempts.append(attempt)
        server.hold.set()

    connector = Connector(server.url, Signer(SECRET), time_factor=1e4, answer_limit=0.5, on_attempt=release)

    (delivery,) = deliver(connector, BODY)

    assert (delivery.acknowledged, delivery.number) == (True, 2)
    assert (attempts[0].status, attempts[0].answer) == (None, "no answer within 0.5 s")


def test_connector_outlives_a_refused_connection() -> None:
    """A refused connection counts as a failure, and the event is sent again."""
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}/"
    attempts: list[Attempt] = []
    connector = Connector(url, Signer(SECRET), time_factor=1e7, on_attempt=attempts.append)

    (delivery,) = deliver(connector, BODY)

    assert (delivery.acknowledged, delivery.status, delivery.number) == (False, None, len(attempts))
    assert len(attempts) > 10
    assert all(attempt.answer.startswith(f"no connection to {url}: ") for attempt in attempts)


def test_connector_sends_in_parallel(server: Endpoint) -> None:
    """Events are sent concurrently: 20 are in progress before the first is answered."""
    server.hold.clear()

    def release_at_the_last(number: int) -> int:
        if number == 20:
            server.hold.set()
        return 200

    server.answers = release_at_the_last
    connector = Connector(server.url, Signer(SECRET))

    deliveries = deliver(connector, *(b"{%d}" % number for number in range(20)))

    assert [delivery.acknowledged for delivery in deliveries] == [True] * 20
    assert [delivery.body for delivery in deliveries] == [b"{%d}" % number for number in range(20)]


def test_connector_keeps_its_connections(server: Endpoint) -> None:
    """With one connection allowed, all events use the same connection."""
    deliver(Connector(server.url, Signer(SECRET), connections=1), *[BODY] * 10)

    assert (len(server.requests), len(server.connections)) == (10, 1)


def test_connector_plays_events_when_they_are_due(server: Endpoint) -> None:
    """All events of a fleet arrive, none before it is due, and the counters agree."""
    connector = Connector(server.url, Signer(SECRET))
    arrivals: dict[bytes, datetime] = {}

    def note(attempt: Attempt) -> None:
        arrivals[attempt.body] = datetime.now(UTC)

    async def run() -> list[tuple[datetime, dict[str, Any]]]:
        connector.on_attempt = note
        events = list(islice(Fleet(12, 1).play(datetime.now(UTC), rate=200), 60))
        async with connector:
            await connector.play(events)
        return events

    events = asyncio.run(run())

    assert {encode(body) for _, body in events} == {body for _, body in server.requests}
    assert all(arrivals[encode(body)] > due for due, body in events)
    counters = connector.counters
    assert (counters.events, counters.success, counters.waiting) == (60, 60, 0)
    assert 0 < (counters.percentile(50) or 0) <= (counters.percentile(99) or 0) <= max(counters.latencies)


@pytest.mark.parametrize("url", ["", "127.0.0.1:8080", "ftp://127.0.0.1/", "http://", "http://a:b/", "http://a:99999/"])
def test_connector_refuses_an_invalid_url(url: str) -> None:
    """An invalid URL is refused at once, with an example of a valid one."""
    with pytest.raises(ValueError, match=re.escape("is not a URL like http://127.0.0.1:8080/")):
        Connector(url, Signer(SECRET))


# The command line

UNSET = dict.fromkeys(("DT_SIGNATURE_SECRET", "DT_ENDPOINT_URL", "DT_ORGANIZATION_ID", "DT_IDENTITY_ISSUER"), "")


@pytest.fixture
def local_system(server: Endpoint, tmp_path: Path) -> Iterator[IdentityProvider]:
    """Write the file of a local system that trusts both proofs; return its identity provider."""
    folder = tmp_path / ".state"
    folder.mkdir()
    with IdentityProvider(keys=KeyFile(folder / "keys.json")) as provider:
        settings = {
            "DT_ENDPOINT_URL": server.url,
            "DT_SIGNATURE_SECRET": SECRET,
            "DT_ORGANIZATION_ID": ORGANIZATION_ID,
            "DT_IDENTITY_ISSUER": provider.issuer,
            "DT_IDENTITY_KEYS": str(folder / "keys.json"),
        }
        (folder / "settings.json").write_text(json.dumps(settings))
        yield provider


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the folder of a local system; no setting of the environment takes precedence."""
    for name in UNSET:
        monkeypatch.delenv(name, raising=False)
    return str(tmp_path / ".state")


def simulator(
    *arguments: str, url: str = "", secret: str = SECRET, stdin: bytes = b"", **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run `python -m simulator`."""
    environ = os.environ | UNSET | {"DT_SIGNATURE_SECRET": secret, "DT_ENDPOINT_URL": url} | settings
    command = [sys.executable, "-m", "simulator", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environ, input=stdin, capture_output=True, check=False, timeout=60)
    return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())


def test_send_delivers_one_event(server: Endpoint) -> None:
    """`send` delivers the given value, device and labels, and prints the answer."""
    arguments = ("temperature", "--value", "21.5", "--device", "mine", "--label", "a=b", "--label", "c=d=e")

    done = simulator("send", *arguments, url=server.url)

    ((_, body),) = server.requests
    sent = json.loads(body)
    assert sent["event"]["data"]["temperature"]["value"] == 21.5
    assert sent["event"]["targetName"].endswith("/devices/mine")
    assert sent["labels"] == {"a": "b", "c": "d=e"}
    assert done.returncode == 0
    assert re.search(r"^200 OK after \d+ ms: said$", done.stdout, re.MULTILINE)


def test_send_reports_a_refusal(server: Endpoint) -> None:
    """`send` prints the refusal, does not send again, and exits with 1."""
    server.answers = lambda _: 400

    done = simulator("send", "touch", "--url", server.url)

    assert done.returncode == 1
    assert "400 Bad Request" in done.stdout
    assert len(server.requests) == 1


def test_send_without_an_endpoint() -> None:
    """`send` to a closed port exits with 1 and one line, without a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}/"

    done = simulator("send", "touch", url=url)

    assert done.returncode == 1
    assert "no answer after" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("extra", [("--events", "30"), ("--minutes", "0.02")])
def test_play_ends_by_itself(server: Endpoint, extra: tuple[str, str]) -> None:
    """`play` ends after the given count or time, when all events are delivered, and prints the counters."""
    server.answers = lambda number: 503 if number == 3 else 200

    done = simulator("play", *extra, "--rate", "40", "--seed", "7", "--time-factor", "1000", url=server.url)

    events = len({body for _, body in server.requests})
    assert done.returncode == 0
    assert done.stdout.startswith(f"events {events}, success {events}, error 1, discarded 0, waiting 0, p50 latency")
    assert events == 30 if extra[0] == "--events" else events > 10


def test_play_runs_until_ctrl_c(server: Endpoint) -> None:
    """Without a count or a time, `play` ends with Ctrl-C, still prints the counters, and exits with 130."""
    third = threading.Event()

    def note(number: int) -> int:
        if number == 3:
            third.set()
        return 200

    server.answers = note
    environ = os.environ | {"DT_SIGNATURE_SECRET": SECRET, "DT_ENDPOINT_URL": server.url}
    command = [sys.executable, "-m", "simulator", "play", "--rate", "20"]

    with subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        arrived = third.wait(30)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)

    assert arrived
    assert (process.returncode, err) == (130, b"")
    assert re.match(rb"events \d+, success \d+, error 0, ", out)


def test_play_names_a_dead_endpoint_at_once_and_gives_up() -> None:
    """`play` names an endpoint without an answer when it first fails; with `--give-up-after` it ends with status 1."""
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}/"

    done = simulator("play", "--events", "2", "--rate", "100", "--give-up-after", "0.5", url=url)

    assert done.returncode == 1
    assert re.fullmatch(rf"First failure: no answer after \d+ ms: no connection to {url}: .*\n", done.stderr)
    assert done.stdout.startswith("events 2, success 0, error 2, discarded 2, waiting 0; last error no answer: ")


def test_play_says_what_it_waits_for(server: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """While events wait for a retry, the progress says how many, when the next attempt is, and how to end."""
    server.answers = lambda _: 503
    monkeypatch.setenv("DT_SIGNATURE_SECRET", SECRET)
    script = "import sys; from simulator import cli; cli._PROGRESS_SECONDS = 0.1; sys.exit(cli.main())"
    command = [sys.executable, "-c", script, "play", "--events", "2", "--rate", "100", "--url", server.url]

    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        line = next(line for line in process.stdout if "; Ctrl-C ends" in line)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)

    assert re.search(r"; \d waiting, next attempt in [78] s; Ctrl-C ends$", line)
    assert process.returncode == 130
    assert errors.startswith("First failure: 503 Service Unavailable after ")
    assert errors.count("\n") == 1


def test_ctrl_c_ends_the_retries_of_send(server: Endpoint) -> None:
    """`send --retry` that is interrupted between two attempts exits with 130, without a traceback."""
    server.answers = lambda _: 503
    command = [sys.executable, "-m", "simulator", "send", "touch", "--retry", "--url", server.url]
    environ = os.environ | {"DT_SIGNATURE_SECRET": SECRET}

    with subprocess.Popen(
        command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        line = next(line for line in process.stdout if "next attempt in 8 s" in line)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)

    assert line.startswith("503 Service Unavailable after ")
    assert (process.returncode, errors.strip()) == (130, "")


def test_sign_prints_the_token_alone() -> None:
    """`sign` prints the header's value alone, signed with the first of several secrets."""
    done = simulator("sign", stdin=BODY, secret=f"\n  {SECRET} \nanother\n")

    _, claims = decode_by_hand(done.stdout.removesuffix("\n"), SECRET)
    assert claims["checksum_sha256"] == hashlib.sha256(BODY).hexdigest()
    assert (done.returncode, done.stderr) == (0, "")


def test_secret_file_replaces_the_environment(tmp_path: Path) -> None:
    """`--secret-file` replaces DT_SIGNATURE_SECRET."""
    file = tmp_path / "secret"
    file.write_text("from the file, and long enough for it\n")

    done = simulator("sign", "--secret-file", str(file), stdin=BODY)

    assert decode_by_hand(done.stdout.strip(), "from the file, and long enough for it")


def test_a_short_secret_signs_without_a_warning() -> None:
    """The simulator signs with a short secret, as DT Cloud does, without a warning."""
    done = simulator("sign", stdin=BODY, secret="short")

    assert decode_by_hand(done.stdout.strip(), "short")
    assert done.stderr == ""


def test_verify_prints_the_claims() -> None:
    """`verify` prints the claims and `verified` if any of the secrets fits."""
    now = datetime.now(UTC).timestamp()
    token = sign(BODY, SECRET, now=now, jti="c7fa4e77gf87eif6j3tg")

    done = simulator("verify", "--token", token, stdin=BODY, secret=f"another\n{SECRET}")

    claims, end = done.stdout.rsplit("}\n", 1)
    assert json.loads(claims + "}")["jti"] == "c7fa4e77gf87eif6j3tg"
    assert (done.returncode, end) == (0, "verified\n")


def test_verify_prints_the_reason_of_a_refusal() -> None:
    """`verify` prints one line that says why a token is not valid, and exits with 1."""
    token = sign(BODY, SECRET, now=datetime.now(UTC).timestamp())

    done = simulator("verify", "--token", token, stdin=BODY + b" ")

    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"not verified: .*checksum.*\n", done.stderr)


@pytest.mark.parametrize(
    ("arguments", "secret", "headers"),
    [
        ([], "", {"X-Dt-Signature", "DT-Asymmetric-Signature"}),
        (["--signature", "both"], "", {"X-Dt-Signature", "DT-Asymmetric-Signature"}),
        (["--signature", "both"], "given", {"X-Dt-Signature", "DT-Asymmetric-Signature"}),
        (["--signature", "secret"], "", {"X-Dt-Signature"}),
        (["--signature", "public-key"], "", {"DT-Asymmetric-Signature"}),
        (["--signature", "public-key"], "given", {"DT-Asymmetric-Signature"}),
        ([], "given", {"X-Dt-Signature"}),
    ],
)
@pytest.mark.usefixtures("local_system")
def test_send_signs_for_the_local_system(
    server: Endpoint, state: str, arguments: list[str], secret: str, headers: set[str]
) -> None:
    """URL, secret and keys are those of the local system; a secret that is given signs in place of all of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DT_SIGNATURE_SECRET", secret)
        status = main(["send", "touch", *arguments, "--state", state])

    ((sent, _),) = server.requests
    assert status == 0
    assert {name for name in sent if "signature" in name.lower()} == headers
    if "X-Dt-Signature" in headers:
        assert decode_by_hand(sent["X-Dt-Signature"], secret or SECRET)


@pytest.mark.parametrize(
    ("settings", "arguments", "said"),
    [
        ({}, ["--url", "https://a.example/"], "No signature secret for https://a.example/: set DT_SIGNATURE_SECRET or"),
        (
            {},
            ["--url", "https://a.example/", "--signature", "public-key"],
            "No key of an identity provider for https://a.example/: only DT has its keys.",
        ),
        (
            {"DT_SIGNATURE_SECRET": ""},
            ["--signature", "both"],
            "No signature secret: the system that runs in STATE has none; set DT_SIGNATURE_SECRET or",
        ),
        (
            {"DT_IDENTITY_KEYS": ""},
            ["--signature", "public-key"],
            "No key of an identity provider: the system that runs in STATE has none.",
        ),
    ],
)
@pytest.mark.usefixtures("local_system")
def test_what_cannot_be_signed_is_said_in_one_line(
    settings: dict[str, str], arguments: list[str], said: str, state: str, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    """No secret of the local system goes to another host, and what is missing is named with exit status 2."""
    file = Path(state) / "settings.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))

    status = main(["send", "touch", *arguments, "--state", state])

    output = capsys.readouterr()
    assert (status, output.out, output.err.count("\n")) == (2, "", 1)
    assert output.err.startswith(f"python -m simulator send: {said.replace('STATE', state)}")


def test_public_key_tokens_are_signed_and_verified(local_system: IdentityProvider, tmp_path: Path) -> None:
    """`sign --signature public-key` prints a token of the local system, `verify` its claims or why it is not valid."""
    state = ("--state", str(tmp_path / ".state"))

    token = simulator("sign", "--signature", "public-key", *state, stdin=BODY, secret="").stdout.strip()
    good, changed = (
        simulator("verify", "--token", token, *state, stdin=body, secret="") for body in (BODY, BODY + b" ")
    )
    trust = {"DT_ORGANIZATION_ID": "other", "DT_IDENTITY_ISSUER": local_system.issuer}
    other = simulator("verify", "--token", token, *state, stdin=BODY, **trust)

    claims, end = good.stdout.rsplit("}\n", 1)
    assert verify_by_public_key(token, local_system.key) == json.loads(claims + "}")
    assert json.loads(claims + "}")["sub"] == ORGANIZATION_ID
    assert (good.returncode, end) == (0, "verified\n")
    assert (changed.returncode, changed.stdout) == (1, "")
    assert changed.stderr == "not verified: the claim checksum_sha256 does not match the body\n"
    assert other.stderr == "not verified: the token is from another organization\n"


@pytest.mark.parametrize("content", [None, "{", '{"GOOGLE_CLOUD_PROJECT": "demo"}'])
def test_a_public_key_token_needs_an_organization(tmp_path: Path, content: str | None) -> None:
    """Without a local system, or with a file that is none of a system, `verify` says in one line what to set."""
    if content:
        (tmp_path / "settings.json").write_text(content)
    token = public_key.sign(BODY, PUBLIC_KEY, organization="mine", now=1_700_000_000)

    done = simulator("verify", "--token", token, "--state", str(tmp_path), stdin=BODY)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(
        f"python -m simulator verify: No organization to trust: no system runs in {tmp_path}; start one with"
        " ./run.sh --serve, or set DT_ORGANIZATION_ID. See "
    )


def test_rotate_keys_changes_the_key_of_the_local_system(local_system: IdentityProvider, tmp_path: Path) -> None:
    """`rotate-keys` makes the identity provider and the senders use a new key; without a system one line says so."""
    before = local_system.key

    done = simulator("rotate-keys", "--state", str(tmp_path / ".state"))
    nothing = simulator("rotate-keys", "--state", str(tmp_path))

    assert done.stdout == f"{local_system.key.key_id} signs from now on; {before.key_id} stays published.\n"
    assert local_system.key.key_id != before.key_id
    assert nothing.returncode == 2
    assert f"No system runs in {tmp_path}; start one with ./run.sh --serve." in nothing.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Missing command"),
        (("send",), "TYPE"),
        (("send", "warmth"), "'warmth'"),
        (("send", "temperature", "--value", "warm"), "must be a number"),
        (("send", "contact", "--value", "ajar"), "OPEN, CLOSED"),
        (("send", "touch", "--value", "1"), "no value"),
        (("send", "humidity", "--value", "1,2,x"), "RELATIVE_HUMIDITY"),
        (("send", "labelsChanged", "--value", "x"), "KEY=VALUE"),
        (("send", "co2", "--label", "x"), "KEY=VALUE"),
        (("send", "co2", "--url", "here"), "'here' is not a URL"),
        (("play", "--events", "0"), "x>=1"),
        (("play", "--rate", "nan"), "not a finite number"),
        (("play", "--events", "1", "--minutes", "1"), "not allowed with"),
        (("verify",), "--token"),
        (("sign", "--secret-file", "/nowhere/at/all"), "No such file"),
    ],
)
def test_a_wrong_argument_is_reported_in_one_line(
    arguments: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong argument ends with exit status 2 and one line that says what is wrong."""
    monkeypatch.setenv("DT_SIGNATURE_SECRET", SECRET)

    status = main(arguments)

    output = capsys.readouterr()
    assert (status, output.out, output.err.count("\n")) == (2, "", 1)
    assert output.err.startswith("python -m simulator")
    assert said in output.err


@pytest.mark.parametrize("command", [("send", "touch"), ("play",), ("sign",), ("verify", "--token", "x")])
def test_a_missing_secret_is_reported_in_one_line(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a secret and a local system every command ends with exit status 2 and one line that says what to do."""
    monkeypatch.setenv("DT_SIGNATURE_SECRET", " \n ")
    monkeypatch.delenv("DT_ENDPOINT_URL", raising=False)

    status = main([*command, "--state", str(tmp_path)])

    output = capsys.readouterr()
    assert (status, output.out) == (2, "")
    assert re.fullmatch(
        rf"python -m simulator \w+: No signature secret: no system runs in {tmp_path}; start one with ./run.sh --serve,"
        r" or set DT_SIGNATURE_SECRET or pass --secret-file\. See .*\n",
        output.err,
    )


@pytest.mark.usefixtures("local_system")
@pytest.mark.parametrize("command", ["", "send", "play", "sign", "verify", "rotate-keys"])
def test_the_examples_in_help_run(tmp_path: Path, command: str) -> None:
    """Beside a local system each example of each `--help` succeeds as it stands; the help fits 80 columns."""
    text = simulator(*command.split(), "--help").stdout
    examples = [line.strip() for line in text.partition("Examples:\n")[2].replace("\\\n", "").splitlines()]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environ = os.environ | UNSET | {"PATH": path, "PYTHONPATH": str(ROOT)}

    statuses = [
        subprocess.run(
            ["bash", "-o", "pipefail", "-c", line],
            cwd=tmp_path,
            env=environ,
            check=False,
            timeout=60,
            capture_output=True,
        ).returncode
        for line in examples
    ]

    assert examples
    assert statuses == [0] * len(examples)
    assert max(map(len, text.partition("Examples:\n")[0].splitlines())) <= 80
