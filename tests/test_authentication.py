"""Either proof suffices: the signature secret, or DT's public key. Each row goes through the function as deployed."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests import signing
from tests.conftest import Documents, Endpoint
from tests.events import encode, envelope
from tests.identity import KEYS, Identity, raw

BODY = encode(envelope())
START = Callable[..., Endpoint]


@pytest.fixture
def identity() -> Iterator[Identity]:
    """Return a fake identity provider."""
    identity = Identity()
    yield identity
    identity.stop()


def public(identity: Identity, body: bytes = BODY, **changes: Any) -> str:
    """Return the value of DT-Asymmetric-Signature for a body."""
    return signing.public_token(signing.public_claims_of(body, **({"iss": identity.issuer} | changes)))


def post(endpoint: Endpoint, body: bytes = BODY, *, secret: str | None = None, public: str | None = None) -> int:
    """Deliver with the tokens that are given; return the status."""
    tokens = {"X-Dt-Signature": secret, "DT-Asymmetric-Signature": public}
    headers = {name: token for name, token in tokens.items() if token is not None}
    return int(endpoint.client.post("/", content=body, headers=headers).status_code)


@pytest.fixture
def public_key(start: START, identity: Identity) -> Endpoint:
    """Return the function with only the public key switched on."""
    return start(DT_SIGNATURE_SECRET="", DT_ORGANIZATION_ID=signing.ORGANIZATION, DT_IDENTITY_ISSUER=identity.issuer)


@pytest.fixture
def both(start: START, identity: Identity) -> Endpoint:
    """Return the function with both proofs switched on."""
    return start(DT_ORGANIZATION_ID=signing.ORGANIZATION, DT_IDENTITY_ISSUER=identity.issuer)


def test_public_key_alone(public_key: Endpoint, identity: Identity, stored: Documents) -> None:
    """With only the organization set, DT's public-key token is accepted, and the log names the proof."""
    assert post(public_key, public=public(identity)) == 200

    assert len(stored()) == 1
    assert public_key.log()[0]["proof"] == "public_key"


def test_secret_is_not_a_proof_when_it_is_switched_off(public_key: Endpoint, stored: Documents) -> None:
    """With only the organization set, a token with a shared secret proves nothing."""
    assert post(public_key, secret=signing.sign(BODY)) == 400

    assert stored() == {}


def test_public_key_is_not_a_proof_when_it_is_switched_off(endpoint: Endpoint, identity: Identity) -> None:
    """With only the secret set, a public-key token proves nothing, and no key is fetched."""
    assert post(endpoint, public=public(identity)) == 400

    assert identity.fetches() == 0


def test_secret_is_tried_first(both: Endpoint, identity: Identity) -> None:
    """With both tokens the secret verifies, and no key is fetched."""
    assert post(both, secret=signing.sign(BODY), public=public(identity)) == 200

    assert (both.log()[0]["proof"], identity.fetches()) == ("secret", 0)


BAD_SECRETS = {
    "missing": None,
    "wrong secret": signing.sign(BODY, "another-secret-that-is-long-enough-for-hs256"),
    "expired": signing.sign(BODY, exp=1_700_000_000),
    "wrong checksum": signing.sign(b"another body"),
    "not a token": "x",
}


@pytest.mark.parametrize("secret", BAD_SECRETS.values(), ids=BAD_SECRETS)
def test_public_key_suffices(both: Endpoint, identity: Identity, stored: Documents, secret: str | None) -> None:
    """Whatever is wrong with the secret's token, a valid public-key token makes the request authentic."""
    assert post(both, secret=secret, public=public(identity)) == 200

    assert (both.log()[0]["proof"], len(stored())) == ("public_key", 1)


@pytest.mark.parametrize("token", ["x", "", "a.b.c", None])
def test_secret_suffices(both: Endpoint, token: str | None) -> None:
    """Whatever is wrong with the public-key token, a valid token with the secret makes the request authentic."""
    assert post(both, secret=signing.sign(BODY), public=token) == 200


FORGED = {
    "other organization": {"sub": "another"},
    "other issuer": {"iss": "https://identity.example.com"},
    "expired": {"exp": 1_700_000_000, "iat": 1_700_000_000},
    "no checksum": {"checksum_sha256": None},
    "wrong checksum": {"checksum_sha256": "0" * 64},
}


@pytest.mark.parametrize("claims", FORGED.values(), ids=FORGED)
def test_forged_token_is_refused(
    both: Endpoint, identity: Identity, stored: Documents, quarantined: Documents, claims: dict[str, Any]
) -> None:
    """A token that lacks one of the required claims, or has a wrong one, is refused, and nothing is stored."""
    assert post(both, secret=signing.sign(b"another body"), public=public(identity, **claims)) == 400

    assert (stored(), quarantined()) == ({}, {})
    assert "proof" not in both.log()[0]


def test_missing_keys_are_unavailable(both: Endpoint, identity: Identity, stored: Documents) -> None:
    """While no key can be fetched, a token that only DT's keys could verify is answered 503, and the log says why."""
    identity.answers[KEYS] = {"keys": []}

    assert post(both, secret=signing.sign(b"another body"), public=public(identity)) == 503

    assert stored() == {}
    (line,) = both.log()
    assert (line["outcome"], line["severity"]) == ("unavailable", "ERROR")
    assert line["reason"].startswith(f"no public key from the identity provider {identity.issuer}")


def test_fetch_of_keys_counts_within_the_deadline(
    both: Endpoint, identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the fetch of the keys takes is no longer available for Firestore."""
    monkeypatch.setattr("receiver.store.TOTAL_SECONDS", 1.5)
    post(both, secret=signing.sign(BODY))
    keys = json.dumps(identity.answers[KEYS]).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(keys)}\r\nConnection: close\r\n\r\n".encode()
    identity.answers[KEYS] = raw(head + keys, wait=2)

    statuses = [post(both, public=public(identity)) for _ in range(2)]

    assert statuses == [503, 200]
    assert [line.get("proof") for line in both.log()] == ["secret", "public_key", "public_key"]
