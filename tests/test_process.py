"""The function as real processes: killed, without Firestore, several workers, and with oversized requests."""

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.cloud import firestore

from local.emulator import running_store
from tests import signing
from tests.conftest import StartFunction
from tests.events import encode, envelope
from tests.function import Function, post, post_all

UNSET = {name: value for name, value in os.environ.items() if name != "FIRESTORE_EMULATOR_HOST"}


def test_concurrent_duplicates_are_stored_once(
    function: StartFunction, database: firestore.Client, stored: Callable[[], dict[str, Any]]
) -> None:
    """64 concurrent deliveries of one event to two workers are all acknowledged, and the event is written once."""
    process = function(WORKERS="2")
    body = encode(envelope())

    statuses = asyncio.run(post_all(process.url, [body] * 64))

    assert set(statuses) == {200}
    assert process.outcomes() == {"stored": 1, "already_stored": 63}
    assert len(stored()) == 1
    (document,) = database.collection("events").stream()
    assert document.create_time == document.update_time


def test_killed_under_load_loses_nothing(function: StartFunction, stored: Callable[[], dict[str, Any]]) -> None:
    """After SIGKILL under load every acknowledged event is stored, and retries until a 2xx store all the others."""
    process = function()
    bodies = {made["event"]["eventId"]: encode(made) for made in (envelope() for _ in range(250))}
    acknowledged: set[str] = set()

    async def deliver(client: httpx.AsyncClient, event_id: str) -> None:
        while await post(client, process.url, bodies[event_id]) != 200:
            await asyncio.sleep(0.2)
        acknowledged.add(event_id)

    async def kill(threshold: int) -> set[str]:
        while len(acknowledged) < threshold:
            await asyncio.sleep(0.005)
        process.kill()
        lost = acknowledged - stored().keys()
        process.start()
        return lost

    async def kill_twice() -> list[set[str]]:
        return [await kill(threshold) for threshold in (60, 150)]

    async def run() -> list[set[str]]:
        limits = httpx.Limits(max_connections=40)
        # If a restart fails, the group cancels the deliveries, which would otherwise be retried for ever.
        async with httpx.AsyncClient(timeout=10, limits=limits) as client, asyncio.TaskGroup() as group:
            killing = group.create_task(kill_twice())
            for event_id in bodies:
                group.create_task(deliver(client, event_id))
        return killing.result()

    lost = asyncio.run(run())

    assert lost == [set(), set()]
    assert stored().keys() == bodies.keys()


@pytest.mark.parametrize("kind", ["emulator", "embedded"])
def test_frozen_firestore_ends_in_503(kind: Any, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """While Firestore is stopped, 40 concurrent deliveries each get 503 after 8 s; once it continues, they get 200."""
    request.getfixturevalue(f"{kind}_host")  # skips if this kind is not available
    bodies = [encode(envelope()) for _ in range(40)]

    with running_store(kind, file=tmp_path / "frozen.sqlite3", environ=UNSET) as store, ExitStack() as thaw:
        assert store.process is not None
        firestore_group = store.process.popen.pid
        environ = {"DT_SIGNATURE_SECRET": signing.SECRET, "FIRESTORE_EMULATOR_HOST": store.host}
        process = Function(environ, tmp_path / "function.log")
        thaw.callback(process.kill)
        warm = asyncio.run(post_all(process.url, [encode(envelope())]))
        os.killpg(firestore_group, signal.SIGSTOP)
        thaw.callback(os.killpg, firestore_group, signal.SIGCONT)
        frozen = asyncio.run(post_all(process.url, bodies))
        os.killpg(firestore_group, signal.SIGCONT)
        thawed = asyncio.run(post_all(process.url, bodies))

    assert (warm, set(frozen), set(thawed)) == ([200], {503}, {200})
    assert process.reasons() == {"Firestore did not confirm within 8 s; no answer (DEADLINE_EXCEEDED)": 40}


@pytest.mark.parametrize("with_length", [True, False])
def test_body_above_the_limit_is_refused(function: StartFunction, *, with_length: bool) -> None:
    """A signed body of 20 MiB, with Content-Length or chunked, gets 413, and the next request is served."""
    process = function()
    chunk = b"x" * 65536
    body = chunk * 320 if with_length else (chunk for _ in range(320))

    with httpx.Client(timeout=30) as client:
        refused = client.post(process.url, content=body, headers={"X-Dt-Signature": signing.sign(b"")})
        event = encode(envelope())
        accepted = client.post(process.url, content=event, headers={"X-Dt-Signature": signing.sign(event)})

    assert (refused.status_code, accepted.status_code) == (413, 200)
