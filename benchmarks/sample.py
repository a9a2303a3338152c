"""One measurement, and what the programs that take one share."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement.

    Attributes:
        events: acknowledged with 200 in the time that was measured.
        rate: events a second.
        p50: median of the time from request to answer, in ms.
        p99: its 99th percentile, in ms.
        cpu: CPU time of the contender's processes an event, user and system, in ms.
        client_cpu: CPU time of the load generator an event, in ms.
        client_share: part of one core that the load generator took, 0 to 1.
    """

    events: int
    rate: float
    p50: float
    p99: float
    cpu: float
    client_cpu: float
    client_share: float


def summary(took: Sequence[float], seconds: float, cpu: float, client_cpu: float) -> Sample:
    """Sum a run up.

    Args:
        took: each request's time, in seconds; not empty.
        seconds: the run's duration.
        cpu: CPU time of the contender's processes, in seconds.
        client_cpu: CPU time of the load generator, in seconds.

    Returns:
        The measurement.
    """
    count, ordered = len(took), sorted(took)
    p50, p99 = (1000 * ordered[int(count * part)] for part in (0.5, 0.99))
    each = 1000 / count
    return Sample(count, count / seconds, p50, p99, cpu * each, client_cpu * each, client_cpu / seconds)


@dataclass(frozen=True, slots=True)
class Load:
    """What to send.

    Attributes:
        host: `HOST:PORT` of the contender, or of the store.
        session: id of the contender's session, whose processes are measured; 0 for none.
        events: how many, beside the warm-up.
        concurrency: how many at a time.
        seconds: when to stop before all are sent.
    """

    host: str
    session: int
    events: int
    concurrency: int
    seconds: float


def parse_load(prog: str) -> Load:
    """Read a load from the process's command line."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Send events as fast as they are answered, and print the measurement as JSON.",
        epilog=f"example:\n  {prog} --host 127.0.0.1:8080 --events 1000 --concurrency 16",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", required=True, metavar="HOST:PORT", help="where to send")
    parser.add_argument("--session", type=int, default=0, metavar="PID", help="leader of the processes to measure")
    parser.add_argument("--events", type=int, default=1000, metavar="N", help="how many; default: 1000")
    parser.add_argument("--concurrency", type=int, default=16, metavar="N", help="how many at a time; default: 16")
    parser.add_argument("--seconds", type=float, default=5.0, metavar="S", help="stop after S; default: 5")
    return Load(**vars(parser.parse_args()))
