"""Times on the command line, and the window of history between two of them."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

HISTORY = timedelta(days=31)  # what DT keeps: https://developer.disruptive-technologies.com/docs
MARGIN = timedelta(minutes=1)  # by which `--since 31d` stays within it: the request reaches DT a little later

_EVER = datetime.min.replace(tzinfo=UTC)
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
        beyond_history: whether it begins before the history that DT documents. DT is asked for it nevertheless.
    """

    since: datetime
    until: datetime
    beyond_history: bool = False

    @classmethod
    def parse(cls, since: str, until: str | None, now: datetime) -> "TimeWindow":
        """Parse --since and --until; the window ends now at the latest.

        Args:
            since: the beginning, as `parse_time` reads it.
            until: the end, likewise; None for now.
            now: the present.

        Raises:
            ValueError: a time cannot be parsed, or the window is empty.
        """
        start, end = parse_option("--since", since, now), min(now, parse_option("--until", until or "0m", now))
        if now - HISTORY <= start < now - HISTORY + MARGIN:
            start = now - HISTORY + MARGIN
        if start >= end:
            raise ValueError("--since must be before --until, and before now")
        return cls(start, end, beyond_history=start < now - HISTORY)

    def share_after(self, time: datetime) -> float:
        """Return the share of the window that is later than a time, 0 to 1; history comes newest event first."""
        return min(max((self.until - time) / (self.until - self.since), 0.0), 1.0)


def expired_before(retention_days: int | None, now: datetime) -> datetime:
    """Return the time before which the documents of events may have expired; the first time if they never expire."""
    if retention_days is None or timedelta(days=retention_days) > now - _EVER:
        return _EVER
    return now - timedelta(days=retention_days)


def parse_option(option: str, text: str, now: datetime) -> datetime:
    """Parse the time that an option names, as `parse_time` reads it.

    Raises:
        ValueError: it names none; the text names the option.
    """
    try:
        return parse_time(text, now)
    except (ValueError, OverflowError):
        raise ValueError(f"{option} must be like 3d, 12h, 2026-05-16 or 2026-05-16T08:00:00Z, not {text!r}") from None
