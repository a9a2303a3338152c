"""The system under a soak: a Firestore, a proxy before it and the function, and the ways in which they are broken."""

import asyncio
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from random import Random

import grpc

from local.emulator import Kind, running_store
from local.function import local_environ, running_function
from local.processes import Part, free_port
from tests import proxy
from tests.soak.schedule import Episode

PROJECT = "demo-soak"
_WORKERS = 2
_COMMIT_LIMIT = 10.0  # seconds until a commit comes by, which is to be a killing's moment
_NOT_ANOTHERS = {"EVENTS_COLLECTION", "FIRESTORE_DATABASE", "FIRESTORE_EMULATOR_HOST", "RETENTION_DAYS"}
_KILLINGS: dict[str, Callable[[Callable[[], None]], proxy.Fault]] = {
    "kill the function before a commit": proxy.before_commit,
    "kill the function during a commit": proxy.during_commit,
    "kill the function after a commit": proxy.after_commit,
}
_UNCERTAIN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.ABORTED)
_REFUSALS = (grpc.StatusCode.ABORTED, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
_BENT: dict[str, Callable[[Random], proxy.Fault]] = {
    "delay commits": lambda rng: proxy.delay(rng.uniform(0.05, 3.0)),
    "delay commits beyond the limit": lambda rng: proxy.delay(rng.uniform(8.2, 9.5)),
    "answer ABORTED": lambda _: proxy.answer(grpc.StatusCode.ABORTED),
    "answer UNAVAILABLE": lambda _: proxy.answer(grpc.StatusCode.UNAVAILABLE),
    "answer RESOURCE_EXHAUSTED": lambda _: proxy.answer(grpc.StatusCode.RESOURCE_EXHAUSTED),
    "answer DEADLINE_EXCEEDED": lambda _: proxy.answer(grpc.StatusCode.DEADLINE_EXCEEDED),
    "refuse single writes of a group": lambda rng: proxy.refuse_every_other(rng.choice(_REFUSALS)),
    "commit and lose the answer": lambda rng: proxy.commit_then(rng.choice(_UNCERTAIN)),
}


class Mortal:
    """A part that is killed, frozen and started again."""

    def __init__(self, life: Callable[[], AbstractContextManager[Part]]) -> None:
        """Keep what starts it.

        Args:
            life: runs the part for the time of a block.
        """
        self._life = life
        self._stack = ExitStack()
        self._part: Part | None = None

    def start(self) -> None:
        """Start it, again if it was killed, and return when it can be used.

        Raises:
            PartError: it did not start.
        """
        self.end()
        self._part = self._stack.enter_context(self._life())

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all of its processes, if there are any."""
        if self._part is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._part.process.pid, number)

    def end(self) -> None:
        """End it, frozen or not."""
        self.signal(signal.SIGKILL)
        self._part = None
        self._stack.close()


class Trouble:
    """The system, and what breaks it.

    Attributes:
        proxy: between the function and Firestore.
        url: of the function.
        kind: of the Firestore, once it was started.
        under_way: what is broken just now, in words.
        happened: how often each kind of episode took place.
    """

    def __init__(self, folder: Path, choice: Kind | None, secret: str, seed: int) -> None:
        """Prepare everything, and start the proxy alone.

        Args:
            folder: for the files of Firestore and the function's log.
            choice: of the Firestore; None takes the emulator, else the embedded stand-in.
            secret: the signature secret.
            seed: of what is drawn call by call.
        """
        self._folder, self._choice = folder, choice
        self._rng = Random(f"calls {seed}")  # noqa: S311 - faults, no cryptography
        self._settings = {name: value for name, value in os.environ.items() if name not in _NOT_ANOTHERS}
        self._settings |= {"GOOGLE_CLOUD_PROJECT": PROJECT, "WORKERS": str(_WORKERS)}
        self.proxy = proxy.Proxy("127.0.0.1:1")
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}/"
        self._environ = local_environ(self._settings, host=self.proxy.host, secret=secret)
        self._firestore, self._function = Mortal(self._run_firestore), Mortal(self._run_function)
        self.kind: Kind = "emulator"
        self.under_way = ""
        self.happened: Counter[str] = Counter()

    @contextmanager
    def _run_firestore(self) -> Iterator[Part]:
        file = self._folder / "firestore.sqlite3"
        with running_store(self._choice, file=file, environ=self._settings) as store:
            self.kind = self._choice = store.kind
            self.proxy.turn_to(store.host)
            os.environ["FIRESTORE_EMULATOR_HOST"] = store.host  # for those who read what is stored
            if store.part is None:
                raise AssertionError("a Firestore of somebody else's is never used")
            yield store.part

    def _run_function(self) -> AbstractContextManager[Part]:
        return running_function(self._port, log=self._folder / "function.log", environ=self._environ)

    def start(self) -> None:
        """Start Firestore and the function.

        Raises:
            StoreUnavailable: the Firestore that was asked for cannot be had.
            PartError: the function did not start.
        """
        self._firestore.start()
        self._function.start()

    def end(self) -> None:
        """End everything."""
        self._function.end()
        self._firestore.end()
        self.proxy.stop()

    async def make(self, episode: Episode) -> None:
        """Break what the episode wants broken, for as long as it wants it, and mend it.

        Args:
            episode: of the plan.

        Raises:
            PartError: what was killed does not start again.
        """
        await asyncio.sleep(episode.calm)
        self.under_way = episode.kind
        self.happened[episode.kind] += 1
        if episode.kind in _KILLINGS:
            await self._kill_function(_KILLINGS[episode.kind], episode.seconds)
        elif episode.kind in _BENT:
            await self._bend(_BENT[episode.kind], episode)
        else:
            await _OTHERS[episode.kind](self, episode.seconds)
        self.under_way = ""

    async def _kill_function(self, at: Callable[[Callable[[], None]], proxy.Fault], seconds: float) -> None:
        killed = threading.Event()

        def kill() -> None:
            self._function.signal(signal.SIGKILL)
            killed.set()

        self.proxy.faults.append(at(kill))
        if not await asyncio.to_thread(killed.wait, _COMMIT_LIMIT):
            self.proxy.faults.clear()
            kill()
        await asyncio.sleep(seconds)
        await asyncio.to_thread(self._function.start)

    async def _bend(self, bent: Callable[[Random], proxy.Fault], episode: Episode) -> None:
        def choose() -> proxy.Fault:
            return bent(self._rng) if self._rng.random() < episode.share else proxy.forward_only

        before, self.proxy.otherwise = self.proxy.otherwise, choose
        await asyncio.sleep(episode.seconds)
        self.proxy.otherwise = before

    async def freeze_firestore(self, seconds: float) -> None:
        """Stop Firestore's processes, which keep their connections, for a time."""
        self._firestore.signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        self._firestore.signal(signal.SIGCONT)

    async def kill_firestore(self, seconds: float) -> None:
        """Kill Firestore and start it again after a time; the emulator has lost its documents then."""
        self._firestore.signal(signal.SIGKILL)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(self._firestore.start)

    async def drop_connections(self, seconds: float) -> None:
        """Cut the connections between the function and Firestore, again and again."""
        for _ in range(max(1, round(seconds / 0.4))):
            await asyncio.to_thread(self.proxy.drop_connections)
            await asyncio.sleep(0.4)


_OTHERS: dict[str, Callable[[Trouble, float], Coroutine[None, None, None]]] = {
    "freeze Firestore": Trouble.freeze_firestore,
    "freeze Firestore for long": Trouble.freeze_firestore,
    "kill Firestore": Trouble.kill_firestore,
    "drop connections": Trouble.drop_connections,
}
