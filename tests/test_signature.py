"""Every kind of bad token is refused with 400, and every kind of good token is accepted."""

import hashlib
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.errors import Unverified
from receiver.signature import check_checksums, verify_token
from tests import signing
from tests.conftest import Documents, Endpoint
from tests.events import encode, envelope

BODY = encode(envelope())
NOW = 1_800_000_000.0
OTHER_SECRET = "another-secret-that-is-long-enough-for-hs256"


def check(token: str | None, body: bytes = BODY, leeway: float = 10) -> None:
    """Verify as the function does, at a fixed time."""
    claims = verify_token(token, secrets=[signing.SECRET.encode()], leeway=leeway, now=NOW)
    check_checksums(claims, body)


def at(**changes: Any) -> str:
    """Return a token made at that fixed time."""
    return signing.sign(BODY, **({"iat": int(NOW), "exp": int(NOW) + 3600} | changes))


def _claims(**changes: Any) -> dict[str, Any]:
    return signing.claims_of(BODY, **changes)


BAD_TOKENS = {
    "empty": "",
    "no JWT": "abc",
    "endless": "a" * 10_000,
    "two segments": "a.b",
    "not base64": "!.!.!",
    "not ASCII": "é.é.é",
    "wrong key": signing.sign(BODY, OTHER_SECRET),
    "alg none": signing.token(_claims(), header={"alg": "none", "typ": "JWT"}),
    "alg none, no signature": signing.token(_claims(), header={"alg": "none"}).rsplit(".", 1)[0] + ".",
    "alg HS512": signing.token(_claims(), header={"alg": "HS512", "typ": "JWT"}, digest="sha512"),
    "alg missing": signing.token(_claims(), header={"typ": "JWT"}),
    "alg a list": signing.token(_claims(), header={"alg": ["HS256"]}),
    "header no object": signing.token(_claims(), header="[]"),
    "hostile header": signing.token(_claims(), header='{"a":' + "[" * 50_000 + "]" * 50_000 + "}"),
    "critical extension": signing.token(_claims(), header={"alg": "HS256", "crit": ["x"], "x": 1}),
    "claims no object": signing.token("[]"),
    "claims no JSON": signing.token("{"),
    "hostile claims": signing.token('{"a":' + "[" * 50_000 + "]" * 50_000 + "}"),
    "expired": signing.sign(BODY, exp=1_700_000_000),
    "exp missing": signing.sign(BODY, exp=None),
    "exp a string": signing.sign(BODY, exp="later"),
    "exp true": signing.sign(BODY, exp=True),
    "exp a list": signing.sign(BODY, exp=[4_000_000_000]),
    "exp NaN": signing.sign(BODY, exp=float("nan")),
    "exp Infinity": signing.sign(BODY, exp=float("inf")),
    "exp of 400 digits": signing.sign(BODY, exp=10**400),
    "iat in the future": signing.sign(BODY, iat=4_000_000_000),
    "iat a string": signing.sign(BODY, iat="now"),
    "nbf in the future": signing.sign(BODY, nbf=4_000_000_000),
    "no checksum": signing.sign(BODY, checksum=None, checksum_sha256=None),
    "SHA-1 of another body": signing.sign(BODY, checksum=hashlib.sha1(b"x").hexdigest()),  # noqa: S324
    "SHA-256 of another body": signing.sign(BODY, checksum_sha256=hashlib.sha256(b"x").hexdigest()),
    "checksum empty": signing.sign(BODY, checksum=""),
    "checksum a number": signing.sign(BODY, checksum=7, checksum_sha256=None),
    "checksum not ASCII": signing.sign(BODY, checksum_sha256="é\ud800"),
    "checksum a list": signing.sign(BODY, checksum=[hashlib.sha1(BODY).hexdigest()]),  # noqa: S324
    "checksum null beside a good one": signing.token(_claims() | {"checksum": None}),
    "of another body": signing.sign(b"another"),
    "tampered signature": signing.sign(BODY)[:-4] + "AAAA",
}


@pytest.mark.parametrize("token", BAD_TOKENS.values(), ids=BAD_TOKENS)
def test_bad_token_is_refused(endpoint: Endpoint, stored: Documents, quarantined: Documents, token: str) -> None:
    """A bad token is answered 400 with the one fixed text, and nothing is stored."""
    response = endpoint.client.post("/", content=BODY, headers={"X-Dt-Signature": token.encode("utf-8")})

    assert (response.status_code, response.text) == (400, "Could not verify request.")
    assert (stored(), quarantined()) == ({}, {})


def test_missing_header_is_refused(endpoint: Endpoint, stored: Documents) -> None:
    """A request without X-Dt-Signature is answered 400, and nothing is stored."""
    response = endpoint.client.post("/", content=BODY)

    assert (response.status_code, response.text) == (400, "Could not verify request.")
    assert stored() == {}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"checksum": None},
        {"checksum_sha256": None},
        {"iat": None, "jti": None},
        {"iat": int(NOW) + 10, "exp": NOW + 10.5},
        {"exp": int(NOW) - 9},
        {"aud": "another", "iss": "dt", "sub": "s", "further": {"x": 1}},
    ],
    ids=["as DT's", "SHA-256 alone", "SHA-1 alone", "no iat or jti", "early clock", "late clock", "further claims"],
)
def test_good_token_is_taken(changes: dict[str, Any]) -> None:
    """Either checksum suffices, the leeway covers a clock that is wrong, and further claims do not matter."""
    check(at(**changes))


@pytest.mark.parametrize("changes", [{"exp": int(NOW) - 10}, {"iat": int(NOW) + 11}, {"nbf": int(NOW) + 11}])
def test_leeway_ends(changes: dict[str, Any]) -> None:
    """At the end of the leeway a token has expired, or is not valid yet."""
    with pytest.raises(Unverified):
        check(at(**changes))


def test_leeway_is_a_setting(start: Callable[..., Endpoint]) -> None:
    """SIGNATURE_LEEWAY_SECONDS sets the tolerance on the times."""
    past = {"exp": signing.claims_of(b"")["iat"] - 60}

    statuses = [
        start(SIGNATURE_LEEWAY_SECONDS=leeway).deliver(BODY, signing.sign(BODY, **past)).status_code
        for leeway in ("30", "600")
    ]

    assert statuses == [400, 200]


def test_each_of_several_secrets_is_tried(start: Callable[..., Endpoint]) -> None:
    """While one secret replaces another, both verify, a third does not; blank lines and white space are ignored."""
    endpoint = start(DT_SIGNATURE_SECRET=f"\n  {signing.SECRET}  \r\n\n{OTHER_SECRET}\n")

    secrets = [signing.SECRET, OTHER_SECRET, "a-third-secret-that-is-long-enough-too"]
    statuses = [endpoint.deliver(BODY, signing.sign(BODY, secret)).status_code for secret in secrets]

    assert statuses == [200, 200, 400]


def test_white_space_around_the_token_is_ignored(endpoint: Endpoint, stored: Documents) -> None:
    """Blanks and tabs around the value of X-Dt-Signature do not matter."""
    response = endpoint.deliver(BODY, f"\t {signing.sign(BODY)} \t")

    assert (response.status_code, len(stored())) == (200, 1)


@pytest.mark.parametrize(("surplus", "accepted"), [(0, True), (1, False)])
def test_longest_token(surplus: int, *, accepted: bool) -> None:
    """A token of up to 4,096 characters is verified; a longer one is not even decoded."""
    token = next(made for size in range(4096) if len(made := at(jti="j" * size)) == 4096 + surplus)

    if accepted:
        check(token)
        return
    with pytest.raises(Unverified, match="too long"):
        check(token)


def test_token_of_pyjwt_is_taken() -> None:
    """A token made by PyJWT's encoder verifies as those of the tests' own signer do."""
    check(jwt.encode(_claims(iat=int(NOW), exp=int(NOW) + 3600), signing.SECRET, algorithm="HS256"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
NAMES = st.sampled_from(["exp", "iat", "nbf", "checksum", "checksum_sha256", "jti", "sub", "aud", "iss"])


@given(changes=st.dictionaries(NAMES, JSON, min_size=1))
def test_hostile_claims_are_refused_or_harmless(changes: dict[str, Any]) -> None:
    """Whatever a signed token claims, it is verified or Unverified is raised; with a wrong checksum, the latter."""
    claims = _claims(iat=int(NOW), exp=int(NOW) + 3600) | changes

    try:
        check(signing.token(claims))
    except Unverified:
        return

    assert {"checksum", "checksum_sha256"}.isdisjoint(changes)


@given(token=st.text())
def test_any_text_is_no_token(token: str) -> None:
    """Any text that is not signed raises Unverified."""
    with pytest.raises(Unverified):
        check(token)
