"""The header `X-Dt-Signature`, made as DT Cloud makes it."""

import hashlib
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import jwt

from receiver.signature import verify
from simulator.xid import xid

LIFETIME = 3600.0  # seconds, as measured on real deliveries
_LEEWAY = 10.0  # seconds, the function's default


def sign(body: bytes, secret: str, *, now: float, lifetime: float = LIFETIME, jti: str | None = None) -> str:
    """Make the token that proves `body` to a holder of the secret.

    Header and claims are those of DT's documentation of signed Data Connectors and of real deliveries.

    Args:
        body: the raw body.
        secret: the signature secret; its UTF-8 bytes are the key.
        now: the time, in seconds since the epoch.
        lifetime: seconds until the token expires; negative for one that has expired.
        jti: id of the delivery, not of the event; None makes one.

    Returns:
        The JWT, in its compact form.
    """
    claims = {
        "checksum": hashlib.sha1(body).hexdigest(),  # noqa: S324 - DT's choice; checksum_sha256 came later
        "checksum_sha256": hashlib.sha256(body).hexdigest(),
        "exp": int(now + lifetime),
        "iat": int(now),
        "jti": xid(datetime.fromtimestamp(now, UTC), os.urandom) if jti is None else jti,
    }
    return jwt.encode(claims, _key(secret), algorithm="HS256")


def check(body: bytes, token: str, secrets: Sequence[str], *, now: float) -> dict[str, Any]:
    """Verify a token exactly as the function does, with its default leeway.

    Args:
        body: the raw body.
        token: the value of the header.
        secrets: the signature secrets, tried in this order.
        now: the time, in seconds since the epoch.

    Returns:
        The token's claims.

    Raises:
        receiver.errors.Unverified: the token proves nothing; its text says why.
    """
    verify(body, token, secrets=[_key(secret) for secret in secrets], leeway=_LEEWAY, now=now)
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


def _key(secret: str) -> bytes:
    return secret.encode("utf-8", "surrogateescape")
