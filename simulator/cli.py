"""The command line: `send`, `play`, `sign` and `verify`."""

import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from heapq import merge
from itertools import islice, takewhile
from pathlib import Path
from random import Random, SystemRandom
from typing import Any

import click
import httpx
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table

import command_line
from command_line import COUNT, POSITIVE, examples
from receiver.errors import Refusal
from receiver.signature import Claims
from simulator import faults, options, public_key, signature
from simulator.connector import Attempt, Connector, Counters
from simulator.faulty_connector import FaultyConnector
from simulator.fleet import Fleet
from simulator.options import Credentials, credentials
from simulator.retry import EVENT_LIFETIME
from simulator.sensors import EVENT_TYPES, TYPES, Device, default_device, encode, envelope, event

_NAME = "python -m simulator"
_PROGRESS_SECONDS = 10.0  # between progress lines when the output is not a terminal
_SEND = f"{_NAME} send temperature --value 21.5"
_PLAY = f"{_NAME} play --events 20 --rate 20"
_SIGN = f"echo '{{}}' | {_NAME} sign"
_VERIFY = (
    f"echo '{{}}' | {_NAME} verify \\",
    f"""    --token "$(echo '{{}}' | {_NAME} sign)\"""",
)

_Events = Iterator[tuple[datetime, dict[str, Any]]]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a sub-command.

    Args:
        argv: the arguments; None takes those of the process.

    Returns:
        The exit status: 0 on success, 1 not delivered or not verified, 2 a wrong argument or setting, 130 interrupted.
    """
    return command_line.run(_simulator, argv, name=_NAME)


def _read_label(_context: click.Context, _parameter: click.Parameter, labels: Sequence[str]) -> dict[str, str] | None:
    pairs = [label.partition("=") for label in labels]
    if not all(key and equals for key, equals, _ in pairs):
        raise click.BadParameter("must be KEY=VALUE")
    return {key: value for key, _, value in pairs} or None


@click.group("simulator", no_args_is_help=False, epilog=examples(_SEND, _PLAY, _SIGN, *_VERIFY))
def _simulator() -> None:
    """Sign events and deliver them as DT Cloud's Data Connector does.

    Endpoint and keys are those of the system that ./run.sh runs in this folder.
    For another endpoint, DT_ENDPOINT_URL (or --url) is its URL, and
    DT_SIGNATURE_SECRET (or --secret-file) holds its signature secret. If it
    holds several, one a line, the first one signs.
    """


@_simulator.command(
    epilog=examples(
        _SEND,
        f"{_NAME} send contact --value OPEN --label name=Door",
        f"{_NAME} send humidity --value 21.5,40 --retry",
    )
)
@click.argument("event_type", metavar="TYPE", type=click.Choice(EVENT_TYPES))
@click.option("--value", metavar="V", help="Number in the type's unit, or a state. Default: a plausible value.")
@click.option("--device", metavar="ID", help="Device that publishes the event. Default: one for each type.")
@click.option(
    "--label", "labels", metavar="KEY=VALUE", multiple=True, callback=_read_label, help="Device label; repeatable."
)
@click.option("--retry", is_flag=True, help="Send again, as DT Cloud does, until the event is acknowledged.")
@credentials("secret", "public-key", "both")
def send(  # noqa: PLR0913 - one parameter for each option
    event_type: str,
    value: str | None,
    device: str | None,
    labels: dict[str, str] | None,
    given: Credentials,
    *,
    retry: bool,
) -> int:
    """Deliver one event and print the answer."""
    default = default_device(event_type)
    source = Device(device or default.id, default.type, default.labels if labels is None else labels)
    body = _make_event(event_type, value, source)
    connector = Connector(given.url, given.signer, on_attempt=_print_attempt)
    print(body.decode())
    return 0 if asyncio.run(_send(connector, body, retry=retry)) else 1


send.help = f"{send.help}\n\nTYPE is one of {', '.join(EVENT_TYPES)}."


def _make_event(event_type: str, value: str | None, source: Device) -> bytes:
    try:
        parsed = None if value is None else TYPES[event_type].parse(value)
    except ValueError as error:
        raise click.UsageError(f"--value of {event_type} {error}") from None
    content = event(event_type, rng=SystemRandom(), now=datetime.now(UTC), value=parsed, source=source)
    return encode(envelope(content, source))


async def _send(connector: Connector, body: bytes, *, retry: bool) -> bool:
    async with connector:
        if retry:
            return (await connector.deliver(body)).acknowledged
        attempt = await connector.attempt(body)
        _print_attempt(attempt)
        return attempt.acknowledged


def _print_attempt(attempt: Attempt) -> None:
    print(_description(attempt), flush=True)


def _description(attempt: Attempt) -> str:
    later = "" if attempt.retry_in is None else f"; next attempt in {attempt.retry_in:g} s"
    reason = "" if attempt.status is None else httpx.codes.get_reason_phrase(attempt.status)
    status = "no answer" if attempt.status is None else f"{attempt.status} {reason}"
    return f"{status} after {attempt.latency * 1000:.0f} ms: {attempt.answer}{later}"


@_simulator.command(
    epilog=examples(
        _PLAY,
        f"{_NAME} play --minutes 0.05 --rate 10 --sensors 100 --seed 7",
        f"{_NAME} play --events 20 --tampered-bodies 0.1 --backfill 50",
    )
)
@click.option("--events", metavar="N", type=COUNT, help="Stop after N events.")
@click.option("--minutes", metavar="M", type=POSITIVE, help="Stop after M minutes.")
@click.option("--rate", metavar="N", type=POSITIVE, default=2.0, show_default=True, help="Events a second.")
@click.option("--sensors", metavar="N", type=COUNT, default=24, show_default=True, help="Size of the fleet.")
@click.option("--seed", metavar="S", type=int, help="Repeat the events of this seed. Default: new events.")
@click.option(
    "--time-factor", metavar="F", type=POSITIVE, default=1.0, show_default=True, help="Divide the retry pauses by F."
)
@click.option(
    "--give-up-after", metavar="SECONDS", type=POSITIVE, help="Discard an event after SECONDS, not 12 hours of retries."
)
@faults.options()
@credentials("secret", "public-key", "both")
def play(  # noqa: PLR0913, PLR0917 - one parameter for each option
    events: int | None,
    minutes: float | None,
    rate: float,
    sensors: int,
    seed: int | None,
    time_factor: float,
    give_up_after: float | None,
    wanted: faults.Settings,
    given: Credentials,
) -> int:
    """Deliver a fleet's events until --events, --minutes or Ctrl-C.

    Shows the progress, then the counters that DT Studio shows. Exit status 1:
    an event was discarded. SHARE is a share of the events, from 0 to 1, to
    which a fault is applied.
    """
    if events is not None and minutes is not None:
        raise click.UsageError("--events is not allowed with --minutes.")
    rng = Random(None if seed is None else f"faults {seed}")  # noqa: S311 - no cryptography
    connector = FaultyConnector(
        given.url,
        given.signer,
        time_factor=time_factor,
        event_lifetime=give_up_after or EVENT_LIFETIME,
        on_attempt=_first_failure_printer(),
        fresh_tokens=not wanted.same_token,
        rates=wanted.rates,
        rng=rng,
    )
    now, console, status = datetime.now(UTC), Console(), 0
    stream: _Events = Fleet(sensors, seed).play(now, rate)
    if minutes is not None:
        end = now + timedelta(minutes=minutes)
        stream = takewhile(lambda item: item[0] <= end, stream)
    bursts = faults.backfilled(wanted.backfill, rng, now), faults.morning(wanted.morning, rng, now)
    try:
        asyncio.run(_play(connector, merge(islice(stream, events), *bursts, key=lambda item: item[0]), console, events))
    except KeyboardInterrupt:
        status = command_line.INTERRUPTED
    _print_counters(connector.counters, console)
    return status or int(connector.counters.discarded > 0)


async def _play(
    connector: Connector, events: Iterable[tuple[datetime, dict[str, Any]]], console: Console, total: int | None
) -> None:
    progress = asyncio.create_task(_show_progress(connector, console, total))
    try:
        async with connector:
            await connector.play(events)
    finally:
        progress.cancel()


def _first_failure_printer() -> Callable[[Attempt], None]:
    failed = False

    def on_attempt(attempt: Attempt) -> None:
        nonlocal failed
        if not (failed or attempt.acknowledged):
            failed = True
            print(f"First failure: {_description(attempt)}", file=sys.stderr, flush=True)

    return on_attempt


async def _show_progress(connector: Connector, console: Console, total: int | None) -> None:
    counters = connector.counters
    if not console.is_terminal:
        while True:
            await asyncio.sleep(_PROGRESS_SECONDS)
            print(counters.line(), *_waiting(connector), sep="; ", flush=True)
    columns = (SpinnerColumn(), BarColumn(bar_width=20), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=total)
        while True:
            lines = "\n".join([counters.line(error=False), *_waiting(connector)])
            progress.update(task, completed=counters.events - counters.waiting, description=lines)
            await asyncio.sleep(0.1)


def _waiting(connector: Connector) -> Iterator[str]:
    if connector.next_attempt is not None:
        yield f"{connector.counters.waiting} waiting, next attempt in {connector.next_attempt:.0f} s; Ctrl-C ends"


def _print_counters(counters: Counters, console: Console) -> None:
    if not console.is_terminal:
        print(counters.line(latencies=True))
        return
    table = Table("counter", "", title="Data Connector")
    for name, figure in counters.figures(latencies=True).items():
        table.add_row(name, figure)
    console.print(table)
    if counters.last_error:
        console.print(f"last error {counters.last_error}", markup=False, highlight=False)


@_simulator.command(epilog=examples(_SIGN, f"{_SIGN} --signature public-key"))
@credentials("secret", "public-key", url=False)
def sign(given: Credentials) -> None:
    """Print the signature of the body on standard input.

    By the secret, where there is one, unless --signature says otherwise.
    """
    headers = given.signer.headers(_read_body(), now=time.time())
    print(next(iter(headers.values())))


@_simulator.command(epilog=examples(*_VERIFY))
@click.option("--token", metavar="T", required=True, help="Value of a signature header, of either kind.")
@credentials(url=False)
def verify(token: str, given: Credentials) -> int:
    """Verify the signature of the body on standard input.

    Verifies as the function does and prints the token's claims. Exit status
    1: the signature is not valid. For a token by public key,
    DT_ORGANIZATION_ID and DT_IDENTITY_ISSUER say whom to trust; without them
    it is the local system.
    """
    check = _public_key_check(token, given) if public_key.is_public_key_token(token) else _secret_check(token, given)
    try:
        claims = check(_read_body())
    except Refusal as refusal:
        print(f"not verified: {refusal.reason}", file=sys.stderr)
        return 1
    print(json.dumps(claims, indent=2), "verified", sep="\n")
    return 0


def _secret_check(token: str, given: Credentials) -> Callable[[bytes], Claims]:
    secrets = given.secrets
    return lambda body: signature.check(body, token, secrets, now=time.time())


def _public_key_check(token: str, given: Credentials) -> Callable[[bytes], Claims]:
    trusted = given.trusted
    return lambda body: asyncio.run(
        public_key.check(body, token, organizations=trusted.organizations, issuer=trusted.issuer, now=time.time())
    )


@_simulator.command(epilog=examples(f"{_NAME} rotate-keys"))
@options.STATE
def rotate_keys(state: Path) -> None:
    """Replace the key with which the local identity provider signs.

    The last key stays published for the tokens that are under way; earlier
    ones do not. The function fetches keys for an id that it does not know at
    most every 30 s: it may refuse events until then, and they are sent again.
    """
    keys = options.local_keys(state)
    last = keys.newest()
    print(f"{keys.rotate().key_id} signs from now on; {last.key_id} stays published.")


def _read_body() -> bytes:
    if sys.stdin.isatty():
        print("Type the body and end it with Ctrl-D.", file=sys.stderr)
    return sys.stdin.buffer.read()
