"""Times on the command line, and the window of history between two of them."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

HISTORY = timedelta(days=31)  # what DT keeps: https://developer.disruptive-technologies.com/docs

_AGO = re.compile(r"(\d{1,6})([dhm])", re.ASCII)
_UNITS = {"d": timedelta(days=1), "h": timedelta(hours=1), "m": timedelta(minutes=1)}


def parse_time(text: str, now: datetime) -> datetime:
    """Parse a time.

    Args:
        text: a duration before now, such as "3d", "12h" or "30m"; a date, for midnight UTC; or an RFC 3339 time.
        now: the present.

    Returns:
        The time in UTC.

    Raises:
        ValueError: the text has none of these forms.
        OverflowError: the time is too far in the past.
    """
    if ago := _AGO.fullmatch(text):
        return now - int(ago[1]) * _UNITS[ago[2]]
    time = datetime.fromisoformat(text.upper())
    if re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII):
        time = time.replace(tzinfo=UTC)
    if time.tzinfo is None:
        raise ValueError("a time needs its offset, as in 2026-05-16T08:00:00Z")
    return time.astimezone(UTC)


@dataclass(frozen=True, slots=True)
class TimeWindow:
    """The history between two times, in UTC.

    Attributes:
        since: the beginning.
        until: the end.
    """

    since: datetime
    until: datetime

    @classmethod
    def parse(cls, since: str, until: str | None, now: datetime) -> "TimeWindow":
        """Parse --since and --until; the window ends now at the latest.

        Args:
            since: the beginning, as `parse_time` reads it.
            until: the end, likewise; None for now.
            now: the present.

        Raises:
            ValueError: a time cannot be parsed, or DT has no history between them.
        """
        start, end = _parse_option("--since", since, now), min(now, _parse_option("--until", until or "0m", now))
        if start >= end:
            raise ValueError("--since must be before --until, and before now")
        if end <= now - HISTORY:
            raise ValueError(f"--until is more than {HISTORY.days} days ago: DT keeps no older history")
        return cls(start, end)

    def share_after(self, time: datetime) -> float:
        """Return the share of the window that is later than a time, 0 to 1; history comes newest event first."""
        return min(max((self.until - time) / (self.until - self.since), 0.0), 1.0)


def _parse_option(option: str, text: str, now: datetime) -> datetime:
    try:
        return parse_time(text, now)
    except (ValueError, OverflowError):
        raise ValueError(f"{option} must be like 3d, 12h, 2026-05-16 or 2026-05-16T08:00:00Z, not {text!r}") from None
