"""Shows each request as a row: the outcome from the function's log, the event from Firestore."""

import asyncio
import json
import time
from collections import Counter, deque
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.constrain import Constrain
from rich.live import Live
from rich.text import Text

from local.reader import Reader, batches
from local.rows import ACKNOWLEDGED, Row, make_row
from local.table import HEADER, Table

_POLL = 0.1  # seconds
_FEWEST = 5  # lines from one header to the next, however low the terminal is
_PLAIN_WIDTH = 120  # characters, if the output is not a terminal
_LATENCIES_KEPT = 10_000


class View:
    """Prints a row per request, coloured in a terminal, and counts the requests by outcome."""

    def __init__(self, console: Console, log: Path, reader: Reader) -> None:
        """Start at the beginning of the log."""
        self.outcomes: Counter[str] = Counter()
        self._console, self._log, self._reader = console, log, reader
        self._position = 0  # in the log: the first byte that is not shown yet
        self._latencies: deque[float] = deque(maxlen=_LATENCIES_KEPT)
        self._started = time.monotonic()
        self._table = Table()
        self._lines = 0  # since the header

    def live(self) -> AbstractContextManager[Any]:
        """Print the header; return a context in which a terminal shows the totals below the rows."""
        self._print_header()
        if not self._console.is_terminal:
            return nullcontext()
        return Live(get_renderable=self._live_totals, console=self._console, refresh_per_second=4, transient=True)

    def _live_totals(self) -> Constrain:
        return Constrain(self.totals(), self._console.width - len("^C "))  # which a terminal shows behind it

    async def follow(self) -> None:
        """Show new lines of the log until cancelled."""
        while True:
            await self.catch_up()
            await asyncio.sleep(_POLL)

    async def catch_up(self) -> None:
        """Show the new lines of the log; after a cancellation, the next call continues where this one stopped."""
        with self._log.open("rb") as log:
            log.seek(self._position)
            texts = [text for text in log if text.endswith(b"\n")]
        for batch in batches(texts):
            await self._show([line for text in batch if (line := _request(text))])
            self._position += sum(map(len, batch))

    async def _show(self, lines: list[dict[str, Any]]) -> None:
        documents = await self._reader.read({line["eventId"] for line in lines if line["outcome"] in ACKNOWLEDGED})
        now = datetime.now().astimezone()
        for line in lines:
            stored = documents.get(line["eventId"]) if line["outcome"] in ACKNOWLEDGED else None
            row = make_row(line, stored, now)
            self.outcomes[row.outcome] += 1
            if stored:
                self._latencies.append(line["latencyMs"])
            self._print(row, {"stored": "green", "already_stored": "yellow"}.get(row.outcome, "red"))

    def _print_header(self) -> None:
        self._lines = 0
        self._print(HEADER, "bold")

    def _print(self, row: Row, style: str) -> None:
        if self._console.is_terminal and self._lines >= max(self._console.height - 2, _FEWEST):
            self._print_header()
        width = self._console.width if self._console.is_terminal else _PLAIN_WIDTH
        cells, below = self._table.lay_out(row, width)
        text = Text()
        for name, cell in cells.items():
            text.append(cell, style if name == "outcome" or row is HEADER else "")
        text.rstrip()
        for line in (text, *map(Text, below)):
            self._console.print(line, soft_wrap=True)
            self._lines += 1

    def print_totals(self) -> None:
        """Print the totals, on a terminal in lines that fit."""
        if self._console.is_terminal:
            self._console.print(self.totals())
        else:
            print(self.totals().plain, flush=True)

    def totals(self) -> Text:
        """Return the totals as one line."""
        number = self.outcomes.total()
        words = [f"{number} request{'s' if number != 1 else ''} in {time.monotonic() - self._started:.1f} s"]
        words += [f"{number} {outcome}" for outcome, number in self.outcomes.most_common()]
        if self._latencies:
            ordered = sorted(self._latencies)
            middle, high = ordered[len(ordered) // 2], ordered[len(ordered) * 95 // 100]
            words.append(f"latency median {middle:g} ms, 95th percentile {high:g} ms")
        # Rows are printed without wrapping, and rich prints what is below them in the same way unless told otherwise.
        return Text(", ".join(words), style="bold", no_wrap=False, overflow="fold")


def _request(text: bytes) -> dict[str, Any] | None:
    """Parse a line of the log; return None if it is not about a request, such as the server's own messages."""
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) and "outcome" in line else None
