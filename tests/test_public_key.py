"""Every bad public-key token is refused, every good one verifies, and the keys are fetched as the contract promises."""

import asyncio
import base64
import hashlib
import json
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from receiver import fetch as fetching
from receiver import key_set
from receiver.errors import Unavailable, Unverified
from receiver.fetch import FetchError, fetch
from receiver.key_set import KeySet, key_set_url, usable_keys
from receiver.public_key import parse_token, verify_signature
from receiver.settings import is_loopback
from receiver.signature import Claims
from simulator import identity_provider, public_key
from simulator.identity_provider import IdentityFault, IdentityProvider
from tests import signing
from tests.events import encode, envelope
from tests.identity import DISCOVERY, KEYS, Identity, dripping, raw, response

BODY = encode(envelope())
NOW = 1_800_000_000.0
PUBLIC_KEY = signing.PRIVATE_KEY.public_key()
PEM = PUBLIC_KEY.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
OTHER_KEY = ec.generate_private_key(ec.SECP256R1())
P384_KEY = ec.generate_private_key(ec.SECP384R1())
ORGANIZATIONS = frozenset({signing.ORGANIZATION, "second"})
HEADER = {"alg": "ES256", "kid": signing.KEY_ID, "typ": "JWT"}


def check(token: str | None, leeway: float = 10) -> Claims:
    """Verify as the function does, at a fixed time and with the right key."""
    parsed = parse_token(token, issuer=signing.ISSUER, organizations=ORGANIZATIONS, leeway=leeway, now=NOW)
    return verify_signature(parsed, PUBLIC_KEY)


def claims_at(**changes: Any) -> dict[str, Any]:
    """Return claims made at the fixed time."""
    return signing.public_claims_of(BODY, **({"iat": int(NOW), "exp": int(NOW) + 300} | changes))


def at(**changes: Any) -> str:
    """Return a token made at the fixed time."""
    return signing.public_token(claims_at(**changes))


def with_header(key: ec.EllipticCurvePrivateKey = signing.PRIVATE_KEY, **changes: Any) -> str:
    """Return a token made at the fixed time whose header is changed."""
    header = {name: value for name, value in (HEADER | changes).items() if value is not None}
    return signing.public_token(claims_at(), key, header=header)


# No key is needed to refuse these.
REFUSED_WITHOUT_A_KEY = {
    "missing": None,
    "empty": "",
    "blank": " \t ",
    "no JWT": "abc",
    "too long": at(padding="x" * 3000),
    "two segments": "a.b",
    "not base64": "!.!.!",
    "not ASCII": "é.é.é",
    "a lone surrogate": "\ud800.\ud800.\ud800",
    "HS256 with the public key as secret": signing.token(claims_at(), PEM, header=HEADER | {"alg": "HS256"}),
    "alg none": with_header(alg="none"),
    "alg none, no signature": with_header(alg="none").rsplit(".", 1)[0] + ".",
    "alg ES384": with_header(alg="ES384"),
    "alg es256": with_header(alg="es256"),
    "alg missing": with_header(alg=None),
    "alg a list": with_header(alg=["ES256"]),
    "header not an object": signing.public_token(claims_at(), header="[]"),
    "nested header": signing.public_token(claims_at(), header='{"a":' + "[" * 300),
    "critical extension": with_header(crit=["x"], x=1),
    "unencoded payload": with_header(crit=["b64"], b64=False),
    "kid missing": with_header(kid=None),
    "kid empty": with_header(kid=""),
    "kid a number": with_header(kid=7),
    "kid a list": with_header(kid=[signing.KEY_ID]),
    "claims not an object": signing.public_token("[]"),
    "claims not JSON": signing.public_token("{"),
    "claims not UTF-8": with_header().split(".")[0] + "._w." + with_header().split(".")[2],
    "other issuer": at(iss="https://identity.example.com/data-connector"),
    "issuer missing": at(iss=None),
    "issuer a list": at(iss=[signing.ISSUER]),
    "issuer with a slash": at(iss=signing.ISSUER + "/"),
    "other organization": at(sub="bvj2geou3pbc8h9hv4j1"),
    "organization missing": at(sub=None),
    "organization empty": at(sub=""),
    "organization a part": at(sub=signing.ORGANIZATION[:-1]),
    "organization a list": at(sub=[signing.ORGANIZATION]),
    "organization an object": at(sub={}),
    "expired": at(exp=int(NOW) - 11),
    "exp missing": at(exp=None),
    "exp a string": at(exp="later"),
    "exp true": at(exp=True),
    "exp NaN": at(exp=float("nan")),
    "exp Infinity": at(exp=float("inf")),
    "exp of 400 digits": at(exp=10**400),
    "iat missing": at(iat=None),
    "iat a string": at(iat="now"),
    "iat in the future": at(iat=int(NOW) + 11),
    "nbf in the future": at(nbf=int(NOW) + 11),
    "nbf null": signing.public_token(claims_at() | {"nbf": None}),
    "checksum_sha256 missing": at(checksum_sha256=None),
    "checksum_sha256 missing, checksum present": at(checksum_sha256=None, checksum="da39a3ee"),
    "checksum_sha256 a number": at(checksum_sha256=7),
    "checksum_sha256 a list": at(checksum_sha256=["a"]),
}
REFUSED_BY_THE_KEY = {
    "other key": with_header(OTHER_KEY),
    "key in the header": with_header(OTHER_KEY, jwk=signing.jwk(OTHER_KEY)),
    "key at an address in the header": with_header(OTHER_KEY, jku="https://example.com/keys"),
    "certificate in the header": with_header(OTHER_KEY, x5c=["MIIB"]),
    "P-384 key": with_header(P384_KEY),
    "no signature": at().rsplit(".", 1)[0] + ".",
    "signature of zeros": at().rsplit(".", 1)[0] + "." + "A" * 86,
    "short signature": at().rsplit(".", 1)[0] + ".AAAA",
    "claims of another token": ".".join([at().split(".")[0], at(jti="x").split(".")[1], at().split(".")[2]]),
}


@pytest.mark.parametrize("token", REFUSED_WITHOUT_A_KEY.values(), ids=REFUSED_WITHOUT_A_KEY)
def test_token_is_refused_without_a_key(token: str | None) -> None:
    """A token that no key could make valid is refused before a key is asked for."""
    with pytest.raises(Unverified):
        parse_token(token, issuer=signing.ISSUER, organizations=ORGANIZATIONS, leeway=10, now=NOW)


@pytest.mark.parametrize("token", REFUSED_BY_THE_KEY.values(), ids=REFUSED_BY_THE_KEY)
def test_forged_signature_is_refused(token: str) -> None:
    """A token that the key of the issuer has not signed is refused, whatever its header offers."""
    parsed = parse_token(token, issuer=signing.ISSUER, organizations=ORGANIZATIONS, leeway=10, now=NOW)

    with pytest.raises(Unverified):
        verify_signature(parsed, PUBLIC_KEY)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"sub": "second"},
        {"exp": int(NOW) - 9},
        {"iat": int(NOW) + 10, "exp": NOW + 10.5},
        {"nbf": int(NOW) + 10},
        {"aud": "anyone", "jti": "j", "further": {"x": 1}},
    ],
    ids=["as DT's", "second organization", "late clock", "early clock", "early nbf", "further claims"],
)
def test_good_token_verifies(changes: dict[str, Any]) -> None:
    """A token of a trusted organization returns its claims; the leeway covers a clock that is off."""
    claims = check(f" {at(**changes)}\t")

    assert claims == claims_at(**changes)
    assert claims["checksum_sha256"] == hashlib.sha256(BODY).hexdigest()


@pytest.mark.parametrize("changes", [{"exp": int(NOW) - 10}, {"iat": int(NOW) + 11}, {"nbf": int(NOW) + 11}])
def test_leeway_ends(changes: dict[str, Any]) -> None:
    """At the end of the leeway a token has expired, or is not valid yet; a longer leeway accepts it."""
    with pytest.raises(Unverified):
        check(at(**changes))

    assert check(at(**changes), leeway=11)


def test_token_of_4096_characters_is_the_longest() -> None:
    """A token has 4,096 characters at most; DT's has 446, and may get further claims."""
    padding = next(n for n in range(4000) if len(at(padding="x" * n)) >= 4094)

    tokens = [at(padding="x" * (padding + extra)) for extra in range(6)]

    fits = [token for token in tokens if len(token) <= 4096]
    assert fits
    assert all(check(token) for token in fits)
    for token in tokens[len(fits) :]:
        with pytest.raises(Unverified, match="too long"):
            check(token)


def test_token_of_pyjwt_verifies() -> None:
    """A token made by PyJWT's encoder verifies as one of the tests' own signer does."""
    token = jwt.encode(claims_at(), signing.PRIVATE_KEY, algorithm="ES256", headers={"kid": signing.KEY_ID})

    assert check(token) == claims_at()


# Other tests may need the processor at the same time: how long an example takes does not matter.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)
CLAIMS = st.sampled_from(["exp", "iat", "nbf", "checksum_sha256", "jti", "sub", "aud", "iss"])
HEADERS = st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk", "jku", "x5c", "cty"])


@unhurried
@given(changes=st.dictionaries(CLAIMS, JSON))
def test_hostile_claims_are_refused_or_harmless(changes: dict[str, Any]) -> None:
    """Whatever a signed token claims, verifying it returns or raises Unverified; with a wrong origin, the latter."""
    try:
        claims = check(signing.public_token(claims_at() | changes))
    except Unverified:
        return

    assert {"sub", "iss"}.isdisjoint(changes)
    assert isinstance(claims["checksum_sha256"], str)


@unhurried
@given(changes=st.dictionaries(HEADERS, JSON))
def test_hostile_header_is_refused_or_harmless(changes: dict[str, Any]) -> None:
    """Whatever a header holds, verifying the token returns or raises Unverified; with a changed alg, the latter."""
    try:
        check(signing.public_token(claims_at(), header=HEADER | changes))
    except Unverified:
        return

    assert "alg" not in changes


@unhurried
@given(signature=st.binary(max_size=130))
def test_any_other_signature_is_refused(signature: bytes) -> None:
    """Bytes that are not the key's signature, of whatever length, raise Unverified."""
    text = base64.urlsafe_b64encode(signature).rstrip(b"=").decode()

    with pytest.raises(Unverified):
        check(f"{at().rsplit('.', 1)[0]}.{text}")


@unhurried
@given(
    token=st.text(st.characters()) | st.from_regex(r"[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*", fullmatch=True)
)
def test_any_text_is_no_token(token: str) -> None:
    """Text that nobody signed raises Unverified, whatever it holds."""
    with pytest.raises(Unverified):
        check(token)


# The key set


class Clock:
    """A clock that a test moves.

    Attributes:
        now: seconds.
    """

    now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def identity() -> Iterator[Identity]:
    """Return an identity provider that publishes the key of the tests' signer."""
    identity = Identity()
    yield identity
    identity.stop()


@pytest.fixture
def clock() -> Clock:
    """Return the clock of the key set."""
    return Clock()


@pytest.fixture
def keys(identity: Identity, clock: Clock) -> KeySet:
    """Return a key set that has fetched nothing yet."""
    return KeySet(identity.issuer, clock=clock)


def key(keys: KeySet, key_id: str = signing.KEY_ID) -> ec.EllipticCurvePublicKey:
    """Return a key as a delivery asks for it, each time in an event loop of its own."""
    return asyncio.run(keys.key(key_id))


def is_known(found: ec.EllipticCurvePublicKey, private: ec.EllipticCurvePrivateKey = signing.PRIVATE_KEY) -> bool:
    """Return whether a key is the public half of another."""
    return found.public_numbers() == private.public_key().public_numbers()


def timed(call: Callable[[], Awaitable[Any]]) -> float:
    """Return how many seconds a call takes that ends with Unavailable, once nothing of it is left running."""

    async def run() -> float:
        start = time.monotonic()
        with pytest.raises(Unavailable):
            await call()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return time.monotonic() - start

    return asyncio.run(run())


def test_keys_are_fetched_when_first_needed(identity: Identity, keys: KeySet) -> None:
    """Nothing is fetched before the first token; its key comes from the set that the discovery document names."""
    assert identity.requests == []

    assert is_known(key(keys))
    assert identity.requests == [DISCOVERY, KEYS]
    assert {f"http://{host}" for host in identity.hosts} == {identity.issuer}


def test_keys_are_kept_for_an_hour(identity: Identity, keys: KeySet, clock: Clock) -> None:
    """A key that is held is not fetched again within an hour; then the whole set is renewed."""
    key(keys)

    clock.now += 3599
    assert is_known(key(keys))
    assert identity.fetches() == 1
    clock.now += 1
    assert is_known(key(keys))
    assert identity.fetches() == 2
    clock.now += 3599
    key(keys)
    assert identity.fetches() == 2


def test_withdrawn_key_is_refused_after_the_hour(identity: Identity, keys: KeySet, clock: Clock) -> None:
    """A key that the issuer no longer publishes is refused once the set has been renewed."""
    key(keys)
    identity.answers[KEYS] = {"keys": [signing.jwk(OTHER_KEY, kid="new")]}
    clock.now += 3600

    with pytest.raises(Unverified):
        key(keys)

    assert is_known(key(keys, "new"), OTHER_KEY)


def test_new_key_is_fetched_when_a_token_names_it(identity: Identity, keys: KeySet, clock: Clock) -> None:
    """After the issuer has changed its key, the first token of the new one causes a fetch."""
    key(keys)
    identity.answers[KEYS] = {"keys": [signing.jwk(), signing.jwk(OTHER_KEY, kid="new")]}
    clock.now += 30

    assert is_known(key(keys, "new"), OTHER_KEY)
    assert is_known(key(keys))
    assert identity.fetches() == 2


def test_flood_of_unknown_keys_causes_one_fetch_in_30_seconds(identity: Identity, keys: KeySet, clock: Clock) -> None:
    """Whatever key ids strangers send, the set is fetched at most once every 30 s, and each of them is refused."""
    key(keys)
    for number in range(200):
        clock.now += 0.149
        with pytest.raises(Unverified):
            key(keys, f"unknown-{number}")
    assert identity.fetches() == 1

    clock.now += 0.3
    for number in range(50):
        with pytest.raises(Unverified):
            key(keys, f"unknown-{number}")
    assert identity.fetches() == 2


def test_unknown_key_at_the_first_fetch_is_refused(identity: Identity, keys: KeySet) -> None:
    """A key that a set does not have that has just been fetched is Unverified, the first set included."""
    with pytest.raises(Unverified):
        key(keys, "unknown")

    assert is_known(key(keys))
    assert identity.fetches() == 1


def test_first_fetch_that_failed_is_tried_again_after_5_seconds(identity: Identity, keys: KeySet, clock: Clock) -> None:
    """Without keys a delivery is Unavailable, names the identity provider, and 5 s later the next one tries again."""
    good, identity.answers[DISCOVERY] = identity.answers[DISCOVERY], raw(response(b"", "500 Internal Server Error"))
    for _ in range(3):
        with pytest.raises(Unavailable, match=f"identity provider {identity.issuer}: status 500"):
            key(keys)
    clock.now += 4.9
    with pytest.raises(Unavailable):
        key(keys)
    assert identity.fetches() == 1

    identity.answers[DISCOVERY] = good
    clock.now += 0.1
    assert is_known(key(keys))
    assert identity.fetches() == 2


def test_identity_provider_that_is_gone_leaves_the_keys_in_use(identity: Identity, keys: KeySet, clock: Clock) -> None:
    """Keys that are held serve on past the hour while DT is unreachable, with one attempt in 30 s to renew them."""
    key(keys)
    identity.stop()
    clock.now += 7200

    assert all(is_known(key(keys)) for _ in range(20))
    with pytest.raises(Unavailable, match="identity provider"):
        key(keys, "unknown")


BROKEN = {
    "failing": raw(response(b"", "503 Service Unavailable")),
    "empty": raw(response(b"")),
    "silent": raw(b""),
    "not HTTP": raw(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "broken JSON": raw(response(b'{"keys": [{')),
    "not UTF-8": raw(response(b"\xff\xfe\xfd")),
    "nested JSON": raw(response(b"[" * 60_000)),
    "null": raw(response(b"null")),
    "a list": [],
    "an empty object": {},
    "huge": raw(response(b" " * 65_537 + b"{}")),
    "huge, without a length": raw(b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 200_000),
    "huge headers": raw(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 100_000),
    "cut short": raw(response(b"{}", headers={"Content-Length": "100"})),
    "redirecting": raw(response(b"", "302 Found", {"Location": "/elsewhere"})),
    "switching protocols": raw(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
    "compressed": raw(response(b"\x1f\x8b\x08", headers={"Content-Encoding": "gzip"})),
}
BROKEN_SETS = {
    "no keys": {"keys": []},
    "keys null": {"keys": None},
    "keys an object": {"keys": {"a": signing.jwk()}},
    "only unusable keys": {"keys": [signing.jwk(P384_KEY), 7]},
}
CASES = [(DISCOVERY, name, answer) for name, answer in BROKEN.items()]
CASES += [(KEYS, name, answer) for name, answer in (BROKEN | BROKEN_SETS).items()]


@pytest.mark.parametrize(("path", "answer"), [case[::2] for case in CASES], ids=[f"{c[0]} {c[1]}" for c in CASES])
def test_broken_answer_is_no_key_set(identity: Identity, keys: KeySet, clock: Clock, path: str, answer: Any) -> None:
    """A broken answer is Unavailable without keys, and never replaces a good set; redirects are not followed."""
    good, identity.answers[path] = identity.answers[path], answer
    with pytest.raises(Unavailable, match=r"identity provider http\S+: (?!the fetch was interrupted)"):
        key(keys)

    clock.now += 5
    identity.answers[path] = good
    assert is_known(key(keys))

    clock.now += 3600
    identity.answers[path] = answer
    assert is_known(key(keys))
    clock.now += 30
    with pytest.raises(Unavailable):
        key(keys, "unknown")
    assert is_known(key(keys))
    assert "/elsewhere" not in identity.requests


@pytest.mark.parametrize("path", [DISCOVERY, KEYS])
def test_good_document_needs_status_200(identity: Identity, keys: KeySet, path: str) -> None:
    """A redirect is refused, whatever body it has."""
    good = encode(identity.answers[path])
    identity.answers[path] = raw(response(good, "302 Found", {"Location": path}))

    with pytest.raises(Unavailable, match="status 302"):
        key(keys)


@pytest.mark.parametrize("path", [DISCOVERY, KEYS])
def test_good_document_may_have_64_kib(identity: Identity, keys: KeySet, clock: Clock, path: str) -> None:
    """A document of 65,536 bytes is read, one more byte is refused."""
    good = encode(identity.answers[path])
    identity.answers[path] = raw(response(good.ljust(65_537)))
    with pytest.raises(Unavailable, match="more than 65536 bytes"):
        key(keys)

    identity.answers[path] = raw(response(good.ljust(65_536)))
    clock.now += 5
    assert is_known(key(keys))


def test_discovery_of_another_issuer_is_refused(identity: Identity, keys: KeySet) -> None:
    """The issuer in the discovery document must equal the setting, to the letter; its key set is not fetched."""
    identity.answers[DISCOVERY] |= {"issuer": identity.issuer + "/"}

    with pytest.raises(Unavailable, match="another issuer"):
        key(keys)

    assert identity.requests == [DISCOVERY]


def test_discovery_needs_only_the_url_of_the_key_set(identity: Identity, keys: KeySet) -> None:
    """A discovery document that does not name its issuer is read: it comes from the issuer's own URL."""
    del identity.answers[DISCOVERY]["issuer"]

    assert is_known(key(keys))


@pytest.mark.parametrize(
    ("issuer", "url", "good"),
    [
        (signing.ISSUER, "https://keys.example.com/any?x=1", True),
        ("http://127.0.0.1:9", "https://keys.example.com/any", True),
        ("http://127.0.0.1:9", "http://127.0.0.2:7/keys", True),
        ("http://[::1]:9", "http://localhost:7/keys", True),
        (signing.ISSUER, "http://127.0.0.1/keys", False),
        (signing.ISSUER, "http://keys.example.com/keys", False),
        ("http://127.0.0.1:9", "http://keys.example.com/keys", False),
        ("http://127.0.0.1:9", "http://127.0.0.1.example.com/keys", False),
        ("http://127.0.0.1:9", "http://127.0.0.1@example.com/keys", False),
        ("http://127.0.0.1:9", "http://10.0.0.1/keys", False),
        ("http://127.0.0.1:9", "http:///keys", False),
        (signing.ISSUER, "file:///etc/passwd", False),
        (signing.ISSUER, "/keys", False),
        (signing.ISSUER, 7, False),
        (signing.ISSUER, None, False),
    ],
)
def test_key_set_is_fetched_by_https_only(issuer: str, url: Any, good: bool) -> None:  # noqa: FBT001 - a parameter
    """The key set may be at any https address; http is only for an issuer and a key set on this machine."""
    discovery = {"issuer": issuer, "jwks_uri": url}

    if good:
        assert key_set_url(discovery, issuer) == url
    else:
        with pytest.raises(FetchError, match="https"):
            key_set_url(discovery, issuer)


def test_slow_fetch_ends_after_3_seconds(identity: Identity, keys: KeySet) -> None:
    """Discovery and key set together have 3 s; then nothing of the fetch is left."""
    identity.answers[DISCOVERY] = raw(response(encode(identity.answers[DISCOVERY])), wait=1.8)
    identity.answers[KEYS] = raw(response(encode(identity.answers[KEYS])), wait=1.8)

    assert 2.9 < timed(lambda: keys.key(signing.KEY_ID)) < 3.6  # the answers would take that long


@pytest.mark.parametrize("path", [DISCOVERY, KEYS])
def test_dripping_answer_ends_at_the_limit(
    identity: Identity, keys: KeySet, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """An answer that comes byte by byte has no longer than a silent one, and its connection is closed."""
    monkeypatch.setattr(key_set, "FETCH_SECONDS", 0.5)
    identity.answers[path] = dripping(response(encode(identity.answers[path])), pause=0.02)

    assert 0.4 < timed(lambda: keys.key(signing.KEY_ID)) < 2.0

    end = time.monotonic() + 2
    while identity.open and time.monotonic() < end:
        time.sleep(0.02)
    assert identity.open == 0


def test_chunked_answer_is_read(identity: Identity, keys: KeySet) -> None:
    """An answer in chunks, after an informational one, is read as one with a length is."""
    body = encode(identity.answers[KEYS])
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    head = b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    identity.answers[KEYS] = raw(head + chunks)

    assert is_known(key(keys))


def test_query_of_the_key_set_is_sent(identity: Identity, keys: KeySet) -> None:
    """The address of the key set is used as the discovery document names it, its query included."""
    identity.answers["/?set=1"] = identity.answers.pop(KEYS)
    identity.answers[DISCOVERY]["jwks_uri"] = identity.issuer + "?set=1"

    assert is_known(key(keys))


def test_100_deliveries_at_once_share_one_fetch(identity: Identity, keys: KeySet) -> None:
    """Deliveries that arrive at once wait for one fetch."""
    identity.answers[DISCOVERY] = raw(response(encode(identity.answers[DISCOVERY])), wait=0.2)

    async def deliver() -> list[ec.EllipticCurvePublicKey]:
        return await asyncio.gather(*(keys.key(signing.KEY_ID) for _ in range(100)))

    assert all(is_known(found) for found in asyncio.run(deliver()))
    assert identity.requests == [DISCOVERY, KEYS]


def test_cancelled_delivery_leaves_the_fetch_to_the_others(identity: Identity, keys: KeySet) -> None:
    """The delivery that has started the fetch may be cancelled: those that wait for it get their key."""
    identity.answers[DISCOVERY] = raw(response(encode(identity.answers[DISCOVERY])), wait=0.2)

    async def deliver() -> ec.EllipticCurvePublicKey:
        first = asyncio.create_task(keys.key(signing.KEY_ID))
        second = asyncio.create_task(keys.key(signing.KEY_ID))
        await asyncio.sleep(0.05)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        return await second

    assert is_known(asyncio.run(deliver()))
    assert identity.fetches() == 1


def test_renewal_delays_one_delivery_by_1_second(identity: Identity, keys: KeySet, clock: Clock) -> None:
    """While DT is silent, the delivery that starts the renewal waits 1 s, others not at all, and none is refused."""
    key(keys)
    clock.now += 3600
    identity.answers[DISCOVERY] = raw(b"", wait=4)

    async def deliver() -> list[float]:
        async def seconds() -> float:
            start = time.monotonic()
            assert is_known(await keys.key(signing.KEY_ID))
            return time.monotonic() - start

        return [*await asyncio.gather(*(seconds() for _ in range(10))), await seconds()]

    first, *others = asyncio.run(deliver())
    assert 0.9 < first < 2.5
    assert max(others) < 0.7
    assert identity.fetches() == 2


def test_unknown_key_waits_for_the_renewal_under_way(identity: Identity, keys: KeySet, clock: Clock) -> None:
    """A new key that a token names during a renewal is found in the renewed set, by the same fetch."""
    key(keys)
    clock.now += 3600
    identity.answers[KEYS] = raw(
        response(encode({"keys": [signing.jwk(OTHER_KEY, kid="new"), signing.jwk()]})), wait=0.2
    )

    async def deliver() -> tuple[ec.EllipticCurvePublicKey, ec.EllipticCurvePublicKey]:
        return await asyncio.gather(keys.key(signing.KEY_ID), keys.key("new"))

    old, new = asyncio.run(deliver())
    assert (is_known(old), is_known(new, OTHER_KEY)) == (True, True)
    assert identity.fetches() == 2


def test_renewal_is_not_started_twice(identity: Identity, keys: KeySet, clock: Clock) -> None:
    """While a renewal is under way there is no other, even if the process was suspended for longer than 30 s."""
    key(keys)
    clock.now += 3600
    identity.answers[DISCOVERY] = raw(response(encode(identity.answers[DISCOVERY])), wait=0.3)

    async def deliver() -> None:
        first = asyncio.create_task(keys.key(signing.KEY_ID))
        await asyncio.sleep(0.05)
        clock.now += 30
        assert is_known(await keys.key(signing.KEY_ID))
        await first

    asyncio.run(deliver())
    assert identity.fetches() == 2


def test_fetch_that_ended_with_its_event_loop_does_not_block_the_next(
    identity: Identity, keys: KeySet, clock: Clock
) -> None:
    """A fetch that its event loop did not finish counts as a failed one; another loop fetches again after 5 s."""
    identity.answers[DISCOVERY] = raw(response(encode(identity.answers[DISCOVERY])), wait=0.3)

    async def give_up() -> None:
        async with asyncio.timeout(0.1):
            await keys.key(signing.KEY_ID)

    with pytest.raises(TimeoutError):
        asyncio.run(give_up())
    with pytest.raises(Unavailable, match="interrupted"):
        key(keys)

    clock.now += 5
    assert is_known(key(keys))


def test_fetch_in_a_suspended_loop_is_not_waited_for(identity: Identity, keys: KeySet, clock: Clock) -> None:
    """An event loop never waits for a fetch of another one."""
    identity.answers[DISCOVERY] = raw(response(encode(identity.answers[DISCOVERY])), wait=0.1)
    suspended = asyncio.new_event_loop()
    waiting = suspended.create_task(keys.key(signing.KEY_ID))
    suspended.run_until_complete(asyncio.sleep(0.02))

    clock.now += 5
    assert is_known(key(keys))
    assert is_known(suspended.run_until_complete(waiting))
    assert identity.fetches() == 2
    suspended.close()


RSA_KEY = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
RSA_JWK = RSAAlgorithm.to_jwk(RSA_KEY.public_key(), as_dict=True) | {"kid": signing.KEY_ID, "use": "sig"}
UNUSABLE = {
    "RSA": RSA_JWK,
    "RSA for ES256": RSA_JWK | {"alg": "ES256", "crv": "P-256"},
    "EC in name only": RSA_JWK | {"kty": "EC", "crv": "P-256"},
    "symmetric": {"kty": "oct", "k": "c2VjcmV0", "kid": signing.KEY_ID},
    "P-384": signing.jwk(P384_KEY),
    "P-384 named P-256": signing.jwk(P384_KEY, crv="P-256"),
    "secp256k1": signing.jwk(crv="secp256k1"),
    "no curve": signing.jwk(crv=None),
    "no type": signing.jwk(kty=None),
    "no id": signing.jwk(kid=None),
    "id a number": signing.jwk(kid=7),
    "for encryption": signing.jwk(use="enc"),
    "for another algorithm": signing.jwk(alg="ES384"),
    "not on the curve": signing.jwk(x="A" * 43),
    "x a number": signing.jwk(x=7),
    "y a list": signing.jwk(y=["A"]),
    "x not ASCII": signing.jwk(x="é" * 43),
    "private": ECAlgorithm.to_jwk(OTHER_KEY, as_dict=True) | {"kid": signing.KEY_ID},
    "a string": "key",
    "null": None,
}


@pytest.mark.parametrize("entry", UNUSABLE.values(), ids=UNUSABLE)
def test_unusable_key_is_skipped(entry: Any) -> None:
    """A key that is not EC on P-256, or not readable, does not hide a good one with the same id; alone it is no set."""
    found = usable_keys({"keys": [entry, signing.jwk(), entry]})

    assert list(found) == [signing.KEY_ID]
    assert is_known(found[signing.KEY_ID])
    with pytest.raises(FetchError):
        usable_keys({"keys": [entry]})


def test_key_without_use_or_alg_is_usable() -> None:
    """The members `use` and `alg` are optional in a key set; `alg` may be ES256."""
    entries = [signing.jwk(use=None, kid="a"), signing.jwk(alg="ES256", kid="b")]

    assert list(usable_keys({"keys": entries})) == ["a", "b"]


def test_first_of_two_keys_with_one_id_is_used() -> None:
    """If two usable keys have the same id, the first one verifies, as with PyJWT's own key set."""
    assert is_known(usable_keys({"keys": [signing.jwk(), signing.jwk(OTHER_KEY)]})[signing.KEY_ID])


MEMBERS = st.sampled_from(["kty", "crv", "x", "y", "d", "use", "alg", "kid", "key_ops"])


@unhurried
@given(entry=JSON | st.dictionaries(MEMBERS, JSON).map(lambda changes: signing.jwk() | changes))
def test_hostile_key_does_not_hide_the_good_one(entry: Any) -> None:
    """Whatever else a key set holds, a good key in it is found."""
    assert is_known(usable_keys({"keys": [signing.jwk(kid="good"), entry]})["good"])


def test_keys_are_fetched_on_uvloop(identity: Identity) -> None:
    """Uvicorn runs the function on uvloop where that is installed; the keys are fetched there too."""
    uvloop = pytest.importorskip("uvloop")

    body = uvloop.run(fetch(identity.issuer + KEYS))

    assert is_known(usable_keys(json.loads(body))[signing.KEY_ID])


def test_https_verifies_the_certificate(identity: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server whose certificate cannot be verified is refused; certifi's authorities suffice."""
    monkeypatch.setenv("SSL_CERT_FILE", "/dev/null")
    monkeypatch.setenv("SSL_CERT_DIR", "/dev/null")
    context = fetching._tls.__wrapped__()

    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.cert_store_stats()["x509_ca"] > 50
    with pytest.raises(ssl.SSLError):
        asyncio.run(fetch(identity.issuer.replace("http://", "https://")))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://localhost:1/x", True),
        ("http://127.9.9.9", True),
        ("http://[::1]:1", True),
        ("http://example.com", False),
        ("http://0.0.0.0", False),
        ("http://localhost.example.com", False),
        ("", False),
    ],
)
def test_loopback_is_recognised(url: str, expected: bool) -> None:  # noqa: FBT001 - a parameter
    """Only the loopback addresses and `localhost` are this machine."""
    assert is_loopback(url) is expected


# The simulator's side


def simulated(provider: IdentityProvider, keys: KeySet) -> Claims:
    """Sign as the simulator does, and verify as the function does."""
    token = public_key.sign(BODY, provider.key, organization=signing.ORGANIZATION, now=NOW)
    parsed = parse_token(token, issuer=provider.issuer, organizations=[signing.ORGANIZATION], leeway=0, now=NOW)
    return verify_signature(parsed, key(keys, parsed.key_id))


def test_simulator_signs_as_dt_does() -> None:
    """The simulator's token has the header and the claims of a captured one, and a key id like an xid."""
    signer = public_key.new_key(signing.ISSUER, NOW)

    token = public_key.sign(BODY, signer, organization=signing.ORGANIZATION, now=NOW + 0.7)

    assert jwt.get_unverified_header(token) == {"alg": "ES256", "kid": signer.key_id, "typ": "JWT"}
    assert jwt.decode(token, options={"verify_signature": False}) == claims_at()
    assert (len(token), len(signer.key_id)) == (len(at()), 20)


def test_simulated_key_changes(clock: Clock) -> None:
    """After the simulated identity provider has changed its key, tokens of the new and of the last one verify."""
    with IdentityProvider() as provider:
        keys = KeySet(provider.issuer, clock=clock)
        before = simulated(provider, keys)
        old = provider.key
        provider.rotate()
        clock.now += 30

        assert simulated(provider, keys) == before
        assert is_known(key(keys, old.key_id), old.private_key)
        assert provider.requests == 4

        provider.rotate()
        clock.now += 30
        simulated(provider, keys)
        with pytest.raises(Unverified):
            key(keys, old.key_id)


@pytest.mark.parametrize("fault", IdentityFault)
def test_simulated_fault_makes_keys_unavailable(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, fault: IdentityFault
) -> None:
    """Each fault of the simulated identity provider is Unavailable while it lasts, and leaves nothing behind."""
    monkeypatch.setattr(key_set, "FETCH_SECONDS", 0.3)
    with IdentityProvider(delay=0.6) as provider:
        keys = KeySet(provider.issuer, clock=clock)
        provider.fault = fault
        with pytest.raises(Unavailable):
            simulated(provider, keys)

        monkeypatch.undo()
        provider.fault = None
        clock.now += 5
        assert simulated(provider, keys)


def test_simulated_provider_knows_only_its_documents() -> None:
    """The simulated identity provider answers 404 to any other path."""
    with IdentityProvider() as provider:
        assert provider.respond("/")[0] == 404
        assert provider.respond(identity_provider.DISCOVERY_PATH)[0] == 200
