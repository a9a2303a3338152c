"""Moments as a person writes them, and the window of history between two of them."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from backfill.problem import Problem

HISTORY = timedelta(days=31)  # what DT keeps: https://developer.disruptive-technologies.com/docs

_AGO = re.compile(r"(\d{1,6})([dhm])", re.ASCII)
_UNITS = {"d": timedelta(days=1), "h": timedelta(hours=1), "m": timedelta(minutes=1)}


def parse_moment(text: str, now: datetime) -> datetime:
    """Read a moment.

    Args:
        text: so long ago, as "3d", "12h" or "30m"; a date, which begins at midnight UTC; or an RFC 3339 time.
        now: what "ago" counts from.

    Returns:
        The moment in UTC.

    Raises:
        ValueError: it is none of these.
    """
    if ago := _AGO.fullmatch(text):
        return now - int(ago[1]) * _UNITS[ago[2]]
    moment = datetime.fromisoformat(text.upper())
    if re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII):
        moment = moment.replace(tzinfo=UTC)
    if moment.tzinfo is None:
        raise ValueError("a time needs its offset, as in 2026-05-16T08:00:00Z")
    return moment.astimezone(UTC)


@dataclass(frozen=True, slots=True)
class Window:
    """The history between two moments.

    Attributes:
        since: its beginning.
        until: its end.
    """

    since: datetime
    until: datetime

    def part_done(self, moment: datetime) -> float:
        """Return which part of the window, 0 to 1, lies after the moment; history comes newest first."""
        return min(max((self.until - moment) / (self.until - self.since), 0.0), 1.0)


def window(since: str, until: str | None, now: datetime) -> Window:
    """Read a window, and end it at present.

    Args:
        since: its beginning, as `parse_moment` reads it.
        until: its end, likewise; None is now.
        now: the present.

    Returns:
        The window.

    Raises:
        Problem: one of them is no moment, or there is no history between them.
    """
    start, end = _moment("--since", since, now), min(now, _moment("--until", until or "0m", now))
    if start >= end:
        raise Problem("--since must lie before --until, and before now")
    if end <= now - HISTORY:
        raise Problem(f"--until lies more than {HISTORY.days} days back: DT has no history of then")
    return Window(start, end)


def _moment(option: str, text: str, now: datetime) -> datetime:
    try:
        return parse_moment(text, now)
    except (ValueError, OverflowError):
        raise Problem(f"{option} must be like 3d, 12h, 2026-05-16 or 2026-05-16T08:00:00Z, not {text!r}") from None
