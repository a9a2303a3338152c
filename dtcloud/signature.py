"""The header `X-Dt-Signature`, signed as DT Cloud signs it.

By the standard library alone: the scheduled repair is deployed without PyJWT.
"""

import base64
import hashlib
import hmac
import json
import os
from datetime import UTC, datetime
from typing import Any

from dtcloud.xid import xid

HEADER = "X-Dt-Signature"
LIFETIME = 3600.0  # seconds, as measured on real deliveries


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
    signed = f"{_segment({'alg': 'HS256', 'typ': 'JWT'})}.{_segment(claims)}"
    return f"{signed}.{_base64(hmac.digest(key(secret), signed.encode(), 'sha256'))}"


def key(secret: str) -> bytes:
    """Return the key of a secret; bytes that are not UTF-8, as `os.environ` holds them, stay as they are."""
    return secret.encode("utf-8", "surrogateescape")


def _segment(value: dict[str, Any]) -> str:
    return _base64(json.dumps(value, separators=(",", ":")).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
