"""`python -m backfill repair`: finds what an outage lost, and stores it; a scheduled job runs it."""

import asyncio
import json
import os
import re
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count, islice, takewhile
from typing import Any

import click

import command_line
from backfill import options
from backfill.checkpoint import Checkpoint, LeaseLost
from backfill.database import FAILURES, reason
from backfill.progress import Progress
from backfill.rate_limit import RateLimit
from backfill.results import ADDED, ALREADY_STORED, FAILED, QUARANTINED, Record, Results
from backfill.revival import newest_body, read_connector, revive
from backfill.time_window import HISTORY, MARGIN, TimeWindow, expired_before
from backfill.transfer import Transfer
from backfill.writers import STAMP, DocumentWriter
from dtcloud.account import MissingCredentials
from dtcloud.connector import ACTIVE, SYSTEM_DISABLED, DataConnector
from dtcloud.history import Device, History, HistoryError
from receiver.settings import Settings
from receiver.store import Store

OVERLAP = timedelta(hours=13)  # a Data Connector retries for 12 hours, and history is indexed late
_WINDOW = timedelta(days=7)  # after which a device's progress is noted
_METRICS = timedelta(hours=3)  # of which a connector's metrics tell
_UNDER_WAY = timedelta(minutes=5)  # in which an event may still be delivered for the first time
_MOST_GAPS = 200  # devices and days in the report: a log entry is limited to 256 KiB
_EXAMPLES = (
    "python -m backfill repair --dt-project c0md3pm0p7bet3vico8g \\",
    "    --endpoint https://dataconnector-endpoint-abc123-ew.a.run.app",
    "python -m backfill repair --dt-project c0md3pm0p7bet3vico8g \\",
    "    --endpoint https://x.run.app --since 31d",
)


def _url(text: str) -> str:
    if not re.fullmatch(r"https?://[^\s?#]+", text):
        raise ValueError(f"must be the function's https:// URL, not {text!r}")
    return text


@click.command(epilog=command_line.examples(*_EXAMPLES))
@click.option(
    "--dt-project",
    metavar="ID",
    required=True,
    type=options.dt_id,
    envvar="DT_PROJECT",
    show_envvar=True,
    help="DT's project id.",
)
@click.option(
    "--endpoint",
    metavar="URL",
    required=True,
    type=_url,
    envvar="DT_ENDPOINT",
    show_envvar=True,
    help="The function's URL, as the Data Connector has it.",
)
@click.option("--since", metavar="TIME", help="3d, 12h, a date, or RFC 3339.  [default: where the last run ended]")
@click.option("--rate", metavar="N", type=command_line.COUNT, default=200, show_default=True, help="Writes a second.")
@options.database
@options.devices_collection
@options.retention
def repair(**given: Any) -> int:
    """Fetch what is missing since the last repair, and switch the Data Connector on again if DT has switched it off.

    The document `state` in the collection EVENTS_COLLECTION + `_repair` says how far each device is complete. A run
    starts there, with 13 hours of overlap; the first one 31 days ago. An interrupted run goes on where it was. Only one
    run writes at a time. Events older than RETENTION_DAYS and those that `forget` deleted are not fetched.

    The last line of standard output is the report, in JSON. Its severity is ERROR if something failed, or if events
    were missing although the connector counts no errors.

    Credentials: see python -m backfill --help. The DT service account needs a role that can edit Data Connectors.

    Exit status: 0 complete, or another run is at work; 1 something failed; 2 a wrong argument or setting; 130
    interrupted.
    """
    settings = options.read_database_settings(given)
    since = options.read_time("--since", given["since"]) if given["since"] else None
    run = _Repair(settings, given["dt_project"], given["endpoint"], since, given["rate"])
    # Cloud Run ends a job that takes too long with SIGTERM: end as after Ctrl-C, with a report and without the lease.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    status = 0
    try:
        asyncio.run(run.run())
    except KeyboardInterrupt:
        run.report.outcome, status = "interrupted", command_line.INTERRUPTED
    except (MissingCredentials, HistoryError) as error:
        run.report.problems.append(str(error))
    except FAILURES as error:
        run.report.problems.append(reason(error))
    click.echo(json.dumps(run.report.line()))
    return status or int(run.report.failed)


@dataclass
class _Results(Results):
    """The counts of a repair.

    Attributes:
        claimed: the time window of which the connector claims that it delivered every event.
        denied: number of events of that time that were missing.
    """

    claimed: tuple[datetime, datetime] | None = None
    denied: int = 0

    def count(self, record: Record, outcome: str) -> None:
        """Count an event by its outcome."""
        super().count(record, outcome)
        if outcome == ADDED and self.claimed and record.time:
            self.denied += self.claimed[0] <= record.time < self.claimed[1]


@dataclass
class _Report:
    """What a run reports.

    Attributes:
        results: the counts.
        started: when it began.
        connector: what is known of the Data Connector.
        problems: what failed.
        outcome: `complete`, `incomplete`, `skipped` or `interrupted`.
    """

    results: _Results
    started: datetime
    connector: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    outcome: str = "incomplete"
    _clock: float = field(default_factory=time.monotonic)

    @property
    def failed(self) -> bool:
        """Whether something failed."""
        needs_person = self.connector.get("status") == SYSTEM_DISABLED
        return bool(self.problems or self.results.errors_found or needs_person)

    def line(self) -> dict[str, Any]:
        """Return the report as the fields of a log entry."""
        results, total = self.results, self.results.total
        gaps = results.all_gaps()
        by_device: dict[str, dict[str, int]] = {}
        for day, device, counts in islice(gaps, _MOST_GAPS):
            by_device.setdefault(device, {})[day] = counts[ADDED]
        return {
            "severity": self._severity(),
            "message": f"repair {self.outcome}: {total[ADDED]} of {total.total()} events were missing",
            "outcome": self.outcome,
            "seen": total.total(),
            "alreadyStored": total[ALREADY_STORED],
            "added": total[ADDED],
            "quarantined": total[QUARANTINED],
            "failed": total[FAILED],
            "forgotten": results.forgotten,
            "oldestEvent": results.oldest.isoformat() if results.oldest else None,
            "gaps": by_device,
            "gapsNotShown": max(0, len(gaps) - _MOST_GAPS),
            "missingThoughClaimed": results.denied,
            "devices": results.devices,
            "devicesRead": results.finished,
            "connector": self.connector,
            "problems": [*self.problems, *results.errors()],
            "started": self.started.isoformat(),
            "seconds": round(time.monotonic() - self._clock, 1),
        }

    def _severity(self) -> str:
        if self.failed or self.results.denied:
            return "ERROR"
        as_usual = self.outcome == "complete" and not self.results.total[ADDED]
        return "INFO" if as_usual and self.connector.get("status") == ACTIVE else "WARNING"


class _Repair:
    """A run of the repair.

    Attributes:
        report: what it reports.
    """

    def __init__(self, settings: Settings, project: str, endpoint: str, since: datetime | None, rate: int) -> None:
        self._settings = settings
        self._project = project
        self._endpoint = endpoint
        self._since = since
        self._rate = rate
        self._until = datetime.now(UTC)
        self._results = _Results(dry_run=False, gaps=frozenset({ADDED}))
        self.report = _Report(self._results, self._until)

    async def run(self) -> None:
        """Repair, unless another run is at work.

        Raises:
            MissingCredentials: the DT service account is not set.
            HistoryError: DT's API does not return the devices.
            One of `backfill.database.FAILURES`: the checkpoint cannot be read or written.
        """
        history = History(self._project, os.environ)
        self._checkpoint = Checkpoint(self._settings)
        if not await self._checkpoint.acquire():
            self.report.outcome = "skipped"
            return
        self._until = datetime.now(UTC)  # it may have waited for the lease
        devices: list[Device] = []
        try:
            async with self._checkpoint.kept(self._results):
                await self._repair(history, devices)
        finally:
            await self._release(devices)

    async def _release(self, devices: Sequence[Device]) -> None:
        try:
            await self._checkpoint.release([device.id for device in devices], self._until)
        except LeaseLost:
            self.report.outcome = "incomplete"
            self.report.problems.append("another run has taken over")

    async def _repair(self, history: History, devices: list[Device]) -> None:
        progress = Progress(self._results, history.api.waits)
        async with progress.shown():
            connector, self.report.connector = await read_connector(history, self._project, self._endpoint)
            devices += await history.devices([], frozenset(connector.labels) if connector else None)
            self._checkpoint.begin({device.id: self._start(device.id) for device in devices})
            self._results.claimed = self._claimed(self.report.connector)
            if connector and connector.status == SYSTEM_DISABLED:
                self.report.connector |= await self._revive(history, connector, devices)
            store = Store(self._settings, stamp=STAMP)
            writer = DocumentWriter(store, self._settings, RateLimit(self._rate), self._results)
            event_types = connector.event_types if connector else ()
            transfer = Transfer(
                history, self._windows, event_types, writer, self._results, progress, self._note_complete
            )
            await transfer.run(devices)
        if not self._results.errors_found:
            self.report.outcome = "complete"

    async def _revive(self, history: History, connector: DataConnector, devices: Sequence[Device]) -> dict[str, Any]:
        """Switch the connector on if the endpoint answers; a failure is reported, and the history is fetched anyway."""
        window = TimeWindow(max(self._until - HISTORY + MARGIN, self._expired), self._until)
        try:
            body = await newest_body(history, devices, window, connector, self._settings)
            return await revive(history, connector, self._endpoint, body)
        except HistoryError as error:
            return {"problem": str(error)}

    def _claimed(self, connector: Mapping[str, Any]) -> tuple[datetime, datetime] | None:
        """Return the time of which the connector claims success, as far as the last complete repair can tell."""
        last = self._checkpoint.complete_until
        if connector["status"] != ACTIVE or int(connector.get("errorCount", 1)) or last is None:
            return None
        return max(last, self._until - _METRICS), self._until - _UNDER_WAY

    def _start(self, device_id: str) -> datetime:
        """Return where to begin with a device."""
        known = self._checkpoint.device(device_id)
        start = self._until - HISTORY + MARGIN if known is None else known - OVERLAP
        return max(self._since or start, self._expired)

    @property
    def _expired(self) -> datetime:
        """The time before which nothing is fetched: documents of older events may have expired, and must not return.

        It passes with the run, which may take hours.
        """
        return expired_before(self._settings.retention_days, datetime.now(UTC))

    def _windows(self, device_id: str) -> list[TimeWindow]:
        start = self._start(device_id)
        starts = takewhile(lambda time: time < self._until, (start + number * _WINDOW for number in count()))
        return [TimeWindow(time, min(time + _WINDOW, self._until)) for time in starts]

    async def _note_complete(self, device_id: str, window: TimeWindow) -> None:
        """Note a window that follows on what is complete; after --since there may be a gap before it."""
        known = self._checkpoint.device(device_id) or window.since
        if window.since <= max(known, self._expired):
            self._checkpoint.advance(device_id, max(known, window.until))
