"""`python -m tests.soak`: breaks the function and its Firestore while events are delivered, and checks the promises."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from simulator import faults
from simulator.arguments import Parser, positive, whole
from simulator.commands import Problem
from tests.soak.runner import run
from tests.soak.schedule import KINDS, SEGMENT_MINUTES

_SOAK_TIME_FACTOR = 2000.0  # 12 hours are 22 s, and a first pause of 8 s is 4 ms
_EXAMPLES = """\
examples:
  python -m tests.soak --minutes 0.05 --store embedded --only 'answer ABORTED' --time-factor 20000
  python -m tests.soak --minutes 20 --seed 7 --json ledger.json
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a soak and print its ledger.

    Args:
        argv: the arguments; None takes those of the process.

    Returns:
        0 if every promise held, 1 if not, 2 for a wrong argument.
    """
    parser = Parser(prog="python -m tests.soak", epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    _configure(parser)
    try:
        return run(parser.parse_args(argv))
    except Problem as problem:
        print(f"{parser.prog}: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _configure(parser: argparse.ArgumentParser) -> None:
    kinds = "\n  ".join(KINDS)
    parser.description = f"""Break function and Firestore while events are delivered, and prove that nothing is lost.

Starts a Firestore, a proxy before it and the function, delivers a fleet's events with every fault on, and breaks the
parts all through, each kind once, in random order, then all over again:
  {kinds}

Each attempt's pause is shortened by --time-factor; the answer limit of 10 s is not. The embedded stand-in is killed at
any time: its file survives. The emulator loses its documents when it is killed: with it a soak lives in segments of
{SEGMENT_MINUTES:g} minutes, each of which ends with its ledger settled, and begins with the emulator killed.

Exit status 0 only when the ledger is clean, 1 when a promise is broken, 2 for a wrong argument."""
    parser.add_argument("--minutes", metavar="N", type=positive, default=1.0, help="of making events; default: 1")
    parser.add_argument("--seed", metavar="S", type=int, help="the same plan of faults again; default: a new one")
    parser.add_argument(
        "--store", choices=("emulator", "embedded"), help="default: the emulator, else the embedded stand-in"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the ledger there, too")
    parser.add_argument(
        "--rate", metavar="PER_SECOND", type=positive, default=30.0, help="events a second; default: 30"
    )
    parser.add_argument("--sensors", metavar="N", type=whole, default=200, help="the size of the fleet; default: 200")
    parser.add_argument(
        "--time-factor", metavar="F", type=positive, default=_SOAK_TIME_FACTOR, help=f"default: {_SOAK_TIME_FACTOR:g}"
    )
    parser.add_argument(
        "--only", metavar="KIND", choices=tuple(KINDS), action="append", help="break only this; may be repeated"
    )
    faults.configure(parser, soak=True)


if __name__ == "__main__":
    sys.exit(main())
