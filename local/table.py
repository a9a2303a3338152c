"""Lays out the rows of the terminal view: the columns take their width from their content, within the terminal's."""

import textwrap
from collections.abc import Iterator, Mapping

from rich.cells import cell_len

from local.rows import Row

HEADER = Row("TIME", "DEVICE", "TYPE", "VALUE", "OUTCOME", "LATENCY")

_USUAL = Row("08:30:00", "Meeting room 1 motion", "objectPresentCount", "45.07 %RH, 19.03 °C", "stored", "12.5 ms")
_FLEXIBLE = {"device": 36, "type": 24, "value": 36}  # columns that give way, and their greatest width in characters
_PREFERENCE = 5  # characters by which the values may be wider than the other two
_NARROW = 72  # characters: a narrower table has one space between its columns, and no latency


class Table:
    """Makes lines of rows. A column grows when a row needs it, so that the rows stay below one another."""

    def __init__(self) -> None:
        """Start with room for usual rows."""
        self._needed = dict.fromkeys(HEADER._fields[:-1], 0)
        for row in (HEADER, _USUAL):
            self._grow(row)

    def lay_out(self, row: Row, width: int) -> tuple[dict[str, str], list[str]]:
        """Lay out a row.

        Args:
            row: the cells, and the detail that goes below them.
            width: of the terminal, in characters.

        Returns:
            The cells by column, each padded to its width with the space before the next one, and the lines below: a
            value that is too long for its column, and the detail. No line is broken inside a word.
        """
        self._grow(row)
        needed, gap = self._needed, "  "
        if width < _NARROW:
            needed, gap = {name: size for name, size in needed.items() if name != "latency"}, " "
        sizes = _fitted(needed, width - len(gap) * (len(needed) - 1))
        below = row.detail
        if cell_len(row.value) > sizes["value"]:
            row, below = row._replace(value=""), f"{row.value} {below}"
        cells = row._asdict()
        fitted = {name: _padded(_shortened(cells[name], size), size) + gap for name, size in sizes.items()}
        return fitted, list(_wrapped(below, width, sizes["time"] + len(gap)))

    def _grow(self, row: Row) -> None:
        cells = row._asdict()
        for name, size in self._needed.items():
            length, limit = cell_len(cells[name]), _FLEXIBLE.get(name)
            if name == "value" and limit and length > limit:
                continue  # it goes below the row
            self._needed[name] = max(size, min(length, limit or length))


def _fitted(needed: Mapping[str, int], width: int) -> dict[str, int]:
    """Return the widths of the columns: the widest of the flexible ones give way first."""
    sizes = dict(needed)
    while sum(sizes.values()) > width:
        widest = max(_FLEXIBLE, key=lambda name: sizes[name] - _PREFERENCE * (name == "value"))
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
