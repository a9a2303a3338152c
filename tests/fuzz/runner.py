"""Sends hostile requests, made from a seed, over raw sockets to the function's real process, and looks for damage.

    python -m tests.fuzz --requests 100000 --seed 7

`tests.fuzz.hostile` makes each request and knows the verdicts that are right for it. The promises that no single
answer shows are checked at the end, by `tests.fuzz.oracles`: what is stored, what the log says, and how much memory the
function holds.
"""

import argparse
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
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

from google.cloud import firestore
from google.cloud.firestore_v1.field_path import FieldPath

from local.emulator import StoreUnavailable, running_store
from local.function import local_environ, running_function
from local.processes import Part, PartError, free_port
from simulator.arguments import Parser, positive, whole
from tests import signing
from tests.fuzz.hostile import CLOSED, MEBIBYTE, Request, make
from tests.fuzz.oracles import Answer, Ledger, early_and_late, verdict

_OTHER_SECRET = "9a0364b9e99bb480dd25e1f0284c8555-an-older-one"
_HANG = 30.0  # seconds; the function answers in 10 even when Firestore does not
_WARM = 1500  # requests before memory is first looked at: each way through the code has been taken


# --- sending them ---------------------------------------------------------------------------------------------------


async def exchange(port: int, request: Request) -> list[Answer]:
    """Send one request, and read its answers.

    Args:
        port: where the function listens.
        request: the request.

    Returns:
        As many answers as it has signed bodies, at least one; `CLOSED` stands for those that did not come.

    Raises:
        TimeoutError: neither an answer nor the end of the connection came.
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
            linger = struct.pack("ii", 1, 0)  # a reset in place of a polite end
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
    """The system under attack.

    Attributes:
        port: where the function listens.
        part: the function's process.
        database: reads its store.
    """

    port: int
    part: Part
    database: firestore.Client

    def processes(self) -> dict[int, int]:
        """Return the memory of each of the function's processes, in bytes."""
        table = subprocess.run(["ps", "-A", "-o", "pgid=,pid=,rss="], capture_output=True, text=True, check=True).stdout
        rows = [tuple(map(int, line.split())) for line in table.splitlines()]
        return {pid: kibibytes * 1024 for group, pid, kibibytes in rows if group == self.part.process.pid}

    def keys(self, collection: str) -> set[str]:
        """Return the keys of all documents of a collection."""
        query = self.database.collection(collection).select([FieldPath.document_id()])
        return {document.id for document in query.stream()}


def open_target(parts: ExitStack, host: str, folder: Path, project: str) -> Target:
    """Start the function before a Firestore.

    Args:
        parts: ends it.
        host: where the Firestore listens.
        folder: for the log.
        project: Google Cloud project id; a new one, so that the store is empty.

    Returns:
        The function, ready.
    """
    settings = {**os.environ, "GOOGLE_CLOUD_PROJECT": project}
    environ = local_environ(settings, host=host, secret=f"{_OTHER_SECRET}\n{signing.SECRET}")
    port = free_port()
    part = parts.enter_context(running_function(port, log=folder / "function.log", environ=environ))
    with patch.dict(os.environ, environ):
        target = Target(port, part, firestore.Client(project=project))
        target.keys("events")  # opens the channel, which reads the environment too
    return target


@dataclass(slots=True)
class Fuzz:
    """A run.

    Attributes:
        target: the system under attack.
        seed: chooses the requests, together with their numbers.
        clients: how many connections are used at a time.
        ledger: what came of it.
        memory: of the function, in bytes, sampled since the start was over.
    """

    target: Target
    seed: int
    clients: int = 24
    ledger: Ledger = field(default_factory=Ledger)
    memory: list[int] = field(default_factory=list)

    def run(self, numbers: range, seconds: float, say: Callable[[str], None]) -> None:
        """Send the requests of these numbers, then check every promise.

        Args:
            numbers: which of the seed's requests.
            seconds: when to stop all the same.
            say: takes each line of progress.
        """
        workers = self.target.processes().keys()
        done = asyncio.run(self._attack(numbers, seconds, say))
        if done < len(numbers):
            self.ledger.findings.append(f"only {done:,} of {len(numbers):,} requests were sent in {seconds:g} s")
        if self.target.processes().keys() != workers:
            self.ledger.findings.append("a process of the function died")
        self.ledger.check_store(self.target.keys("events"), self.target.keys("events_quarantine"))
        self.ledger.check_log(self.target.part.log.read_text(errors="replace").splitlines())
        self.ledger.check_memory(self.memory)

    async def _attack(self, numbers: range, seconds: float, say: Callable[[str], None]) -> int:
        began, queue = time.monotonic(), deque(numbers)
        watching = asyncio.create_task(self._watch(queue, len(numbers), say))

        async def client() -> None:
            while queue and time.monotonic() - began < seconds:
                await self._try(queue.popleft())

        await asyncio.gather(*(client() for _ in range(self.clients)))
        watching.cancel()
        self._sample()
        say(self._progress(len(numbers) - len(queue), len(numbers), began))
        return len(numbers) - len(queue)

    async def _try(self, number: int) -> None:
        request = make(random.Random(f"{self.seed}:{number}"))  # noqa: S311 - it must repeat itself
        name = f"python -m tests.fuzz --seed {self.seed} --first {number} --requests 1"
        self.ledger.enter(request)
        try:
            self.ledger.judge(request, await exchange(self.target.port, request), name)
        except TimeoutError:
            self.ledger.blame(request, f"no answer in {_HANG:g} s", name)
        except OSError as error:
            self.ledger.blame(request, f"no connection ({error})", name)

    async def _watch(self, queue: deque[int], total: int, say: Callable[[str], None]) -> None:
        began = time.monotonic()
        while True:
            await asyncio.sleep(1)
            done = total - len(queue)
            if done >= min(_WARM, total // 2):
                self._sample()
            say(self._progress(done, total, began))

    def _progress(self, done: int, total: int, began: float) -> str:
        pace, held = done / (time.monotonic() - began), sum(self.target.processes().values()) // MEBIBYTE
        return f"{done:,} of {total:,} requests, {pace:.0f}/s, {held} MiB, {len(self.ledger.findings)} findings"

    def _sample(self) -> None:
        self.memory.append(sum(self.target.processes().values()))


# --- the command ----------------------------------------------------------------------------------------------------

_EPILOG = """\
examples:
  python -m tests.fuzz --requests 100000 --seed 7      the whole of it
  python -m tests.fuzz --seed 7 --first 4711 --requests 1
                                                       one request of it again, as a finding names it
  python -m tests.fuzz --store embedded --minutes 2    without the official emulator, for two minutes at most

exit status: 0 when every promise held, 1 when not, 2 when it could not be run
"""


def _arguments() -> argparse.Namespace:
    parser = Parser(
        prog="python -m tests.fuzz",
        description="Sends hostile requests to the function's real process, and checks that they do no damage.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--requests", type=whole, default=5000, help="how many (default: 5000)", metavar="N")
    parser.add_argument("--seed", type=int, default=1, help="chooses the requests (default: 1)", metavar="S")
    parser.add_argument("--first", type=int, default=0, help="number of the first one (default: 0)", metavar="N")
    parser.add_argument(
        "--minutes", type=positive, default=30, help="when to stop at the latest (default: 30)", metavar="M"
    )
    parser.add_argument("--store", choices=["emulator", "embedded"], help="default: the emulator if it can be had")
    return parser.parse_args()


def _report(fuzz: Fuzz, seconds: float, kind: str) -> Iterator[str]:
    ledger, total = fuzz.ledger, fuzz.ledger.kinds.total()
    yield f"{total:,} requests in {seconds:.0f} s, {total / seconds:.0f}/s, seed {fuzz.seed}, Firestore: {kind}"
    yield "answers: " + ", ".join(f"{number:,} {verdict}" for verdict, number in ledger.verdicts.most_common())
    families = Counter[str]()
    for request_kind, number in ledger.kinds.items():
        families[request_kind.partition(",")[0]] += number
    yield "requests: " + ", ".join(f"{number:,} {family}" for family, number in families.most_common())
    early, late = (number // MEBIBYTE for number in early_and_late(fuzz.memory))
    yield f"memory of the function: {early} MiB early, {late} MiB late"
    yield from (f"\nFINDING: {finding}" for finding in ledger.findings[:20])
    yield f"\n{len(ledger.findings)} findings" if ledger.findings else "every promise held"


def main() -> int:
    """Run the command.

    Returns:
        The exit status.
    """
    arguments = _arguments()
    numbers = range(arguments.first, arguments.first + arguments.requests)
    try:
        with ExitStack() as parts:
            folder = Path(parts.enter_context(tempfile.TemporaryDirectory()))
            store = parts.enter_context(running_store(arguments.store, file=folder / "firestore.sqlite3"))
            fuzz = Fuzz(open_target(parts, store.host, folder, f"demo-fuzz-{time.time_ns()}"), arguments.seed)
            began = time.monotonic()
            fuzz.run(numbers, arguments.minutes * 60, lambda line: print(line, file=sys.stderr, flush=True))
            print(*_report(fuzz, time.monotonic() - began, store.kind), sep="\n")
    except (StoreUnavailable, PartError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 1 if fuzz.ledger.findings else 0
