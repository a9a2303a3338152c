"""Makes and compares versions of the signature secret, for deploy.sh, so that no command line or variable holds one.

`new`, `given`, `rotate` and `retire` start a command with the new value on its standard input, and only if standard
input could be read in full. `check` refuses a value that the function would refuse. `compare` reads two values with a
NUL character between them, and prints how the second one relates to the first: same, rotated (one line before those of
the first), retired (only the first of two lines), extends (has all lines of the first) or drops (lacks one). It needs a
Python 3.8 or newer without packages.
"""

from __future__ import annotations

import argparse
import secrets
import subprocess
import sys

_EXAMPLES = """\
examples:
  python3 deploy/secret.py new -- gcloud secrets versions add dt-signature-secret --data-file=-
  gcloud secrets versions access 1 --secret=dt-signature-secret | \\
    python3 deploy/secret.py rotate -- gcloud secrets versions add dt-signature-secret --data-file=-
"""


def main(argv: list[str] | None = None) -> int:
    """Make or compare values.

    Returns:
        The exit status: that of the command, 1 if standard input has no usable value, 2 for a wrong argument.
    """
    parser = argparse.ArgumentParser(
        "python3 deploy/secret.py",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "action",
        choices=("new", "given", "rotate", "retire", "check", "compare"),
        help="new: random; given: the lines of standard input; rotate: a random line before them; retire: the first",
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="reads the new value")
    options = parser.parse_args(argv)
    values = [] if options.action == "new" else [_lines(value) for value in sys.stdin.buffer.read().split(b"\0")]
    try:
        if options.action == "check":
            _check(*values)
        elif options.action == "compare":
            first, second = values
            print(_relation(first, second))
        else:
            return _run(options.command, _made(options.action, *values))
    except _SecretError as error:
        print(f"deploy.sh: {error}", file=sys.stderr)
        return 1
    return 0


class _SecretError(Exception):
    """Raised if a value can be no signature secret; the text is one line that says why, without the value."""


def _lines(value: bytes) -> list[bytes]:
    text = value.decode("utf-8", "surrogateescape").replace("\ufeff", "")
    return [line.strip().encode("utf-8", "surrogateescape") for line in text.splitlines() if line.strip()]


def _check(lines: list[bytes]) -> None:
    if not lines:
        raise _SecretError("standard input holds no secret")
    for text in (b"\n".join(lines), *lines):
        if text[:1] == text[-1:] and text[:1] in (b"'", b'"'):
            raise _SecretError("standard input must hold the secret itself, without quotes around it")


def _run(command: list[str], lines: list[bytes]) -> int:
    command = command[1:] if command[:1] == ["--"] else command
    return subprocess.run(command, input=b"".join(line + b"\n" for line in lines), check=False).returncode


def _made(action: str, *values: list[bytes]) -> list[bytes]:
    if not all(values):
        raise _SecretError("the present value of the secret is empty")
    old = [line for value in values for line in value]
    if action in ("new", "rotate"):
        return [secrets.token_hex(32).encode(), *old]
    return old[:1] if action == "retire" else old


def _relation(first: list[bytes], second: list[bytes]) -> str:
    if second == first:
        return "same"
    if second[1:] == first:
        return "rotated"
    if len(first) == 2 and second == first[:1]:  # noqa: PLR2004 - the old and the new one
        return "retired"
    return "extends" if set(first) <= set(second) else "drops"


if __name__ == "__main__":
    sys.exit(main())
