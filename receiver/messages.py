"""google-cloud-firestore's own protobuf messages, without the clients that come with them.

Importing `google.cloud.firestore_v1` runs an `__init__` that loads every client, helper and transport, most of a cold
start; the messages need none of them. So they are imported while the package is in `sys.modules` but has not run. A
later import of the package itself loads all of it, with these same messages.
"""

import importlib
import importlib.util
import sys
from typing import Any

_PACKAGE = "google.cloud.firestore_v1"


def _import_messages() -> Any:
    if _PACKAGE in sys.modules:
        return importlib.import_module(f"{_PACKAGE}.types")
    spec: Any = importlib.util.find_spec(_PACKAGE)
    sys.modules[_PACKAGE] = importlib.util.module_from_spec(spec)
    try:
        return importlib.import_module(f"{_PACKAGE}.types")
    finally:
        del sys.modules[_PACKAGE]


_types = _import_messages()

BatchGetDocumentsRequest: Any = _types.BatchGetDocumentsRequest.pb()
BatchGetDocumentsResponse: Any = _types.BatchGetDocumentsResponse.pb()
Document: Any = _types.Document.pb()
CommitRequest: Any = _types.CommitRequest.pb()
BatchWriteResponse: Any = _types.BatchWriteResponse.pb()
REQUEST_TIME = _types.DocumentTransform.FieldTransform.ServerValue.REQUEST_TIME
