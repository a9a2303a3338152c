"""The outcome of each event, counted by type and by day, and the report that ends a backfill."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from rich.table import Table

from backfill.tables import print_table
from backfill.time_window import HISTORY, MARGIN, TimeWindow
from dtcloud.history import Device, event_time

ALREADY_STORED, ADDED, QUARANTINED, FAILED = "already stored", "added", "quarantined", "failed"
MISSING = "missing"  # replaces ADDED in a dry run
DIFFERENT = "different"  # only of a check

_MOST_NAMED = 20  # devices, and events


@dataclass(frozen=True, slots=True)
class Record:
    """An event of DT's history.

    Attributes:
        body: the request body in which a Data Connector sends it.
        device_id: the device that published it.
        event_type: its type, in a length that fits a table.
        time: its timestamp in UTC; None if it has none.
        day: the day in UTC.
    """

    body: bytes
    device_id: str
    event_type: str
    time: datetime | None
    day: str


def make_record(device: Device, event: Any) -> Record:
    """Return the record of an event, whatever its form."""
    event_type = event.get("eventType") if isinstance(event, dict) else None
    time = event_time(event)
    name = event_type[:40] if isinstance(event_type, str) and event_type.isprintable() else "no type"
    return Record(device.body(event), device.id, name, time, f"{time:%Y-%m-%d}" if time else "no time")


@dataclass
class Results:
    """The counts of a backfill.

    Attributes:
        dry_run: whether nothing is written.
        check: whether the documents are compared with DT's events; nothing is written either.
        gaps: the outcomes that show a gap in the documents; their days are kept for each device.
        total: events by outcome.
        by_type: events by type, then outcome.
        by_day: events by day, then outcome.
        by_device: events by device and day, then outcome; only of devices in progress and of those with gaps.
        differences: the first events whose documents differ, with the names of the fields.
        reasons: events that failed, by reason.
        forgotten: number of events that were left out, since their device's documents were deleted on request.
        oldest: the time of the oldest event that came.
        unread: devices whose history could not be read to its end, with the reason.
        devices: number of devices.
        finished: number of devices whose history was read to its end.
        stopped: why the backfill stopped early; empty if it did not.
    """

    dry_run: bool
    check: bool = False
    gaps: frozenset[str] = frozenset({MISSING, DIFFERENT})
    total: Counter[str] = field(default_factory=Counter)
    by_type: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    by_day: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    by_device: defaultdict[str, defaultdict[str, Counter[str]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(Counter))
    )
    differences: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    forgotten: int = 0
    oldest: datetime | None = None
    unread: dict[str, str] = field(default_factory=dict)
    devices: int = 0
    finished: int = 0
    stopped: str = ""

    def count(self, record: Record, outcome: str) -> None:
        """Count an event by its outcome."""
        days = self.by_device[record.device_id]
        for counter in (self.total, self.by_type[record.event_type], self.by_day[record.day], days[record.day]):
            counter[outcome] += 1
        if record.time:
            self.oldest = min(self.oldest or record.time, record.time)

    def note_difference(self, record: Record, event_id: str, names: Sequence[str]) -> None:
        """Keep the names of the fields in which a document differs from DT's event, for the first such events."""
        if len(self.differences) < _MOST_NAMED:
            self.differences.append(f"device {record.device_id}, event {event_id}: {', '.join(names)} differ")

    def close(self, device_id: str) -> None:
        """Drop the days of a device without gaps, so that memory does not grow with the number of devices."""
        days = self.by_device.pop(device_id, defaultdict(Counter))
        if kept := {day: counts for day, counts in days.items() if self._gap(counts)}:
            self.by_device[device_id] = defaultdict(Counter, kept)

    def _gap(self, counts: Counter[str]) -> int:
        return sum(counts[outcome] for outcome in self.gaps)

    def all_gaps(self) -> list[tuple[str, str, Counter[str]]]:
        """Return the days and devices with gaps, in this order, and their events by outcome."""
        return sorted(
            (
                (day, device, counts)
                for device, days in self.by_device.items()
                for day, counts in days.items()
                if self._gap(counts)
            ),
            key=lambda gap: gap[:2],
        )

    @property
    def complete(self) -> bool:
        """Whether every requested event is in Firestore."""
        return not (self.errors_found or self.total[MISSING] or self.total[DIFFERENT])

    @property
    def errors_found(self) -> bool:
        """Whether an event could not be read or written."""
        return bool(self.total[FAILED] or self.unread or self.stopped)

    def print_tables(self) -> None:
        """Print the events by type and by day; after a dry run or a check, the devices and days that have gaps."""
        missing = [MISSING, DIFFERENT] if self.check else [MISSING] if self.dry_run else [ADDED]
        outcomes = (ALREADY_STORED, *missing, QUARANTINED, FAILED)
        for heading, counters in (("event type", self.by_type), ("day (UTC)", self.by_day)):
            named = [*sorted(counters.items()), ("total", self.total)]
            rows = [(name, counts.total(), *(counts[each] for each in outcomes)) for name, counts in named]
            _print_table(Table(heading), ("seen", *outcomes), rows, has_total=True)
        shown = [MISSING, DIFFERENT] if self.check else [MISSING]
        gaps = [
            (day, device, counts.total(), counts.total() - counts[MISSING], *(counts[each] for each in shown))
            for day, device, counts in self.all_gaps()
        ]
        if gaps:
            _print_table(Table("day (UTC)", "device", title="Gaps"), ("history", "documents", *shown), gaps)

    def notes(self, window: TimeWindow) -> Iterator[str]:
        """Yield what the user should know of the events that came: how old the oldest one is, what was left out."""
        if self.oldest is None:
            yield "No event came."
        else:
            late = self.oldest - window.since
            younger = "" if late < MARGIN else f", {_rounded(late)} younger than --since asks for"
            kept = f": DT keeps {HISTORY.days} days of history, its documentation says" if window.beyond_history else ""
            yield f"The oldest event that came is of {self.oldest:%Y-%m-%dT%H:%M:%SZ}{younger}{younger and kept}."
        if self.forgotten:
            yield f"{self.forgotten} events of devices whose documents were deleted by `forget` were left out."
        yield from self.differences

    def errors(self) -> Iterator[str]:
        """Yield a line for each error: the first devices that could not be read, and the reasons of failures."""
        for device in [*self.unread][:_MOST_NAMED]:
            yield f"device {device}: {self.unread[device]}"
        if len(self.unread) > _MOST_NAMED:
            yield f"and {len(self.unread) - _MOST_NAMED} more devices"
        for reason, number in self.reasons.items():
            yield f"{number} events: {reason}"
        if self.stopped:
            yield f"stopped: {self.stopped}"

    def summary(self, *, interrupted: bool) -> str:
        """Return the last line of the report."""
        read = f"{self.finished} of {self.devices} devices read, {self.total.total()} events seen"
        if self.complete and not interrupted:
            return f"{read}: all are in Firestore."
        lacking = ", ".join(f"{self.total[each]} {each}" for each in (MISSING, DIFFERENT) if self.total[each])
        if lacking and not (interrupted or self.unread or self.stopped):
            advice = (
                "`python -m backfill` adds what is missing"
                if self.check
                else ("run the same command without --dry-run to add them")
            )
            return f"{read}, {lacking}: {advice}."
        failed = f", {self.total[FAILED]} failed" if self.total[FAILED] else ""
        start = "Interrupted" if interrupted else "Not complete"
        return f"{start}: {read}{failed}. Run the same command again: it continues, and writes nothing twice."


def _rounded(length: timedelta) -> str:
    hours, minutes = divmod(length // timedelta(minutes=1), 60)
    return f"{hours // 24} d {hours % 24} h" if hours >= 24 else f"{hours} h {minutes} min"  # noqa: PLR2004 - a day


def _print_table(
    table: Table, numbers: Sequence[str], rows: Sequence[Sequence[object]], *, has_total: bool = False
) -> None:
    """Fill a table and print it."""
    for heading in numbers:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*map(str, row), end_section=has_total and row is rows[-2:][0])
    print_table(table)
