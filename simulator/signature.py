"""The header `X-Dt-Signature`, verified as the function verifies it."""

from collections.abc import Sequence
from typing import Any

from dtcloud.signature import key
from receiver.signature import check_checksums, verify_token

_LEEWAY = 10.0  # seconds, the function's default


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
    claims = verify_token(token, secrets=[key(secret) for secret in secrets], leeway=_LEEWAY, now=now)
    check_checksums(claims, body)
    return dict(claims)
