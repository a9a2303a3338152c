"""The retry policy of a Data Connector, as a pure function of an event's age.

DT documents the numbers, not the formula. This module assumes that the pause doubles with each failure, and that a
pause which would exceed the 12 hours is shortened for one last attempt at their end.
"""

FIRST_PAUSE = 8.0  # seconds
LONGEST_PAUSE = 3600.0  # seconds
SLOWNESS_FACTOR = 4.0  # a pause is at least this many response times
ANSWER_LIMIT = 10.0  # seconds; a slower answer counts as a failure
EVENT_LIFETIME = 12 * 3600.0  # seconds from the event until it is discarded


def backoff(failures: int, response_time: float) -> float:
    """Return the pause after a failed attempt, in seconds.

    Args:
        failures: failed attempts so far, 1 or more.
        response_time: of the last attempt, in seconds.
    """
    doublings = min(failures - 1, 30)  # far beyond LONGEST_PAUSE; keeps the power small
    return max(min(FIRST_PAUSE * 2.0**doublings, LONGEST_PAUSE), SLOWNESS_FACTOR * response_time)


def pause_before_retry(
    failures: int, *, age: float, response_time: float, lifetime: float = EVENT_LIFETIME
) -> float | None:
    """Return the seconds until the next attempt; None if the event is discarded.

    Args:
        failures: failed attempts so far, 1 or more.
        age: seconds since the event.
        response_time: of the last attempt, in seconds.
        lifetime: seconds from the event until it is discarded.
    """
    remaining = lifetime - age
    if remaining < FIRST_PAUSE:
        return None
    return min(backoff(failures, response_time), remaining)
