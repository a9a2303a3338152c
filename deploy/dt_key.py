"""Passes the key of a DT service account to a command, for deploy.sh.

The key is on no command line and in no shell variable. The command starts only if the key differs from standard input,
which holds the present one or nothing. Needs a Python 3.8 or newer without packages.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

_EXAMPLE = """\
example:
  python3 deploy/dt_key.py environment -- gcloud secrets versions add dt-service-account-key --data-file=- </dev/null
"""
_VARIABLES = ("DT_SERVICE_ACCOUNT_KEY_ID", "DT_SERVICE_ACCOUNT_SECRET", "DT_SERVICE_ACCOUNT_EMAIL")


def main(argv: list[str] | None = None) -> int:
    """Run the command with the key as its standard input: key id, secret and e-mail address, one a line.

    Returns:
        The exit status: that of the command, 0 if the key has not changed, 1 if there is none, 2 for a wrong argument.
    """
    parser = argparse.ArgumentParser(
        "python3 deploy/dt_key.py",
        description=__doc__,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", help="environment, or a file with the three lines")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="reads the key")
    options = parser.parse_args(argv)
    lines = _read(options.source)
    if lines is None:
        return 1
    present = [line.strip() for line in sys.stdin if line.strip()]
    if present == lines:
        return 0
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    return subprocess.run(command, input="".join(f"{line}\n" for line in lines), text=True, check=False).returncode


def _read(source: str) -> list[str] | None:
    """Return the three lines; None, after saying so, if one is missing."""
    if source == "environment":
        missing = [name for name in _VARIABLES if not os.environ.get(name, "").strip()]
        if missing:
            print(f"The repair needs the key of a DT service account: set {', '.join(missing)}.", file=sys.stderr)
            return None
        return [os.environ[name].strip() for name in _VARIABLES]
    with open(source, encoding="utf-8") as file:  # noqa: PTH123 - Python 3.8 without packages
        lines = [line.strip() for line in file if line.strip()]
    if len(lines) != len(_VARIABLES):
        print("Standard input must hold key id, secret and e-mail address, one a line.", file=sys.stderr)
        return None
    return lines


if __name__ == "__main__":
    sys.exit(main())
