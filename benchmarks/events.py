"""Events as DT Cloud sends them: every type in turn, each event with its own id."""

import itertools
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from random import Random
from typing import Any

from simulator.sensors import EVENT_TYPES, default_device, encode, envelope, event
from simulator.signature import sign

SECRET = "benchmark" * 4  # of every contender


def make_envelopes() -> Iterator[dict[str, Any]]:
    """Yield request bodies, not yet encoded, without end."""
    rng = Random()  # noqa: S311 - sensor values are no secret
    for event_type in itertools.cycle(EVENT_TYPES):
        yield envelope(event(event_type, rng=rng, now=datetime.now(UTC)), default_device(event_type))


def make_requests(count: int) -> list[bytes]:
    """Return complete HTTP/1.1 requests, each with its own event and a fresh signature."""
    return [_request(encode(body)) for body in itertools.islice(make_envelopes(), count)]


def _request(body: bytes) -> bytes:
    head = (
        "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"X-Dt-Signature: {sign(body, SECRET, now=time.time())}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
