"""What all command lines share: one-line errors, exit statuses, number types, settings and help with examples.

A wrong argument or setting is a `click.UsageError` (exit status 2), anything else that ends a command a
`click.ClickException` (exit status 1). `run` prints either as one line.
"""

import math
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from receiver.settings import Settings, SettingsError, read_settings

INTERRUPTED = 130  # the exit status after Ctrl-C, as of a shell: 128 + SIGINT


class FiniteRange(click.FloatRange):
    """A `click.FloatRange` without NaN and infinity."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number.

        Raises:
            click.BadParameter: it is not finite, or outside the range.
        """
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


POSITIVE = FiniteRange(min=0, min_open=True)
SHARE = FiniteRange(min=0, max=1)
COUNT = click.IntRange(min=1)
PORT = click.IntRange(min=1, max=65535)


def items(text: str) -> list[str]:
    """Read a comma-separated list; an option's `type`."""
    return [item for part in text.split(",") if (item := part.strip())]


def function_settings(environ: Mapping[str, str], options: Mapping[str, str] | None = None) -> Settings:
    """Return the function's settings.

    Args:
        environ: the values by the name of the setting.
        options: the command's options by the name of the setting, for the text of an error.

    Raises:
        click.UsageError: a setting is wrong.
    """
    try:
        return read_settings(environ)
    except SettingsError as error:
        option = (options or {}).get(re.split(r"\W", str(error))[0])
        raise click.UsageError(f"{option} or {error}" if option else str(error)) from None


def examples(*lines: str) -> str:
    """Return an epilog for `click.command` that lists example commands, one a line, unwrapped."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


def run(command: click.Command, argv: Sequence[str] | None = None, *, name: str) -> int:
    """Run a command.

    Args:
        command: returns None or its exit status.
        argv: the arguments; None takes those of the process.
        name: the command as a person types it, for example `python -m backfill`.

    Returns:
        The exit status: 2 for a wrong argument or setting, 130 after Ctrl-C, else the command's own.
    """
    try:
        status = command.main(argv, prog_name=name, standalone_mode=False)
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else name
        return _fail(f"{path}: {_one_line(error)} See {path} --help.", error.exit_code)
    except click.ClickException as error:
        return _fail(f"{name}: {_one_line(error)}", error.exit_code)
    except click.Abort:  # click's word for Ctrl-C
        return INTERRUPTED
    return int(status or 0)


def _one_line(error: click.ClickException) -> str:
    text = " ".join(error.format_message().split())
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _fail(line: str, status: int) -> int:
    print(line, file=sys.stderr)
    return status
