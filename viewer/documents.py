"""Reads the documents that a query finds without the snapshots of Firestore's client, which cost 0.4 ms each."""

from collections.abc import Mapping
from datetime import UTC
from typing import Any, NamedTuple

from google.cloud.firestore_v1.types import RunQueryResponse


class Found(NamedTuple):
    """A document: its id, and its fields as Python values."""

    key: str
    fields: dict[str, Any]


async def read(query: Any, seconds: float) -> list[Found]:
    """Return the documents that a query finds.

    Args:
        query: an `AsyncQuery`.
        seconds: the time limit.

    Raises:
        GoogleAPICallError, GoogleAuthError: Firestore does not answer.
    """
    # As AsyncQuery.stream() does, up to the snapshots.
    client = query._client  # noqa: SLF001
    request, _, options = query._prep_stream(retry=None, timeout=seconds)  # noqa: SLF001
    metadata = client._rpc_metadata  # noqa: SLF001
    responses = await client._firestore_api.run_query(request=request, metadata=metadata, **options)  # noqa: SLF001
    documents = (RunQueryResponse.pb(response).document async for response in responses)
    return [found(each) async for each in documents if each.name]  # converts the first while the next ones come


def found(document: Any) -> Found:
    """Return a protobuf document as Python values."""
    return Found(document.name.rpartition("/")[2], plain_fields(document.fields))


def plain_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return protobuf fields as Python values; a Timestamp is a datetime in UTC."""
    return {name: _plain(value) for name, value in fields.items()}


def _plain(value: Any) -> Any:
    kind = value.WhichOneof("value_type")
    if kind == "map_value":
        return plain_fields(value.map_value.fields)
    if kind == "array_value":
        return [_plain(each) for each in value.array_value.values]
    if kind == "timestamp_value":
        return value.timestamp_value.ToDatetime(UTC)
    if kind == "geo_point_value":
        return {"latitude": value.geo_point_value.latitude, "longitude": value.geo_point_value.longitude}
    return None if kind in (None, "null_value") else getattr(value, kind)
