"""The run: several devices at a time, each page of history settled before the next one is fetched."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from backfill.progress import Progress
from backfill.tally import Record, Tally, event_type, timestamp
from backfill.time_window import Window
from dtcloud.history import DEVICES_AT_ONCE, Device, History, HistoryError, Refused

_MOST_UNREAD_IN_A_ROW = 2 * DEVICES_AT_ONCE


class Sink(Protocol):
    """Settles the events of a page."""

    async def take(self, records: Sequence[Record]) -> None:
        """Settle each record, and count it."""


@dataclass
class Run:
    """A run over the devices of a project.

    Attributes:
        history: where the events come from.
        window: from when to when.
        event_types: those wanted; none wants all.
        sink: where the events go.
        tally: what became of them.
        progress: shows how far it is.
    """

    history: History
    window: Window
    event_types: Sequence[str]
    sink: Sink
    tally: Tally
    progress: Progress
    _unread_in_a_row: int = 0

    async def over(self, devices: Sequence[Device]) -> None:
        """Settle the history of each device, or find a reason to stop."""
        self.tally.devices = len(devices)
        queue = iter(devices)  # which all workers share
        async with asyncio.TaskGroup() as group:
            for _ in range(DEVICES_AT_ONCE):
                group.create_task(self._work(queue))

    async def _work(self, queue: Iterator[Device]) -> None:
        for device in queue:
            with self.progress.device(device.id):
                await self._one(device)
            if self.tally.stopped:
                return

    async def _one(self, device: Device) -> None:
        try:
            await self._settle(device)
        except Refused as error:
            self.tally.unread[device.id] = str(error)
        except HistoryError as error:
            self.tally.unread[device.id] = str(error)
            self._unread_in_a_row += 1
            if self._unread_in_a_row >= _MOST_UNREAD_IN_A_ROW:
                self.tally.stopped = str(error)
        self.tally.close(device.id)

    async def _settle(self, device: Device) -> None:
        async for events in self.history.events(device, self.window.since, self.window.until, self.event_types):
            records = [Record(device.body(event), device.id, event_type(event), timestamp(event)) for event in events]
            await self.sink.take(records)
            if self.tally.stopped:
                return
            if oldest := min((record.at for record in records if record.at), default=None):
                self.progress.advance(device.id, self.window.part_done(oldest))
        self.tally.finished += 1
        self._unread_in_a_row = 0
