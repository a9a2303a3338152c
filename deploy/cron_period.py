"""Prints the longest pause between two starts of a cron schedule, in seconds, for deploy.sh.

Needs a Python 3.8 or newer without packages.
"""

from __future__ import annotations

import argparse
import datetime as dt
import sys

_EXAMPLE = """\
example:
  python3 deploy/cron_period.py '17 */6 * * *'
"""
_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))  # minute, hour, day of the month, month, day of the week
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_NAMES = {name: number for first, names in ((0, _WEEKDAYS), (1, _MONTHS)) for number, name in enumerate(names, first)}
_DAYS = 5 * 366  # a 29th of February among them


def main(argv: list[str] | None = None) -> int:
    """Print the pause.

    Returns:
        The exit status: 0, or 2 for a schedule that is not valid, or that starts less than twice in five years.
    """
    parser = argparse.ArgumentParser(
        "python3 deploy/cron_period.py",
        description=__doc__,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("schedule", help="minute, hour, day of the month, month and day of the week")
    schedule = parser.parse_args(argv).schedule
    try:
        starts = _starts(schedule)
    except ValueError:
        starts = []
    if len(starts) <= 1:
        parser.error(f"{schedule!r} is no schedule that starts again and again")
    print(max((starts[number] - starts[number - 1]) * 60 for number in range(1, len(starts))))
    return 0


def _starts(schedule: str) -> list[int]:
    """Return the starts in minutes after a day."""
    minutes, hours, days, months, weekdays = (
        _values(text, *limits)
        for text, limits in zip(schedule.split(), _RANGES)  # noqa: B905 - Python 3.8
    )
    any_day = "*" in schedule.split()[2][:1] or "*" in schedule.split()[4][:1]
    first = dt.date(2028, 1, 1)
    starts = []
    for number in range(_DAYS):
        day = first + dt.timedelta(days=number)
        matches = day.day in days, bool({day.isoweekday(), day.isoweekday() % 7} & weekdays)
        # When both fields are restricted, a day that matches one of them counts.
        if day.month in months and (all(matches) if any_day else any(matches)):
            starts += [number * 1440 + hour * 60 + minute for hour in sorted(hours) for minute in sorted(minutes)]
    return starts


def _values(text: str, least: int, most: int) -> set[int]:
    values: set[int] = set()
    for part in text.lower().split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        low = least if first == "*" else _number(first)
        high = _number(last) if last else most if first == "*" or step else low
        if not least <= low <= high <= most:
            raise ValueError(text)
        values |= set(range(low, high + 1, int(step or 1)))
    return values


def _number(text: str) -> int:
    return _NAMES[text] if text in _NAMES else int(text)


if __name__ == "__main__":
    sys.exit(main())
