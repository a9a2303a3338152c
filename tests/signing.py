"""A signer of its own: it shares no code with the receiver, nor with the simulator."""

import base64
import hashlib
import hmac
import json
import time
from typing import Any

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


def _segment(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    return _base64(text.encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
