"""The Data Connector: delivers each event over real HTTP until it is acknowledged or too old."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from datetime import UTC, datetime
from itertools import count
from math import ceil
from typing import Any, Self

import httpx

from simulator.retry import ANSWER_LIMIT, EVENT_LIFETIME, pause_before_retry
from simulator.sensors import encode
from simulator.signer import Signer

_DIRECT = {"all://127.0.0.1": None, "all://localhost": None, "all://[::1]": None}
_LATENCIES_KEPT = 100_000


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request and its result.

    Attributes:
        body: the raw body.
        number: 1 for an event's first attempt.
        status: the answer's status; None if there was no answer.
        answer: the answer's text, or why there was no answer.
        latency: seconds from the request to the answer or the time-out.
        retry_in: seconds until the next attempt, as the policy says; None if there is no next attempt.
    """

    body: bytes
    number: int
    status: int | None
    answer: str
    latency: float
    retry_in: float | None = None

    @property
    def acknowledged(self) -> bool:
        """Whether the status was any 2xx: DT Cloud looks at nothing else."""
        return self.status is not None and httpx.codes.is_success(self.status)


@dataclass(slots=True)
class Counters:
    """The counters that DT Studio shows for a Data Connector.

    Attributes:
        events: events passed to the connector.
        success: acknowledged attempts.
        error: attempts that were not acknowledged.
        discarded: events that the connector stopped sending.
        waiting: events in delivery, or waiting for their next attempt.
        last_error: the answer to the latest attempt that was not acknowledged.
        latencies: seconds, of the latest acknowledged attempts.
    """

    events: int = 0
    success: int = 0
    error: int = 0
    discarded: int = 0
    waiting: int = 0
    last_error: str = ""
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=_LATENCIES_KEPT))

    def percentile(self, percent: float) -> float | None:
        """Return a percentile of the latencies, in seconds; None if there are no latencies.

        Args:
            percent: above 0, at most 100.
        """
        ordered = sorted(self.latencies)
        return ordered[ceil(len(ordered) * percent / 100) - 1] if ordered else None

    def count(self, attempt: Attempt) -> None:
        """Count an attempt."""
        if attempt.acknowledged:
            self.success += 1
            self.latencies.append(attempt.latency)
        else:
            self.error += 1
            self.last_error = f"{attempt.status or 'no answer'}: {attempt.answer}"

    def figures(self, *, latencies: bool = False) -> dict[str, str]:
        """Return the counters as text by name, with two percentiles of the latencies if wanted and known."""
        names = ("events", "success", "error", "discarded", "waiting")
        figures = {name: str(getattr(self, name)) for name in names}
        for percent in (50, 99) if latencies and self.latencies else ():
            figures[f"p{percent} latency"] = f"{(self.percentile(percent) or 0) * 1000:.1f} ms"
        return figures

    def line(self, *, latencies: bool = False, error: bool = True) -> str:
        """Return the figures in one line, with the last error if wanted."""
        line = ", ".join(f"{name} {figure}" for name, figure in self.figures(latencies=latencies).items())
        return f"{line}; last error {self.last_error}" if error and self.last_error else line


Headers = Mapping[str, str]
Post = Callable[[httpx.AsyncClient, str, bytes, Headers], Awaitable[httpx.Response]]


async def post(client: httpx.AsyncClient, url: str, body: bytes, signature: Headers) -> httpx.Response:
    """Send one request as DT Cloud does.

    Raises:
        httpx.HTTPError: there was no answer.
    """
    return await client.post(url, content=body, headers={"Content-Type": "application/json", **signature})


def check_url(url: str) -> None:
    """Check the URL of an endpoint.

    Raises:
        ValueError: it is not valid.
    """
    try:
        address = httpx.URL(url)
    except httpx.InvalidURL:
        address = httpx.URL()
    if address.scheme not in {"http", "https"} or not address.host or (address.port or 80) >= 2**16:
        raise ValueError(f"{url!r} is not a URL like http://127.0.0.1:8080/")


@dataclass
class Connector:
    """A Data Connector, used as an asynchronous context manager.

    Attributes:
        url: the endpoint.
        signer: makes the signature headers.
        time_factor: divides the pauses between attempts; nothing else is shortened.
        fresh_tokens: whether each attempt is signed anew, or carries the tokens of the first one. DT does not document
            which of them DT Cloud does.
        connections: the maximum number of concurrent requests.
        answer_limit: seconds after which a request without an answer has failed.
        event_lifetime: seconds after which an event is discarded, before `time_factor` shortens them.
        on_attempt: called after each attempt.
        post: sends one request; replace it to send requests in another way.
        sleep: waits for the next attempt, given in seconds; a test may pass another clock.
        counters: of all deliveries so far.
    """

    url: str
    signer: Signer
    _: KW_ONLY
    time_factor: float = 1.0
    fresh_tokens: bool = True
    connections: int = 256
    answer_limit: float = ANSWER_LIMIT
    event_lifetime: float = EVENT_LIFETIME
    on_attempt: Callable[[Attempt], None] | None = None
    post: Post = post
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    counters: Counters = field(default_factory=Counters, init=False)
    _due: dict[int, float] = field(default_factory=dict, init=False)  # when each waiting event is sent again

    def __post_init__(self) -> None:
        """Check the URL.

        Raises:
            ValueError: the URL is not valid.
        """
        check_url(self.url)

    async def __aenter__(self) -> Self:
        """Open the connector."""
        # The semaphore, not the client, waits for a free connection: that wait is no latency of the endpoint.
        self._slots = asyncio.Semaphore(self.connections)
        limits = httpx.Limits(
            max_connections=None,
            max_keepalive_connections=self.connections,
            keepalive_expiry=1.5,  # seconds; shorter than any server's: no request uses a connection about to close
        )
        # A proxy set in the environment never applies to an endpoint on this machine.
        self._client = httpx.AsyncClient(limits=limits, timeout=None, mounts=_DIRECT)  # noqa: S113 - see attempt
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close all connections."""
        await self._client.aclose()

    @property
    def next_attempt(self) -> float | None:
        """Seconds until the next retry; None if no event waits for one."""
        return max(0.0, min(self._due.values()) - time.monotonic()) if self._due else None

    async def play(self, events: Iterable[tuple[datetime, Mapping[str, Any]]]) -> None:
        """Deliver each event when it is due, and return when all are acknowledged or discarded.

        Args:
            events: due times and bodies, ordered by time.
        """
        async with asyncio.TaskGroup() as deliveries:
            for due, event in events:
                await asyncio.sleep((due - datetime.now(UTC)).total_seconds())
                deliveries.create_task(self.deliver(event))

    async def deliver(self, event: Mapping[str, Any] | bytes) -> Attempt:
        """Send an event until it is acknowledged or, after its lifetime, discarded; return the last attempt.

        The event's age is the sum of all latencies and of the pauses before `time_factor` shortens them.

        Args:
            event: the body, encoded or not.
        """
        body = event if isinstance(event, bytes) else encode(event)
        signature = None if self.fresh_tokens else self._sign(body)
        age = 0.0
        self.counters.events += 1
        self.counters.waiting += 1
        event_number = self.counters.events
        for number in count(1):
            attempt = await self.attempt(body, signature=signature, number=number)
            age += attempt.latency
            if not attempt.acknowledged:
                pause = pause_before_retry(number, age=age, response_time=attempt.latency, lifetime=self.event_lifetime)
                attempt = replace(attempt, retry_in=pause)
            if self.on_attempt:
                self.on_attempt(attempt)
            if attempt.retry_in is None:
                break
            pause = attempt.retry_in / self.time_factor
            self._due[event_number] = time.monotonic() + pause
            await self.sleep(pause)
            del self._due[event_number]
            age += attempt.retry_in
        self.counters.waiting -= 1
        self.counters.discarded += not attempt.acknowledged
        return attempt

    async def attempt(self, body: bytes, *, signature: Headers | None = None, number: int = 1) -> Attempt:
        """Send one request and count it. Connection errors are reported in the result.

        Args:
            body: the raw body.
            signature: its signature headers; None signs the body.
            number: of the attempt, from 1.
        """
        attempt = await self.request(body, signature or self._sign(body), number)
        self.counters.count(attempt)
        return attempt

    async def request(self, body: bytes, signature: Headers, number: int = 1) -> Attempt:
        """Send one request without counting it, as a forger would.

        Args:
            body: the raw body.
            signature: its signature headers.
            number: of the attempt, from 1.
        """
        async with self._slots:
            start = time.perf_counter()
            try:
                async with asyncio.timeout(self.answer_limit):
                    answer = await self.post(self._client, self.url, body, signature)
                status, text = answer.status_code, answer.text.strip()
            except TimeoutError:
                status, text = None, f"no answer within {self.answer_limit:g} s"
            except httpx.ConnectError as error:
                status, text = None, f"no connection to {self.url}: {error}"
            except (httpx.HTTPError, OSError) as error:
                status, text = None, str(error) or type(error).__name__
            return Attempt(body, number, status, text, time.perf_counter() - start)

    def _sign(self, body: bytes) -> Headers:
        return self.signer.headers(body, now=time.time())
