"""Reads Firestore with the official client, and says in one line what failed."""

import grpc
from google.api_core.exceptions import GoogleAPICallError, RetryError
from google.auth.exceptions import GoogleAuthError
from google.cloud import firestore

from receiver.settings import Settings

CALL_SECONDS = 30.0  # for a call with its repetitions
FAILURES = (GoogleAPICallError, RetryError, GoogleAuthError, TimeoutError)

_SILENT = (None, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def open_database(settings: Settings) -> firestore.AsyncClient:
    """Return a client of the database that the settings name."""
    return firestore.AsyncClient(project=settings.project, database=settings.database)


def reason(error: Exception) -> str:
    """Return the reason of one of `FAILURES`."""
    code = getattr(error, "grpc_status_code", None)
    if code in _SILENT:
        return f"Firestore does not answer ({type(error).__name__})"
    return f"Firestore answered {code.name}"
