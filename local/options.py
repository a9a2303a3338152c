"""The options of ./run.sh."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["emulator", "embedded"]


@dataclass(frozen=True, slots=True)
class Options:
    """What the user chose; None where nothing was chosen. `rate` is in events per second."""

    events: int | None
    serve: bool
    env: bool
    store: Kind | None
    fresh: bool
    port: int | None
    rate: float | None
    sensors: int
    seed: int | None
    state: Path
