"""The command line: which sub-commands there are, and the settings that they share."""

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jwt

from simulator import commands
from simulator.arguments import Parser
from simulator.commands import Problem

_DESCRIPTION = """\
The sender's side: signs events and delivers them as DT Cloud's Data Connector does.

DT_SIGNATURE_SECRET, or --secret-file, holds the signature secret; of several, one a line, the first one signs.
DT_ENDPOINT_URL, or --url, is where events go.
"""


@dataclass(frozen=True, slots=True)
class _Command:
    name: str
    summary: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    examples: tuple[str, ...]
    delivers: bool = False


_COMMANDS = (
    _Command(
        "send",
        "deliver one event of a type",
        commands.configure_send,
        commands.send,
        (
            "python -m simulator send temperature --value 21.5",
            "python -m simulator send contact --value OPEN --device c5h2mtm0f2pl1hvqvmo0 --label name=Door",
            "python -m simulator send humidity --value 21.5,40 --retry",
        ),
        delivers=True,
    ),
    _Command(
        "play",
        "deliver a fleet's events, for a time, a count, or until Ctrl-C",
        commands.configure_play,
        commands.play,
        (
            "python -m simulator play --events 20 --rate 20",
            "python -m simulator play --minutes 0.05 --rate 10 --sensors 100 --seed 7",
            "python -m simulator play --events 20 --rate 20 --duplicates-later 0.2 --tampered-bodies 0.1 --backfill 50",
        ),
        delivers=True,
    ),
    _Command(
        "sign",
        "print the signature for a body on standard input",
        commands.configure_sign,
        commands.sign,
        ("echo '{}' | python -m simulator sign",),
    ),
    _Command(
        "verify",
        "verify a signature for a body on standard input, as the function does",
        commands.configure_verify,
        commands.verify,
        ("""echo '{}' | python -m simulator verify --token "$(echo '{}' | python -m simulator sign)\"""",),
    ),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a sub-command.

    Args:
        argv: the arguments; None takes those of the process.

    Returns:
        The exit status: 0 done, 1 not delivered or not verified, 2 a wrong argument or setting, 130 interrupted.
    """
    # How long the secret is was decided when the connector was made; DT Cloud takes a short one too.
    warnings.filterwarnings("ignore", category=jwt.InsecureKeyLengthWarning)
    arguments = _parser().parse_args(argv)
    try:
        arguments.secrets = _secrets(arguments.secret_file)
        status: int = arguments.run(arguments)
    except Problem as problem:
        print(f"{arguments.prog}: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    layout = argparse.RawDescriptionHelpFormatter
    parser = Parser(
        prog="python -m simulator",
        description=_DESCRIPTION,
        epilog=_examples([command.examples[0] for command in _COMMANDS]),
        formatter_class=layout,
    )
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in _COMMANDS:
        sub = subparsers.add_parser(
            command.name,
            help=command.summary,
            description=f"{command.summary[0].upper()}{command.summary[1:]}.",
            epilog=_examples(command.examples),
            formatter_class=layout,
        )
        command.configure(sub)
        _add_common(sub, delivers=command.delivers)
        sub.set_defaults(run=command.run, prog=sub.prog)
    return parser


def _add_common(parser: argparse.ArgumentParser, *, delivers: bool) -> None:
    parser.add_argument(
        "--secret-file", type=Path, metavar="FILE", help="holds the signature secret; default: $DT_SIGNATURE_SECRET"
    )
    if delivers:
        default = os.environ.get("DT_ENDPOINT_URL") or "http://127.0.0.1:8080/"
        parser.add_argument(
            "--url", default=default, help="the endpoint; default: $DT_ENDPOINT_URL, else port 8080 here"
        )


def _examples(lines: Sequence[str]) -> str:
    return "\n".join(["examples:", *(f"  {line}" for line in lines)])


def _secrets(file: Path | None) -> list[str]:
    try:
        text = os.environ.get("DT_SIGNATURE_SECRET", "") if file is None else file.read_text("utf-8", "surrogateescape")
    except OSError as error:
        raise Problem(f"--secret-file {file}: {error.strerror}") from None
    secrets = [line.strip() for line in text.splitlines() if line.strip()]
    if not secrets:
        raise Problem("no signature secret: set DT_SIGNATURE_SECRET, or name a --secret-file that holds it")
    return secrets
