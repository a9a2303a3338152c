"""What a program that sends events takes and returns: a `Load` on standard input, a `Sample` on standard output."""

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Load:
    """What to send, and where.

    Attributes:
        host: `HOST:PORT` of the contender, or of the store.
        pid: the contender's first process; its CPU time and that of its descendants is measured.
        events: how many to send after the warm-up.
        concurrency: requests in flight; the warm-up sends as many.
        seconds: when to stop even if events are left.
        key_file: of the keys that sign; empty for the secret.
    """

    host: str
    pid: int
    events: int
    concurrency: int
    seconds: float
    key_file: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement.

    Attributes:
        events: acknowledged with 200 after the warm-up.
        rate: events per second.
        p50: median latency, in ms.
        p99: 99th percentile of the latency, in ms.
        cpu: the contender's CPU time per event, user and system, in ms.
        client_cpu: the load generator's CPU time per event, in ms.
        client_share: the part of one core that the load generator used, 0 to 1.
    """

    events: int
    rate: float
    p50: float
    p99: float
    cpu: float
    client_cpu: float
    client_share: float


def summarize(latencies: Sequence[float], seconds: float, cpu: float, client_cpu: float) -> Sample:
    """Summarize a run of at least one request.

    Args:
        latencies: one per request, in seconds.
        seconds: duration of the run.
        cpu: CPU time of the contender, in seconds.
        client_cpu: CPU time of the load generator, in seconds.
    """
    count, ordered = len(latencies), sorted(latencies)
    p50, p99 = (1000 * ordered[int(count * part)] for part in (0.5, 0.99))
    each = 1000 / count
    return Sample(count, count / seconds, p50, p99, cpu * each, client_cpu * each, client_cpu / seconds)


def main(
    make: Callable[[int, str], list[bytes]], measure: Callable[[Load, list[bytes]], Coroutine[Any, Any, Sample]]
) -> None:
    """Read a `Load` as JSON, make its messages, measure, and print the `Sample` as JSON."""
    load = Load(**json.load(sys.stdin))
    print(json.dumps(asdict(asyncio.run(measure(load, make(load.events + load.concurrency, load.key_file))))))
