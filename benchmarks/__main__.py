"""`python -m benchmarks`: every contender in one interleaved run."""

import argparse
import json
import os
import platform
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from benchmarks.contenders import CONTENDERS
from benchmarks.plot import draw
from benchmarks.report import show
from benchmarks.run import STORES, Failed, Plan, measure
from local.emulator import StoreUnavailable
from local.processes import PartError
from simulator.arguments import Parser

_FULL = {
    "store": list(STORES),
    "concurrency": [1, 16, 80, 250],
    "rounds": 5,
    "events": 4000,
    "seconds": 5.0,
    "starts": 9,
}
_QUICK = {"store": ["instant"], "concurrency": [1, 16], "rounds": 1, "events": 200, "seconds": 1.0, "starts": 1}
_WIDE = 180  # columns, where the terminal does not say how many it has
_EXAMPLES = """
examples:
  python -m benchmarks --quick                       a look, in half a minute
  python -m benchmarks --json bench.json --plot bench.svg
  python -m benchmarks --store 20ms --concurrency 250 --contenders ours,documented,documented_250
  python -m benchmarks --quick --contenders ours --rounds 5 --soak-events 500000
  python -m benchmarks --store emulator --rounds 3 --events 1000

contenders:
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and show the figures.

    Args:
        argv: the arguments; None takes those of the process.

    Returns:
        The exit status: 0, 1 when a contender failed, 2 for what cannot be had.
    """
    arguments = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        figures = _measured(_plan(arguments))
    except StoreUnavailable as error:
        print(error, file=sys.stderr)
        return 2
    except (Failed, PartError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    console = Console()
    show(figures, console if console.is_terminal else Console(width=_WIDE))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    if arguments.plot:
        arguments.plot.write_text(draw(figures))
    return 0


def _measured(plan: Plan) -> dict[str, Any]:
    machine = {"python": platform.python_version(), "cpus": os.cpu_count(), "at": datetime.now(UTC).isoformat()}
    console = Console(stderr=True)
    with Progress(console=console) as progress:
        task = progress.add_task("", total=plan.steps)

        def say(what: str) -> None:
            progress.update(task, description=what, advance=1)
            if not console.is_terminal:
                print(what, file=sys.stderr, flush=True)

        figures = measure(plan, say)
    return {"machine": machine, "plan": asdict(plan), **figures}


def _plan(arguments: argparse.Namespace) -> Plan:
    defaults = _QUICK if arguments.quick else _FULL
    chosen: dict[str, Any] = {
        name: default if (own := getattr(arguments, name)) is None else own for name, default in defaults.items()
    }
    stores = chosen.pop("store")
    return Plan(_contenders(arguments.contenders), stores=stores, soak_events=arguments.soak_events, **chosen)


def _contenders(named: Sequence[str] | None) -> list[str]:
    for name in (missing := [name for name in named or CONTENDERS if CONTENDERS[name].missing]):
        print(f"{name} is left out: it needs pip install {CONTENDERS[name].missing}", file=sys.stderr)
    return [name for name in named or CONTENDERS if name not in missing]


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m benchmarks",
        description="Measure this function, and others beside it: CPU per event, throughput, latency, memory, start.",
        epilog=_EXAMPLES + "\n".join(f"  {one.name:<15} {one.says}" for one in CONTENDERS.values()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, count = parser.add_argument, _number(int, 1)
    add("--contenders", type=_list(_one_of(CONTENDERS)), metavar="A,B", help="who takes part; default: all")
    add("--store", type=_list(_one_of(STORES)), metavar="A,B", help=f"of {', '.join(STORES)}; default: all")
    add("--concurrency", type=_list(count), metavar="N,N", help="requests at once; default: 1,16,80,250")
    add("--rounds", type=count, metavar="N", help="default: 5")
    add("--events", type=count, metavar="N", help="a measurement, at most; default: 4000")
    add("--seconds", type=_number(float, 0.1), metavar="S", help="a measurement, at most; default: 5")
    add("--starts", type=count, metavar="N", help="of each contender, for the first 200; default: 9")
    add(
        "--soak-events",
        type=_number(int, 0),
        default=0,
        metavar="N",
        help="through one process of ours, which is then set beside fresh ones; default: 0",
    )
    add("--json", type=_file, metavar="FILE", help="write the raw figures")
    add("--plot", type=_file, metavar="FILE.svg", help="draw throughput, p50 and p99 against concurrency")
    add("--quick", action="store_true", help="little of all: store instant, 1 and 16 at once, one round, 200 events")
    return parser


def _list(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    return lambda text: [kind(part.strip()) for part in text.split(",")]


def _one_of(names: Sequence[str] | dict[str, Any]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(names)}")
        return text

    return parse


def _number(kind: Callable[[str], float], least: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            number = kind(text)
        except ValueError:
            number = least - 1
        if not least <= number < float("inf"):
            raise argparse.ArgumentTypeError(f"must be a number of {least:g} or more")
        return number

    return parse


def _file(text: str) -> Path:
    file = Path(text)
    if not file.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {file.parent}")
    return file


if __name__ == "__main__":
    sys.exit(main())
