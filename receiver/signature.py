"""Origin and integrity of a request: pure, of bytes, a token, the secrets and a clock."""

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jwt
from jwt.algorithms import HMACAlgorithm

from receiver.errors import Unverified

MAX_TOKEN_CHARACTERS = 1024
_FAR_FUTURE = 1e12  # seconds since the epoch
_CHECKSUMS = {"checksum": hashlib.sha1, "checksum_sha256": hashlib.sha256}

Claims = Mapping[str, Any]


class _Hs256(HMACAlgorithm):
    """HS256 whose key is the secret as it is.

    PyJWT's own would look, for each token, whether the secret is PEM, SSH, DER or JSON: two thirds of its time.
    """

    def prepare_key(self, key: Any) -> Any:
        """Return the key."""
        return key


_JWS = jwt.PyJWS(algorithms=["HS256"])
_JWS.unregister_algorithm("HS256")
_JWS.register_algorithm("HS256", _Hs256(HMACAlgorithm.SHA256))


def verify(body: bytes, token: str | None, *, secrets: Sequence[bytes], leeway: float, now: float) -> None:
    """Return if `token` proves that `body` comes, unchanged, from a holder of one of the secrets.

    The rules are those of DT's documentation of signed Data Connectors: a JWT by HS256 whose claims hold checksums of
    the raw body. Each checksum claim that is there must match, and one must be there.

    Args:
        body: the raw body, as received.
        token: the header `X-Dt-Signature`; None when the request has none.
        secrets: the signature secrets, tried in this order.
        leeway: tolerance on `exp` and `iat`, in seconds.
        now: the time, in seconds since the epoch.

    Raises:
        Unverified: in every other case.
    """
    if not token:
        raise Unverified("X-Dt-Signature is missing")
    if len(token) > MAX_TOKEN_CHARACTERS:  # DT's has some 350; decoding megabytes of anyone's would hold up everyone
        raise Unverified("the token is too long")
    claims = _authentic_claims(token, secrets)
    check_times(claims, leeway, now)
    _check_checksums(claims, body)


def _authentic_claims(token: str, secrets: Sequence[bytes]) -> dict[str, Any]:
    for secret in secrets:
        try:
            return _claims(_JWS.decode(token, secret, algorithms=["HS256"]))
        except jwt.InvalidSignatureError:
            continue
        except Exception as error:  # noqa: BLE001 - see below
            # Before the signature is known to be good, all of the token is hostile: whatever it breaks, PyJWT's own
            # errors or others (RecursionError, say), it is a token that proves nothing.
            raise Unverified(f"the token is no valid JWT ({type(error).__name__})") from None
    raise Unverified("the token is signed with none of the secrets")


def _claims(payload: bytes) -> dict[str, Any]:
    claims = json.loads(payload)
    if not isinstance(claims, dict):
        raise TypeError("the claims are no object")
    return claims


def check_times(claims: Claims, leeway: float, now: float) -> None:
    """Check `exp`, which is required, and `iat` and `nbf`, where present.

    Raises:
        Unverified: a time is missing, not a number, or wrong.
    """
    if _seconds(claims, "exp") <= now - leeway:
        raise Unverified("the token has expired")
    if any(_seconds(claims, claim) > now + leeway for claim in ("iat", "nbf") if claim in claims):
        raise Unverified("the token is from the future")


def _seconds(claims: Claims, claim: str) -> float:
    value = claims.get(claim)
    # Within the bound there is no NaN, no Infinity, and no integer that a float cannot be compared with.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _FAR_FUTURE:
        raise Unverified(f"the claim {claim} is missing or no time")
    return value


def _check_checksums(claims: dict[str, Any], body: bytes) -> None:
    present = [name for name in _CHECKSUMS if name in claims]
    if not present:
        raise Unverified("the token holds no checksum")
    for name in present:
        claimed = str(claims[name]).encode("utf-8", "replace")
        if not hmac.compare_digest(claimed, _CHECKSUMS[name](body).hexdigest().encode()):
            raise Unverified(f"the claim {name} does not match the body")
