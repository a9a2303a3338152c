"""The load generator, a process of its own: sends prepared HTTP/1.1 requests over keep-alive connections."""

import asyncio
import gc
import itertools
import re
import time
from collections.abc import Iterator

from benchmarks.events import make_requests
from benchmarks.sample import Load, Sample, main, summarize
from benchmarks.usage import cpu_seconds

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_END_OF_HEAD = b"\r\n\r\n"


class _Connection(asyncio.Protocol):
    """Sends a request as soon as the previous one is answered."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the type checker
        self._transport = transport

    def run(self, requests: Iterator[bytes], until: float, latencies: list[float]) -> asyncio.Future[None]:
        """Send requests, which other connections share, until none is left or `time.perf_counter` is at `until`."""
        self._requests, self._until, self._latencies = requests, until, latencies
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._send()
        return self._done

    def _send(self) -> None:
        request = next(self._requests, None) if time.perf_counter() < self._until else None
        if request is None:
            self._done.set_result(None)
            return
        self._received, self._sent = b"", time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(_END_OF_HEAD)
        length = _LENGTH.search(head + b"\r\n")
        if not end or (length and len(body) < int(length[1])):
            return
        if not head.startswith(b"HTTP/1.1 200 "):
            self._done.set_exception(RuntimeError(f"the answer was {head[:60]!r} {body[:200]!r}"))
            return
        self._latencies.append(time.perf_counter() - self._sent)
        self._send()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(RuntimeError(f"the connection was closed before the answer: {error}"))


async def measure(load: Load, requests: list[bytes]) -> Sample:
    """Send requests as fast as they are answered; the first of each connection is a warm-up.

    Raises:
        RuntimeError: an answer was not 200, or a connection was closed.
    """
    host, _, port = load.host.rpartition(":")
    loop, pending = asyncio.get_running_loop(), iter(requests)
    opened = [await loop.create_connection(_Connection, host, int(port)) for _ in range(load.concurrency)]
    connections = [connection for _, connection in opened]
    await _send_all(connections, itertools.islice(pending, load.concurrency), float("inf"))
    gc.freeze()
    used, own, started = cpu_seconds(load.pid), time.process_time(), time.perf_counter()
    latencies = await _send_all(connections, pending, started + load.seconds)
    seconds, own = time.perf_counter() - started, time.process_time() - own
    return summarize(latencies, seconds, cpu_seconds(load.pid) - used, own)


async def _send_all(connections: list[_Connection], requests: Iterator[bytes], until: float) -> list[float]:
    latencies: list[float] = []
    await asyncio.gather(*(connection.run(requests, until, latencies) for connection in connections))
    return latencies


if __name__ == "__main__":
    main(make_requests, measure)
