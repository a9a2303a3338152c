"""The documented way: the example of DT's documentation of Data Connectors, with Firestore's client."""

import json

import flask
from google.cloud import firestore

from benchmarks.contenders.checking import is_authentic

client = firestore.Client()


def dataconnector_endpoint(request: flask.Request) -> tuple[str, int]:
    """Verify, store, acknowledge."""
    body = request.get_data()
    if not is_authentic(body, request.headers.get("X-Dt-Signature", "")):
        return "Could not verify request.", 400
    payload = json.loads(body)
    document = {**payload["event"], "labels": payload["labels"], "metadata": payload["metadata"]}
    client.collection("events").document(document["eventId"]).set(document)
    return "OK", 200
