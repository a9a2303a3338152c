"""The metadata of each call equals that of google-cloud-firestore's own client, routing header included."""

import asyncio
from typing import Any

import grpc
import pytest
from google.cloud import firestore
from google.cloud.firestore_v1.services.firestore import FirestoreAsyncClient
from google.cloud.firestore_v1.services.firestore.transports import FirestoreGrpcAsyncIOTransport

from receiver.event import Event
from receiver.settings import read_settings
from receiver.store import Store, new_deadline
from tests.proxy import Forward, Proxy

COMPARED = ("x-goog-request-params", "google-cloud-resource-prefix")


def metadata_of(context: grpc.ServicerContext) -> dict[str, Any]:
    """Return the metadata that is compared."""
    return {key: value for key, value in context.invocation_metadata() if key in COMPARED}


async def by_the_official_client(host: str, project: str, database: str) -> None:
    """Send a Commit and a BatchWrite with google-cloud-firestore."""
    client = firestore.AsyncClient(project=project, database=database)
    await client.collection("events").document("theirs").create({})
    transport = FirestoreGrpcAsyncIOTransport(channel=grpc.aio.insecure_channel(host))
    path = f"projects/{project}/databases/{database}"
    write = {"update": {"name": f"{path}/documents/events/batched"}}
    await FirestoreAsyncClient(transport=transport).batch_write(
        request={"database": path, "writes": [write]},
        metadata=[("google-cloud-resource-prefix", path), ("authorization", "Bearer owner")],
    )


async def by_the_function(store: Store) -> None:
    """Send a Commit and a BatchWrite as the function does."""
    await store.create(Event("alone", {}), new_deadline())
    await asyncio.gather(*(store.create(Event(f"e{number}", {}), new_deadline()) for number in range(3)))


@pytest.mark.parametrize("database", ["(default)", "named-database"])
def test_metadata_equals_the_official_clients(
    environ: dict[str, str], proxy: Proxy, project: str, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the default and a named database, Commit and BatchWrite have the official client's routing header."""
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", proxy.host)
    seen: list[dict[str, Any]] = []

    def note(forward: Forward, context: grpc.ServicerContext) -> bytes:
        seen.append(metadata_of(context))
        return forward()

    proxy.otherwise = lambda: note
    settings = environ | {"FIRESTORE_EMULATOR_HOST": proxy.host, "FIRESTORE_DATABASE": database}
    asyncio.run(by_the_official_client(proxy.host, project, database))
    theirs = list(seen)
    seen.clear()
    asyncio.run(by_the_function(Store(read_settings(settings))))

    assert len(theirs) == 2
    assert all(set(one) == set(COMPARED) for one in theirs)
    assert len(seen) == 1 + 2
    assert {tuple(sorted(one.items())) for one in seen} == {tuple(sorted(one.items())) for one in theirs}
