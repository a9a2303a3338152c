"""Events as DT Cloud sends them, each with an id of its own, all types in turn."""

import itertools
from collections.abc import Iterator
from typing import Any

from tests.events import DATA, encode, envelope
from tests.signing import sign


def make_envelopes() -> Iterator[dict[str, Any]]:
    """Yield bodies, as Python values, without end."""
    return (envelope(event_type) for event_type in itertools.cycle(DATA))


def make_requests(count: int) -> list[bytes]:
    """Return whole HTTP requests, each with its own event and signature.

    Args:
        count: how many.

    Returns:
        The bytes to send over a connection that is kept alive.
    """
    return [_request(encode(value)) for value in itertools.islice(make_envelopes(), count)]


def _request(body: bytes) -> bytes:
    head = (
        "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"X-Dt-Signature: {sign(body)}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
