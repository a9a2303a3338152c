"""An asynchronous function with Firestore's `AsyncClient`."""

import contextlib
import json

import functions_framework.aio
from google.api_core.exceptions import AlreadyExists
from google.cloud import firestore
from starlette.requests import Request

from benchmarks.contenders.checking import is_authentic

client = firestore.AsyncClient()


@functions_framework.aio.http
async def dataconnector_endpoint(request: Request) -> tuple[str, int]:
    """Verify, store once, acknowledge."""
    body = await request.body()
    if not is_authentic(body, request.headers.get("X-Dt-Signature", "")):
        return "Could not verify request.", 400
    payload = json.loads(body)
    document = {**payload["event"], "labels": payload["labels"], "metadata": payload["metadata"]}
    with contextlib.suppress(AlreadyExists):
        await client.collection("events").document(document["eventId"]).create(document)
    return "OK", 200
