"""Child processes, each in its own process group: waits until each is ready, and stops the whole group."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GRACE = 5.0  # seconds from SIGTERM to SIGKILL
START_LIMIT = 60.0  # seconds; Java starts slowly on a busy machine
_POLL = 0.05  # seconds

# PR_SET_PDEATHSIG: the child gets SIGTERM when this process dies, even by SIGKILL. The setting survives exec.
_DIE_WITH_PARENT = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 15); os.execvp(sys.argv[1], sys.argv[1:])"


class ProcessError(Exception):
    """Raised if a process of the system does not start or ends unexpectedly; the text is one line."""


@dataclass(frozen=True, slots=True)
class Process:
    """A child process: its name in messages, the leader of its process group, and the log with its output."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Check that the process is running.

        Raises:
            ProcessError: it has ended.
        """
        status = self.popen.poll()
        if status is not None:
            how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
            raise ProcessError(f"{self.name} {how}. Its log: {self.log}{_last_line(self.log)}")


@contextmanager
def starting(name: str, command: Sequence[str], *, log: Path, environ: Mapping[str, str]) -> Iterator[Process]:
    """Start a command in the project's folder, and stop it at the end of the block, which does not wait for it.

    Args:
        name: for messages.
        command: program and arguments.
        log: file for its output, overwritten.
        environ: its environment.
    """
    guard = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT] if sys.platform == "linux" else []
    with log.open("wb") as output:
        popen = subprocess.Popen(
            [*guard, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environ,
            cwd=ROOT,
            start_new_session=True,  # Ctrl-C reaches only the parent, which stops its children in order
        )
    try:
        yield Process(name, popen, log)
    finally:
        stop(popen)


@contextmanager
def running(
    name: str, command: Sequence[str], *, log: Path, environ: Mapping[str, str], ready: Callable[[], bool]
) -> Iterator[Process]:
    """Run a command until the end of the block, which begins once `ready` returns True; see `starting`.

    Raises:
        ProcessError: it ended before it was ready, or was not ready in time.
    """
    with starting(name, command, log=log, environ=environ) as process:
        wait_until_ready(process, ready)
        yield process


def wait_until_ready(process: Process, ready: Callable[[], bool]) -> None:
    """Wait until `ready` returns True.

    Raises:
        ProcessError: the process ended before, or it was not ready in time.
    """
    limit = time.monotonic() + START_LIMIT
    while not ready():
        process.check()
        if time.monotonic() > limit:
            raise ProcessError(f"{process.name} was not ready within {START_LIMIT:g} s. Its log: {process.log}")
        time.sleep(_POLL)
    process.check()  # the answer may have come from another program at the same port


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f" (last line: {lines[-1].strip()[:300]})" if lines else ""


def stop(popen: subprocess.Popen[bytes]) -> None:
    """Stop a process group, whether its leader `popen` still runs or not: SIGTERM, then after `GRACE` SIGKILL."""
    with suppress(ProcessLookupError):
        os.killpg(popen.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        popen.wait(GRACE)
    with suppress(ProcessLookupError):
        os.killpg(popen.pid, signal.SIGKILL)  # a worker may outlive its leader
    popen.wait()


def free_port() -> int:
    """Return an unused TCP port of 127.0.0.1."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def port_is_free(port: int) -> bool:
    """Tell whether this user can listen on a TCP port of 127.0.0.1."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def accepts(port: int) -> bool:
    """Tell whether a server accepts connections on a TCP port of 127.0.0.1."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
