"""When a Data Connector sends again: the documented policy, as a pure function of an event's age.

DT documents the numbers, not the formula. Read here as: the pause doubles with each failure, and the event is not given
up before its 12 hours are over: a pause that would outlast them ends with them, in one last attempt.
"""

FIRST_PAUSE = 8.0  # seconds
LONGEST_PAUSE = 3600.0  # seconds
SLOWNESS_FACTOR = 4.0  # a slow endpoint is left alone for so many times its response time
ANSWER_LIMIT = 10.0  # seconds; what takes longer has failed
EVENT_LIFETIME = 12 * 3600.0  # seconds from the event until it is discarded


def backoff(failures: int, response_time: float) -> float:
    """Return the pause that the policy wants after a failed attempt.

    Args:
        failures: failed attempts so far, 1 or more.
        response_time: how long the last one took, in seconds.

    Returns:
        Seconds.
    """
    doublings = min(failures - 1, 30)  # the cap is long reached, and the power stays a small number
    return max(min(FIRST_PAUSE * 2.0**doublings, LONGEST_PAUSE), SLOWNESS_FACTOR * response_time)


def pause_before_retry(failures: int, *, age: float, response_time: float) -> float | None:
    """Decide after a failed attempt whether there is another one, and when.

    Args:
        failures: failed attempts so far, 1 or more.
        age: seconds since the event, by whichever clock the caller keeps.
        response_time: how long the last attempt took, in seconds.

    Returns:
        Seconds until the next attempt; None when the event is discarded.
    """
    remaining = EVENT_LIFETIME - age
    if remaining < FIRST_PAUSE:
        return None
    return min(backoff(failures, response_time), remaining)
