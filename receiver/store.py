"""Creates documents in Firestore: each once, with retries, before one deadline."""

import asyncio
import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import grpc
import grpc.aio

from receiver.batching import Batching, Outcome
from receiver.channel import BATCH_WRITE, CHANNEL_OPTIONS, COMMIT, Channels, Metadata, OpenChannel
from receiver.errors import Unavailable, Unprocessable
from receiver.event import Event
from receiver.messages import REQUEST_TIME, CommitRequest
from receiver.settings import Settings
from receiver.values import fill_fields

if TYPE_CHECKING:
    from receiver.credentials import Google

TOTAL_SECONDS = 8.0  # for all that a delivery does with Firestore; the sender waits for 10

_EMULATOR_PROJECT = "google-cloud-firestore-emulator"  # the default of google-cloud-firestore's clients
_RETRIED = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED, grpc.StatusCode.RESOURCE_EXHAUSTED}
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0  # seconds
_HINTS = {
    grpc.StatusCode.NOT_FOUND: "does the database exist? See FIRESTORE_DATABASE and GOOGLE_CLOUD_PROJECT",
    grpc.StatusCode.FAILED_PRECONDITION: "the database must be in Native mode, not in Datastore mode",
    grpc.StatusCode.PERMISSION_DENIED: "the service account needs a role such as roles/datastore.user",
    grpc.StatusCode.UNAUTHENTICATED: "Google does not accept the credentials",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "a quota or the project's budget is used up",
}


def new_deadline() -> float:
    """Return the time of the event loop by which what a delivery does with Firestore must have ended."""
    return asyncio.get_running_loop().time() + TOTAL_SECONDS


@dataclass(frozen=True, slots=True)
class Connection:
    """An open connection to a database, for one event loop.

    Attributes:
        database: `projects/P/databases/D`.
        channels: for the calls.
        batching: for creates that are ready at the same time.
        token_missing: tells whether calls wait for an access token.
    """

    database: str
    channels: Channels
    batching: Batching
    token_missing: Callable[[], bool] = lambda: False


@dataclass(slots=True)
class Attempts:
    """What the log says of a create that was not confirmed.

    Attributes:
        count: how many Commits were sent.
        last: the status of the last answer.
    """

    count: int = 0
    last: grpc.StatusCode | None = None

    def __str__(self) -> str:
        """Return the reason for the log."""
        text = f"Firestore did not confirm within {TOTAL_SECONDS:g} s"
        if self.last is None:
            return f"{text}; no answer ({grpc.StatusCode.DEADLINE_EXCEEDED.name})"
        attempts = f"{self.count} attempt{'s' if self.count > 1 else ''}"
        return f"{text}; last answer {_with_hint(self.last)}, {attempts}"


class Store:
    """The collection of events and its quarantine.

    The connection is opened with the first write, since functions-framework loads this code in a process that forks
    its workers, and no gRPC channel survives a fork. Concurrent first writes wait for the same connection. A failure to
    open it is not kept.
    """

    def __init__(self, settings: Settings, stamp: str = "receivedAt") -> None:
        """Initialize.

        Args:
            settings: names the database and the collection.
            stamp: the field that is set to Firestore's own clock at the commit.
        """
        self._settings = settings
        self._stamp = stamp
        self._connections: dict[asyncio.AbstractEventLoop, asyncio.Task[Connection]] = {}

    async def create(self, event: Event, deadline: float) -> Outcome:
        """Create the document of an event, unless it exists: then it stays as it is.

        Args:
            event: the event.
            deadline: as `new_deadline()` returns it.

        Raises:
            Unprocessable: Firestore cannot hold the event.
            Unavailable: Firestore did not confirm; the document may exist or not.
        """
        return await self._create(self._settings.collection, event.event_id, event.fields, deadline)

    async def quarantine(self, body: bytes, reason: str, deadline: float) -> None:
        """Store the raw body of an authentic request that is not a valid document, once.

        Args:
            body: the raw body.
            reason: what is wrong with it.
            deadline: as `new_deadline()` returns it.

        Raises:
            Unavailable: Firestore did not confirm.
        """
        key = hashlib.sha256(body).hexdigest()
        fields = {"body": body, "reason": reason}
        try:
            await self._create(self._settings.collection + "_quarantine", key, fields, deadline)
        except Unprocessable:
            raise Unavailable("Firestore answered INVALID_ARGUMENT to the quarantine document too") from None

    async def _create(self, collection: str, key: str, fields: dict[str, Any], deadline: float) -> Outcome:
        attempts = Attempts()
        try:
            async with asyncio.timeout_at(deadline):
                connection = await self.connection()
                request = self._request(connection.database, collection, key, fields)
                batched = await connection.batching.create(request, deadline) if connection.channels.busy else None
                return batched or await _commit(connection, request, attempts)
        except TimeoutError:
            raise Unavailable(self._why(attempts)) from None

    def _why(self, attempts: Attempts) -> str:
        opening = self._connections.get(asyncio.get_running_loop())
        if opening and (not opening.done() or opening.result().token_missing()):
            return f"no access token within {TOTAL_SECONDS:g} s: the metadata server or the credentials do not answer"
        return str(attempts)

    def _request(self, database: str, collection: str, key: str, fields: dict[str, Any]) -> bytes:
        request = CommitRequest(database=database)
        write = request.writes.add()
        write.update.name = f"{database}/documents/{collection}/{key}"
        values = {**fields, **self._expiry()}
        values.pop(self._stamp, None)  # Firestore's own clock replaces it, in the same write
        fill_fields(write.update.fields, values)
        write.update_transforms.add(field_path=self._stamp, set_to_server_value=REQUEST_TIME)
        write.current_document.exists = False
        serialized: bytes = request.SerializeToString()
        return serialized

    def _expiry(self) -> dict[str, datetime]:
        if self._settings.retention_days is None:
            return {}
        return {"expireAt": datetime.now(UTC) + timedelta(days=self._settings.retention_days)}

    async def connection(self) -> Connection:
        """Return the connection of the running event loop, which opens with the first call."""
        loop = asyncio.get_running_loop()
        opening = self._connections.get(loop)
        if opening is None:
            opening = self._connections[loop] = loop.create_task(_connect(self._settings))
            opening.add_done_callback(partial(self._forget_failure, loop))
        return opening.result() if opening.done() else await asyncio.shield(opening)

    def _forget_failure(self, loop: asyncio.AbstractEventLoop, opening: asyncio.Task[Connection]) -> None:
        if opening.cancelled() or opening.exception():
            del self._connections[loop]


async def _commit(connection: Connection, request: bytes, attempts: Attempts) -> Outcome:
    pause = _FIRST_PAUSE
    while True:
        attempts.count += 1
        try:
            await connection.channels.call(COMMIT, request)
        except grpc.aio.AioRpcError as error:
            # Also after a write of our own whose answer was lost: the document is stored in both cases.
            if error.code() is grpc.StatusCode.ALREADY_EXISTS:
                return Outcome.ALREADY_STORED
            raise_unless_retried(error)
            attempts.last = error.code()
        else:
            return Outcome.STORED
        await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - spreads retries, protects nothing
        pause = min(2 * pause, _LONGEST_PAUSE)


def raise_unless_retried(error: grpc.aio.AioRpcError) -> None:
    """Raise the refusal that an error stands for, unless the call is to be sent again."""
    if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
        raise Unprocessable("Firestore cannot hold the event.") from None
    if (error.details() or "").startswith("Getting metadata from plugin failed"):
        raise Unavailable("no access token: the metadata server or the credentials do not give one") from None
    if error.code() not in _RETRIED:
        raise Unavailable(f"Firestore answered {_with_hint(error.code())}") from None


def _with_hint(code: grpc.StatusCode) -> str:
    return f"{code.name} ({_HINTS[code]})" if code in _HINTS else code.name


async def _connect(settings: Settings) -> Connection:
    if settings.emulator_host:
        project = settings.project or _EMULATOR_PROJECT
        open_channel = partial(grpc.aio.insecure_channel, settings.emulator_host, options=CHANNEL_OPTIONS)
        # The emulator's BatchWrite is for owners only; Google's channel has the credentials.
        return _connection(settings, project, open_channel, authorization=[("authorization", "Bearer owner")])
    # In a thread: the imports take a while, and so does a search for credentials that do not exist.
    google = await asyncio.to_thread(_find_google, settings.project)
    connection = _connection(settings, google.project, google.open_channel)
    return replace(connection, token_missing=google.credentials.token_missing)


def _connection(
    settings: Settings, project: str, open_channel: OpenChannel, authorization: Metadata = ()
) -> Connection:
    database = f"projects/{project}/databases/{settings.database}"
    # As google-cloud-firestore sends it: Firestore has refused a percent-encoded "/" for named databases.
    routing = urlencode({"database": database}, safe="/")
    channels = Channels(
        open_channel,
        [("google-cloud-resource-prefix", database), ("x-goog-request-params", routing), *authorization],
    )
    return Connection(database, channels, Batching(partial(channels.call, BATCH_WRITE)))


def _find_google(project: str | None) -> "Google":
    from receiver import credentials  # noqa: PLC0415 - a slow import, which an emulator does not need

    return credentials.find(project)
