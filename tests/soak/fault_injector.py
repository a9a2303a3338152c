"""The system under a soak: Firestore, a proxy in front of it, the function, an identity provider, and their faults."""

import asyncio
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

from grpc import StatusCode

from local.emulator import running_store
from local.function import local_environ, running_function
from local.options import Kind
from local.processes import Process, free_port
from simulator.identity_provider import IdentityFault, IdentityProvider
from simulator.sensors import ORGANIZATION_ID
from tests import proxy
from tests.soak.schedule import Episode
from tests.tcp_proxy import TcpProxy

PROJECT = "demo-soak"
WORKERS = 2
_SLOW = 5.0  # seconds a call
_COMMIT_LIMIT = 10.0  # seconds to wait for the commit at which the function is killed
_RECOVERY = 5.0  # seconds after which a fetch of keys has failed, and another one has succeeded
_OWN_SETTINGS = {"EVENTS_COLLECTION", "FIRESTORE_DATABASE", "FIRESTORE_EMULATOR_HOST", "RETENTION_DAYS"}
_UNCERTAIN = (StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED, StatusCode.ABORTED)
_TRANSIENT = (StatusCode.ABORTED, StatusCode.UNAVAILABLE, StatusCode.RESOURCE_EXHAUSTED)


class RestartableProcess:
    """A process that can be killed, stopped and started again.

    Args:
        running: runs the process for the time of a block.
    """

    def __init__(self, running: Callable[[], AbstractContextManager[Process]]) -> None:
        """Does not start the process yet."""
        self._running = running
        self._stack = ExitStack()
        self._process: Process | None = None

    def start(self) -> None:
        """Start the process, after killing a previous one, and wait until it is ready.

        Raises:
            ProcessError: it did not start.
        """
        self.kill()
        self._process = self._stack.enter_context(self._running())

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process group, if it exists."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.popen.pid, number)

    def kill(self) -> None:
        """Kill the process group, stopped or not."""
        self.signal(signal.SIGKILL)
        self._process = None
        self._stack.close()


class FaultInjector:
    """The system, and its faults.

    Args:
        folder: for Firestore's files and the function's log.
        choice: of the Firestore; None is the emulator, or else the embedded store.
        secret: the signature secret.
        seed: of the faults of single calls.
        devices: whether the function keeps the newest state of each device.

    Attributes:
        proxy: between the function and Firestore.
        network: the connections between the function and the proxy.
        firestore: the Firestore's process.
        function: the function's process.
        provider: DT's identity provider.
        stranger: an identity provider that nothing should ask.
        rng: draws the faults of single calls.
        url: of the function.
        kind: of the Firestore, once it has been started.
        active: the kind of the present fault, or "".
        happened: how often each kind was injected.
    """

    def __init__(self, folder: Path, choice: Kind | None, secret: str, seed: int, *, devices: bool) -> None:
        """Starts the proxies alone."""
        self._folder, self._choice = folder, choice
        self.rng = Random(f"calls {seed}")  # noqa: S311 - faults, no cryptography
        self._settings = {name: value for name, value in os.environ.items() if name not in _OWN_SETTINGS}
        self._settings |= {"GOOGLE_CLOUD_PROJECT": PROJECT, "WORKERS": str(WORKERS)}
        if devices:
            self._settings["DEVICES_COLLECTION"] = "devices"
        self.provider, self.stranger = IdentityProvider(), IdentityProvider()
        self._settings |= {"DT_ORGANIZATION_ID": ORGANIZATION_ID, "DT_IDENTITY_ISSUER": self.provider.issuer}
        self._providers = ExitStack()
        self._no_keys_until = 0.0
        self.proxy = proxy.Proxy("127.0.0.1:1")
        self.network = TcpProxy(self.proxy.host)
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}/"
        self._environ = local_environ(self._settings, host=self.network.host, secret=secret)
        self.firestore = RestartableProcess(self._run_firestore)
        self.function = RestartableProcess(self._run_function)
        self.kind: Kind = "emulator"
        self.active = ""
        self.happened: Counter[str] = Counter()

    @contextmanager
    def _run_firestore(self) -> Iterator[Process]:
        file = self._folder / "firestore.sqlite3"
        with running_store(self._choice, file=file, environ=self._settings) as store:
            self.kind = self._choice = store.kind
            self.proxy.turn_to(store.host)
            os.environ["FIRESTORE_EMULATOR_HOST"] = store.host  # for the clients that read what is stored
            if store.process is None:
                raise AssertionError("without FIRESTORE_EMULATOR_HOST, the Firestore is a child process")
            yield store.process

    def _run_function(self) -> AbstractContextManager[Process]:
        log = self._folder / "function.log"
        return running_function(self._port, log=log, environ=self._environ, source="tests/soak/function.py")

    def start(self) -> None:
        """Start the identity providers, Firestore and the function.

        Raises:
            StoreUnavailable: the chosen Firestore is not available.
            ProcessError: the function did not start.
        """
        for provider in (self.provider, self.stranger):
            self._providers.enter_context(provider)
        self.firestore.start()
        self.function.start()

    def stop(self) -> None:
        """Stop all processes, the proxies and the identity providers."""
        self.function.kill()
        self.firestore.kill()
        self.network.stop()
        self.proxy.stop()
        self._providers.close()

    def lose_keys(self) -> None:
        """Note that a fetch of keys may fail now."""
        self._no_keys_until = time.monotonic() + _RECOVERY

    @property
    def keys_may_be_missing(self) -> bool:
        """Whether a fetch of keys may have failed lately."""
        return self.provider.fault is not None or time.monotonic() < self._no_keys_until

    async def inject(self, episode: Episode) -> None:
        """Inject a fault, and end it after its time.

        Raises:
            ProcessError: a process that was killed did not start again.
        """
        await asyncio.sleep(episode.pause)
        self.active = episode.kind
        self.happened[episode.kind] += 1
        await FAULTS[episode.kind].inject(self, episode)
        self.active = ""


Inject = Callable[[FaultInjector, Episode], Awaitable[None]]


def _kill_function(at: Callable[[Callable[[], None]], proxy.Fault]) -> Inject:
    """Return a fault that kills the function at the next commit, and starts it again after its time."""

    async def inject(system: FaultInjector, episode: Episode) -> None:
        killed = threading.Event()

        def kill() -> None:
            system.function.signal(signal.SIGKILL)
            killed.set()

        system.proxy.faults.append(at(kill))
        if not await asyncio.to_thread(killed.wait, _COMMIT_LIMIT):
            system.proxy.faults.clear()
            kill()
        await asyncio.sleep(episode.seconds)
        await asyncio.to_thread(system.function.start)

    return inject


def _fault_calls(draw: Callable[[Random], proxy.Fault]) -> Inject:
    """Return a fault of a share of the calls to Firestore."""

    async def inject(system: FaultInjector, episode: Episode) -> None:
        def choose() -> proxy.Fault:
            return draw(system.rng) if system.rng.random() < episode.share else proxy.forward_only

        before, system.proxy.otherwise = system.proxy.otherwise, choose
        await asyncio.sleep(episode.seconds)
        system.proxy.otherwise = before

    return inject


def _answer(status: StatusCode) -> Inject:
    return _fault_calls(lambda _: proxy.answer(status))


async def _freeze_firestore(system: FaultInjector, episode: Episode) -> None:
    """Stop Firestore's processes for a time; they keep their connections."""
    system.firestore.signal(signal.SIGSTOP)
    await asyncio.sleep(episode.seconds)
    system.firestore.signal(signal.SIGCONT)


async def _kill_firestore(system: FaultInjector, episode: Episode) -> None:
    """Kill Firestore and start it again after a time; the emulator loses its documents."""
    system.firestore.signal(signal.SIGKILL)
    await asyncio.sleep(episode.seconds)
    await asyncio.to_thread(system.firestore.start)


async def _drop_connections(system: FaultInjector, episode: Episode) -> None:
    """Close the connections between the function and Firestore repeatedly."""
    for _ in range(max(1, round(episode.seconds / 0.4))):
        await asyncio.to_thread(system.proxy.drop_connections)
        await asyncio.sleep(0.4)


async def _silence_connections(system: FaultInjector, episode: Episode) -> None:
    """Make the open connections between the function and Firestore silent; new ones work."""
    system.network.silence()
    await asyncio.sleep(episode.seconds)


async def _slow_firestore(system: FaultInjector, episode: Episode) -> None:
    """Delay every call by 5 seconds."""
    before, system.proxy.otherwise = system.proxy.otherwise, lambda: proxy.delay(_SLOW)
    await asyncio.sleep(episode.seconds)
    system.proxy.otherwise = before


async def _freeze_function(system: FaultInjector, episode: Episode) -> None:
    """Stop the function's processes for a time, as when Cloud Run withdraws the CPU of an instance."""
    system.function.signal(signal.SIGSTOP)
    await asyncio.sleep(episode.seconds)
    system.function.signal(signal.SIGCONT)
    system.lose_keys()


def _fail_provider(fault: IdentityFault) -> Inject:
    """Return a fault of the identity provider, during which it rotates its keys: the function needs them then."""

    async def inject(system: FaultInjector, episode: Episode) -> None:
        system.provider.fault = fault
        await asyncio.sleep(episode.seconds / 2)
        system.provider.rotate()
        await asyncio.sleep(episode.seconds / 2)
        system.provider.fault = None
        system.lose_keys()

    return inject


async def _rotate_keys(system: FaultInjector, episode: Episode) -> None:
    """Sign with a new key from now on."""
    system.provider.rotate()
    await asyncio.sleep(episode.seconds)


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind of fault.

    Attributes:
        seconds: its minimum and maximum duration.
        inject: injects it for the time of an episode.
    """

    seconds: tuple[float, float]
    inject: Inject


FAULTS: dict[str, Fault] = {
    "kill the function before a commit": Fault((0.0, 1.0), _kill_function(proxy.before_commit)),
    "kill the function during a commit": Fault((0.0, 1.0), _kill_function(proxy.during_commit)),
    "kill the function after a commit": Fault((0.0, 1.0), _kill_function(proxy.after_commit)),
    "freeze Firestore": Fault((0.5, 3.0), _freeze_firestore),
    "freeze Firestore for long": Fault((8.5, 9.5), _freeze_firestore),
    "kill Firestore": Fault((0.5, 2.0), _kill_firestore),
    "freeze the function": Fault((1.0, 11.0), _freeze_function),
    "silence connections": Fault((1.0, 4.0), _silence_connections),
    "slow Firestore": Fault((2.0, 5.0), _slow_firestore),
    "drop connections": Fault((0.5, 2.0), _drop_connections),
    "delay commits": Fault((1.0, 3.0), _fault_calls(lambda rng: proxy.delay(rng.uniform(0.05, 3.0)))),
    "delay commits beyond the limit": Fault((1.0, 2.0), _fault_calls(lambda rng: proxy.delay(rng.uniform(8.2, 9.5)))),
    **{
        f"answer {status.name}": Fault((0.8, 2.0), _answer(status))
        for status in (*_TRANSIENT, StatusCode.DEADLINE_EXCEEDED)
    },
    "refuse single writes of a batch": Fault(
        (0.8, 2.0), _fault_calls(lambda rng: proxy.refuse_every_other(rng.choice(_TRANSIENT)))
    ),
    "commit and lose the answer": Fault(
        (0.8, 2.0), _fault_calls(lambda rng: proxy.commit_then(rng.choice(_UNCERTAIN)))
    ),
    "rotate keys": Fault((0.0, 0.5), _rotate_keys),
    **{f"identity provider {fault}": Fault((0.6, 1.5), _fail_provider(fault)) for fault in IdentityFault},
}
