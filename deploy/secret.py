"""Makes a new version of the signature secret, for deploy.sh: no secret is on a command line or in a shell's variable.

The old value is standard input; the new value becomes the standard input of a command, which starts only if the old
value could be read in full. It needs a Python 3.8 or newer without packages.
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
    """Run the command with the new value.

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
        "value",
        choices=("new", "given", "rotate", "retire"),
        help="new: random; given: the lines of standard input; rotate: a random line before them; retire: the first",
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="reads the new value")
    options = parser.parse_args(argv)
    old = [] if options.value == "new" else [line.strip() for line in sys.stdin if line.strip()]
    if options.value != "new" and not old:
        print("deploy.sh: standard input holds no secret", file=sys.stderr)
        return 1
    lines = _lines(options.value, old)
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    return subprocess.run(command, input="".join(f"{line}\n" for line in lines), text=True, check=False).returncode  # noqa: S603 - deploy.sh's own command


def _lines(value: str, old: list[str]) -> list[str]:
    if value in ("new", "rotate"):
        return [secrets.token_hex(32), *old]
    return old[:1] if value == "retire" else old


if __name__ == "__main__":
    sys.exit(main())
