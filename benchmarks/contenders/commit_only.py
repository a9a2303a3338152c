"""The limit: Commits made beforehand, sent over one `grpc.aio` channel, without HTTP, signatures or JSON."""

import asyncio
import itertools
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict

import grpc.aio
from google.cloud import firestore
from google.cloud.firestore_v1 import _helpers
from google.cloud.firestore_v1.types import CommitRequest

from benchmarks.events import make_envelopes
from benchmarks.sample import Sample, parse_load, summary
from local.function import PROJECT

_COMMIT = "/google.firestore.v1.Firestore/Commit"
_DATABASE = f"projects/{PROJECT}/databases/(default)"


def make_commits(count: int) -> list[bytes]:
    """Return requests as the function sends them: create one document, stamped with Firestore's clock."""
    return [_commit(envelope) for envelope in itertools.islice(make_envelopes(), count)]


def _commit(envelope: dict[str, dict[str, object]]) -> bytes:
    event = envelope["event"]
    fields = {**event, "labels": envelope["labels"], "metadata": envelope["metadata"]}
    path = f"{_DATABASE}/documents/events/{event['eventId']}"
    writes = _helpers.pbs_for_create(path, {**fields, "receivedAt": firestore.SERVER_TIMESTAMP})
    return bytes(CommitRequest.serialize(CommitRequest(database=_DATABASE, writes=writes)))


async def measure(host: str, commits: list[bytes], concurrency: int, limit: float) -> Sample:
    """Send commits, `concurrency` at a time, for `limit` seconds at most; the first ones are a warm-up."""
    async with grpc.aio.insecure_channel(host) as channel:
        call = channel.unary_unary(_COMMIT, request_serializer=None, response_deserializer=None)
        pending, took = iter(commits), list[float]()
        warm_up = itertools.islice(pending, concurrency)
        await asyncio.gather(*(_send(call, warm_up, [], float("inf")) for _ in range(concurrency)))
        started, used = time.perf_counter(), time.process_time()
        await asyncio.gather(*(_send(call, pending, took, started + limit) for _ in range(concurrency)))
        return summary(took, time.perf_counter() - started, time.process_time() - used, client_cpu=0)


async def _send(
    call: Callable[[bytes], Awaitable[bytes]], commits: Iterator[bytes], took: list[float], until: float
) -> None:
    for commit in commits:
        started = time.perf_counter()
        await call(commit)
        now = time.perf_counter()
        took.append(now - started)
        if now > until:
            return


if __name__ == "__main__":
    _load = parse_load("python -m benchmarks.contenders.commit_only")
    _commits = make_commits(_load.events + _load.concurrency)
    print(json.dumps(asdict(asyncio.run(measure(_load.host, _commits, _load.concurrency, _load.seconds)))))
