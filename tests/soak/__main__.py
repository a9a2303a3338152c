"""`python -m tests.soak`: injects faults into function and Firestore during deliveries, and checks the promises."""

import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

import command_line
from command_line import COUNT, POSITIVE, examples
from simulator import faults
from tests.soak.fault_injector import FAULTS
from tests.soak.runner import Settings, run
from tests.soak.schedule import SEGMENT_MINUTES

_NAME = "python -m tests.soak"
_TIME_FACTOR = 2000.0  # 12 hours become 22 s, and a first pause of 8 s becomes 4 ms
_KINDS = "\n".join(f"  {kind}" for kind in FAULTS)
_HELP = f"""Inject faults while events are delivered, and check that no event is lost.

Starts a Firestore, a proxy in front of it and the function. Delivers a fleet's events with the sender's faults, and
injects these kinds of faults, each once in random order, then each once again, and so on:

\b
{_KINDS}

--time-factor shortens the pauses between attempts, but not the limit of 10 s for an answer. The embedded store is
killed at any time, because it keeps its documents. The emulator loses its documents when it is killed: the soak then
runs in segments of {SEGMENT_MINUTES:g} minutes, compares what is stored at the end of each, and kills the emulator at
the start of the next.

SHARE is a share of the events, from 0 to 1, to which a fault of the sender is applied.

Exit status: 0 if the ledger is clean, 1 if a promise is broken, 2 for a wrong argument.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a soak and print its ledger.

    Args:
        argv: the arguments; None takes those of the process.

    Returns:
        The exit status: 0 if every promise held, 1 if not, 2 for a wrong argument, 130 interrupted.
    """
    return command_line.run(_soak, argv, name=_NAME)


@click.command(
    help=_HELP,
    epilog=examples(
        f"{_NAME} --minutes 0.05 --store embedded --only 'answer ABORTED'",
        f"{_NAME} --minutes 20 --seed 7 --json ledger.json",
    ),
)
@click.option("--minutes", metavar="N", type=POSITIVE, default=1.0, show_default=True, help="How long to make events.")
@click.option("--seed", metavar="S", type=int, help="Repeat the schedule of this seed. Default: a new schedule.")
@click.option(
    "--store",
    type=click.Choice(["emulator", "embedded"]),
    help="Firestore to use. Default: the emulator if available, else the embedded store.",
)
@click.option("--json", metavar="FILE", type=click.Path(path_type=Path), help="Also write the ledger to FILE.")
@click.option("--rate", metavar="N", type=POSITIVE, default=30.0, show_default=True, help="Events a second.")
@click.option("--sensors", metavar="N", type=COUNT, default=200, show_default=True, help="Size of the fleet.")
@click.option("--devices", is_flag=True, help="Keep the newest state of each device too, and check it.")
@click.option(
    "--time-factor",
    metavar="F",
    type=POSITIVE,
    default=_TIME_FACTOR,
    show_default=True,
    help="Divide the retry pauses by F.",
)
@click.option(
    "--only", metavar="KIND", type=click.Choice(list(FAULTS)), multiple=True, help="Inject only KIND; repeatable."
)
@faults.options(soak=True)
def _soak(*, seed: int | None, **options: Any) -> int:
    return run(Settings(seed=secrets.randbelow(10**6) if seed is None else seed, **options))


if __name__ == "__main__":
    sys.exit(main())
