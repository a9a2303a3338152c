"""What a soak breaks, and when: drawn from a seed. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

CALM = (0.2, 0.6)  # seconds between two episodes
RESTART = 3.0  # seconds
SEGMENT_MINUTES = 5.0  # of a soak with the emulator

# What is broken, and from how many to how many seconds it stays so.
KINDS: dict[str, tuple[float, float]] = {
    "kill the function before a commit": (0.0, 1.0),
    "kill the function during a commit": (0.0, 1.0),
    "kill the function after a commit": (0.0, 1.0),
    "freeze Firestore": (0.5, 3.0),
    "freeze Firestore for long": (8.5, 9.5),
    "kill Firestore": (0.5, 2.0),
    "drop connections": (0.5, 2.0),
    "delay commits": (1.0, 3.0),
    "delay commits beyond the limit": (1.0, 2.0),
    "answer ABORTED": (0.8, 2.0),
    "answer UNAVAILABLE": (0.8, 2.0),
    "answer RESOURCE_EXHAUSTED": (0.8, 2.0),
    "answer DEADLINE_EXCEEDED": (0.8, 2.0),
    "refuse single writes of a group": (0.8, 2.0),
    "commit and lose the answer": (0.8, 2.0),
}


@dataclass(frozen=True, slots=True)
class Episode:
    """A time of trouble.

    Attributes:
        kind: one of `KINDS`.
        calm: seconds before it.
        seconds: how long it lasts.
        share: of the calls that it happens to, where it happens to calls.
    """

    kind: str
    calm: float
    seconds: float
    share: float

    @property
    def length(self) -> float:
        """How long it takes in all, in seconds: what was killed starts again in about `RESTART`."""
        return self.calm + self.seconds + (RESTART if self.kind.startswith("kill") else 0.0)


def draw_plan(seed: int | str, seconds: float, kinds: Sequence[str]) -> list[Episode]:
    """Deal episodes until the time is filled: each kind once, in random order, then all over again.

    Args:
        seed: the same one gives the same plan.
        seconds: how long the episodes and the calm between them last together, at least.
        kinds: from which kinds.

    Returns:
        The episodes, in order.
    """
    rng = Random(f"plan {seed}")  # noqa: S311 - a plan, no cryptography
    plan: list[Episode] = []
    deck: list[str] = []
    while sum(episode.length for episode in plan) < seconds:
        deck = deck or rng.sample(sorted(kinds), len(kinds))
        kind = deck.pop()
        plan.append(Episode(kind, rng.uniform(*CALM), rng.uniform(*KINDS[kind]), rng.uniform(0.2, 0.9)))
    return plan
