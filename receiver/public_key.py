"""The proof by DT's public keys, `DT-Asymmetric-Signature`. Pure functions of a token, a key, settings and a clock."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from receiver.errors import Unverified
from receiver.signature import MAX_TOKEN_CHARACTERS, Claims, check_times

_JWS = jwt.PyJWS(algorithms=["ES256"])
_JWS.get_algorithm_by_name("ES256")  # raises, at start, if PyJWT was imported without cryptography


@dataclass(frozen=True, slots=True)
class UnverifiedToken:
    """A token of which nothing is left to verify but its signature and the checksum.

    Attributes:
        text: the JWT in its compact form.
        key_id: id of the key that must have signed it.
        claims: what it claims; not to be trusted before `verify_signature`.
    """

    text: str
    key_id: str
    claims: Claims


def parse_token(
    token: str | None, *, issuer: str, organizations: Collection[str], leeway: float, now: float
) -> UnverifiedToken:
    """Check all of a token that can be checked without a key, so that no stranger's token causes a fetch of the keys.

    All customers of DT share its keys: the organization, `sub`, is what tells their tokens apart.

    Args:
        token: the value of the header `DT-Asymmetric-Signature`; None if the request has none.
        issuer: the issuer, `iss`, that is trusted.
        organizations: ids of the DT organizations that are trusted.
        leeway: tolerance on `exp`, `iat` and `nbf`, in seconds.
        now: the time, in seconds since the epoch.

    Raises:
        Unverified: the token proves nothing, whatever key has signed it.
    """
    text = (token or "").strip(" \t")
    if not text:
        raise Unverified("DT-Asymmetric-Signature is missing")
    if len(text) > MAX_TOKEN_CHARACTERS:
        raise Unverified("the token is too long")
    header, claims = _decode(text)
    key_id = header.get("kid")
    if header.get("alg") != "ES256" or not isinstance(key_id, str) or not key_id:
        raise Unverified("the token is not signed by ES256 with a key that has an id")
    _check_claims(claims, issuer, organizations)
    check_times(claims, leeway, now)
    return UnverifiedToken(text, key_id, claims)


def verify_signature(token: UnverifiedToken, key: EllipticCurvePublicKey) -> Claims:
    """Verify the signature of a token; `checksum_sha256` has yet to be compared with the body.

    Args:
        token: as `parse_token` returns it.
        key: the key of the issuer that `key_id` names.

    Returns:
        The claims, `exp`, `iat` and the string `checksum_sha256` among them.

    Raises:
        Unverified: another key has signed the token, or none.
    """
    try:
        _JWS.decode(token.text, key, algorithms=["ES256"])
    except Exception:  # noqa: BLE001 - as in `_decode`
        raise Unverified("the token is not signed with the key that it names") from None
    return token.claims


def _decode(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        parts = _JWS.decode_complete(text, options={"verify_signature": False})
        claims = json.loads(parts["payload"])
    except Exception as error:  # noqa: BLE001 - see below
        # As for the shared secret: whatever exception a stranger's token causes in PyJWT, it proves nothing.
        raise Unverified(f"the token is not a valid JWT ({type(error).__name__})") from None
    if not isinstance(claims, dict):
        raise Unverified("the claims of the token are not an object")
    return parts["header"], claims


def _check_claims(claims: Claims, issuer: str, organizations: Collection[str]) -> None:
    if claims.get("iss") != issuer:
        raise Unverified("the token is from another issuer")
    organization = claims.get("sub")
    if not isinstance(organization, str) or organization not in organizations:
        raise Unverified("the token is from another organization")
    if "iat" not in claims:
        raise Unverified("the claim iat is missing")
    if not isinstance(claims.get("checksum_sha256"), str):
        raise Unverified("the claim checksum_sha256 is missing or not a string")
