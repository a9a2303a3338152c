"""CPU time and memory of a process and its descendants, such as a gunicorn master and its workers."""

import re
from pathlib import Path

import psutil

_MIB = 1024 * 1024  # bytes


def cpu_seconds(pid: int) -> float:
    """Return the CPU time, user and system, that the processes have used so far."""
    times = [process.cpu_times() for process in _tree(pid)]
    return sum(time.user + time.system for time in times)


def memory(pid: int) -> dict[str, float]:
    """Return the resident memory of the processes, in MiB.

    Returns:
        `now`, in which a page that processes share counts once, and `peak`, the sum of the peaks of the processes, in
        which it counts once per process: an upper bound.
    """
    tree = _tree(pid)
    now = sum(process.memory_full_info().pss for process in tree)
    return {"now": now / _MIB, "peak": sum(_peak(process.pid) for process in tree) / _MIB}


def _tree(pid: int) -> list[psutil.Process]:
    first = psutil.Process(pid)
    return [first, *first.children(recursive=True)]


def _peak(pid: int) -> int:
    """Return the peak resident memory in bytes, which psutil does not report on Linux."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(re.findall(r"VmHWM:\s*(\d+) kB", status)[0])
