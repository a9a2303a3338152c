"""Keeps the newest state of each device in a document of its own: after the event, within the same deadline.

The document is read with its update time, compared, and written on the condition that the update time is still the
same. So a race between instances ends with the newest state, whichever instance writes last.
"""

import asyncio
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import grpc
import grpc.aio

from receiver.batching import Outcome
from receiver.channel import BATCH_GET, COMMIT
from receiver.errors import Unavailable, Unprocessable
from receiver.event import Event, is_document_key
from receiver.messages import BatchGetDocumentsRequest, CommitRequest, Document
from receiver.store import Attempts, Connection, Store, raise_unless_retried
from receiver.values import fill_fields

_TARGET_NAME = re.compile(r"projects/[^/]+/devices/([^/]+)")
_CONFLICTS = {
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ABORTED,
}
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5  # seconds
_NEVER = ((-(2**63), 0), "")  # older than every event

_Key = tuple[tuple[int, int], str]  # timestamp in seconds and nanoseconds, then eventId


@dataclass(frozen=True, slots=True)
class _State:
    """The state of a device according to one event.

    Attributes:
        device_id: key of the device's document.
        event_type: field name in `newest`.
        key: decides which of two events is newer.
        document: the protobuf Document of a device with this event alone.
    """

    device_id: str
    event_type: str
    key: _Key
    document: Any


@dataclass(slots=True)
class _Pending:
    """The states of a device that wait for the next write, and the latest of their deadlines."""

    states: list[_State]
    deadline: float
    done: asyncio.Future[None]
    attempts: Attempts = field(default_factory=Attempts)


class Devices:
    """The collection of devices.

    States of one device that arrive during a write share the next one, so that deliveries do not compete in a process.
    """

    def __init__(self, collection: str, store: Store) -> None:
        """Initialize.

        Args:
            collection: of the devices.
            store: creates the events and has the connection.
        """
        self._collection = collection
        self._store = store
        self._pending: dict[tuple[asyncio.AbstractEventLoop, str], _Pending] = {}
        self._workers: dict[tuple[asyncio.AbstractEventLoop, str], asyncio.Task[None]] = {}

    async def create(self, event: Event, deadline: float) -> Outcome:
        """Create an event and bring its device up to date, also when the event is already stored.

        Args:
            event: the event.
            deadline: as `receiver.store.new_deadline()` returns it.

        Raises:
            Unprocessable: Firestore cannot hold the event.
            Unavailable: Firestore did not confirm the event or the device.
        """
        outcome = await self._store.create(event, deadline)
        if state := _state(event):
            pending = self._add(state, deadline)
            try:
                async with asyncio.timeout_at(deadline):
                    await asyncio.shield(pending.done)
            except TimeoutError:
                raise Unavailable(f"device: {pending.attempts}") from None
        return outcome

    def _add(self, state: _State, deadline: float) -> _Pending:
        loop = asyncio.get_running_loop()
        place = loop, state.device_id
        pending = self._pending.get(place)
        if pending is None:
            pending = self._pending[place] = _Pending([], deadline, loop.create_future())
            pending.done.add_done_callback(_retrieve)
        pending.states.append(state)
        pending.deadline = max(pending.deadline, deadline)
        if place not in self._workers:
            self._workers[place] = loop.create_task(self._work(place))
        return pending

    async def _work(self, place: tuple[asyncio.AbstractEventLoop, str]) -> None:
        """Write what waits for a device until nothing waits any more."""
        try:
            while pending := self._pending.pop(place, None):
                await self._settle(pending)
        finally:
            del self._workers[place]

    async def _settle(self, pending: _Pending) -> None:
        try:
            async with asyncio.timeout_at(pending.deadline):
                await self._write(pending.states, pending.attempts)
        except TimeoutError:
            pending.done.set_exception(Unavailable(f"device: {pending.attempts}"))
        except Exception as error:  # noqa: BLE001 - the deliveries that wait for it raise it
            pending.done.set_exception(error)
        else:
            pending.done.set_result(None)

    async def _write(self, states: Sequence[_State], attempts: Attempts) -> None:
        connection = await self._store.connection()
        name = f"{connection.database}/documents/{self._collection}/{states[0].device_id}"
        if await _update(connection, name, states, attempts) or len(states) == 1:
            return
        for state in states:  # Firestore cannot hold one of them, or all of them together
            await _update(connection, name, [state], attempts)


def _retrieve(done: asyncio.Future[None]) -> None:
    """Mark the exception as seen, for the case that all deliveries have reached their deadlines."""
    done.exception()


def _state(event: Event) -> _State | None:
    """Return the state of a device according to an event; None if the device's document cannot hold it."""
    fields = event.fields
    target, event_type, timestamp = fields.get("targetName"), fields.get("eventType"), fields.get("timestamp")
    match = _TARGET_NAME.fullmatch(target) if isinstance(target, str) else None
    if not match or not is_document_key(match[1]):
        return None
    if not isinstance(event_type, str) or not isinstance(timestamp, datetime):
        return None
    newest = {"eventId": event.event_id, "timestamp": timestamp}
    if "data" in fields:
        newest["data"] = fields["data"]
    values: dict[str, Any] = {name: fields[name] for name in ("targetName", "labels", "metadata") if name in fields}
    document = Document()
    try:
        fill_fields(document.fields, {**values, "lastSeen": timestamp, "newest": {event_type: newest}})
    except Unprocessable:
        return None
    return _State(match[1], event_type, (_time(document.fields["lastSeen"]), event.event_id), document)


async def _update(connection: Connection, name: str, states: Sequence[_State], attempts: Attempts) -> bool:
    """Read, compare and write until nothing newer is left to write.

    Returns:
        False if Firestore cannot hold the states.

    Raises:
        Unavailable: Firestore refuses.
    """
    pause = _FIRST_PAUSE
    while True:
        attempts.count += 1
        try:
            request = _changes(connection.database, name, await _read(connection, name), states)
            if request is not None:
                await connection.channels.call(COMMIT, request)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
                return False
            if error.code() not in _CONFLICTS:
                raise_unless_retried(error)
            attempts.last = error.code()
        else:
            return True
        await asyncio.sleep(pause * random.uniform(0.2, 1))  # noqa: S311 - spreads retries, protects nothing
        pause = min(2 * pause, _LONGEST_PAUSE)


async def _read(connection: Connection, name: str) -> Any:
    """Return the stored Document with the fields that are compared; None if it does not exist."""
    request = BatchGetDocumentsRequest(database=connection.database, documents=[name])
    request.mask.field_paths.extend(["lastSeen", "newest"])
    try:
        response = await connection.channels.call(BATCH_GET, request.SerializeToString())
    except grpc.aio.AioRpcError as error:
        if error.code() in _CONFLICTS | {grpc.StatusCode.INVALID_ARGUMENT} - {grpc.StatusCode.ABORTED}:
            raise Unavailable(f"Firestore answered {error.code().name} to the read of the device") from None
        raise
    return response.found if response.HasField("found") else None


def _changes(database: str, name: str, stored: Any, states: Sequence[_State]) -> bytes | None:
    """Return the serialized CommitRequest that brings a device up to date; None if it is up to date."""
    request = CommitRequest(database=database)
    write = request.writes.add()
    write.update.name = name
    fields, paths = write.update.fields, write.update_mask.field_paths
    newest = _newest(stored)
    last = max(states, key=lambda state: state.key)
    if last.key > max(newest.values(), default=_NEVER):
        paths.extend(["targetName", "labels", "metadata"])
        for field in {"targetName", "labels", "metadata"} & last.document.fields.keys():
            fields[field].CopyFrom(last.document.fields[field])
    if stored is None or last.key[0] > _time(stored.fields.get("lastSeen")):
        paths.append("lastSeen")
        fields["lastSeen"].CopyFrom(last.document.fields["lastSeen"])
    changed = {}
    for state in sorted(states, key=lambda state: state.key):
        if state.key > newest.get(state.event_type, _NEVER):
            newest[state.event_type] = state.key
            entry = state.document.fields["newest"].map_value.fields[state.event_type]
            changed[state.event_type] = entry
    for event_type, entry in changed.items():
        paths.append(f"newest.{_quoted(event_type)}")
        fields["newest"].map_value.fields[event_type].CopyFrom(entry)
    if stored is None:
        write.current_document.exists = False
    else:
        write.current_document.update_time.CopyFrom(stored.update_time)
    return request.SerializeToString() if paths else None


def _newest(stored: Any) -> dict[str, _Key]:
    """Return the keys of the stored events by type; an entry that others have spoilt counts as missing."""
    if stored is None:
        return {}
    entries: Mapping[str, Any] = stored.fields["newest"].map_value.fields
    return {event_type: _stored_key(entry.map_value.fields) for event_type, entry in entries.items()}


def _stored_key(entry: Mapping[str, Any]) -> _Key:
    return _time(entry.get("timestamp")), entry["eventId"].string_value if "eventId" in entry else ""


def _time(value: Any) -> tuple[int, int]:
    """Return a Timestamp's seconds and nanoseconds; of anything else, a time before all events."""
    if value is None or not value.HasField("timestamp_value"):
        return _NEVER[0]
    return value.timestamp_value.seconds, value.timestamp_value.nanos


def _quoted(name: str) -> str:
    """Return a field name as part of a field path."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"
