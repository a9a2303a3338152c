"""How far the run is: bars on a terminal, else a line now and then."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

from rich.console import Console
from rich.progress import BarColumn, TaskID, TaskProgressColumn, TextColumn
from rich.progress import Progress as Bars

from backfill.tally import Tally

PLAIN_SECONDS = 10.0

_WHOLE = 1.0


class Progress:
    """Shows a bar for the total and one for each device under way.

    Each is a part of the window of time, as DT's API does not say beforehand how many events there are.
    """

    def __init__(self, tally: Tally) -> None:
        """Take what is shown."""
        self._tally = tally
        self._console = Console(stderr=True)
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn())
        self._bars = Bars(*columns, console=self._console, transient=True)
        self._total = self._bars.add_task("")
        self._tasks: dict[str, TaskID] = {}

    @asynccontextmanager
    async def shown(self) -> AsyncIterator[None]:
        """Show it for the time of a block."""
        terminal = self._console.is_terminal
        task = asyncio.create_task(self._draw() if terminal else self._print())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    @contextmanager
    def device(self, device_id: str) -> Iterator[None]:
        """Show a device for the time of a block."""
        self._tasks[device_id] = self._bars.add_task(device_id, total=_WHOLE)
        try:
            yield
        finally:
            self._bars.remove_task(self._tasks.pop(device_id))

    def advance(self, device_id: str, part: float) -> None:
        """Show that so much, 0 to 1, of the device's window is done."""
        self._bars.update(self._tasks[device_id], completed=part)

    async def _draw(self) -> None:
        with self._bars:
            while True:
                under_way = sum(task.completed for task in self._bars.tasks if task.id in self._tasks.values())
                done = self._tally.finished + len(self._tally.unread) + under_way
                self._bars.update(
                    self._total, description=self.line(), completed=done, total=max(self._tally.devices, done, _WHOLE)
                )
                await asyncio.sleep(0.1)

    async def _print(self) -> None:
        while True:
            await asyncio.sleep(PLAIN_SECONDS)
            self._console.print(self.line(), markup=False, highlight=False, soft_wrap=True)

    def line(self) -> str:
        """Return how far it is, in words."""
        counts = [f"{outcome} {number}" for outcome, number in self._tally.total.items() if number]
        devices = f"{self._tally.finished} of {self._tally.devices} devices"
        return ", ".join([devices, f"{self._tally.total.total()} events", *counts])
