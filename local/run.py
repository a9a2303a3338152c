"""One run of the local system: sensors, the view in the terminal, and what is said at its beginning and end."""

import asyncio
import shlex
import signal
from collections import deque
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import click
from google.api_core.exceptions import GoogleAPIError
from google.cloud.firestore import AsyncClient
from rich.console import Console

from local.environment import NAMES
from local.options import Options
from local.processes import ProcessError
from local.reader import Reader
from local.system import DATABASE_FILE, System, say
from local.view import View
from local.viewer import running_viewer
from simulator.connector import Connector
from simulator.fleet import Fleet
from simulator.local_system import FOLDER, SETTINGS_FILE
from simulator.signer import PUBLIC_KEY_HEADER, SECRET_HEADER

_RATE, _RATE_OF_A_COUNT = 4.0, 50.0  # events per second: slow enough to watch; fast, to reach the end of a count
_LAST_LOOK = 5.0  # seconds to show the remaining log lines at the end


def run(options: Options, system: System) -> int:
    """Show the work of a system, and play sensors unless the user sends the events; return the exit status.

    Raises:
        click.ClickException: Firestore no longer answers.
        ProcessError: a process of the system has ended, or the events of --events were not all acknowledged.
    """
    try:
        if options.events is not None:  # nobody has time to look at a page
            return asyncio.run(_run(options, system, None))
        with running_viewer(options.state, system.environ, say) as viewer:
            return asyncio.run(_run(options, system, viewer))
    except GoogleAPIError as error:
        raise click.ClickException(f"Firestore no longer answers: {error}") from error


class _Output(Console):
    def on_broken_pipe(self) -> NoReturn:
        raise BrokenPipeError  # rich would raise SystemExit, before the processes are stopped


async def _run(options: Options, system: System, viewer: str | None) -> int:
    sent: deque[str] = deque(maxlen=options.events or 0)
    reader = Reader(AsyncClient(system.environ["GOOGLE_CLOUD_PROJECT"], database=system.database), system.collection)
    say(_introduction(options, system, viewer))
    view = View(_Output(), system.function.log, reader)
    with view.live():
        work = asyncio.Event().wait() if options.serve else _play(options, system, sent)
        ended = await _first_of(work, view.follow(), system.watch())
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_LOOK):
                await view.catch_up()
    view.print_totals()
    status = 0
    if options.events is not None:
        if not ended:
            raise ProcessError(f"Stopped before all {options.events} events were acknowledged.")
        status = _verdict(await reader.problems(sent), options.events)
    say(_what_stays(options.state, system))
    return status


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


async def _play(options: Options, system: System, sent: deque[str]) -> None:
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


def _introduction(options: Options, system: System, viewer: str | None) -> str:
    lines = [
        f"Firestore  {system.store.origin}",
        f"Address    {system.store.host}",
        f"Project    {system.project}, collection {system.collection}",
        f"Function   {system.url}",
        *([f"Viewer     {viewer}"] if viewer else []),
        f"Log        {system.function.log}",
        *system.proofs.lines(options.state / SETTINGS_FILE),
    ]
    if options.events is not None:
        return "\n".join([*lines, f"Sensors    {options.sensors} simulated", ""])
    if options.serve:
        lines.append(_how_to_send(options.state, system))
    else:
        lines += [f"Sensors    {options.sensors} simulated", ""]
    return "\n".join([*lines, _how_to_read(options.state, system)])


def _how_to_send(state: Path, system: System) -> str:
    if not system.proofs.signer.signs:
        return ""
    simulator, option = ".venv/bin/python -m simulator", _state_option(state)
    header = SECRET_HEADER if system.proofs.signer.secret else PUBLIC_KEY_HEADER
    return f"""
Send an event from another terminal, in this folder:
  {simulator} send temperature --value 21.5{option}
or any body:
  BODY='{{"event":{{"eventId":"my-event","eventType":"hello"}}}}'
  TOKEN=$(printf %s "$BODY" | {simulator} sign{option})
  curl -d "$BODY" -H "{header}: $TOKEN" {system.url}
"""


def _how_to_read(state: Path, system: System) -> str:
    variables = "\n".join(f"    {name}={system.environ[name]}" for name in NAMES)
    return f"""\
To read the documents with your own code, first run:
  eval "$(./run.sh --env{_state_option(state)})"
It sets the variables that lead clients to this Firestore:
{variables}

OUTCOME is stored for a new document, already_stored for a
repeat, which changes nothing; the next line has the reason
for any other. LATENCY is the function's own, from request
to response. Press Ctrl-C to stop.
"""


def _state_option(state: Path) -> str:
    return "" if state == FOLDER else f" --state {shlex.quote(str(state))}"


def _what_stays(state: Path, system: System) -> str:
    if system.store.kind == "embedded":
        file, option = state / DATABASE_FILE, _state_option(state)
        size = sum(path.stat().st_size for path in state.glob(f"{DATABASE_FILE}*")) / 1e6
        return f"""\
The documents stay in {file} ({size:.1f} MB).
To see them in the viewer:
  ./run.sh --store embedded --serve{option}
To delete them and start again:
  ./run.sh --store embedded --fresh{option}"""
    if system.store.process is None:
        return f"The documents stay in the emulator at {system.store.host}, which still runs."
    return "The emulator's documents are gone. Those of --store embedded stay."
