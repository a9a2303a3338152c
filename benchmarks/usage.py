"""What processes use, as Linux tells it under /proc: all of a session, such as a gunicorn master and its workers."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_SESSION, _USER, _SYSTEM = 3, 11, 12  # fields of /proc/PID/stat behind the command's name
_MIB = 1024  # kB


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory of a session, in MiB.

    Attributes:
        now: what the processes hold, a page that several share counted once.
        peak: the sum of each process's own peak, in which shared pages count several times: an upper bound.
    """

    now: float
    peak: float


def cpu_seconds(session: int) -> float:
    """Return the CPU time, user and system, that the session's processes have used so far."""
    return sum(int(stat[_USER]) + int(stat[_SYSTEM]) for _, stat in _processes(session)) / _TICKS


def memory(session: int) -> Memory:
    """Return the resident memory of the session's processes."""
    folders = [folder for folder, _ in _processes(session)]
    now = sum(_kilobytes(folder / "smaps_rollup", "Pss:") for folder in folders)
    return Memory(now / _MIB, sum(_kilobytes(folder / "status", "VmHWM:") for folder in folders) / _MIB)


def _processes(session: int) -> Iterator[tuple[Path, list[str]]]:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text().rpartition(") ")[2].split()
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            continue
        if int(stat[_SESSION]) == session and stat[0] != "Z":
            yield folder, stat


def _kilobytes(file: Path, name: str) -> int:
    return next(int(line.split()[1]) for line in file.read_text().splitlines() if line.startswith(name))
