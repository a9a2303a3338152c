"""`python -m benchmarks`: measures all contenders in one interleaved run."""

import json
import os
import platform
import signal
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from benchmarks.contenders import CONTENDERS
from benchmarks.plot import draw
from benchmarks.report import show
from benchmarks.run import Settings, measure
from benchmarks.serving import STORES
from command_line import COUNT, FiniteRange, examples, run
from local.emulator import StoreUnavailable
from local.processes import ProcessError

_QUICK = {"stores": "instant", "concurrency": "1,16", "rounds": 1, "events": 200, "seconds": 1, "starts": 1}
_EXAMPLES = examples(
    "python -m benchmarks --quick",
    "python -m benchmarks --json bench.json --plot bench.svg",
    "python -m benchmarks --contenders ours,documented --concurrency 250",
    "python -m benchmarks --quick --contenders ours,ours_public_key",
    "python -m benchmarks --quick --contenders ours --soak-events 500000",
    "python -m benchmarks --store emulator --rounds 3 --events 1000",
)
_SOAK = "For one process of ours, which is then compared with new processes."
_SHORT = "Other defaults: store instant, concurrency 1 and 16, 1 round, 200 events, 1 s, 1 start."
_CONTENDERS = (f"  {one.name:<15} {one.description}" for one in CONTENDERS.values())
_EPILOG = "\n".join([_EXAMPLES, "", "\b", "Contenders:", *_CONTENDERS])


class _List(click.ParamType[list[Any]]):
    """Values of another type, separated by commas."""

    name = "A,B"

    def __init__(self, kind: click.ParamType[Any]) -> None:
        self._kind = kind

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> list[Any]:
        return [self._kind.convert(part.strip(), param, ctx) for part in value.split(",")]


def _use_quick_defaults(ctx: click.Context, _param: click.Parameter, quick: bool) -> None:  # noqa: FBT001 - click's call
    ctx.default_map = _QUICK if quick else None


def _check_folder(_ctx: click.Context, _param: click.Parameter, file: Path | None) -> Path | None:
    if file and not file.parent.is_dir():
        raise click.BadParameter(f"folder {str(file.parent)!r} does not exist")
    return file


_FILE: dict[str, Any] = {"type": click.Path(dir_okay=False, path_type=Path), "callback": _check_folder}


def _choices(names: Iterable[str]) -> dict[str, Any]:
    """Return the settings of an option that takes some of the names."""
    return {"type": _List(click.Choice(list(names))), "default": ",".join(names), "show_default": "all"}


@click.command(epilog=_EPILOG, context_settings={"show_default": True})
@click.option("--contenders", **_choices(CONTENDERS), help="Listed below.")
@click.option("--store", "stores", **_choices(STORES), help=f"Of {', '.join(STORES)}.")
@click.option("--concurrency", type=_List(COUNT), metavar="N,N", default="1,4,16,80,250", help="Requests at once.")
@click.option("--rounds", type=COUNT, metavar="N", default=5, help="Of all measurements, interleaved.")
@click.option("--events", type=COUNT, metavar="N", default=4000, help="At most, per measurement.")
@click.option("--seconds", type=FiniteRange(min=0.1), metavar="S", default=4, help="At most, per measurement.")
@click.option("--starts", type=COUNT, metavar="N", default=9, help="Of each contender, for the time to the first 200.")
@click.option("--soak-events", type=click.IntRange(min=0), metavar="N", default=0, help=_SOAK)
@click.option("--json", "json_file", **_FILE, help="Write the raw figures.")
@click.option("--plot", **_FILE, help="Draw throughput, latency and CPU time, as SVG.")
@click.option("--quick", is_flag=True, is_eager=True, expose_value=False, callback=_use_quick_defaults, help=_SHORT)
def _command(json_file: Path | None, plot: Path | None, **settings: Any) -> None:
    """Measure what an event costs this function and other implementations.

    Measures CPU time, throughput, latency, memory and start. A run takes about an hour with the defaults, and a
    minute with --quick.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        figures = measure(Settings(**settings))
    except StoreUnavailable as error:
        raise click.UsageError(str(error)) from error
    except ProcessError as error:
        raise click.ClickException(str(error)) from error
    show(figures, Console())
    if json_file:
        machine = {"python": platform.python_version(), "cpus": os.cpu_count(), "at": datetime.now(UTC).isoformat()}
        json_file.write_text(json.dumps({"machine": machine, "settings": settings, **figures}, indent=1) + "\n")
    if plot:
        plot.write_text(draw(figures))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run(_command, argv, name="python -m benchmarks")


if __name__ == "__main__":
    sys.exit(main())
