"""`./run.sh`: the whole system on one machine, from simulated sensors to documents in a Firestore."""

import argparse
import asyncio
import os
import signal
import sys
import warnings
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import jwt
from google.api_core.exceptions import GoogleAPIError
from rich.console import Console

from local.emulator import StoreUnavailable
from local.processes import PartError
from local.system import Problem, System, running_system
from local.view import View
from simulator.arguments import Parser
from simulator.connector import Connector
from simulator.fleet import Fleet

_RATE, _RATE_OF_A_COUNT = 4.0, 50.0  # events a second: for somebody to watch, and for somebody who waits for the end
_LAST_LOOK = 5.0  # seconds for what is still to be shown at the end
_EXAMPLES = """
examples:
  ./run.sh                                  until Ctrl-C, which prints totals and exits with status 0
  ./run.sh --events 50                      status 0 when each of the 50 is in Firestore once, 1 when not
  ./run.sh --events 5000 --rate 400         faster
  ./run.sh --serve --port 9000              no sensors: prints how to send an event yourself
  ./run.sh --store embedded --events 20     on the embedded stand-in, whose file survives
  sqlite3 .state/firestore.sqlite3 'SELECT path, fields FROM documents LIMIT 5'

A wrong argument, or one that cannot be had, exits with status 2; a part of the system that dies, with status 1.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the system.

    Args:
        argv: the arguments; None takes those of the process.

    Returns:
        The exit status, as `--help` has it.
    """
    warnings.filterwarnings("ignore", category=jwt.InsecureKeyLengthWarning)  # the secret's owner decided its length
    arguments = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with running_system(folder=arguments.state, port=arguments.port, choice=arguments.store) as system:
            os.environ.update(system.environ)
            return asyncio.run(_run(arguments, system))
    except (Problem, StoreUnavailable) as error:
        print(error, file=sys.stderr)
        return 2
    except PartError as error:
        print(error, file=sys.stderr)
        return 1
    except GoogleAPIError as error:
        print(f"Firestore no longer answers: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever read the output has enough of it, as in `./run.sh | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130


class _Output(Console):
    def on_broken_pipe(self) -> NoReturn:
        raise BrokenPipeError  # in place of rich's SystemExit, so that all parts are ended first


async def _run(arguments: argparse.Namespace, system: System) -> int:
    sent: deque[str] = deque(maxlen=arguments.events or 0)
    reader = system.reader()
    print(_introduction(arguments, system), flush=True)
    view = View(_Output(), system.function.log, reader)
    with view.live():
        work = asyncio.Event().wait() if arguments.serve else _play(arguments, system, sent)
        ended = await _attend(work, view.follow(), system.watch())
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_LOOK):
                await view.catch_up()
    print(view.totals(), flush=True)
    if arguments.events is None:
        return 0
    if not ended:
        raise PartError(f"Stopped before all {arguments.events} events were acknowledged.")
    return _verdict(await reader.problems(sent), arguments.events)


async def _attend(work: Coroutine[Any, Any, object], *company: Coroutine[Any, Any, object]) -> bool:
    """Wait for the end of the work, for Ctrl-C or SIGTERM, or for an error, of the work or in its company.

    Returns:
        True when the work came to its end.
    """
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    working = asyncio.ensure_future(work)
    tasks = {working, *map(asyncio.ensure_future, (*company, stop.wait()))}
    ended, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    for task in ended:
        task.result()
    return working in ended


async def _play(arguments: argparse.Namespace, system: System, sent: deque[str]) -> None:
    rate = arguments.rate or (_RATE_OF_A_COUNT if arguments.events else _RATE)
    fleet = Fleet(arguments.sensors, arguments.seed)
    events = islice(fleet.play(datetime.now(UTC), rate), arguments.events)
    secret = system.environ["DT_SIGNATURE_SECRET"].splitlines()[0].strip()
    async with Connector(system.url, secret) as connector:
        await connector.play(_noting(events, sent))


def _noting(
    events: Iterable[tuple[datetime, dict[str, Any]]], sent: deque[str]
) -> Iterator[tuple[datetime, dict[str, Any]]]:
    for due, body in events:
        sent.append(body["event"]["eventId"])
        yield due, body


def _verdict(problems: Sequence[str], events: int) -> int:
    if not problems:
        print(f"All {events} events are in Firestore, each once.")
        return 0
    print(*problems, f"NOT all {events} events are in Firestore, each once: see the lines above.", sep="\n")
    return 1


def _introduction(arguments: argparse.Namespace, system: System) -> str:
    project = system.environ["GOOGLE_CLOUD_PROJECT"]
    parts = f"""\
Firestore  {system.store.origin}, at {system.store.host}, project {project}, collection {system.collection}
Function   {system.url}, its log in {system.function.log}; LATENCY is its own, from request to answer"""
    if not arguments.serve:
        return f"{parts}\nSensors    {arguments.sensors} simulated ones; Ctrl-C ends\n"
    simulator, secret = ".venv/bin/python -m simulator", f"--secret-file {system.secret_file}"
    return f"""{parts}
Secret     in {system.secret_file}

Send an event from another terminal, in this folder:
  {simulator} send temperature --value 21.5 {secret} --url {system.url}
or any body:
  BODY='{{"event":{{"eventId":"my-event","eventType":"hello"}}}}'
  curl -d "$BODY" -H "X-Dt-Signature: $(printf %s "$BODY" | {simulator} sign {secret})" {system.url}
"""


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="./run.sh",
        description="Run the whole system on this machine and show each event as it is stored.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    end = parser.add_mutually_exclusive_group()
    end.add_argument(
        "--events", type=_number(int, most=1e9), metavar="N", help="end after N events, and look whether all are stored"
    )
    end.add_argument("--serve", action="store_true", help="start no sensors; print how to send an event")
    parser.add_argument(
        "--store", choices=("emulator", "embedded"), help="default: the emulator, else the embedded stand-in"
    )
    parser.add_argument(
        "--port", type=_number(int, most=65535), metavar="P", help="of the function; default: 8080, or a free one"
    )
    parser.add_argument(
        "--rate", type=_number(float), metavar="R", help="events a second; default: 4, with --events 50"
    )
    parser.add_argument("--sensors", type=_number(int), default=24, metavar="N", help="how many; default: 24")
    parser.add_argument("--seed", type=int, metavar="S", help="the same events again; default: new ones")
    parser.add_argument(
        "--state",
        type=Path,
        default=Path(".state"),
        metavar="DIR",
        help="for logs and the embedded store; default: .state",
    )
    return parser


def _number(kind: Callable[[str], float], most: float = 100_000) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            number = kind(text)
        except ValueError:
            number = 0
        if not 0 < number <= most:
            whole = "whole " if kind is int else ""
            raise argparse.ArgumentTypeError(f"must be a {whole}number above 0, and {most:g} at most")
        return number

    return parse


if __name__ == "__main__":
    sys.exit(main())
