"""Lays out the rows of the terminal view: the columns take their width from their content, within the terminal's."""

import textwrap
from collections.abc import Iterator, Sequence

from rich.cells import cell_len

from local.rows import Row

HEADER = Row("TIME", "DEVICE", "TYPE", "VALUE", "OUTCOME", "LATENCY")

_USUAL = Row("08:30:00", "Cloud Connector 1", "connectionStatus", "45.07 %RH, 19.03 °C", "stored", "12.5 ms")
_WIDEST = {"device": 36, "type": 24, "value": 36}  # characters
_VALUE, _PREFERENCE = 3, 5  # the column of values, and by how many characters it may be wider than the others
_NARROW = 72  # characters: below, one space parts the columns, not two


class Table:
    """Makes lines of rows. A column grows when a row needs it, so that the rows stay below one another."""

    def __init__(self) -> None:
        """Start with room for usual rows."""
        self._needed = [max(map(cell_len, cells)) for cells in zip(HEADER[:6], _USUAL[:6], strict=True)]

    def lay_out(self, row: Row, width: int) -> tuple[list[str], list[str]]:
        """Lay out a row.

        Args:
            row: the cells, and the detail that goes below them.
            width: of the terminal, in characters.

        Returns:
            The cells, each padded to its column with the space before the next one, and the lines below: the detail,
            and a value that is too long for its column. No line is broken inside a word.
        """
        gap = " " if width < _NARROW else "  "
        for index, (name, cell) in enumerate(zip(Row._fields, row[:6], strict=False)):
            self._needed[index] = max(self._needed[index], min(cell_len(cell), _WIDEST.get(name, width)))
        sizes = _fitted(self._needed, width - len(gap) * 5)
        below = row.detail
        if cell_len(row.value) > sizes[_VALUE]:
            row, below = row._replace(value=""), " ".join(filter(None, (row.value, below)))
        cells = [_padded(_shortened(cell, size), size) + gap for cell, size in zip(row[:6], sizes, strict=True)]
        return cells, list(_wrapped(below, width, sizes[0] + len(gap)))


def _fitted(needed: Sequence[int], width: int) -> list[int]:
    """Return the widths of the columns: those of device, type and, later, value give way, the widest of them first."""
    sizes = list(needed)
    while sum(sizes) > width:
        widest = max((1, 2, 3), key=lambda index: sizes[index] - _PREFERENCE * (index == _VALUE))
        if sizes[widest] <= 1:
            break
        sizes[widest] -= 1
    return sizes


def _shortened(text: str, size: int) -> str:
    """Shorten a text in the middle, since names often differ at their ends."""
    if cell_len(text) <= size:
        return text
    head, tail = text, text
    while cell_len(head) > size // 2:
        head = head[:-1]
    while cell_len(tail) > (size - 1) // 2:
        tail = tail[1:]
    return f"{head}…{tail}"


def _padded(text: str, size: int) -> str:
    return text + " " * (size - cell_len(text))


def _wrapped(text: str, width: int, indent: int) -> Iterator[str]:
    room = max(width - indent, 1)
    for line in textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False):
        yield " " * indent + _shortened(line, room)
