"""The outcome of each event, counted by type and by day, and the report that ends a backfill."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from dtcloud.history import Device

ALREADY_STORED, ADDED, QUARANTINED, FAILED = "already stored", "added", "quarantined", "failed"
MISSING = "missing"  # replaces ADDED in a dry run

_MOST_NAMED = 20  # devices


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
    fields = event if isinstance(event, dict) else {}
    event_type = fields.get("eventType")
    time, day = None, "no time"
    with suppress(TypeError, KeyError, AttributeError, ValueError, OverflowError):
        time = datetime.fromisoformat(fields["timestamp"].upper()).astimezone(UTC)
        day = f"{time:%Y-%m-%d}"
    name = event_type[:40] if isinstance(event_type, str) and event_type.isprintable() else "no type"
    return Record(device.body(event), device.id, name, time, day)


@dataclass
class Results:
    """The counts of a backfill.

    Attributes:
        dry_run: whether nothing is written.
        total: events by outcome.
        by_type: events by type, then outcome.
        by_day: events by day, then outcome.
        by_device: events by device and day, then outcome; only of devices in progress and of those that lack documents.
        reasons: events that failed, by reason.
        unread: devices whose history could not be read to its end, with the reason.
        devices: number of devices.
        finished: number of devices whose history was read to its end.
        stopped: why the backfill stopped early; empty if it did not.
    """

    dry_run: bool
    total: Counter[str] = field(default_factory=Counter)
    by_type: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    by_day: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    by_device: defaultdict[str, defaultdict[str, Counter[str]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(Counter))
    )
    reasons: Counter[str] = field(default_factory=Counter)
    unread: dict[str, str] = field(default_factory=dict)
    devices: int = 0
    finished: int = 0
    stopped: str = ""

    def count(self, record: Record, outcome: str) -> None:
        """Count an event by its outcome."""
        days = self.by_device[record.device_id]
        for counter in (self.total, self.by_type[record.event_type], self.by_day[record.day], days[record.day]):
            counter[outcome] += 1

    def close(self, device_id: str) -> None:
        """Drop the days of a device that lacks no document, so that memory does not grow with the number of devices."""
        if not any(counts[MISSING] for counts in self.by_device[device_id].values()):
            del self.by_device[device_id]

    @property
    def complete(self) -> bool:
        """Whether every requested event is in Firestore."""
        return not (self.total[FAILED] or self.total[MISSING] or self.unread or self.stopped)

    def print_tables(self) -> None:
        """Print the events by type and by day, and after a dry run the devices and days that lack documents."""
        outcomes = (ALREADY_STORED, MISSING if self.dry_run else ADDED, QUARANTINED, FAILED)
        for heading, counters in (("event type", self.by_type), ("day (UTC)", self.by_day)):
            named = [*sorted(counters.items()), ("total", self.total)]
            rows = [(name, counts.total(), *(counts[each] for each in outcomes)) for name, counts in named]
            _print_table(Table(heading), ("seen", *outcomes), rows, has_total=True)
        gaps = sorted(
            (day, device, counts.total(), counts.total() - counts[MISSING], counts[MISSING])
            for device, days in self.by_device.items()
            for day, counts in days.items()
            if counts[MISSING]
        )
        if gaps:
            _print_table(Table("day (UTC)", "device", title="Gaps"), ("history", "documents", MISSING), gaps)

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
        if self.total[MISSING] and not (interrupted or self.unread or self.stopped):
            return f"{read}, {self.total[MISSING]} missing: run the same command without --dry-run to add them."
        failed = f", {self.total[FAILED]} failed" if self.total[FAILED] else ""
        start = "Interrupted" if interrupted else "Not complete"
        return f"{start}: {read}{failed}. Run the same command again: it continues, and writes nothing twice."


def _print_table(
    table: Table, numbers: Sequence[str], rows: Sequence[Sequence[object]], *, has_total: bool = False
) -> None:
    """Fill a table and print it in its full width, unless a terminal limits it."""
    for heading in numbers:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*map(str, row), end_section=has_total and row is rows[-2:][0])
    console = Console()
    width = None if console.is_terminal else max(console.width, console.measure(table).maximum)
    console.print(table, width=width)
