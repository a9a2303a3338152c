"""A Data Connector on its bad days: delivers every event as the true one does, and does wrong what it is told to."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol

import httpx

from simulator import faults
from simulator.connector import Attempt, Connector, Delivery, post
from simulator.sensors import encode
from simulator.signature import sign

_PIECES = 5
_SLOW_BODY_SECONDS = 1.0
_LATER_SECONDS = (1.0, 5.0)
_EXPIRED_SINCE = -60.0  # seconds; beyond any sensible leeway


class Witness(Protocol):
    """Whoever remembers what was sent, and what the sender was told."""

    def made(self, key: str, body: bytes) -> None:
        """Remember a true event, before its first attempt."""

    def poisoned(self, body: bytes) -> None:
        """Remember an authentic body that can be no document, before its first attempt."""

    def forged(self, key: str, body: bytes) -> None:
        """Remember what must not be stored, before its only attempt."""

    def acknowledged(self, body: bytes) -> None:
        """Remember that a request with this body was answered with a 2xx."""

    def discarded(self, body: bytes, why: str) -> None:
        """Remember that the sender gave it up, and the last answer."""


class _Nobody:
    """A witness who forgets at once."""

    def made(self, key: str, body: bytes) -> None: ...
    def poisoned(self, body: bytes) -> None: ...
    def forged(self, key: str, body: bytes) -> None: ...
    def acknowledged(self, body: bytes) -> None: ...
    def discarded(self, body: bytes, why: str) -> None: ...


@dataclass
class FaultyConnector(Connector):
    """A Data Connector with faults at given rates.

    A forged request always goes beside the true event, never in its place, and is not counted as a delivery.

    Attributes:
        rates: of the faults, by name.
        rng: decides what happens to which event, in the order of their making.
        witness: is told of everything.
        happened: how often each fault happened.
    """

    rates: Mapping[str, float] = field(default_factory=dict)
    rng: Random = field(default_factory=Random)
    witness: Witness = field(default_factory=_Nobody)
    happened: dict[str, int] = field(default_factory=lambda: dict.fromkeys(faults.NAMES, 0), init=False)

    def __post_init__(self) -> None:
        """Send each event's first attempt in the manner that was drawn for it."""
        super().__post_init__()
        self._manners: dict[bytes, _Post] = {}
        self.post = self._post

    async def deliver(self, event: Mapping[str, Any] | bytes) -> Delivery:
        """Send an event as `Connector.deliver` does, with whatever faults are drawn for it.

        Args:
            event: the body, encoded or not.

        Returns:
            What became of it.
        """
        if isinstance(event, bytes):
            return await super().deliver(event)
        # Of the event's own, so that what is drawn does not depend on what else is under way.
        rng = Random(self.rng.getrandbits(64))  # noqa: S311 - what happens to events, no cryptography
        drawn = faults.draw(self.rates, rng)
        for name in drawn:
            self.happened[name] += 1
        body = encode(faults.disguise(event, drawn))
        for name in drawn & _MANNERS.keys():
            self._manners[body] = _MANNERS[name]
        self.witness.made(event["event"]["eventId"], body)
        async with asyncio.TaskGroup() as beside:
            for name in sorted(drawn & _BESIDE.keys()):
                beside.create_task(_BESIDE[name](self, body, rng))
            delivery = await self._deliver_and_tell(body)
            if "duplicates-after-success" in drawn and delivery.outcome == "acknowledged":
                await self.repeat(body)
        return delivery

    async def _deliver_and_tell(self, body: bytes) -> Delivery:
        delivery = await super().deliver(body)
        if delivery.outcome == "acknowledged":
            self.witness.acknowledged(body)
        else:
            self.witness.discarded(body, f"{delivery.status or 'no answer'}: {delivery.answer}")
        return delivery

    async def repeat(self, body: bytes, seconds: float = 0.0) -> None:
        """Send a duplicate, once.

        Args:
            body: of an event.
            seconds: to wait before.
        """
        await asyncio.sleep(seconds)
        self._tell(await self.attempt(body))

    async def forge(self, key: str, body: bytes, token: str) -> None:
        """Send what must not be believed, once.

        Args:
            key: the eventId that it bears.
            body: the raw body.
            token: proves nothing for this body.
        """
        self.witness.forged(key, body)
        self._tell(await self.request(body, token))

    async def poison(self, body: bytes) -> None:
        """Send an authentic body that can be no document, until it is acknowledged or, like any event, discarded.

        Args:
            body: the raw body.
        """
        self.witness.poisoned(body)
        await self._deliver_and_tell(body)

    def _tell(self, attempt: Attempt) -> None:
        if attempt.acknowledged:
            self.witness.acknowledged(attempt.body)

    async def _post(self, client: httpx.AsyncClient, url: str, body: bytes, token: str) -> httpx.Response:
        return await self._manners.pop(body, post)(client, url, body, token)


_Post = Callable[[httpx.AsyncClient, str, bytes, str], Awaitable[httpx.Response]]


async def _post_slowly(client: httpx.AsyncClient, url: str, body: bytes, token: str) -> httpx.Response:
    headers = {"X-Dt-Signature": token, "Content-Length": str(len(body))}
    return await client.post(url, content=_pieces(body, _SLOW_BODY_SECONDS / _PIECES), headers=headers)


async def _post_in_chunks(client: httpx.AsyncClient, url: str, body: bytes, token: str) -> httpx.Response:
    return await client.post(url, content=_pieces(body, 0.0), headers={"X-Dt-Signature": token})


async def _pieces(body: bytes, pause: float) -> AsyncIterator[bytes]:
    size = len(body) // _PIECES + 1
    for start in range(0, len(body), size):
        await asyncio.sleep(pause)
        yield body[start : start + size]


async def _post_and_close(client: httpx.AsyncClient, url: str, body: bytes, token: str) -> httpx.Response:
    request = client.build_request("POST", url, content=body, headers={"X-Dt-Signature": token})
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
    raise httpx.ReadError("the sender closed the connection before it read the answer")


_MANNERS: dict[str, _Post] = {
    "slow-bodies": _post_slowly,
    "chunked-bodies": _post_in_chunks,
    "early-closes": _post_and_close,
}


async def _duplicate_at_once(connector: FaultyConnector, body: bytes, _: Random) -> None:
    await connector.repeat(body)


async def _duplicate_later(connector: FaultyConnector, body: bytes, rng: Random) -> None:
    await connector.repeat(body, rng.uniform(*_LATER_SECONDS))


async def _tamper(connector: FaultyConnector, body: bytes, rng: Random) -> None:
    key, altered = faults.tampered(body, rng)
    await connector.forge(key, altered, sign(body, connector.secret, now=time.time()))


async def _sign_with_another_secret(connector: FaultyConnector, body: bytes, _: Random) -> None:
    key, invented = faults.forged(body, "w")
    await connector.forge(key, invented, sign(invented, connector.secret[::-1] + "?", now=time.time()))


async def _sign_in_the_past(connector: FaultyConnector, body: bytes, _: Random) -> None:
    key, invented = faults.forged(body, "x")
    token = sign(invented, connector.secret, now=time.time(), lifetime=_EXPIRED_SINCE)
    await connector.forge(key, invented, token)


async def _poison(connector: FaultyConnector, _body: bytes, rng: Random) -> None:
    await connector.poison(faults.poison(rng))


_BESIDE: dict[str, Callable[[FaultyConnector, bytes, Random], Coroutine[Any, Any, None]]] = {
    "duplicates-at-once": _duplicate_at_once,
    "duplicates-later": _duplicate_later,
    "tampered-bodies": _tamper,
    "wrong-secrets": _sign_with_another_secret,
    "expired-tokens": _sign_in_the_past,
    "poisonous-bodies": _poison,
}
