"""What the sub-commands do."""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from heapq import merge
from itertools import islice, takewhile
from random import Random, SystemRandom
from typing import Any, TypeVar

from httpx import codes
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table

from receiver.errors import Unverified
from simulator import faults
from simulator.arguments import positive, whole
from simulator.connector import Attempt, Connector, Counters
from simulator.faulty_connector import FaultyConnector
from simulator.fleet import Fleet
from simulator.sensors import EVENT_TYPES, TYPES, Device, default_device, encode, envelope, event
from simulator.signature import check
from simulator.signature import sign as signature_of

_AnyConnector = TypeVar("_AnyConnector", bound=Connector)

_PLAIN_PROGRESS_SECONDS = 10.0


class Problem(Exception):
    """Raised if an argument or a setting is wrong; its text says what to do."""


def configure_send(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `send`.

    Args:
        parser: the sub-command's.
    """
    parser.add_argument("type", metavar="TYPE", choices=EVENT_TYPES, help=", ".join(EVENT_TYPES))
    parser.add_argument("--value", metavar="V", help="in the type's unit, or its state; default: a plausible one")
    parser.add_argument("--device", metavar="ID", help="the device that publishes it; default: one for each type")
    parser.add_argument(
        "--label", metavar="KEY=VALUE", type=_label, action="append", help="of the device; may be repeated"
    )
    parser.add_argument("--retry", action="store_true", help="send again, as DT Cloud does, until it is acknowledged")


def send(arguments: argparse.Namespace) -> int:
    """Deliver one event, and print the answer.

    Args:
        arguments: those of `configure_send`.

    Returns:
        0 if it was acknowledged, else 1.
    """
    body = _one_event(arguments)
    connector = _connector(arguments, Connector)
    connector.on_attempt = _print_attempt
    print(body.decode())
    return 0 if asyncio.run(_send(connector, body, retry=arguments.retry)) else 1


async def _send(connector: Connector, body: bytes, *, retry: bool) -> bool:
    async with connector:
        if retry:
            return (await connector.deliver(body)).outcome == "acknowledged"
        attempt = await connector.attempt(body)
        _print_attempt(attempt)
        return attempt.acknowledged


def _one_event(arguments: argparse.Namespace) -> bytes:
    try:
        value = None if arguments.value is None else TYPES[arguments.type].parse(arguments.value)
    except ValueError as error:
        raise Problem(f"--value of {arguments.type} {error}") from None
    default = default_device(arguments.type)
    source = Device(
        arguments.device or default.id,
        default.type,
        default.labels if arguments.label is None else dict(arguments.label),
    )
    content = event(arguments.type, rng=SystemRandom(), now=datetime.now(UTC), value=value, source=source)
    return encode(envelope(content, source))


def _print_attempt(attempt: Attempt) -> None:
    later = "" if attempt.retry_in is None else f"; next attempt in {attempt.retry_in:g} s"
    status = "no answer" if attempt.status is None else f"{attempt.status} {codes.get_reason_phrase(attempt.status)}"
    print(f"{status} after {attempt.latency * 1000:.0f} ms: {attempt.answer}{later}", flush=True)


def configure_play(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `play`.

    Args:
        parser: the sub-command's.
    """
    end = parser.add_mutually_exclusive_group()
    end.add_argument("--events", metavar="N", type=whole, help="end after so many events")
    end.add_argument("--minutes", metavar="M", type=positive, help="end after so many minutes")
    parser.add_argument("--rate", metavar="PER_SECOND", type=positive, default=2.0, help="events a second; default: 2")
    parser.add_argument("--sensors", metavar="N", type=whole, default=24, help="the size of the fleet; default: 24")
    parser.add_argument("--seed", metavar="S", type=int, help="the same events again; default: new ones")
    parser.add_argument(
        "--time-factor", metavar="F", type=positive, default=1.0, help="shorten the pauses before a retry; default: 1"
    )
    faults.configure(parser)


def play(arguments: argparse.Namespace) -> int:
    """Deliver a fleet's events, show the progress, and print the counters that DT Studio shows.

    Args:
        arguments: those of `configure_play`.

    Returns:
        0 if every event was acknowledged, 1 if not, 130 if interrupted.
    """
    rng = Random(None if arguments.seed is None else f"faults {arguments.seed}")  # noqa: S311 - no cryptography
    connector = _connector(
        arguments,
        FaultyConnector,
        time_factor=arguments.time_factor,
        fresh_tokens=not arguments.same_token,
        rates=faults.rates(arguments),
        rng=rng,
    )
    console = Console()
    status = 0
    try:
        asyncio.run(_play(connector, _events(arguments, rng), console, arguments.events))
    except KeyboardInterrupt:
        status = 130
    _print_counters(connector.counters, console)
    return status or int(connector.counters.discarded > 0)


def _events(arguments: argparse.Namespace, rng: Random) -> Iterator[tuple[datetime, dict[str, Any]]]:
    now = datetime.now(UTC)
    events = Fleet(arguments.sensors, arguments.seed).play(now, arguments.rate)
    if arguments.minutes is not None:
        end = now + timedelta(minutes=arguments.minutes)
        events = takewhile(lambda item: item[0] <= end, events)
    bursts = [
        faults.backfilled(arguments.backfill or 0, rng, now),
        faults.morning(arguments.morning or 0, rng, now),
    ]
    return merge(islice(events, arguments.events), *bursts, key=lambda item: item[0])


async def _play(
    connector: Connector, events: Iterator[tuple[datetime, dict[str, Any]]], console: Console, total: int | None
) -> None:
    progress = asyncio.create_task(_show_progress(connector.counters, console, total))
    try:
        async with connector:
            await connector.play(events)
    finally:
        progress.cancel()


async def _show_progress(counters: Counters, console: Console, total: int | None) -> None:
    if not console.is_terminal:
        while True:
            await asyncio.sleep(_PLAIN_PROGRESS_SECONDS)
            print(counters_line(counters), flush=True)
    columns = (SpinnerColumn(), BarColumn(bar_width=20), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=total)
        while True:
            progress.update(task, completed=counters.events - counters.waiting, description=counters_line(counters))
            await asyncio.sleep(0.1)


def counters_line(counters: Counters, *, latencies: bool = False) -> str:
    """Write the counters as one line.

    Args:
        counters: of a Data Connector.
        latencies: whether to tell of them too.

    Returns:
        The line.
    """
    figures = _counts(counters) + (_latencies(counters) if latencies else [])
    line = ", ".join(f"{name} {number}" for name, number in figures)
    return f"{line}; last error {counters.last_error}" if counters.last_error else line


def _print_counters(counters: Counters, console: Console) -> None:
    if not console.is_terminal:
        print(counters_line(counters, latencies=True))
        return
    table = Table("counter", "", title="Data Connector")
    for name, number in _counts(counters) + _latencies(counters):
        table.add_row(name, number)
    console.print(table)
    if counters.last_error:
        console.print(f"last error {counters.last_error}", markup=False, highlight=False)


def _counts(counters: Counters) -> list[tuple[str, str]]:
    names = ("events", "success", "error", "discarded", "waiting")
    return [(name, str(getattr(counters, name))) for name in names]


def _latencies(counters: Counters) -> list[tuple[str, str]]:
    seconds = {f"p{percent} latency": counters.percentile(percent) for percent in (50, 99)}
    return [(name, f"{value * 1000:.1f} ms") for name, value in seconds.items() if value is not None]


def configure_sign(_: argparse.ArgumentParser) -> None:
    """Add the arguments of `sign`: it has none of its own."""


def sign(arguments: argparse.Namespace) -> int:
    """Print the value of `X-Dt-Signature` for the body on standard input.

    Args:
        arguments: the common ones.

    Returns:
        0.
    """
    print(signature_of(_standard_input(), arguments.secrets[0], now=time.time()))
    return 0


def configure_verify(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `verify`.

    Args:
        parser: the sub-command's.
    """
    parser.add_argument("--token", metavar="T", required=True, help="the value of the header X-Dt-Signature")


def verify(arguments: argparse.Namespace) -> int:
    """Print the token's claims and `verified`, or why it proves nothing.

    Args:
        arguments: those of `configure_verify`.

    Returns:
        0 if verified, else 1.
    """
    try:
        claims = check(_standard_input(), arguments.token, arguments.secrets, now=time.time())
    except Unverified as reason:
        print(f"not verified: {reason}", file=sys.stderr)
        return 1
    print(json.dumps(claims, indent=2), "verified", sep="\n")
    return 0


def _standard_input() -> bytes:
    if sys.stdin.isatty():
        print("Type the body, and end it with Ctrl-D.", file=sys.stderr)
    return sys.stdin.buffer.read()


def _connector(arguments: argparse.Namespace, kind: type[_AnyConnector], **options: Any) -> _AnyConnector:
    try:
        return kind(arguments.url, arguments.secrets[0], **options)
    except ValueError as error:
        raise Problem(f"--url or DT_ENDPOINT_URL: {error}") from None


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError("must be KEY=VALUE")
    return key, value
