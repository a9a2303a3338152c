"""The command line's manners: an error is one line that says what to do, a number refused says what is allowed."""

import argparse
from math import isfinite
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """Refuses in one line, with status 2, where argparse would print its usage."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and end."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def positive(text: str) -> float:
    """Read a number above 0.

    Args:
        text: as written.

    Returns:
        The number, finite.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    number = _number(text)
    if not (isfinite(number) and number > 0):
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {text!r}")
    return number


def share(text: str) -> float:
    """Read a share of a whole.

    Args:
        text: as written.

    Returns:
        A number from 0 to 1.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    number = _number(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"must be a share from 0 to 1, not {text!r}")
    return number


def whole(text: str) -> int:
    """Read a whole number above 0.

    Args:
        text: as written.

    Returns:
        The number.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, not {text!r}")
    return int(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
