"""The header `DT-Asymmetric-Signature`, made as DT Cloud makes it."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from simulator.xid import xid

LIFETIME = 300.0  # seconds, as captured


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
    private_key: ec.EllipticCurvePrivateKey

    def public_jwk(self) -> Mapping[str, str]:
        """Return the public half, as a member of a JSON Web Key Set."""
        jwk: dict[str, str] = ECAlgorithm.to_jwk(self.private_key.public_key(), as_dict=True)
        return {**jwk, "use": "sig", "alg": "ES256", "kid": self.key_id}


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
