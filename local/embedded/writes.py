"""The writes of Commit and BatchWrite: checks, preconditions, masks and transforms."""

from typing import Any

import grpc
from google.cloud.firestore_v1 import types

from local.embedded.document import (
    MAX_DEPTH,
    Document,
    Name,
    StatusError,
    Value,
    check_fields,
    check_size,
    get_field,
    invalid,
    parse_field_path,
    parse_name,
    set_field,
    unimplemented,
)
from local.embedded.storage import Storage

_REQUEST_TIME = types.DocumentTransform.FieldTransform.ServerValue.REQUEST_TIME
_WriteResult = types.WriteResult.pb()


def check_write(write: Any) -> Name:
    """Check a write as far as that is possible without the stored document.

    Returns:
        The name of its document.

    Raises:
        StatusError: INVALID_ARGUMENT or UNIMPLEMENTED.
    """
    match write.WhichOneof("operation"):
        case "update":
            name = parse_name(write.update.name)
            check_fields(write.update.fields)
            paths = [*write.update_mask.field_paths, *map(_check_transform, write.update_transforms)]
            if any(len(parse_field_path(path)) > MAX_DEPTH for path in paths):
                raise invalid(f"A field path has more than {MAX_DEPTH} names.")
            return name
        case "delete":
            if write.HasField("update_mask") or write.update_transforms:
                raise invalid("A delete cannot have a mask or transforms.")
            return parse_name(write.delete)
        case "transform":
            raise unimplemented("the operation transform; use update_transforms")
    raise invalid("A write has no operation.")


def _check_transform(transform: Any) -> str:
    kind = transform.WhichOneof("transform_type")
    if kind is None or (kind == "set_to_server_value" and transform.set_to_server_value != _REQUEST_TIME):
        raise invalid("A transform has no operation.")
    if kind != "set_to_server_value":
        raise unimplemented(f"the transform {kind}")
    path: str = transform.field_path
    return path


def apply_write(storage: Storage, name: Name, write: Any, now: Any) -> Any:
    """Apply a checked write, or change nothing.

    Returns:
        The protobuf WriteResult.

    Raises:
        StatusError: its precondition does not hold, or the document would be too large.
    """
    stored = storage.get(name)
    _check_precondition(write.current_document, stored)
    if write.HasField("delete"):
        storage.delete(name, stored)
        return _WriteResult()
    document = _updated(write, stored)
    results = [_set_server_time(document, transform, now) for transform in write.update_transforms]
    check_size(document)
    document.create_time.CopyFrom(stored.create_time if stored else now)
    document.update_time.CopyFrom(stored.update_time if stored else now)
    if document != stored:  # a write that changes nothing keeps the update time
        document.update_time.CopyFrom(now)
        storage.put(name, document, stored)
    return _WriteResult(update_time=document.update_time, transform_results=results)


def _check_precondition(condition: Any, stored: Any) -> None:
    match condition.WhichOneof("condition_type"):
        case "exists" if condition.exists and not stored:
            raise StatusError(grpc.StatusCode.NOT_FOUND, "No document to update.")
        case "exists" if stored and not condition.exists:
            raise StatusError(grpc.StatusCode.ALREADY_EXISTS, f"Document already exists: {stored.name}")
        case "update_time" if not stored or stored.update_time != condition.update_time:
            raise StatusError(grpc.StatusCode.FAILED_PRECONDITION, "The document has another update time.")


def _updated(write: Any, stored: Any) -> Any:
    """Return the document as written, or with a mask the stored one with the masked fields replaced."""
    if not write.HasField("update_mask"):
        return Document(name=write.update.name, fields=write.update.fields)
    document = Document(name=write.update.name, fields=stored.fields if stored else {})
    for path in map(parse_field_path, write.update_mask.field_paths):
        set_field(document.fields, path, get_field(write.update.fields, path))
    return document


def _set_server_time(document: Any, transform: Any, now: Any) -> Any:
    """Set a field to the server's time, which Firestore truncates to milliseconds."""
    value = Value(timestamp_value=now)
    value.timestamp_value.nanos -= now.nanos % 1_000_000
    set_field(document.fields, parse_field_path(transform.field_path), value)
    return value
