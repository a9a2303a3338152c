"""Signers of the tests' own: they share no code with the receiver or the simulator."""

import base64
import hashlib
import hmac
import json
import time
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

SECRET = "d3b07384d113edec49eaa6238ad5ff00d3b07384d113edec49eaa6238ad5ff00"


def claims_of(body: bytes, **changes: Any) -> dict[str, Any]:
    """Return the claims that DT Cloud makes for `body`; a change to None leaves a claim out."""
    now = int(time.time())
    claims = {
        "checksum": hashlib.sha1(body).hexdigest(),  # noqa: S324 - the sender's choice
        "checksum_sha256": hashlib.sha256(body).hexdigest(),
        "exp": now + 3600,
        "iat": now,
        "jti": "c5h2mtm0f2pl1hvqvmo0",
    }
    return {name: value for name, value in (claims | changes).items() if value is not None}


def token(claims: Any, secret: str = SECRET, *, header: Any = None, digest: str = "sha256") -> str:
    """Return the compact JWT over any claims and header, JSON text or value."""
    head = _segment({"alg": "HS256", "typ": "JWT"} if header is None else header)
    signed = f"{head}.{_segment(claims)}"
    signature = hmac.new(secret.encode(), signed.encode(), digest).digest()
    return f"{signed}.{_base64(signature)}"


def sign(body: bytes, secret: str = SECRET, **changes: Any) -> str:
    """Return the header that DT Cloud sends with `body`."""
    return token(claims_of(body, **changes), secret)


ISSUER = "https://identity.disruptive-technologies.com/data-connector"
ORGANIZATION = "bvj2geou3pbc8h9hv4j0"
KEY_ID = "cp65gdon1e4bhb5icbmg"
PRIVATE_KEY = ec.generate_private_key(ec.SECP256R1())


def public_claims_of(body: bytes, **changes: Any) -> dict[str, Any]:
    """Return the claims that DT Cloud signs with its own key; a change to None leaves a claim out."""
    now = int(time.time())
    claims = {
        "checksum_sha256": hashlib.sha256(body).hexdigest(),
        "exp": now + 300,
        "iat": now,
        "iss": ISSUER,
        "sub": ORGANIZATION,
    }
    return {name: value for name, value in (claims | changes).items() if value is not None}


def public_token(claims: Any, key: ec.EllipticCurvePrivateKey = PRIVATE_KEY, *, header: Any = None) -> str:
    """Return the compact JWT by ES256 over any claims and header, JSON text or value."""
    head = _segment({"alg": "ES256", "kid": KEY_ID, "typ": "JWT"} if header is None else header)
    signed = f"{head}.{_segment(claims)}"
    r, s = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(SHA256())))
    size = (key.key_size + 7) // 8
    return f"{signed}.{_base64(r.to_bytes(size, 'big') + s.to_bytes(size, 'big'))}"


def jwk(key: ec.EllipticCurvePrivateKey = PRIVATE_KEY, **changes: Any) -> dict[str, Any]:
    """Return the public half of a key as DT publishes it; a change to None leaves a member out."""
    numbers, size = key.public_key().public_numbers(), (key.key_size + 7) // 8
    members = {
        "kty": "EC",
        "use": "sig",
        "crv": f"P-{key.key_size}",
        "kid": KEY_ID,
        "x": _base64(numbers.x.to_bytes(size, "big")),
        "y": _base64(numbers.y.to_bytes(size, "big")),
    }
    return {name: value for name, value in (members | changes).items() if value is not None}


def _segment(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    return _base64(text.encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
