"""Verifies a request as DT's documentation shows it."""

import hashlib
import os

import jwt

SECRET = os.environ["DT_SIGNATURE_SECRET"]


def is_authentic(body: bytes, token: str) -> bool:
    """Return whether the token is signed with the secret and contains the body's SHA-1 checksum."""
    try:
        claims = jwt.decode(token, SECRET, algorithms=["HS256"])
    except jwt.PyJWTError as error:
        print(error)
        return False
    checksum: str = hashlib.sha1(body).hexdigest()  # noqa: S324 - as documented
    return bool(claims["checksum"] == checksum)
