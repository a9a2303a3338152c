"""Shows the progress of a backfill: bars on a terminal, elsewhere a line every ten seconds."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn
from rich.progress import Progress as Bars

from backfill.background import in_background
from backfill.results import Results
from dtcloud.rest import Waits

LINE_SECONDS, BAR_SECONDS, WAIT_SECONDS = 10.0, 0.1, 0.5


class Progress:
    """Shows a bar for all devices and one for each device in progress.

    A bar shows the share of the time window that was read: DT's API does not announce the number of events.
    """

    def __init__(self, results: Results, waits: Waits) -> None:
        """Show the counts of `results` above the bars, and what the requests to DT wait for."""
        self._results = results
        self._waits = waits
        self._console = Console(stderr=True)
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn())
        self._bars = Bars(*columns, console=self._console, transient=True)
        self._all = self._bars.add_task("")

    @asynccontextmanager
    async def shown(self) -> AsyncIterator[None]:
        """Show the progress during a block."""
        async with in_background(self._draw() if self._console.is_terminal else self._print()):
            yield

    @contextmanager
    def device(self, device_id: str) -> Iterator[Callable[[float], None]]:
        """Show a device's bar during a block; call the function with the share that was read, 0 to 1."""
        task = self._bars.add_task(device_id, total=1.0)
        try:
            yield lambda share: self._bars.update(task, completed=share)
        finally:
            self._bars.remove_task(task)

    async def _draw(self) -> None:
        with self._bars:
            while True:
                in_progress = sum(task.completed for task in self._bars.tasks if task.id != self._all)
                done = self._results.finished + len(self._results.unread) + in_progress
                total = max(self._results.devices, done, 1.0)
                self._bars.update(self._all, description=self.line(), completed=done, total=total)
                await asyncio.sleep(BAR_SECONDS)

    async def _print(self) -> None:
        """Print a line at intervals, and at once when requests begin to wait for something else."""
        shown, elapsed = "", 0.0
        while True:
            await asyncio.sleep(WAIT_SECONDS)
            elapsed += WAIT_SECONDS
            reason = self._waits.reason
            if elapsed >= LINE_SECONDS or (reason and reason != shown):
                self._console.print(self.line(), markup=False, highlight=False, soft_wrap=True)
                shown, elapsed = reason, 0.0

    def line(self) -> str:
        """Return the progress as text."""
        return "; ".join(filter(None, [self._counts(), self._waits.line()]))

    def _counts(self) -> str:
        results = self._results
        if not results.devices:
            return "reading the list of devices"
        counts = [f"{outcome} {number}" for outcome, number in results.total.items() if number]
        return ", ".join(
            [f"{results.finished} of {results.devices} devices", f"{results.total.total()} events", *counts]
        )
