"""The header `DT-Asymmetric-Signature`, made as DT Cloud makes it."""

import hashlib
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from dtcloud.xid import xid
from receiver.key_set import KeySet
from receiver.public_key import parse_token, verify_signature
from receiver.signature import Claims, check_checksums

LIFETIME = 300.0  # seconds, as captured
_LEEWAY = 10.0  # seconds, the function's default


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key of the identity provider.

    Attributes:
        issuer: URL of the identity provider, the `iss` of its tokens.
        key_id: the `kid` of its tokens.
        private_key: on the curve P-256.
    """

    issuer: str
    key_id: str
    private_key: ec.EllipticCurvePrivateKey = field(repr=False)

    def public_jwk(self) -> Mapping[str, str]:
        """Return the public half, as a member of a JSON Web Key Set."""
        jwk: dict[str, str] = ECAlgorithm.to_jwk(self.private_key.public_key(), as_dict=True)
        return {**jwk, "use": "sig", "alg": "ES256", "kid": self.key_id}

    def private_jwk(self) -> Mapping[str, str]:
        """Return the key with its private half and its issuer, for `from_jwk`."""
        jwk: dict[str, str] = ECAlgorithm.to_jwk(self.private_key, as_dict=True)
        return {**jwk, "kid": self.key_id, "iss": self.issuer}


def from_jwk(jwk: Mapping[str, str]) -> SigningKey:
    """Return the key of which `private_jwk` made the JSON Web Key."""
    private_key = ECAlgorithm.from_jwk(dict(jwk))
    if not isinstance(private_key, ec.EllipticCurvePrivateKey):
        raise TypeError("a public key cannot sign")
    return SigningKey(jwk["iss"], jwk["kid"], private_key)


def new_key(issuer: str, now: float) -> SigningKey:
    """Make a key; its id rises with `now`, in seconds since the epoch."""
    key_id = xid(datetime.fromtimestamp(now, UTC), os.urandom)
    return SigningKey(issuer, key_id, ec.generate_private_key(ec.SECP256R1()))


def sign(body: bytes, key: SigningKey, *, organization: str, now: float, lifetime: float = LIFETIME) -> str:
    """Make the token that proves that `body` comes from a Data Connector of the organization.

    Header and claims are those of a captured request. DT makes a token for each attempt of a delivery.

    Args:
        body: the raw body.
        key: the key of the identity provider.
        organization: id of the DT organization.
        now: the time, in seconds since the epoch.
        lifetime: seconds until the token expires; negative for one that has expired.

    Returns:
        The JWT, in its compact form.
    """
    claims = {
        "checksum_sha256": hashlib.sha256(body).hexdigest(),
        "exp": int(now + lifetime),
        "iat": int(now),
        "iss": key.issuer,
        "sub": organization,
    }
    return jwt.encode(claims, key.private_key, algorithm="ES256", headers={"kid": key.key_id})


async def check(body: bytes, token: str, *, organizations: Collection[str], issuer: str, now: float) -> Claims:
    """Verify a token as the function does, with its default leeway and the issuer's keys, and return its claims.

    Args:
        body: the raw body.
        token: the value of the header.
        organizations: ids of the DT organizations that are trusted.
        issuer: whose keys are fetched.
        now: the time, in seconds since the epoch.

    Raises:
        receiver.errors.Refusal: the token is not valid for the body, or the keys cannot be fetched; `reason` says why.
    """
    parsed = parse_token(token, issuer=issuer, organizations=organizations, leeway=_LEEWAY, now=now)
    claims = verify_signature(parsed, await KeySet(issuer).key(parsed.key_id))
    check_checksums(claims, body)
    return claims


def is_public_key_token(token: str) -> bool:
    """Tell by its header whether a token is one by public key, valid or not."""
    try:
        return bool(jwt.get_unverified_header(token.strip()).get("alg") == "ES256")
    except jwt.InvalidTokenError:
        return False
