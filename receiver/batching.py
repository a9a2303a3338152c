"""Creates that are ready at the same time share one BatchWrite; each keeps its own precondition and its own answer."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum
from typing import Any

import grpc

MOST_WRITES = 20  # in one BatchWrite, as in the bulk writers of Firestore's own clients
LARGE_BYTES = 50_000  # a larger write is not batched: a server refuses requests of 4 MiB (emulator) or 10 MiB


class Outcome(Enum):
    """What became of a create; the values are the log's words."""

    STORED = "stored"
    ALREADY_STORED = "already_stored"


_OUTCOMES = {
    grpc.StatusCode.OK.value[0]: Outcome.STORED,
    grpc.StatusCode.ALREADY_EXISTS.value[0]: Outcome.ALREADY_STORED,
}

BatchWrite = Callable[[bytes], Awaitable[Any]]
_Waiting = tuple[bytes, float, asyncio.Future[Outcome | None]]


class Batching:
    """Collects the creates of one turn of the event loop into BatchWrites.

    A create that finds no other one in progress is not delayed: it is left to its own Commit. There is no timer and no
    queue: what has been collected is sent in the next turn of the loop. The busier the function, the longer its turns,
    and the more creates share a call.
    """

    def __init__(self, batch_write: BatchWrite) -> None:
        """Initialize.

        Args:
            batch_write: sends a serialized BatchWriteRequest and returns the response.
        """
        self._batch_write = batch_write
        self._waiting: list[_Waiting] = []
        self._in_progress: set[asyncio.Task[None]] = set()  # the event loop keeps only weak references

    async def create(self, commit: bytes, deadline: float) -> Outcome | None:
        """Send a create together with those that are ready at the same time.

        Args:
            commit: a serialized CommitRequest with one write, which creates a document.
            deadline: the time of the event loop after which the caller no longer waits.

        Returns:
            The outcome; None if the write was not sent or its result is unknown. Then the caller must send its Commit.
        """
        if len(commit) > LARGE_BYTES:
            return None
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._send_waiting)
        outcome: asyncio.Future[Outcome | None] = loop.create_future()
        self._waiting.append((commit, deadline, outcome))
        return await outcome

    def _send_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for start in range(0, len(waiting), MOST_WRITES):
            task = asyncio.get_running_loop().create_task(self._send(waiting[start : start + MOST_WRITES]))
            self._in_progress.add(task)
            task.add_done_callback(self._in_progress.discard)

    async def _send(self, waiting: Sequence[_Waiting]) -> None:
        commits, deadlines, futures = zip(*waiting, strict=True)
        outcomes = await self._outcomes(commits, max(deadlines))
        for future, outcome in zip(futures, outcomes, strict=True):
            if not future.done():  # the delivery may have reached its deadline
                future.set_result(outcome)

    async def _outcomes(self, commits: Sequence[bytes], deadline: float) -> list[Outcome | None]:
        if len(commits) == 1:
            return [None]
        try:
            # Both requests have the database as field 1 and the writes as field 2, and serialized messages that are
            # joined are one message with the repeated fields of all: https://protobuf.dev/programming-guides/encoding
            async with asyncio.timeout_at(deadline):
                response = await self._batch_write(b"".join(commits))
            return [_OUTCOMES.get(status.code) for _, status in zip(commits, response.status, strict=True)]
        except Exception:  # noqa: BLE001 - one invalid write, one document twice, no answer: in every case
            return [None] * len(commits)  # the own Commit of each write decides
