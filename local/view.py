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
from rich.live import Live
from rich.text import Text

from local.reader import Reader, batches
from local.rows import ACKNOWLEDGED, Row, make_row

_POLL = 0.1  # seconds
_TIME, _TYPE, _OUTCOME, _LATENCY, _NARROWEST, _GAP = 8, 18, 14, 9, 8, 2  # characters
_PLAIN_WIDTH = 140  # characters, if the output is not a terminal
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

    def live(self) -> AbstractContextManager[Any]:
        """Print the header; return a context in which a terminal shows the totals below the rows."""
        self._print(Row("TIME", "DEVICE", "TYPE", "VALUE", "OUTCOME", "LATENCY"), "")
        if not self._console.is_terminal:
            return nullcontext()
        return Live(get_renderable=self.totals, console=self._console, refresh_per_second=4, transient=True)

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

    def _print(self, row: Row, style: str) -> None:
        width = self._console.width if self._console.is_terminal else _PLAIN_WIDTH
        free = width - (_TIME + _TYPE + _OUTCOME + _LATENCY) - _GAP * (len(row) - 1)
        device = max(_NARROWEST, free // 3)
        sizes = (_TIME, device, _TYPE, max(_NARROWEST, free - device), _OUTCOME, _LATENCY)
        text = Text()
        for name, cell, size in zip(row._fields, row, sizes, strict=True):
            text.append(_fitted(cell, size), style if name == "outcome" else "")
        text.rstrip()
        self._console.print(text, soft_wrap=True)

    def totals(self) -> Text:
        """Return the totals as one line."""
        words = [f"{self.outcomes.total()} requests in {time.monotonic() - self._started:.1f} s"]
        words += [f"{number} {outcome}" for outcome, number in self.outcomes.most_common()]
        if self._latencies:
            ordered = sorted(self._latencies)
            middle, high = ordered[len(ordered) // 2], ordered[len(ordered) * 95 // 100]
            words.append(f"latency median {middle:g} ms, 95th percentile {high:g} ms")
        return Text(", ".join(words), style="bold")


def _request(text: bytes) -> dict[str, Any] | None:
    """Parse a line of the log; return None if it is not about a request, such as the server's own messages."""
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) and "outcome" in line else None


def _fitted(cell: str, size: int) -> str:
    return (cell if len(cell) <= size else cell[: size - 1] + "…").ljust(size + _GAP)
