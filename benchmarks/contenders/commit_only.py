"""The limit: prepared Commits over one `grpc.aio` channel, without HTTP, signatures or JSON."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import grpc.aio
from google.cloud import firestore
from google.cloud.firestore_v1 import _helpers
from google.cloud.firestore_v1.types import CommitRequest

from benchmarks.events import make_envelopes
from benchmarks.sample import Load, Sample, main, summarize
from local.function import PROJECT

_COMMIT = "/google.firestore.v1.Firestore/Commit"
_DATABASE = f"projects/{PROJECT}/databases/(default)"


def make_commits(count: int, _key_file: str) -> list[bytes]:
    """Return requests as the function sends them: each creates one document with a server timestamp."""
    return [_commit(body) for body in itertools.islice(make_envelopes(), count)]


def _commit(body: dict[str, Any]) -> bytes:
    event, rest = body["event"], {name: body[name] for name in ("labels", "metadata")}
    path = f"{_DATABASE}/documents/events/{event['eventId']}"
    writes = _helpers.pbs_for_create(path, {**event, **rest, "receivedAt": firestore.SERVER_TIMESTAMP})
    return bytes(CommitRequest.serialize(CommitRequest(database=_DATABASE, writes=writes)))


async def measure(load: Load, commits: list[bytes]) -> Sample:
    """Send the commits, `concurrency` at a time; the first ones are a warm-up."""
    async with grpc.aio.insecure_channel(load.host) as channel:
        call = channel.unary_unary(_COMMIT, request_serializer=None, response_deserializer=None)
        pending, latencies = iter(commits), list[float]()
        warm_up = itertools.islice(pending, load.concurrency)
        await asyncio.gather(*(_send(call, warm_up, [], float("inf")) for _ in range(load.concurrency)))
        started, used = time.perf_counter(), time.process_time()
        until = started + load.seconds
        await asyncio.gather(*(_send(call, pending, latencies, until) for _ in range(load.concurrency)))
        return summarize(latencies, time.perf_counter() - started, time.process_time() - used, client_cpu=0)


async def _send(
    call: Callable[[bytes], Awaitable[bytes]], commits: Iterator[bytes], latencies: list[float], until: float
) -> None:
    for commit in commits:
        started = time.perf_counter()
        await call(commit)
        now = time.perf_counter()
        latencies.append(now - started)
        if now > until:
            return


if __name__ == "__main__":
    main(make_commits, measure)
