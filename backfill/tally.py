"""What became of each event, by type and by day."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

THERE, ADDED, QUARANTINED, FAILED = "already there", "added", "quarantined", "failed"
MISSING = "missing"  # in place of "added", where nothing is written


@dataclass(frozen=True, slots=True)
class Record:
    """An event of DT's history.

    Attributes:
        body: as a Data Connector would have posted it.
        device_id: whose history it is from.
        event_type: as it says itself.
        at: its timestamp; None when it has none.
    """

    body: bytes
    device_id: str
    event_type: str
    at: datetime | None

    @property
    def day(self) -> str:
        """Its day in UTC."""
        return "no time" if self.at is None else f"{self.at:%Y-%m-%d}"


def event_type(event: Any) -> str:
    """Return the event's type, in a length that a table can show."""
    found = event.get("eventType") if isinstance(event, dict) else None
    return found[:40] if isinstance(found, str) and found.isprintable() else "no type"


def timestamp(event: Any) -> datetime | None:
    """Return the event's timestamp in UTC."""
    try:
        return datetime.fromisoformat(event["timestamp"].upper()).astimezone(UTC)
    except (TypeError, KeyError, AttributeError, ValueError, OverflowError):
        return None


@dataclass
class Tally:
    """The sums of a run.

    Attributes:
        outcomes: the possible outcomes, in the order of the table's columns.
        total: events by outcome.
        by_type: events by type, then outcome.
        by_day: events by day, then outcome.
        gaps: events by device and day, then outcome, for each device still under way and each with a gap.
        reasons: how often which reason kept an event from being settled.
        unread: why a device's history could not be read to its end.
        devices: how many devices there are.
        finished: how many of them were read to their end.
        stopped: why the run ended before its end; empty when it did not.
    """

    outcomes: Sequence[str]
    total: Counter[str] = field(default_factory=Counter)
    by_type: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    by_day: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    gaps: defaultdict[str, defaultdict[str, Counter[str]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(Counter))
    )
    reasons: Counter[str] = field(default_factory=Counter)
    unread: dict[str, str] = field(default_factory=dict)
    devices: int = 0
    finished: int = 0
    stopped: str = ""

    def count(self, record: Record, outcome: str) -> None:
        """Count an event whose outcome is known."""
        for counter in (
            self.total,
            self.by_type[record.event_type],
            self.by_day[record.day],
            self.gaps[record.device_id][record.day],
        ):
            counter[outcome] += 1

    def close(self, device_id: str) -> None:
        """Forget the days of a device without a gap, so that memory does not grow with the number of devices."""
        if not any(days[MISSING] for days in self.gaps[device_id].values()):
            del self.gaps[device_id]

    @property
    def complete(self) -> bool:
        """Whether all that was asked for is in Firestore."""
        return not (self.total[FAILED] or self.total[MISSING] or self.unread or self.stopped)
