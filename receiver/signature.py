"""The proof by shared secret, `X-Dt-Signature`. Pure functions of a token, the secrets, a clock and the body."""

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jwt
from jwt.algorithms import HMACAlgorithm

from receiver.errors import Unverified

# DT's tokens have 352 and 446, and DT may add claims. Decoding a stranger's megabytes would delay all deliveries.
MAX_TOKEN_CHARACTERS = 4096
_FAR_FUTURE = 1e12  # seconds since the epoch
_CHECKSUMS = {"checksum": hashlib.sha1, "checksum_sha256": hashlib.sha256}

Claims = Mapping[str, Any]


class _Hs256(HMACAlgorithm):
    """HS256 whose key is the secret as it is.

    PyJWT's own class examines, for each token, whether the secret is PEM, SSH, DER or JSON, which takes two thirds of
    its time, and warns of a short secret; `main.py` does that once, at start.
    """

    def prepare_key(self, key: Any) -> Any:
        """Return the key."""
        return key

    def check_key_length(self, key: Any) -> None:
        """Accept every length: the owner of the Data Connector has chosen the secret."""


_JWS = jwt.PyJWS(algorithms=["HS256"])
_JWS.unregister_algorithm("HS256")
_JWS.register_algorithm("HS256", _Hs256(HMACAlgorithm.SHA256))


def verify_token(token: str | None, *, secrets: Sequence[bytes], leeway: float, now: float) -> Claims:
    """Verify the signature and the times of a token; the checksums that it holds have yet to be compared.

    The rules are those of DT's documentation of signed Data Connectors: a JWT with HS256 whose claims hold checksums of
    the raw body.

    Args:
        token: the value of the header `X-Dt-Signature`; None if the request has none.
        secrets: the signature secrets, tried in this order.
        leeway: tolerance on `exp`, `iat` and `nbf`, in seconds.
        now: the time, in seconds since the epoch.

    Raises:
        Unverified: the token proves nothing.
    """
    token = (token or "").strip(" \t")
    if not token:
        raise Unverified("X-Dt-Signature is missing")
    if len(token) > MAX_TOKEN_CHARACTERS:
        raise Unverified("the token is too long")
    claims = _authentic_claims(token, secrets)
    check_times(claims, leeway, now)
    if not claims.keys() & _CHECKSUMS:
        raise Unverified("the token holds no checksum")
    return claims


def check_checksums(claims: Claims, body: bytes) -> None:
    """Compare each checksum that the claims of a verified token hold with the raw body.

    Raises:
        Unverified: one of them differs.
    """
    for name, algorithm in _CHECKSUMS.items():
        if name in claims:
            claimed = str(claims[name]).encode("utf-8", "replace")
            if not hmac.compare_digest(claimed, algorithm(body).hexdigest().encode()):
                raise Unverified(f"the claim {name} does not match the body")


def check_times(claims: Claims, leeway: float, now: float) -> None:
    """Check `exp`, which is required, and `iat` and `nbf`, where present.

    Raises:
        Unverified: a time is missing, not a number, or wrong.
    """
    if _seconds(claims, "exp") <= now - leeway:
        raise Unverified("the token has expired")
    if any(_seconds(claims, claim) > now + leeway for claim in ("iat", "nbf") if claim in claims):
        raise Unverified("the token is from the future")


def _authentic_claims(token: str, secrets: Sequence[bytes]) -> dict[str, Any]:
    for secret in secrets:
        try:
            return _claims(_JWS.decode(token, secret, algorithms=["HS256"]))
        except jwt.InvalidSignatureError:
            continue
        except Exception as error:  # noqa: BLE001 - see below
            # A token without a good signature is a stranger's: whatever exception it causes in PyJWT, its own errors or
            # others such as RecursionError, it proves nothing.
            raise Unverified(f"the token is not a valid JWT ({type(error).__name__})") from None
    raise Unverified("the token is signed with none of the secrets")


def _claims(payload: bytes) -> dict[str, Any]:
    claims = json.loads(payload)
    if not isinstance(claims, dict):
        raise TypeError("the claims are not an object")
    return claims


def _seconds(claims: Claims, claim: str) -> float:
    value = claims.get(claim)
    # The bound excludes NaN, Infinity, and integers that cannot be compared with a float.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _FAR_FUTURE:
        raise Unverified(f"the claim {claim} is missing or not a time")
    return value
