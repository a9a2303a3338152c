"""The load generator, a process of its own: raw HTTP/1.1 made beforehand, over connections that are kept alive."""

import asyncio
import gc
import itertools
import json
import re
import time
from collections.abc import Iterator
from dataclasses import asdict

from benchmarks.events import make_requests
from benchmarks.sample import Load, Sample, parse_load, summary
from benchmarks.usage import cpu_seconds

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_END_OF_HEAD = b"\r\n\r\n"


class Run:
    """Requests that several connections share.

    Attributes:
        took: time of each answered request, in seconds.
        done: set when all connections have no more to send; its exception is the first failure.
    """

    def __init__(self, requests: Iterator[bytes], connections: int, until: float) -> None:
        """Take the requests, how many connections send them, and when to stop by the clock of `perf_counter`."""
        self.took: list[float] = []
        self.done = asyncio.get_running_loop().create_future()
        self._requests, self._busy, self._until = requests, connections, until

    def next(self) -> bytes | None:
        """Return the next request; None, at the end, also counts a connection as ready."""
        request = next(self._requests, None) if time.perf_counter() < self._until else None
        if request is None:
            self._busy -= 1
            if not self._busy and not self.done.done():
                self.done.set_result(None)
        return request

    def fail(self, why: str) -> None:
        """End the run with an error."""
        if not self.done.done():
            self.done.set_exception(RuntimeError(why))


class _Connection(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the type checker
        self.transport = transport

    def start(self, run: Run) -> None:
        self._run = run
        self._send()

    def _send(self) -> None:
        self._received = b""
        request = self._run.next()
        if request is not None:
            self._sent = time.perf_counter()
            self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(_END_OF_HEAD)
        length = _LENGTH.search(head + b"\r\n")
        if not end or (length and len(body) < int(length[1])):
            return
        if not head.startswith(b"HTTP/1.1 200 "):
            self._run.fail(f"answered {head[:60]!r} {body[:200]!r}")
        self._run.took.append(time.perf_counter() - self._sent)
        self._send()

    def connection_lost(self, error: Exception | None) -> None:
        self._run.fail(f"the connection was closed before an answer: {error}")


async def measure(load: Load, requests: list[bytes]) -> Sample:
    """Send requests as fast as they are answered; the first ones, one a connection, are a warm-up.

    Args:
        load: what to send, and whom to measure.
        requests: the warm-up's and the others.

    Returns:
        The measurement.

    Raises:
        RuntimeError: an answer was not 200.
    """
    host, _, port = load.host.rpartition(":")
    loop, pending = asyncio.get_running_loop(), iter(requests)
    made = [await loop.create_connection(_Connection, host, int(port)) for _ in range(load.concurrency)]
    connections = [connection for _, connection in made]
    await _run(connections, Run(itertools.islice(pending, load.concurrency), load.concurrency, float("inf")))
    gc.freeze()
    used, own, started = cpu_seconds(load.session), time.process_time(), time.perf_counter()
    took = await _run(connections, Run(pending, load.concurrency, started + load.seconds))
    seconds, own = time.perf_counter() - started, time.process_time() - own
    return summary(took, seconds, cpu_seconds(load.session) - used, own)


async def _run(connections: list[_Connection], run: Run) -> list[float]:
    for connection in connections:
        connection.start(run)
    await run.done
    return run.took


if __name__ == "__main__":
    _load = parse_load("python -m benchmarks.load")
    _requests = make_requests(_load.events + _load.concurrency)
    print(json.dumps(asdict(asyncio.run(measure(_load, _requests)))))
