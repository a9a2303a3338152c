"""`python -m backfill forget`: deletes the documents of a device, and marks that they must not come back."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import click
from google.cloud import firestore
from google.cloud.firestore_v1.field_path import FieldPath

import command_line
from backfill import markers, options
from backfill.database import FAILURES, open_database, reason
from backfill.markers import Markers
from dtcloud.history import event_time
from receiver.settings import Settings

_EXAMPLES = (
    "python -m backfill forget --device bchonod7rihjtvdmd2vg",
    "python -m backfill forget --device bchonod7rihjtvdmd2vg \\",
    "    --before 2026-05-16 --devices devices",
)
_PAGE = 500  # documents, read and deleted at a time
MARGIN_SECONDS = 10.0  # after every program has read the new marker, until what it had begun to write is written


@click.command(epilog=command_line.examples(*_EXAMPLES))
@click.option("--device", metavar="ID", type=options.dt_id, required=True, help="The device.")
@click.option("--before", metavar="TIME", help="Only events before: 3d, 12h, a date, or RFC 3339.  [default: now]")
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.database
@options.devices_collection
def forget(*, device: str, before: str | None, yes: bool, **given: Any) -> int:
    """Delete the documents of a device: its events, what it has in quarantine, and its state.

    A marker in the collection EVENTS_COLLECTION + `_forgotten` keeps backfill and repair from fetching these events
    from DT's history again. The function does not read it: what DT still delivers is stored. A Data Connector repeats
    an event for up to 12 hours. So run the command again when 12 hours have passed, with the --before that it has
    printed. Deleted documents cannot be restored.

    Google: application default credentials, or FIRESTORE_EMULATOR_HOST.

    Exit status: 0 deleted; 1 Firestore failed; 2 a wrong argument or setting; 130 interrupted.
    """
    settings = options.read_database_settings(given)
    time = options.read_time("--before", before or "0m")
    if time > datetime.now(UTC):  # its marker would keep the repair from events that are still to come
        raise click.UsageError("--before must not be in the future")
    if not yes:
        click.confirm(
            f"Delete the documents of device {device} before {time:%Y-%m-%dT%H:%M:%SZ}?", abort=True, err=True
        )
    try:
        return asyncio.run(_Forgetting(settings, device).run(time))
    except FAILURES as error:
        raise click.ClickException(f"{reason(error)}; run the same command again") from None


class _Forgetting:
    """Deletes the documents of a device."""

    def __init__(self, settings: Settings, device: str) -> None:
        self._settings = settings
        self._device = device
        self._events = settings.collection
        self._deleted = 0

    async def run(self, before: datetime) -> int:
        """Write the marker and delete; delete again when every program that runs must have read the marker."""
        self._database = open_database(self._settings)
        before = await Markers(self._settings).add(self._device, before)
        await self._delete_all(before)
        wait = markers.REFRESH_SECONDS + MARGIN_SECONDS
        click.echo(f"{self._deleted} documents deleted. Waiting {wait:.0f} s for programs that run now …", err=True)
        await asyncio.sleep(wait)
        await self._delete_all(before)
        click.echo(f"Device {self._device}: {self._deleted} documents before {before:%Y-%m-%dT%H:%M:%SZ} deleted.")
        return 0

    async def _delete_all(self, before: datetime) -> None:
        async for target_name in self._target_names():
            await self._delete_events(target_name, before)
        await self._delete_quarantined(before)
        if self._settings.devices_collection:
            await self._delete_state(self._settings.devices_collection, before)

    async def _target_names(self) -> AsyncIterator[str]:
        """Yield the device's resource name in each project that has events: a device can move between projects."""
        events = self._database.collection(self._events)
        start = "projects/"
        while start < "projects0":  # "0" follows "/" in the order of strings
            query = events.where(filter=firestore.FieldFilter("targetName", ">=", start))
            found = [each async for each in query.order_by("targetName").select(["targetName"]).limit(1).stream()]
            if not found or not str(found[0].get("targetName")).startswith("projects/"):
                return
            project = str(found[0].get("targetName")).split("/")[1]
            yield f"projects/{project}/devices/{self._device}"
            start = f"projects/{project}0"

    async def _delete_events(self, target_name: str, before: datetime) -> None:
        of_device = firestore.FieldFilter("targetName", "==", target_name)
        query = self._database.collection(self._events).where(filter=of_device).select(["timestamp"])
        async for page in _pages(query):
            await self._delete([each.reference for each in page if _is_before(each.to_dict().get("timestamp"), before)])

    async def _delete_quarantined(self, before: datetime) -> None:
        query = self._database.collection(f"{self._events}_quarantine").select(["body"])
        async for page in _pages(query):
            await self._delete([each.reference for each in page if self._is_own(each.to_dict().get("body"), before)])

    def _is_own(self, body: Any, before: datetime) -> bool:
        """Return whether a body names the device, and no time that is not before `before`."""
        if not isinstance(body, bytes) or f'devices/{self._device}"'.encode() not in body:
            return False
        try:
            event = json.loads(body)["event"]
        except (ValueError, TypeError, KeyError, RecursionError):
            return True
        return _is_before(event_time(event), before)

    async def _delete(self, references: list[Any]) -> None:
        if not references:
            return
        batch = self._database.batch()
        for reference in references:
            batch.delete(reference)
        await batch.commit()
        self._deleted += len(references)

    async def _delete_state(self, collection: str, before: datetime) -> None:
        """Delete the device's state, or the entries of it that are older than `before`."""
        document = self._database.collection(collection).document(self._device)
        state = await document.get()
        if not state.exists:
            return
        newest = (state.to_dict() or {}).get("newest")
        entries = newest if isinstance(newest, dict) else {}
        old = [name for name, entry in entries.items() if _is_before((entry or {}).get("timestamp"), before)]
        if len(old) == len(entries):
            await document.delete(option=self._database.write_option(last_update_time=state.update_time))
            self._deleted += 1
        elif old:
            removed = {FieldPath("newest", name).to_api_repr(): firestore.DELETE_FIELD for name in old}
            await document.update(removed, option=self._database.write_option(last_update_time=state.update_time))


def _is_before(time: Any, before: datetime) -> bool:
    """Return whether a time is before another; what is no time counts as before."""
    return not isinstance(time, datetime) or time < before


async def _pages(query: Any) -> AsyncIterator[list[Any]]:
    """Yield the documents of a query in pages, in the order of their ids."""
    query = query.order_by("__name__").limit(_PAGE)
    page = [each async for each in query.stream()]
    while page:
        yield page
        page = [each async for each in query.start_after(page[-1]).stream()]
