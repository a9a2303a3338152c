"""Transfers the history of several devices at a time: a page is written before the next one is requested."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

from backfill.progress import Progress
from backfill.results import FAILED, Results, make_record
from backfill.time_window import TimeWindow
from backfill.writers import Writer
from dtcloud.history import DEVICES_AT_ONCE, Device, History, HistoryError
from dtcloud.rest import RequestRefused

_MOST_UNREAD_IN_A_ROW = 2 * DEVICES_AT_ONCE


async def _note_nothing(_device_id: str, _window: TimeWindow) -> None:
    """Note nothing: for a backfill that keeps no checkpoint."""


@dataclass
class Transfer:
    """Reads the history of devices and hands it to a writer.

    Attributes:
        history: the source of the events.
        windows: returns the time windows to read of a device, by its id, oldest first.
        event_types: the event types to read; empty for all types.
        writer: writes the events, and counts them in `results`.
        results: the counts.
        progress: shows the progress.
        note_complete: is called for each window of which every event has been written.
    """

    history: History
    windows: Callable[[str], Sequence[TimeWindow]]
    event_types: Sequence[str]
    writer: Writer
    results: Results
    progress: Progress
    note_complete: Callable[[str, TimeWindow], Awaitable[None]] = _note_nothing
    _unread_in_a_row: int = 0

    async def run(self, devices: Sequence[Device]) -> None:
        """Transfer the history of each device; stop early when many devices in a row cannot be read."""
        self.results.devices = len(devices)
        queue = iter(devices)  # shared by the workers
        async with asyncio.TaskGroup() as tasks:
            for _ in range(DEVICES_AT_ONCE):
                tasks.create_task(self._work(queue))

    async def _work(self, queue: Iterator[Device]) -> None:
        for device in queue:
            try:
                await self._transfer(device)
            except HistoryError as error:
                self._count_unread(device, error)
            self.results.close(device.id)
            if self.results.stopped:
                return

    async def _transfer(self, device: Device) -> None:
        windows = self.windows(device.id)
        with self.progress.device(device.id) as show:
            for number, window in enumerate(windows):
                async for share in self._transfer_window(device, window):
                    show((number + share) / len(windows))
                if self.results.stopped:
                    return
                if not self._failed(device):
                    await self.note_complete(device.id, window)
        self.results.finished += 1
        self._unread_in_a_row = 0

    async def _transfer_window(self, device: Device, window: TimeWindow) -> AsyncIterator[float]:
        """Write the events of a window, and yield the share that was written after each page."""
        async for events in self.history.events(device, window.since, window.until, self.event_types):
            records = [make_record(device, event) for event in events]
            await self.writer.write(records)
            if self.results.stopped:
                return
            if times := [record.time for record in records if record.time]:
                yield window.share_after(min(times))

    def _failed(self, device: Device) -> int:
        return sum(counts[FAILED] for counts in self.results.by_device[device.id].values())

    def _count_unread(self, device: Device, error: HistoryError) -> None:
        self.results.unread[device.id] = str(error)
        if not isinstance(error, RequestRefused):
            self._unread_in_a_row += 1
            if self._unread_in_a_row >= _MOST_UNREAD_IN_A_ROW:
                self.results.stopped = str(error)
