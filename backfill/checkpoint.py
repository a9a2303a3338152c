"""The checkpoint of the repair: which run may write, and how far each device is complete."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from google.api_core.exceptions import AlreadyExists, FailedPrecondition
from google.cloud import firestore

from backfill import database
from backfill.background import in_background
from backfill.database import FAILURES, open_database, reason
from backfill.results import Results
from receiver.settings import Settings

LEASE_SECONDS = 120.0  # a run that has not renewed its lease for so long is no longer alive
_RENEWALS = 3  # in the time of a lease


class LeaseLost(Exception):
    """Raised if another run has taken the lease."""


class Checkpoint:
    """The document `{events}_repair/state`.

    Its field `lease` names the run that may write. `completeUntil` is the time until which every device is complete,
    except for those in the map `devices`, which have a time of their own: it stays small, because the end of a run
    removes those that are complete. Each write demands that the document is as it was after the run's last write, so
    that a run whose lease was taken cannot write any more.
    """

    def __init__(self, settings: Settings) -> None:
        """Use the database that `settings` names."""
        client = open_database(settings)
        self._document = client.collection(f"{settings.collection}_repair").document("state")
        self._option = client.write_option
        self._holder = uuid.uuid4().hex
        self._update_time: Any = None
        self._lost = False
        self._complete_until: datetime | None = None
        self._devices: dict[str, datetime] = {}
        self._writing = asyncio.Lock()

    async def acquire(self) -> bool:
        """Take the lease; if another run has it, wait for as long as that run would take to renew it.

        Returns:
            Whether this run may write; if not, another run is at work.

        Raises:
            One of `backfill.database.FAILURES`.
        """
        held: Mapping[str, Any] | None = None
        while True:
            state = await self._read()
            lease = state.get("lease") or {}
            if lease.get("holder") == self._holder:  # the answer to our own write was lost
                lease = {}
            remaining = (lease["until"] - datetime.now(UTC)).total_seconds() if lease else 0.0
            if remaining > 0 and held not in (None, lease):
                return False
            if remaining <= 0 or held == lease:
                with suppress(AlreadyExists, FailedPrecondition):  # another run was faster
                    await self._take(state)
                    return True
                held = {}
                continue
            held = lease
            await asyncio.sleep(min(remaining, LEASE_SECONDS))

    async def _read(self) -> dict[str, Any]:
        async with asyncio.timeout(database.CALL_SECONDS):
            snapshot = await self._document.get()
        self._update_time = snapshot.update_time
        return snapshot.to_dict() or {}

    async def _take(self, state: Mapping[str, Any]) -> None:
        self._complete_until, self._devices = state.get("completeUntil"), dict(state.get("devices") or {})
        async with asyncio.timeout(database.CALL_SECONDS):
            if self._update_time is None:
                written = await self._document.create({"lease": self._lease(), "devices": {}})
            else:
                option = self._option(last_update_time=self._update_time)
                written = await self._document.update({"lease": self._lease()}, option=option)
        self._update_time = written.update_time

    def _lease(self) -> dict[str, Any]:
        return {"holder": self._holder, "until": datetime.now(UTC) + timedelta(seconds=LEASE_SECONDS)}

    def begin(self, starts: Mapping[str, datetime]) -> None:
        """Note where a run begins with the devices of which nothing is known yet."""
        self._devices = {name: time for name, time in starts.items() if self.device(name) is None} | self._devices

    @property
    def complete_until(self) -> datetime | None:
        """The time until which the last run read, with the exceptions of the map; None before the first run."""
        return self._complete_until

    def device(self, device_id: str) -> datetime | None:
        """Return the time until which a device is complete; None if that is not known."""
        return self._devices.get(device_id, self._complete_until)

    def advance(self, device_id: str, until: datetime) -> None:
        """Note that a device is complete until a time; the next renewal of the lease writes it."""
        self._devices[device_id] = until

    @asynccontextmanager
    async def kept(self, results: Results) -> AsyncIterator[None]:
        """Renew the lease and write what was noted during a block; stop the run if the lease is lost."""
        async with in_background(self._keep(results)):
            yield

    async def _keep(self, results: Results) -> None:
        renewed = time.monotonic()
        while not results.stopped:
            await asyncio.sleep(LEASE_SECONDS / _RENEWALS)
            try:
                await self._write({"lease": self._lease(), "devices": self._devices})
                renewed = time.monotonic()
            except LeaseLost:
                results.stopped = "another run has taken over"
            except FAILURES as error:
                if time.monotonic() - renewed > LEASE_SECONDS:
                    results.stopped = f"the lease could not be renewed: {reason(error)}"

    async def release(self, devices: Sequence[str], until: datetime) -> None:
        """Give up the lease, and write how far the devices are complete.

        Args:
            devices: all devices of the project; empty if the run has not come so far.
            until: the end of the time that the run has read.

        Raises:
            LeaseLost: another run has taken the lease.
            One of `backfill.database.FAILURES`.
        """
        fields: dict[str, Any] = {"lease": None}
        known = {device_id: self.device(device_id) for device_id in devices}
        if known and None not in known.values():
            behind = {device_id: time for device_id, time in known.items() if time and time < until}
            fields |= {"completeUntil": until, "devices": behind}
            if not behind:
                fields["completedAt"] = firestore.SERVER_TIMESTAMP
        await self._write(fields)

    async def _write(self, fields: Mapping[str, Any]) -> None:
        async with self._writing, asyncio.timeout(database.CALL_SECONDS):
            while not self._lost:
                option = self._option(last_update_time=self._update_time)
                try:
                    self._update_time = (await self._document.update(dict(fields), option=option)).update_time
                except FailedPrecondition:  # also after a write of our own whose answer was lost
                    self._lost = ((await self._read()).get("lease") or {}).get("holder") != self._holder
                else:
                    return
        raise LeaseLost
