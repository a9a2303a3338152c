"""Ids as DT Cloud makes them: 20 characters of `[0-9a-v]` that rise with time."""

import base64
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def xid(now: datetime, randbytes: Callable[[int], bytes]) -> str:
    """Make an id that sorts by its microsecond and is unique by its 40 random bits.

    Args:
        now: the moment of the id; from 1970 to 2106.
        randbytes: returns so many random bytes, as `random.Random.randbytes` and `os.urandom` do.

    Returns:
        20 characters, like an xid: 12 bytes in base32hex.
    """
    age = now - _EPOCH
    seconds = age.days * 86_400 + age.seconds
    return _text(seconds.to_bytes(4, "big") + age.microseconds.to_bytes(3, "big") + randbytes(5))


def stable_id(name: str) -> str:
    """Return the same id for the same name in every run: the ids of simulated devices and their project.

    Args:
        name: whatever tells the thing from its like.

    Returns:
        20 characters of `[0-9a-v]`.
    """
    return _text(hashlib.sha256(name.encode()).digest()[:12])


def _text(data: bytes) -> str:
    return base64.b32hexencode(data).decode().rstrip("=").lower()
