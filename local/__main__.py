"""`./run.sh`: the whole system on one machine, from simulated sensors to documents in Firestore.

The processes of the system start before `local.run` is imported, which takes as long as they do.
"""

import importlib
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

import command_line
from local.emulator import StoreUnavailable
from local.environment import exports
from local.options import Options
from local.processes import ProcessError
from local.system import running_system

_MOST = 100_000  # sensors, and events per second
_EXAMPLES = command_line.examples(
    "./run.sh                            until Ctrl-C",
    "./run.sh --events 50                then check that all 50 are stored",
    "./run.sh --events 5000 --rate 400   faster",
    "./run.sh --serve --port 9000        no sensors: send events yourself",
    "./run.sh --store embedded --fresh --events 20",
    'eval "$(./run.sh --env)"            in another terminal: your code reads',
    "                                    the store of the system that runs",
)


@click.command(epilog=_EXAMPLES)
@click.option("--events", type=click.IntRange(1, 10**9), metavar="N", help="Stop after N events; check all are stored.")
@click.option("--serve", is_flag=True, help="Start no sensors; print how to send an event.")
@click.option("--env", is_flag=True, help="Print the variables that lead to the store of the system that runs.")
@click.option(
    "--store", type=click.Choice(["emulator", "embedded"]), help="Default: the emulator if available, else embedded."
)
@click.option("--fresh", is_flag=True, help="Delete the documents of the embedded store first.")
@click.option(
    "--port", type=command_line.PORT, metavar="P", show_default="8080, or a free one", help="Port of the function."
)
@click.option(
    "--rate",
    type=command_line.FiniteRange(0, _MOST, min_open=True),
    metavar="R",
    show_default="4; with --events 50",
    help="Events per second.",
)
@click.option(
    "--sensors", type=click.IntRange(1, _MOST), default=24, show_default=True, metavar="N", help="Number of sensors."
)
@click.option("--seed", type=int, metavar="S", help="Repeat the events of an earlier run with this seed.")
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    default=".state",
    show_default=True,
    metavar="DIR",
    help="Folder for the logs and the embedded store.",
)
def _command(**options: Any) -> int:
    """Run the whole system on this machine and show each event as it is stored.

    \b
    Exit status: 0 after Ctrl-C, and when each of --events is stored once;
    1 when not, or when a process of the system dies; 2 for a wrong argument.
    """  # noqa: D301 - click needs the backspace character
    chosen = Options(**options)
    if chosen.serve + chosen.env + (chosen.events is not None) > 1:
        raise click.UsageError("Choose one of --serve, --events and --env.")
    if chosen.env:
        print(exports(chosen.state))
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _run(chosen)
    except StoreUnavailable as error:
        raise click.UsageError(str(error)) from error
    except ProcessError as error:
        raise click.ClickException(str(error)) from error
    except BrokenPipeError:  # the reader of the output has exited, as in `./run.sh | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return command_line.INTERRUPTED


def _run(chosen: Options) -> int:
    threading.Thread(target=importlib.import_module, args=["local.run"], daemon=True).start()
    with running_system(chosen) as system:
        os.environ.update(system.environ)
        from local.run import run  # noqa: PLC0415 - see above

        return run(chosen, system)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with `argv`, by default the process's arguments, and return its exit status."""
    return command_line.run(_command, argv, name="./run.sh")


if __name__ == "__main__":
    sys.exit(main())
