"""The order and length of a soak's faults, drawn from a seed. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

PAUSE = (0.2, 0.6)  # seconds between two faults
RESTART = 3.0  # seconds, approximately
SEGMENT_MINUTES = 5.0  # of a soak with the emulator

# Seconds in which the function keeps DT's keys, and after which it may fetch them again: with keys, and without.
KEYS_KEPT, KEYS_REFETCH, KEYS_RETRY = 2.0, 0.3, 0.1


@dataclass(frozen=True, slots=True)
class Episode:
    """A fault in the schedule.

    Attributes:
        kind: of the fault.
        pause: seconds before the fault.
        seconds: duration of the fault.
        share: of the calls that it applies to, if it applies to calls.
    """

    kind: str
    pause: float
    seconds: float
    share: float

    @property
    def length(self) -> float:
        """The whole duration in seconds, with the restart of a process that was killed."""
        return self.pause + self.seconds + (RESTART if self.kind.startswith("kill") else 0.0)


def draw_schedule(seed: int | str, seconds: float, kinds: Mapping[str, tuple[float, float]]) -> list[Episode]:
    """Draw episodes until the time is filled: each kind once in random order, then each once again, and so on.

    Args:
        seed: the same seed gives the same schedule.
        seconds: the minimum total length.
        kinds: the minimum and maximum duration of each kind, in seconds.
    """
    rng = Random(f"schedule {seed}")  # noqa: S311 - a schedule, no cryptography
    schedule: list[Episode] = []
    remaining: list[str] = []
    while sum(episode.length for episode in schedule) < seconds:
        remaining = remaining or rng.sample(sorted(kinds), len(kinds))
        kind = remaining.pop()
        schedule.append(Episode(kind, rng.uniform(*PAUSE), rng.uniform(*kinds[kind]), rng.uniform(0.2, 0.9)))
    return schedule
