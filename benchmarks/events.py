"""Events as DT Cloud sends them: every type in turn, from a fleet, each event with its own id."""

import itertools
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

from simulator.keys import KeyFile
from simulator.sensors import EVENT_TYPES, ORGANIZATION_ID, TYPES, device, encode, envelope, event
from simulator.signer import Signer

SECRET = "benchmark" * 4  # of every contender
_SENSORS = 1000


def make_envelopes() -> Iterator[dict[str, Any]]:
    """Yield request bodies, not yet encoded, without end."""
    rng = Random()  # noqa: S311 - sensor values are no secret
    for number, event_type in enumerate(itertools.cycle(EVENT_TYPES)):
        source = device(TYPES[event_type].device_type, f"Sensor {number % _SENSORS}")
        yield envelope(event(event_type, rng=rng, now=datetime.now(UTC), source=source), source)


def signer(key_file: str) -> Signer:
    """Return what signs with a key of a file, or if that is empty with the secret."""
    return Signer(key=KeyFile(Path(key_file)).newest, organization=ORGANIZATION_ID) if key_file else Signer(SECRET)


def make_requests(count: int, key_file: str) -> list[bytes]:
    """Return complete HTTP/1.1 requests, each with its own event and a fresh signature, as `signer` makes it."""
    signs = signer(key_file)
    return [_request(encode(body), signs) for body in itertools.islice(make_envelopes(), count)]


def _request(body: bytes, signs: Signer) -> bytes:
    ((name, token),) = signs.headers(body, now=time.time()).items()
    head = (
        "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"{name}: {token}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
