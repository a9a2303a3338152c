"""Child processes: each in a process group of its own, ready before it is used, ended with all of its group."""

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
START_LIMIT = 60.0  # seconds; a cold Java on a busy machine wants some
_POLL = 0.05  # seconds

# PR_SET_PDEATHSIG: what was started here ends even if this process is killed outright. It holds through an exec.
_DIE_WITH_PARENT = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 15); os.execvp(sys.argv[1], sys.argv[1:])"


class PartError(Exception):
    """Raised if a part of the system does not start, or ends before it should; the text is one line for a person."""


@dataclass(frozen=True, slots=True)
class Part:
    """A running child process.

    Attributes:
        name: what a person calls it.
        process: the leader of the process group.
        log: where its output goes.
    """

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Return if the part is still running.

        Raises:
            PartError: it is not.
        """
        status = self.process.poll()
        if status is not None:
            how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
            raise PartError(f"{self.name} {how}. Its log: {self.log}{_last_words(self.log)}")


@contextmanager
def running(
    name: str, command: Sequence[str], *, log: Path, environ: Mapping[str, str], ready: Callable[[], bool]
) -> Iterator[Part]:
    """Run a command in the project's folder, from the moment when it is ready to the end of the block.

    Args:
        name: what a person calls it.
        command: program and arguments.
        log: file for its output, made anew.
        environ: its environment.
        ready: tells whether it can be used now.

    Yields:
        The running part.

    Raises:
        PartError: it ended before it was ready, or took too long.
    """
    guard = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT] if sys.platform == "linux" else []
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*guard, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environ,
            cwd=ROOT,
            start_new_session=True,  # a Ctrl-C at the terminal is for the parent, who ends the parts in order
        )
    part = Part(name, process, log)
    try:
        _wait_until_ready(part, ready)
        yield part
    finally:
        stop(process)


def _wait_until_ready(part: Part, ready: Callable[[], bool]) -> None:
    limit = time.monotonic() + START_LIMIT
    while not ready():
        part.check()
        if time.monotonic() > limit:
            raise PartError(f"{part.name} was not ready within {START_LIMIT:g} s. Its log: {part.log}")
        time.sleep(_POLL)
    part.check()  # another program's answer at the same port does not count


def _last_words(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f" (last line: {lines[-1].strip()[:300]})" if lines else ""


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process group: politely, and after a grace for good.

    Args:
        process: its leader, ended or not.
    """
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(GRACE)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # whoever is left, be it a worker that outlived its leader
    process.wait()


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def port_is_free(port: int) -> bool:
    """Tell whether a server could listen on a TCP port of 127.0.0.1.

    Args:
        port: from 1 to 65535.

    Returns:
        False when it is taken, or not allowed to this user.
    """
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def accepts(port: int) -> bool:
    """Tell whether a server accepts connections at a TCP port of 127.0.0.1."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
