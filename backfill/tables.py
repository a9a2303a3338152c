"""Prints tables, in a terminal within its width, elsewhere in their own."""

from rich.console import Console
from rich.table import Table

_WIDEST = 1000  # characters; a table takes what it needs


def print_table(table: Table) -> None:
    """Print a table to standard output."""
    console = Console(markup=False)
    if not console.is_terminal:
        console.width = _WIDEST
    console.print(table)
