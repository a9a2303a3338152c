"""Ids as DT Cloud makes them: 20 characters of `[0-9a-v]` that rise with time."""

import base64
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def xid(now: datetime, randbytes: Callable[[int], bytes]) -> str:
    """Return an id of 20 characters, like an xid: 12 bytes in base32hex that sort by time and end in 40 random bits.

    Args:
        now: from 1970 to 2106; used to the microsecond.
        randbytes: returns a number of random bytes, as `random.Random.randbytes` and `os.urandom` do.
    """
    age = now - _EPOCH
    seconds = age.days * 86_400 + age.seconds
    return _text(seconds.to_bytes(4, "big") + age.microseconds.to_bytes(3, "big") + randbytes(5))


def stable_id(name: str) -> str:
    """Return an id of 20 characters that is the same for the same name in every run, as simulated devices have."""
    return _text(hashlib.sha256(name.encode()).digest()[:12])


def _text(data: bytes) -> str:
    return base64.b32hexencode(data).decode().rstrip("=").lower()
