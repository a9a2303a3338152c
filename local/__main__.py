"""`./run.sh`: the whole system on one machine, from simulated sensors to documents in Firestore."""

import asyncio
import os
import shlex
import signal
import sys
import warnings
from collections import deque
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import click
import jwt
from google.api_core.exceptions import GoogleAPIError
from rich.console import Console

import command_line
from local.emulator import Kind, StoreUnavailable
from local.processes import PartError
from local.system import SETTINGS_FILE, System, running_system, say
from local.view import View
from local.viewer import running_viewer
from simulator.connector import Connector
from simulator.fleet import Fleet
from simulator.signer import PUBLIC_KEY_HEADER, SECRET_HEADER

_RATE, _RATE_OF_A_COUNT = 4.0, 50.0  # events per second: slow enough to watch; fast, to reach the end of a count
_LAST_LOOK = 5.0  # seconds to show the remaining log lines at the end
_MOST = 100_000  # sensors, and events per second
_EXAMPLES = command_line.examples(
    "./run.sh                            until Ctrl-C",
    "./run.sh --events 50                then check that all 50 are stored",
    "./run.sh --events 5000 --rate 400   faster",
    "./run.sh --serve --port 9000        no sensors: send events yourself",
    "./run.sh --store embedded --events 20",
    "sqlite3 .state/firestore.sqlite3 'SELECT path FROM documents LIMIT 5'",
)


@dataclass(frozen=True, slots=True)
class _Options:
    events: int | None
    serve: bool
    store: Kind | None
    port: int | None
    rate: float | None
    sensors: int
    seed: int | None
    state: Path


@click.command(epilog=_EXAMPLES)
@click.option("--events", type=click.IntRange(1, 10**9), metavar="N", help="Stop after N events; check all are stored.")
@click.option("--serve", is_flag=True, help="Start no sensors; print how to send an event.")
@click.option(
    "--store", type=click.Choice(["emulator", "embedded"]), help="Default: the emulator if available, else embedded."
)
@click.option(
    "--port", type=command_line.PORT, metavar="P", show_default="8080, or a free one", help="Port of the function."
)
@click.option(
    "--rate",
    type=command_line.FiniteRange(0, _MOST, min_open=True),
    metavar="R",
    show_default="4; with --events 50",
    help="Events per second.",
)
@click.option(
    "--sensors", type=click.IntRange(1, _MOST), default=24, show_default=True, metavar="N", help="Number of sensors."
)
@click.option("--seed", type=int, metavar="S", help="Repeat the events of an earlier run with this seed.")
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    default=".state",
    show_default=True,
    metavar="DIR",
    help="Folder for the logs and the embedded store.",
)
def _command(**options: Any) -> int:
    """Run the whole system on this machine and show each event as it is stored.

    \b
    Exit status: 0 after Ctrl-C, and when each of --events is stored once;
    1 when not, or when a process of the system dies; 2 for a wrong argument.
    """  # noqa: D301 - click needs the backspace character
    chosen = _Options(**options)
    if chosen.serve and chosen.events is not None:
        raise click.UsageError("Choose --serve or --events, not both.")
    # The sender chose the length of the secret.
    warnings.filterwarnings("ignore", category=jwt.InsecureKeyLengthWarning)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with running_system(chosen.state, chosen.port, chosen.store, sensors=not chosen.serve) as system:
            os.environ.update(system.environ)
            if chosen.events is not None:  # nobody has time to look at a page
                return asyncio.run(_run(chosen, system, None))
            with running_viewer(chosen.state, system.environ, say) as viewer:
                return asyncio.run(_run(chosen, system, viewer))
    except StoreUnavailable as error:
        raise click.UsageError(str(error)) from error
    except PartError as error:
        raise click.ClickException(str(error)) from error
    except GoogleAPIError as error:
        raise click.ClickException(f"Firestore no longer answers: {error}") from error
    except BrokenPipeError:  # the reader of the output has exited, as in `./run.sh | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return command_line.INTERRUPTED


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with `argv`, by default the process's arguments, and return its exit status."""
    return command_line.run(_command, argv, name="./run.sh")


class _Output(Console):
    def on_broken_pipe(self) -> NoReturn:
        raise BrokenPipeError  # rich would raise SystemExit, before the processes are stopped


async def _run(options: _Options, system: System, viewer: str | None) -> int:
    sent: deque[str] = deque(maxlen=options.events or 0)
    reader = system.reader()
    print(_introduction(options, system, viewer), flush=True)
    view = View(_Output(), system.function.log, reader)
    with view.live():
        work = asyncio.Event().wait() if options.serve else _play(options, system, sent)
        ended = await _first_of(work, view.follow(), system.watch())
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_LOOK):
                await view.catch_up()
    print(view.totals(), flush=True)
    if options.events is None:
        return 0
    if not ended:
        raise PartError(f"Stopped before all {options.events} events were acknowledged.")
    return _verdict(await reader.problems(sent), options.events)


async def _first_of(work: Coroutine[Any, Any, object], *others: Coroutine[Any, Any, object]) -> bool:
    """Wait until `work` is done, a signal (SIGINT or SIGTERM) arrives, or any of the coroutines fails.

    Returns:
        True if `work` is done.
    """
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    working = asyncio.ensure_future(work)
    tasks = {working, *map(asyncio.ensure_future, (*others, stop.wait()))}
    ended, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    for task in ended:
        task.result()
    return working in ended


async def _play(options: _Options, system: System, sent: deque[str]) -> None:
    rate = options.rate or (_RATE_OF_A_COUNT if options.events else _RATE)
    fleet = Fleet(options.sensors, options.seed)
    events = islice(fleet.play(datetime.now(UTC), rate), options.events)
    async with Connector(system.url, system.proofs.signer) as connector:
        await connector.play(_recorded(events, sent))


def _recorded(
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


def _introduction(options: _Options, system: System, viewer: str | None) -> str:
    project = system.environ["GOOGLE_CLOUD_PROJECT"]
    lines = f"""\
Firestore  {system.store.origin}
Address    {system.store.host}, project {project}, collection {system.collection}
Function   {system.url}
Log        {system.function.log}"""
    lines = "\n".join([lines, *system.proofs.lines(options.state / SETTINGS_FILE)])
    if viewer:
        lines += f"\nViewer     {viewer}"
    if not options.serve:
        return f"{lines}\nSensors    {options.sensors} simulated; press Ctrl-C to stop\n"
    return f"""{lines}
{_how_to_send(options.state, system)}
Press Ctrl-C to stop. LATENCY is the function's own, from request to response.
"""


def _how_to_send(state: Path, system: System) -> str:
    if not system.proofs.signer.signs:
        return ""
    simulator = ".venv/bin/python -m simulator"
    option = "" if state == Path(".state") else f" --state {shlex.quote(str(state))}"
    header = SECRET_HEADER if system.proofs.signer.secret else PUBLIC_KEY_HEADER
    return f"""
Send an event from another terminal, in this folder:
  {simulator} send temperature --value 21.5{option}
or any body:
  BODY='{{"event":{{"eventId":"my-event","eventType":"hello"}}}}'
  TOKEN=$(printf %s "$BODY" | {simulator} sign{option})
  curl -d "$BODY" -H "{header}: $TOKEN" {system.url}
"""


if __name__ == "__main__":
    sys.exit(main())
