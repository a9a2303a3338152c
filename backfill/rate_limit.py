"""The rate of writes that Firestore recommends.

See https://firebase.google.com/docs/firestore/best-practices#ramping_up_traffic.
"""

import asyncio
import time
from collections.abc import Callable
from math import inf

FIRST_RATE = 500.0  # writes a second
GROWTH, GROWTH_SECONDS = 1.5, 300.0


class RateLimit:
    """Admits 500 writes a second at first, and half as many again every five minutes."""

    def __init__(self, maximum: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """Start the ramp.

        Args:
            maximum: writes a second that are never exceeded; None for no limit but the ramp.
            clock: returns seconds.
        """
        self._maximum = inf if maximum is None else maximum
        self._clock = clock
        self._start = self._next = clock()

    @property
    def rate(self) -> float:
        """Writes a second that are admitted at present."""
        steps = (self._clock() - self._start) // GROWTH_SECONDS
        ramp: float = FIRST_RATE * GROWTH ** min(steps, 100)
        return min(self._maximum, ramp)

    async def wait(self) -> None:
        """Wait until a write is admitted; time without writes earns no burst."""
        now = self._clock()
        admitted = max(self._next, now)
        self._next = admitted + 1 / self.rate
        if admitted > now:
            await asyncio.sleep(admitted - now)
