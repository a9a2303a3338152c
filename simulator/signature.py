"""The header `X-Dt-Signature`, signed as DT Cloud signs it."""

import hashlib
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import jwt

from receiver.signature import check_checksums, verify_token
from simulator.xid import xid

LIFETIME = 3600.0  # seconds, as measured on real deliveries
_LEEWAY = 10.0  # seconds, the function's default


def sign(body: bytes, secret: str, *, now: float, lifetime: float = LIFETIME, jti: str | None = None) -> str:
    """Return the signature of a body: a compact JWT.

    Header and claims are those of DT's documentation of signed Data Connectors and of real deliveries.

    Args:
        body: the raw body.
        secret: the signature secret; its UTF-8 bytes are the key.
        now: seconds since the epoch.
        lifetime: seconds until the token expires; negative for an expired token.
        jti: id of the delivery, not of the event; None generates one.
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
    """Verify a token as the function does, with its default leeway, and return the token's claims.

    Args:
        body: the raw body.
        token: the value of the header.
        secrets: the signature secrets, tried in this order.
        now: seconds since the epoch.

    Raises:
        receiver.errors.Unverified: the token is not valid for the body; the text says why.
    """
    claims = verify_token(token, secrets=[_key(secret) for secret in secrets], leeway=_LEEWAY, now=now)
    check_checksums(claims, body)
    return dict(claims)


def _key(secret: str) -> bytes:
    return secret.encode("utf-8", "surrogateescape")
