"""The gRPC channel to Firestore, and its replacement when the connection goes silent.

A connection can stop carrying data without being closed (a NAT entry that expired, an instance that was frozen). gRPC
notices after a minute or more; the sender waits for 10 s. From outside, such a connection looks like a Firestore that
is slow. So no call has a time limit of its own. When a channel has answered nothing for `SILENCE_SECONDS`, the same
bytes are also sent on another channel with a connection of its own, and the first answer counts. A create that is sent
twice is still created once, and ALREADY_EXISTS means stored. A Firestore that takes 5 s a call answers on the first
channel within the deadline of 8 s, and a silent connection costs 2.5 s before the second channel is used.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import grpc
import grpc.aio

from receiver.messages import BatchGetDocumentsResponse, BatchWriteResponse

SILENCE_SECONDS = 2.5  # without an answer on a channel, before its calls are also sent on another one
AGAIN_SECONDS = 0.5  # after the other channel failed to connect, before the next attempt
GIVE_UP_SECONDS = 6.0  # without an answer, before a second channel is replaced: longer than a slow Firestore takes

# gRPC would wait for up to two minutes before it connects again. With a subchannel pool of its own, a new channel does
# not share the silent connection. A keepalive time below 30 s makes Google's servers close the connection (GOAWAY).
CHANNEL_OPTIONS = [
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.use_local_subchannel_pool", 1),
]
COMMIT, BATCH_WRITE, BATCH_GET = "Commit", "BatchWrite", "BatchGetDocuments"
_SERVICE = "/google.firestore.v1.Firestore/"

OpenChannel = Callable[[], grpc.aio.Channel]
Metadata = Sequence[tuple[str, str]]


class _Channel:
    """A gRPC channel that knows when it last answered.

    Attributes:
        calls: how many calls wait for an answer.
        answered_at: when the last answer came, on the monotonic clock; at first, when the channel was made.
    """

    def __init__(self, channel: Any, metadata: Metadata) -> None:
        self.calls = 0
        self.answered_at = time.monotonic()
        self.close = channel.close
        self._metadata = metadata
        batch_get = channel.unary_stream(_SERVICE + BATCH_GET, None, BatchGetDocumentsResponse.FromString)
        self._methods: dict[str, Callable[..., Any]] = {
            COMMIT: channel.unary_unary(_SERVICE + COMMIT, None, None),
            BATCH_WRITE: channel.unary_unary(_SERVICE + BATCH_WRITE, None, BatchWriteResponse.FromString),
            BATCH_GET: lambda *request, **options: asyncio.create_task(_last(batch_get(*request, **options))),
        }

    def start(self, method: str, request: bytes) -> Any:
        """Start a call."""
        self.calls += 1
        return self._methods[method](request, metadata=self._metadata)

    @property
    def silent_seconds(self) -> float:
        """How long ago the last answer came."""
        return time.monotonic() - self.answered_at


async def _last(call: Any) -> Any:
    """Return the last response of a stream; the one of a BatchGetDocuments for one document is its only one."""
    response = None
    try:
        async for received in call:
            response = received
    finally:
        call.cancel()
    return response


class Channels:
    """The channel that all calls use, and the second one that replaces it when it has gone silent.

    A spare channel is closed as soon as no call waits on it. An idle one could go silent together with the main one. In
    a long outage all deliveries share one spare channel, which is replaced every `GIVE_UP_SECONDS`, because its own
    connection may have gone silent meanwhile.

    Attributes:
        main: the channel for new calls.
    """

    def __init__(self, open_channel: OpenChannel, metadata: Metadata) -> None:
        """Initialize; must be called in the event loop, in the process that makes the calls.

        Args:
            open_channel: makes a gRPC channel with `CHANNEL_OPTIONS`.
            metadata: sent with each call.
        """
        self._open = open_channel
        self._metadata = metadata
        self.main = self._spare = self._new()
        self._closing: set[asyncio.Task[None]] = set()  # the event loop keeps only weak references

    @property
    def busy(self) -> bool:
        """Whether a call waits for an answer on the main channel."""
        return self.main.calls > 0

    async def call(self, method: str, request: bytes) -> Any:
        """Send a request and wait for its first answer, until the caller is cancelled.

        Args:
            method: `COMMIT`, `BATCH_WRITE`, or `BATCH_GET` for one document.
            request: the serialized request.

        Returns:
            The response: bytes, a BatchWriteResponse or a BatchGetDocumentsResponse.

        Raises:
            grpc.aio.AioRpcError: the answer is an error.
        """
        return await _Call(self, method, request).answer()

    def _new(self) -> _Channel:
        return _Channel(self._open(), self._metadata)

    def instead_of(self, silent: _Channel) -> _Channel:
        """Return another channel than the silent one: the main one, if that has changed meanwhile, or a spare one."""
        if self._spare is silent or self._spare.silent_seconds > GIVE_UP_SECONDS:
            self._spare = self._new()
        return self._spare

    def promote(self, channel: _Channel) -> None:
        """Use a channel that answers for all new calls."""
        self.main = self._spare = channel

    def finish(self, channel: _Channel) -> None:
        """Note that a call on the channel has ended."""
        channel.calls -= 1
        if channel.calls or channel is self.main:
            return
        if channel is self._spare:
            self._spare = self.main
        task = asyncio.get_running_loop().create_task(channel.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


class _Call:
    """A request until its first answer."""

    def __init__(self, channels: Channels, method: str, request: bytes) -> None:
        self._channels = channels
        self._method = method
        self._request = request
        self._channel = channels.main
        self._rpc = self._channel.start(method, request)
        self._again: asyncio.Task[Any] | None = None  # the same request on another channel
        self._timer = asyncio.get_running_loop().call_later(SILENCE_SECONDS, self._check)

    async def answer(self) -> Any:
        try:
            response = await self._rpc
        except grpc.aio.AioRpcError:
            self._channel.answered_at = time.monotonic()
            raise
        except asyncio.CancelledError:  # by `_use_other`, or by the caller, whose deadline must not be ignored
            task = asyncio.current_task()
            if self._again is None or not self._again.done() or (task and task.cancelling()):
                raise
            return self._again.result()
        finally:
            self._end()
        self._channel.answered_at = time.monotonic()
        return response

    def _check(self) -> None:
        """Send the request again if the channel has been silent for so long; if not yet, check again later."""
        now = time.monotonic()
        remaining = self._channel.answered_at + SILENCE_SECONDS - now
        loop = asyncio.get_running_loop()
        if remaining > 0:
            self._timer = loop.call_later(remaining, self._check)
            return
        self._again = loop.create_task(self._send_again(now))
        self._again.add_done_callback(self._use_other)

    async def _send_again(self, since: float) -> Any:
        channel = self._channels.instead_of(self._channel)
        rpc = channel.start(self._method, self._request)
        try:
            response = await rpc
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                self._answered(channel, since)
            raise
        else:
            self._answered(channel, since)
            return response
        finally:
            self._channels.finish(channel)

    def _answered(self, channel: _Channel, since: float) -> None:
        channel.answered_at = time.monotonic()
        if self._channel.answered_at < since and self._channels.main is self._channel:
            self._channels.promote(channel)

    def _use_other(self, again: asyncio.Task[Any]) -> None:
        """Use the answer on the other channel, unless it has none: UNAVAILABLE may mean that it did not connect."""
        if again.cancelled():
            return
        error = again.exception()  # retrieved in any case, since the caller may wait no longer
        if not isinstance(error, grpc.aio.AioRpcError) or error.code() is not grpc.StatusCode.UNAVAILABLE:
            self._rpc.cancel()
        elif self._again is again:  # the call has not ended meanwhile
            self._timer = asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._check)

    def _end(self) -> None:
        self._timer.cancel()
        if self._again is not None:
            self._again.cancel()
            self._again = None  # else each would keep the other, and the connection open, until a garbage collection
        self._channels.finish(self._channel)
