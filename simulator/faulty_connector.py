"""A Data Connector with faults: it delivers every event as the real one does, and injects the faults that are drawn."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

import httpx

from simulator import faults
from simulator.connector import Attempt, Connector, Headers, Post, post
from simulator.sensors import encode

_PIECES = 5
_SLOW_BODY_SECONDS = 1.0
_LATER_SECONDS = (1.0, 5.0)
_EXPIRED_LIFETIME = -60.0  # seconds; beyond any sensible leeway


class DeliveryObserver:
    """Is told what is sent and what is answered. This one ignores it; a subclass may record it."""

    def made(self, key: str, body: bytes) -> None:
        """Note a valid event, before its first attempt."""

    def unprocessable(self, body: bytes) -> None:
        """Note an authentic body that is not a valid document, before its first attempt."""

    def forged(self, key: str, body: bytes) -> None:
        """Note a body that must not be stored, before its only attempt."""

    def acknowledged(self, body: bytes) -> None:
        """Note that a request with this body was answered with a 2xx."""

    def discarded(self, body: bytes, reason: str) -> None:
        """Note that the connector stopped sending a body, and the last answer."""


@dataclass
class FaultyConnector(Connector):
    """A Data Connector that injects faults at given rates.

    A forged request is sent in addition to the valid event, and the counters do not include it.

    Attributes:
        rates: from 0 to 1, by fault.
        rng: draws the faults of each event, in the order in which the events are delivered.
        observer: is told of every body and answer.
        happened: how often each fault was injected.
    """

    rates: Mapping[str, float] = field(default_factory=dict)
    rng: Random = field(default_factory=Random)
    observer: DeliveryObserver = field(default_factory=DeliveryObserver)
    happened: dict[str, int] = field(default_factory=lambda: dict.fromkeys(faults.NAMES, 0), init=False)

    def __post_init__(self) -> None:
        """Check the URL, and send first attempts in the way that was drawn for them."""
        super().__post_init__()
        self._first_posts: dict[bytes, Post] = {}
        self.post = self._post

    async def deliver(self, event: Mapping[str, Any] | bytes) -> Attempt:
        """Send an event as `Connector.deliver` does, with the faults that are drawn for it.

        Args:
            event: the body; an encoded one has no faults.
        """
        if isinstance(event, bytes):
            return await super().deliver(event)
        # One generator for each event, so that its faults do not depend on other deliveries under way.
        rng = Random(self.rng.getrandbits(64))  # noqa: S311 - faults, no cryptography
        drawn = faults.draw(self.rates, rng)
        for name in drawn:
            self.happened[name] += 1
        body = encode(faults.change_schema(event, drawn))
        for name in drawn & _POSTS.keys():
            self._first_posts[body] = _POSTS[name]
        self.observer.made(event["event"]["eventId"], body)
        async with asyncio.TaskGroup() as others:
            for name in sorted(drawn & _EXTRA_REQUESTS.keys()):
                others.create_task(_EXTRA_REQUESTS[name](self, body, rng))
            attempt = await self.deliver_and_report(body)
            if "duplicates-after-success" in drawn and attempt.acknowledged:
                await self.repeat(body)
        return attempt

    async def deliver_and_report(self, body: bytes) -> Attempt:
        """Send a body until it is acknowledged or discarded, and tell the observer which."""
        attempt = await super().deliver(body)
        if attempt.acknowledged:
            self.observer.acknowledged(body)
        else:
            self.observer.discarded(body, f"{attempt.status or 'no answer'}: {attempt.answer}")
        return attempt

    async def repeat(self, body: bytes) -> None:
        """Send a duplicate, once."""
        self._report(await self.attempt(body))

    async def forge(self, key: str, body: bytes, signature: Headers) -> None:
        """Send a forged body, once.

        Args:
            key: its eventId.
            body: the raw body.
            signature: headers that are not valid for this body.
        """
        self.observer.forged(key, body)
        self._report(await self.request(body, signature))

    def _report(self, attempt: Attempt) -> None:
        if attempt.acknowledged:
            self.observer.acknowledged(attempt.body)

    async def _post(self, client: httpx.AsyncClient, url: str, body: bytes, signature: Headers) -> httpx.Response:
        return await self._first_posts.pop(body, post)(client, url, body, signature)


async def _post_slowly(client: httpx.AsyncClient, url: str, body: bytes, signature: Headers) -> httpx.Response:
    headers = {**signature, "Content-Length": str(len(body))}
    return await client.post(url, content=_pieces(body, _SLOW_BODY_SECONDS / _PIECES), headers=headers)


async def _post_in_chunks(client: httpx.AsyncClient, url: str, body: bytes, signature: Headers) -> httpx.Response:
    return await client.post(url, content=_pieces(body, 0.0), headers=signature)


async def _pieces(body: bytes, pause: float) -> AsyncIterator[bytes]:
    size = len(body) // _PIECES + 1
    for start in range(0, len(body), size):
        await asyncio.sleep(pause)
        yield body[start : start + size]


async def _post_and_close(client: httpx.AsyncClient, url: str, body: bytes, signature: Headers) -> httpx.Response:
    request = client.build_request("POST", url, content=body, headers=signature)
    address, encrypted = request.url, request.url.scheme == "https"
    lines = [
        f"POST {address.raw_path.decode()} HTTP/1.1",
        *(f"{key}: {value}" for key, value in request.headers.items()),
    ]
    _, writer = await asyncio.open_connection(
        address.host, address.port or (443 if encrypted else 80), ssl=encrypted or None
    )
    try:
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await writer.drain()
    finally:
        writer.close()
    raise httpx.ReadError("the sender closed the connection before the answer")


_POSTS: dict[str, Post] = {
    "slow-bodies": _post_slowly,
    "chunked-bodies": _post_in_chunks,
    "early-closes": _post_and_close,
}


async def _duplicate_at_once(connector: FaultyConnector, body: bytes, _: Random) -> None:
    await connector.repeat(body)


async def _duplicate_later(connector: FaultyConnector, body: bytes, rng: Random) -> None:
    await asyncio.sleep(rng.uniform(*_LATER_SECONDS))
    await connector.repeat(body)


async def _tamper(connector: FaultyConnector, body: bytes, rng: Random) -> None:
    key, altered = faults.tampered(body, rng)
    await connector.forge(key, altered, connector.signer.headers(body, now=time.time()))


async def _send_wrong_secret(connector: FaultyConnector, body: bytes, _: Random) -> None:
    key, invented = faults.forged(body, "w")
    await connector.forge(key, invented, connector.signer.forger().headers(invented, now=time.time()))


async def _send_expired_token(connector: FaultyConnector, body: bytes, _: Random) -> None:
    key, invented = faults.forged(body, "x")
    expired = connector.signer.headers(invented, now=time.time(), lifetime=_EXPIRED_LIFETIME)
    await connector.forge(key, invented, expired)


async def _send_unprocessable(connector: FaultyConnector, _body: bytes, rng: Random) -> None:
    body = faults.unprocessable(rng)
    connector.observer.unprocessable(body)
    await connector.deliver_and_report(body)


_EXTRA_REQUESTS: dict[str, Callable[[FaultyConnector, bytes, Random], Coroutine[Any, Any, None]]] = {
    "duplicates-at-once": _duplicate_at_once,
    "duplicates-later": _duplicate_later,
    "tampered-bodies": _tamper,
    "wrong-secrets": _send_wrong_secret,
    "expired-tokens": _send_expired_token,
    "unprocessable-bodies": _send_unprocessable,
}
