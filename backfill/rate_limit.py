"""How fast Firestore may be asked to write: https://firebase.google.com/docs/firestore/best-practices#ramping_up_traffic."""

import asyncio
import time
from collections.abc import Callable
from math import inf

FIRST_RATE = 500.0  # writes a second
GROWTH, GROWTH_SECONDS = 1.5, 300.0


class Pace:
    """Hands out turns at a steady rate: 500 a second, half as many again every five minutes."""

    def __init__(self, most: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin now.

        Args:
            most: turns a second that are never exceeded; None leaves it to the ramp.
            clock: returns seconds.
        """
        self._most = inf if most is None else most
        self._clock = clock
        self._began = self._next = clock()

    @property
    def rate(self) -> float:
        """Turns a second at present."""
        steps = (self._clock() - self._began) // GROWTH_SECONDS
        ramp: float = FIRST_RATE * GROWTH ** min(steps, 100)
        return min(self._most, ramp)

    async def turn(self) -> None:
        """Wait for a turn; what was not used is not made up for."""
        now = self._clock()
        mine = max(self._next, now)
        self._next = mine + 1 / self.rate
        if mine > now:
            await asyncio.sleep(mine - now)
