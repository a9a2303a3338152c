"""Writes that are ready at the same moment leave together; each keeps its own precondition and gets its own answer."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc

MOST_WRITES = 20  # in one BatchWrite, as in the bulk writers of Firestore's own clients
LARGE_BYTES = 50_000  # a write beyond it leaves alone: a server refuses a request of 4 MiB (emulator) or 10 MiB

_CREATED = {grpc.StatusCode.OK.value[0]: True, grpc.StatusCode.ALREADY_EXISTS.value[0]: False}

BatchWrite = Callable[[bytes], Awaitable[Any]]
_Ready = tuple[bytes, asyncio.Future[bool | None]]


class Group:
    """The writes that one turn of the event loop brings share BatchWrites; one that is alone is left to its Commit.

    There is no timer and no queue: whatever is ready leaves with the loop's next turn. The busier the function, the
    longer its turns, and the more writes share a call.
    """

    def __init__(self, batch_write: BatchWrite) -> None:
        """Take what sends a serialised BatchWriteRequest, within a time of its own, and returns the response."""
        self._batch_write = batch_write
        self._ready: list[_Ready] = []
        self._under_way: set[asyncio.Task[None]] = set()  # the event loop itself would not keep them

    async def create(self, commit: bytes) -> bool | None:
        """Send a write together with those that are ready at the same moment, if there are any.

        Args:
            commit: a serialised CommitRequest with one write, which creates a document.

        Returns:
            True after the write's commit; False when the document was there already; None when nothing was sent, or
            its outcome is any other, known or not: a Commit of its own has to tell.
        """
        if len(commit) > LARGE_BYTES:
            return None
        loop = asyncio.get_running_loop()
        if not self._ready:
            loop.call_soon(self._leave)
        created: asyncio.Future[bool | None] = loop.create_future()
        self._ready.append((commit, created))
        return await created

    def _leave(self) -> None:
        ready, self._ready = self._ready, []
        for start in range(0, len(ready), MOST_WRITES):
            task = asyncio.get_running_loop().create_task(self._send(ready[start : start + MOST_WRITES]))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _send(self, ready: Sequence[_Ready]) -> None:
        outcomes = await self._outcomes([commit for commit, _ in ready])
        for (_, created), outcome in zip(ready, outcomes, strict=True):
            if not created.done():  # else its delivery's time is up
                created.set_result(outcome)

    async def _outcomes(self, commits: Sequence[bytes]) -> list[bool | None]:
        if len(commits) == 1:
            return [None]
        try:
            # In both requests the database is field 1 and the writes are field 2, and protobuf messages, one behind the
            # other, are one message with the repeated fields of all: https://protobuf.dev/programming-guides/encoding
            response = await self._batch_write(b"".join(commits))
            return [_CREATED.get(status.code) for _, status in zip(commits, response.status, strict=True)]
        except Exception:  # noqa: BLE001 - a single write that is invalid, a document that is there twice, no answer:
            return [None] * len(commits)  # whatever it was, each write's own Commit tells
