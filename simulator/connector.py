"""The Data Connector: delivers each event over real HTTP until it is acknowledged or too old."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from datetime import UTC, datetime
from itertools import count
from math import ceil
from typing import Any, Literal, Self

import httpx

from simulator.retry import ANSWER_LIMIT, pause_before_retry
from simulator.sensors import encode
from simulator.signature import sign

_DIRECT = {"all://127.0.0.1": None, "all://localhost": None, "all://[::1]": None}
_LATENCIES_KEPT = 100_000


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request and what came of it.

    Attributes:
        body: what was sent.
        number: 1 for an event's first attempt.
        status: of the answer; None when there was none.
        answer: the answer's text, or why there was none.
        latency: seconds from the request to the answer, or to giving up.
        retry_in: seconds, by the policy, until the next attempt; None when there is none.
    """

    body: bytes
    number: int
    status: int | None
    answer: str
    latency: float
    retry_in: float | None = None

    @property
    def acknowledged(self) -> bool:
        """Whether the answer was any 2xx: all that counts for DT Cloud."""
        return self.status is not None and httpx.codes.is_success(self.status)


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of an event.

    Attributes:
        body: what was sent.
        outcome: whether the endpoint took it, or the connector gave it up.
        attempts: how many there were.
        status: of the last answer; None when there was none.
        answer: the last answer's text, or why there was none.
        latency: of the last attempt, in seconds.
    """

    body: bytes
    outcome: Literal["acknowledged", "discarded"]
    attempts: int
    status: int | None
    answer: str
    latency: float


@dataclass(slots=True)
class Counters:
    """What DT Studio shows of a Data Connector.

    Attributes:
        events: how many were given to the connector.
        success: how many attempts were acknowledged.
        error: how many attempts were not.
        discarded: how many events were given up.
        waiting: how many events are under way or wait for their next attempt.
        last_error: the answer of the latest attempt that was not acknowledged.
        latencies: of the acknowledged attempts, in seconds; the latest ones.
    """

    events: int = 0
    success: int = 0
    error: int = 0
    discarded: int = 0
    waiting: int = 0
    last_error: str = ""
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=_LATENCIES_KEPT))

    def percentile(self, percent: float) -> float | None:
        """Return the latency, in seconds, that so many per cent do not exceed; None before the first.

        Args:
            percent: above 0, to 100.

        Returns:
            Seconds, or None.
        """
        ordered = sorted(self.latencies)
        return ordered[ceil(len(ordered) * percent / 100) - 1] if ordered else None

    def note(self, attempt: Attempt) -> None:
        """Count an attempt.

        Args:
            attempt: which has ended.
        """
        if attempt.acknowledged:
            self.success += 1
            self.latencies.append(attempt.latency)
        else:
            self.error += 1
            self.last_error = f"{attempt.status or 'no answer'}: {attempt.answer}"


Post = Callable[[httpx.AsyncClient, str, bytes, str], Awaitable[httpx.Response]]


async def post(client: httpx.AsyncClient, url: str, body: bytes, token: str) -> httpx.Response:
    """Send one request as DT Cloud does; whoever wants it sent otherwise gives the connector another function.

    Args:
        client: keeps the connections.
        url: the endpoint.
        body: the raw body.
        token: the signature.

    Returns:
        The answer, read to its end.

    Raises:
        httpx.HTTPError: there was none.
    """
    return await client.post(url, content=body, headers={"Content-Type": "application/json", "X-Dt-Signature": token})


@dataclass
class Connector:
    """A Data Connector, to be used as an asynchronous context manager.

    Attributes:
        url: the endpoint.
        secret: the signature secret.
        time_factor: pauses between attempts are shortened by this factor, nothing else is.
        fresh_tokens: whether each attempt is signed anew, or carries the first one's token; which one DT Cloud does is
            not documented.
        connections: most requests under way at once.
        answer_limit: seconds after which a request without an answer has failed.
        on_attempt: called after each attempt.
        post: how one request is sent.
        sleep: waits so many seconds for the next attempt; a test may give another clock.
        counters: what happened so far.
    """

    url: str
    secret: str = field(repr=False)
    _: KW_ONLY
    time_factor: float = 1.0
    fresh_tokens: bool = True
    connections: int = 256
    answer_limit: float = ANSWER_LIMIT
    on_attempt: Callable[[Attempt], None] | None = None
    post: Post = post
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    counters: Counters = field(default_factory=Counters, init=False)

    def __post_init__(self) -> None:
        """Refuse an address that no request can go to.

        Raises:
            ValueError: it is none; the text says what one looks like.
        """
        try:
            address = httpx.URL(self.url)
        except httpx.InvalidURL:
            address = httpx.URL()
        if address.scheme not in {"http", "https"} or not address.host or (address.port or 80) >= 2**16:
            raise ValueError(f"{self.url!r} is no address like http://127.0.0.1:8080/")

    async def __aenter__(self) -> Self:
        """Open the connector."""
        # Waiting for one of the connections is the semaphore's business: it must not count as the endpoint's slowness.
        self._slots = asyncio.Semaphore(self.connections)
        limits = httpx.Limits(
            max_connections=None,
            max_keepalive_connections=self.connections,
            keepalive_expiry=1.5,  # seconds, shorter than any server's: no request meets a connection about to close
        )
        # A proxy named in the environment is never meant for an endpoint on this machine.
        self._client = httpx.AsyncClient(limits=limits, timeout=None, mounts=_DIRECT)  # noqa: S113 - see attempt
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def play(self, events: Iterable[tuple[datetime, Mapping[str, Any]]]) -> None:
        """Deliver each event when it is due, and return when none is left waiting.

        Args:
            events: when each is due, and its body, in the order of time.
        """
        async with asyncio.TaskGroup() as deliveries:
            for due, event in events:
                await asyncio.sleep((due - datetime.now(UTC)).total_seconds())
                deliveries.create_task(self.deliver(event))

    async def deliver(self, event: Mapping[str, Any] | bytes) -> Delivery:
        """Send an event until it is acknowledged or, 12 hours later, discarded.

        The event's age is by the policy's clock: the time that answers took, and the pauses in their full length.

        Args:
            event: the body, encoded or not.

        Returns:
            What became of it.
        """
        body = event if isinstance(event, bytes) else encode(event)
        token = None if self.fresh_tokens else self._sign(body)
        age = 0.0
        self.counters.events += 1
        self.counters.waiting += 1
        for number in count(1):
            attempt = await self.attempt(body, token=token, number=number)
            age += attempt.latency
            if not attempt.acknowledged:
                pause = pause_before_retry(number, age=age, response_time=attempt.latency)
                attempt = replace(attempt, retry_in=pause)
            if self.on_attempt:
                self.on_attempt(attempt)
            if attempt.retry_in is None:
                break
            await self.sleep(attempt.retry_in / self.time_factor)
            age += attempt.retry_in
        return self._settle(attempt)

    async def attempt(self, body: bytes, *, token: str | None = None, number: int = 1) -> Attempt:
        """Send one request, and count it.

        Args:
            body: the raw body.
            token: its signature; None signs it.
            number: counts an event's attempts.

        Returns:
            What came of it: a connection that is refused is an error like any other.
        """
        attempt = await self.request(body, token or self._sign(body), number)
        self.counters.note(attempt)
        return attempt

    async def request(self, body: bytes, token: str, number: int = 1) -> Attempt:
        """Send one request that the counters do not know of: whoever forges one is no Data Connector.

        Args:
            body: the raw body.
            token: its signature.
            number: counts an event's attempts.

        Returns:
            What came of it.
        """
        async with self._slots:
            start = time.perf_counter()
            try:
                async with asyncio.timeout(self.answer_limit):
                    answer = await self.post(self._client, self.url, body, token)
                status, text = answer.status_code, answer.text.strip()
            except TimeoutError:
                status, text = None, f"none within {self.answer_limit:g} s"
            except (httpx.HTTPError, OSError) as error:
                status, text = None, str(error) or type(error).__name__
            return Attempt(body, number, status, text, time.perf_counter() - start)

    def _sign(self, body: bytes) -> str:
        return sign(body, self.secret, now=time.time())

    def _settle(self, last: Attempt) -> Delivery:
        self.counters.waiting -= 1
        self.counters.discarded += not last.acknowledged
        return Delivery(
            last.body,
            "acknowledged" if last.acknowledged else "discarded",
            attempts=last.number,
            status=last.status,
            answer=last.answer,
            latency=last.latency,
        )
