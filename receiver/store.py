"""The only I/O beside HTTP: one document, created once, and the certainty that it was."""

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import urlencode

import grpc
import grpc.aio

from receiver.batching import Group
from receiver.errors import Unavailable, Unstorable
from receiver.event import Event
from receiver.messages import REQUEST_TIME, BatchWriteResponse, CommitRequest
from receiver.settings import Settings
from receiver.values import fill_fields

TOTAL_SECONDS = 8.0  # the sender waits for 10

_EMULATOR_PROJECT = "google-cloud-firestore-emulator"  # as google-cloud-firestore's clients, where none is named
_RETRIED = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED, grpc.StatusCode.RESOURCE_EXHAUSTED}
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0  # seconds
# gRPC would let a lost server wait for up to two minutes before it tries again; senders are waiting.
_CHANNEL_OPTIONS = [("grpc.max_reconnect_backoff_ms", 1000), ("grpc.keepalive_time_ms", 30_000)]


@asynccontextmanager
async def time_limit() -> AsyncIterator[None]:
    """Bound all that a delivery does with Firestore, its retries and its quarantine included.

    Raises:
        Unavailable: the time is up.
    """
    try:
        async with asyncio.timeout(TOTAL_SECONDS):
            yield
    except TimeoutError:
        raise Unavailable(f"Firestore did not confirm within {TOTAL_SECONDS:g} s") from None


class Store:
    """The collection of events and its quarantine, behind one channel that is made with the first write.

    Not before: functions-framework loads this code in a process that forks its workers, and no gRPC channel survives
    that. And once: many first requests at a time wait for the same channel.
    """

    def __init__(self, settings: Settings, stamp: str = "receivedAt") -> None:
        """Keep the settings, and the name of the field that takes Firestore's clock; nothing is opened yet."""
        self._settings = settings
        self._stamp = stamp
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening: asyncio.Task[None] | None = None
        self._commit_call: Any = None
        self._group: Group
        self._documents = ""

    async def create(self, event: Event) -> bool:
        """Create the event's document.

        Args:
            event: the event.

        Returns:
            True after the commit; False when the document was there already, and is as it was.

        Raises:
            Unstorable: Firestore cannot hold the event.
            Unavailable: Firestore did not confirm; the document may be there or not.
        """
        return await self._create(self._settings.collection, event.event_id, event.fields)

    async def quarantine(self, body: bytes, reason: str) -> None:
        """Keep the body of an authentic request that can be no document, once.

        Args:
            body: the raw body.
            reason: what is wrong with it.

        Raises:
            Unavailable: Firestore did not confirm.
        """
        key = hashlib.sha256(body).hexdigest()
        try:
            await self._create(self._settings.collection + "_quarantine", key, {"body": body, "reason": reason})
        except Unstorable:
            raise Unavailable("Firestore refuses the quarantine document too") from None

    async def _create(self, collection: str, key: str, fields: dict[str, Any]) -> bool:
        await self._connected()
        request = self._request(collection, key, fields)
        created = await self._group.create(request)
        return await self._commit(request) if created is None else created

    def _request(self, collection: str, key: str, fields: dict[str, Any]) -> bytes:
        request = CommitRequest(database=self._documents.removesuffix("/documents"))
        write = request.writes.add()
        write.update.name = f"{self._documents}/{collection}/{key}"
        values = {**fields, **self._expiry()}
        values.pop(self._stamp, None)  # gives way to Firestore's own clock, in the same write
        fill_fields(write.update.fields, values)
        write.update_transforms.add(field_path=self._stamp, set_to_server_value=REQUEST_TIME)
        write.current_document.exists = False
        serialised: bytes = request.SerializeToString()
        return serialised

    def _expiry(self) -> dict[str, datetime]:
        if self._settings.retention_days is None:
            return {}
        return {"expireAt": datetime.now(UTC) + timedelta(days=self._settings.retention_days)}

    async def _commit(self, request: bytes) -> bool:
        pause = _FIRST_PAUSE
        while True:
            try:
                await self._commit_call(request)
            except grpc.aio.AioRpcError as error:
                # Also the echo of our own write, when its answer was lost and we sent it again: stored all the same.
                if error.code() is grpc.StatusCode.ALREADY_EXISTS:
                    return False
                _raise_unless_retried(error)
            else:
                return True
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - spreads retries, guards nothing
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _connected(self) -> None:
        """Return once the channel of this event loop is there; a failure to make it is not kept."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop or self._opening is None:
            self._loop, self._opening = loop, loop.create_task(self._open())
        try:
            await asyncio.shield(self._opening)
        except Exception:
            self._opening = None
            raise

    async def _open(self) -> None:
        if self._settings.emulator_host:
            project = self._settings.project or _EMULATOR_PROJECT
            channel = grpc.aio.insecure_channel(self._settings.emulator_host, options=_CHANNEL_OPTIONS)
        else:
            # In a thread: the imports take a while, and the search for credentials that are not there takes longer.
            transport, credentials, project = await asyncio.to_thread(_google, self._settings.project)
            channel = transport.create_channel(credentials=credentials, options=_CHANNEL_OPTIONS)
        self._use(channel, f"projects/{project}/databases/{self._settings.database}")

    def _use(self, channel: Any, database: str) -> None:
        metadata = [
            ("google-cloud-resource-prefix", database),
            ("x-goog-request-params", urlencode({"database": database})),
        ]
        if self._settings.emulator_host:  # whose BatchWrite is for owners only; Google's channel has its credentials
            metadata.append(("authorization", "Bearer owner"))
        commit = channel.unary_unary("/google.firestore.v1.Firestore/Commit")
        batch_write = channel.unary_unary(
            "/google.firestore.v1.Firestore/BatchWrite", response_deserializer=BatchWriteResponse.FromString
        )
        self._documents = f"{database}/documents"
        self._commit_call = partial(commit, metadata=metadata)
        # Half of the time: a BatchWrite that is silent leaves its deliveries the other half, for Commits of their own.
        self._group = Group(partial(batch_write, metadata=metadata, timeout=TOTAL_SECONDS / 2))


def _google(project: str | None) -> tuple[Any, Any, str]:
    """Find what a channel to the real Firestore takes; loaded here, since an emulator takes none of it.

    Args:
        project: Google Cloud project id; None leaves it to the credentials.

    Returns:
        google-cloud-firestore's transport, the credentials, and the project.

    Raises:
        Unavailable: there are no credentials, or no project.
    """
    import google.auth  # noqa: PLC0415
    from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415
    from google.cloud.firestore_v1.services.firestore.transports import (  # noqa: PLC0415
        FirestoreGrpcAsyncIOTransport as Transport,
    )

    try:
        credentials, own_project = google.auth.default(scopes=Transport.AUTH_SCOPES)
    except GoogleAuthError as error:
        raise Unavailable(f"no Google Cloud credentials ({type(error).__name__})") from None
    if not (found := project or own_project):
        raise Unavailable("the credentials name no project: set GOOGLE_CLOUD_PROJECT")
    return Transport, credentials, found


def _raise_unless_retried(error: grpc.aio.AioRpcError) -> None:
    if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
        raise Unstorable("Firestore cannot hold the event.") from None
    if error.code() not in _RETRIED:
        raise Unavailable(f"Firestore answered {error.code().name}") from None
