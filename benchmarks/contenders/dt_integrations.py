"""A function with DT's own library, which creates documents and never overwrites them."""

import contextlib
import os
from typing import Any

import disruptive
import flask
import jwt
from dtintegrations import data_connector, provider
from google.api_core.exceptions import AlreadyExists
from google.cloud import firestore

client = firestore.Client()


def dataconnector_endpoint(request: flask.Request) -> tuple[str, int]:
    """Verify, store once, acknowledge."""
    try:
        push = data_connector.HttpPush.from_provider(request, provider.GCLOUD, os.environ["DT_SIGNATURE_SECRET"])
    except (disruptive.errors.ConfigurationError, jwt.PyJWTError):
        return "Could not verify request.", 400
    event: dict[str, Any] = push.event.raw
    document = {**event, "labels": push.labels, "metadata": request.get_json()["metadata"]}
    with contextlib.suppress(AlreadyExists):
        client.collection("events").document(event["eventId"]).create(document)
    return "OK", 200
