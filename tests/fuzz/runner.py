"""Sends hostile requests, made from a seed, over raw sockets to the function's process.

`tests.fuzz.hostile` makes each request, with the verdicts that are right for it. At the end `tests.fuzz.oracles` checks
what no single answer shows: the store, the log and the function's memory.
"""

import asyncio
import os
import random
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import click
from google.cloud.firestore import Client
from google.cloud.firestore_v1.field_path import FieldPath

import command_line
from command_line import COUNT, POSITIVE, examples
from local.emulator import StoreUnavailable, running_store
from local.function import local_environ, running_function
from local.options import Kind
from local.processes import Process, ProcessError, free_port
from tests import signing
from tests.fuzz.hostile import CLOSED, MEBIBYTE, Request, make
from tests.fuzz.oracles import Answer, Ledger, early_and_late, verdict
from tests.fuzz.tokens import identity

_OTHER_SECRET = "9a0364b9e99bb480dd25e1f0284c8555-an-older-one"
_HANG = 30.0  # seconds; the function answers in 10 even when Firestore does not
_WARM = 1500  # requests before the first sample of the memory: all of the code has run by then


# --- sending them ---------------------------------------------------------------------------------------------------


async def exchange(port: int, request: Request) -> list[Answer]:
    """Send one request and read its answers.

    Args:
        port: of the function.
        request: the request.

    Returns:
        One answer for each signed body, at least one; `CLOSED` for an answer that was not received.

    Raises:
        TimeoutError: the function neither answered nor closed the connection.
    """
    wanted = max(1, len(request.signed))
    answers: list[Answer] = []
    async with asyncio.timeout(_HANG):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        sending = asyncio.create_task(_send(writer, request))
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while len(answers) < wanted and not (request.gone and writer.is_closing()):
                    answers.append(await _answer(reader, request))
        finally:
            sending.cancel()
            writer.transport.abort()
    return answers + [Answer(CLOSED)] * (wanted - len(answers))


async def _send(writer: asyncio.StreamWriter, request: Request) -> None:
    with suppress(ConnectionError):
        for piece in request.pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        if request.gone:
            linger = struct.pack("ii", 1, 0)  # a reset in place of a normal close
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        elif request.patience is not None:
            await asyncio.sleep(request.patience)
            writer.write_eof()


async def _answer(reader: asyncio.StreamReader, request: Request) -> Answer:
    status = 100
    while status == 100:
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
    lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    bodiless = request.pieces[0].lstrip().startswith(b"HEAD ")
    text = b"" if bodiless or not lengths else await reader.readexactly(int(lengths[0]))
    return Answer(verdict(status, text), head + text)


# --- the run --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Target:
    """The function under test.

    Attributes:
        port: of the function.
        process: the function's process.
        database: a client for its Firestore.
    """

    port: int
    process: Process
    database: Client

    def processes(self) -> dict[int, int]:
        """Return the memory of each of the function's processes, in bytes."""
        table = subprocess.run(["ps", "-A", "-o", "pgid=,pid=,rss="], capture_output=True, text=True, check=True).stdout
        rows = [tuple(map(int, line.split())) for line in table.splitlines()]
        return {pid: kibibytes * 1024 for group, pid, kibibytes in rows if group == self.process.popen.pid}

    def keys(self, collection: str) -> set[str]:
        """Return the keys of all documents of a collection."""
        query = self.database.collection(collection).select([FieldPath.document_id()])
        return {document.id for document in query.stream()}


def open_target(stack: ExitStack, host: str, folder: Path, project: str) -> Target:
    """Start the function and wait until it is ready.

    Args:
        stack: stops the function.
        host: `HOST:PORT` of the Firestore.
        folder: for the log.
        project: Google Cloud project id; a new one has an empty database.
    """
    proof = {"DT_ORGANIZATION_ID": signing.ORGANIZATION, "DT_IDENTITY_ISSUER": identity().issuer}
    settings = {**os.environ, "GOOGLE_CLOUD_PROJECT": project, **proof}
    environ = local_environ(settings, host=host, secret=f"{_OTHER_SECRET}\n{signing.SECRET}")
    port = free_port()
    process = stack.enter_context(running_function(port, log=folder / "function.log", environ=environ))
    with patch.dict(os.environ, environ):
        target = Target(port, process, Client(project=project))
        target.keys("events")  # opens the channel, which also reads the environment
    return target


@dataclass(slots=True)
class Fuzzer:
    """Sends requests to a function and checks the promises.

    Attributes:
        target: the function under test.
        seed: determines the requests, together with their numbers.
        clients: the number of concurrent connections.
        ledger: the requests, the answers and the findings.
        memory: samples of the function's memory in bytes, after its warm-up.
    """

    target: Target
    seed: int
    clients: int = 24
    ledger: Ledger = field(default_factory=Ledger)
    memory: list[int] = field(default_factory=list)

    def run(self, numbers: range, seconds: float, say: Callable[[str], None]) -> None:
        """Send requests, then check every promise.

        Args:
            numbers: of the seed's requests.
            seconds: the time limit.
            say: called with each progress line.
        """
        workers = self.target.processes().keys()
        done = asyncio.run(self._attack(numbers, seconds, say))
        if done < len(numbers):
            self.ledger.findings.append(f"only {done:,} of {len(numbers):,} requests were sent in {seconds:g} s")
        if self.target.processes().keys() != workers:
            self.ledger.findings.append("a process of the function died")
        self.ledger.check_store(self.target.keys("events"), self.target.keys("events_quarantine"))
        self.ledger.check_log(self.target.process.log.read_text(errors="replace").splitlines())
        self.ledger.check_memory(self.memory)

    async def _attack(self, numbers: range, seconds: float, say: Callable[[str], None]) -> int:
        start, queue = time.monotonic(), deque(numbers)
        watching = asyncio.create_task(self._watch(queue, len(numbers), say))

        async def client() -> None:
            while queue and time.monotonic() - start < seconds:
                await self._try(queue.popleft())

        await asyncio.gather(*(client() for _ in range(self.clients)))
        watching.cancel()
        self._sample()
        say(self._progress(len(numbers) - len(queue), len(numbers), start))
        return len(numbers) - len(queue)

    async def _try(self, number: int) -> None:
        request = make(random.Random(f"{self.seed}:{number}"))  # noqa: S311 - repeatable requests
        name = f"python -m tests.fuzz --seed {self.seed} --first {number} --requests 1"
        self.ledger.enter(request)
        try:
            self.ledger.judge(request, await exchange(self.target.port, request), name)
        except TimeoutError:
            self.ledger.blame(request, f"no answer in {_HANG:g} s", name)
        except OSError as error:
            self.ledger.blame(request, f"no connection ({error})", name)

    async def _watch(self, queue: deque[int], total: int, say: Callable[[str], None]) -> None:
        start = time.monotonic()
        while True:
            await asyncio.sleep(1)
            done = total - len(queue)
            if done >= min(_WARM, total // 2):
                self._sample()
            say(self._progress(done, total, start))

    def _progress(self, done: int, total: int, start: float) -> str:
        rate, held = done / (time.monotonic() - start), sum(self.target.processes().values()) // MEBIBYTE
        return f"{done:,} of {total:,} requests, {rate:.0f}/s, {held} MiB, {len(self.ledger.findings)} findings"

    def _sample(self) -> None:
        self.memory.append(sum(self.target.processes().values()))


# --- the command ----------------------------------------------------------------------------------------------------


def _report(fuzzer: Fuzzer, seconds: float, kind: str) -> Iterator[str]:
    ledger, total = fuzzer.ledger, fuzzer.ledger.kinds.total()
    yield f"{total:,} requests in {seconds:.0f} s, {total / seconds:.0f}/s, seed {fuzzer.seed}, Firestore: {kind}"
    yield "answers: " + ", ".join(f"{number:,} {verdict}" for verdict, number in ledger.verdicts.most_common())
    families = Counter[str]()
    for request_kind, number in ledger.kinds.items():
        families[request_kind.partition(",")[0]] += number
    yield "requests: " + ", ".join(f"{number:,} {family}" for family, number in families.most_common())
    early, late = (number // MEBIBYTE for number in early_and_late(fuzzer.memory))
    yield f"memory of the function: {early} MiB early, {late} MiB late"
    yield from (f"\nFINDING: {finding}" for finding in ledger.findings[:20])
    yield f"\n{len(ledger.findings)} findings" if ledger.findings else "every promise held"


_NAME = "python -m tests.fuzz"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: the arguments; None takes those of the process.

    Returns:
        The exit status: 0 if every promise held, 1 if not, 2 if it could not be run, 130 interrupted.
    """
    return command_line.run(_fuzz, argv, name=_NAME)


@click.command(
    epilog=examples(
        f"{_NAME} --requests 100000 --seed 7",
        f"{_NAME} --seed 7 --first 4711 --requests 1",
        f"{_NAME} --store embedded --minutes 2",
    )
)
@click.option("--requests", metavar="N", type=COUNT, default=5000, show_default=True, help="Number of requests.")
@click.option("--seed", metavar="S", type=int, default=1, show_default=True, help="Seed of the requests.")
@click.option("--first", metavar="N", type=int, default=0, show_default=True, help="Number of the first request.")
@click.option("--minutes", metavar="M", type=POSITIVE, default=30.0, show_default=True, help="Time limit.")
@click.option(
    "--store",
    type=click.Choice(["emulator", "embedded"]),
    help="Firestore to use. Default: the emulator if available, else the embedded store.",
)
def _fuzz(requests: int, seed: int, first: int, minutes: float, store: Kind | None) -> int:
    """Send hostile requests to the function's process and check the result.

    Checks the answers, what is stored, the log and the memory. A finding
    names the command that sends its request again.

    Exit status: 0 if every promise held, 1 if not, 2 if the fuzzer could not
    be run.
    """
    try:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            firestore = stack.enter_context(running_store(store, file=folder / "firestore.sqlite3"))
            fuzzer = Fuzzer(open_target(stack, firestore.host, folder, f"demo-fuzz-{time.time_ns()}"), seed)
            start = time.monotonic()
            fuzzer.run(range(first, first + requests), minutes * 60, lambda line: print(line, file=sys.stderr))
            print(*_report(fuzzer, time.monotonic() - start, firestore.kind), sep="\n")
    except (StoreUnavailable, ProcessError) as error:
        raise click.UsageError(str(error)) from None
    return 1 if fuzzer.ledger.findings else 0
