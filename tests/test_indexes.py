"""deploy/firestore.indexes.json has the index of each query in README and docs/; a local Firestore asks for none."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from google.cloud import firestore
from google.cloud.firestore_v1.base_query import FieldFilter
from google.cloud.firestore_v1.query import Query
from google.cloud.firestore_v1.types import StructuredQuery

from tests.conftest import ROOT
from tests.test_docs import PAGES, blocks

FILE = json.loads((ROOT / "deploy/firestore.indexes.json").read_text())
INDEXED = {
    (index["collectionGroup"], *((field["fieldPath"], field["order"]) for field in index["fields"]))
    for index in FILE["indexes"]
}
EXEMPT = {(each["collectionGroup"], each["fieldPath"]) for each in FILE["fieldOverrides"] if each["indexes"] == []}
LABELS = {
    ("events", ("labels.room", "ASCENDING"), ("timestamp", order)) for order in ("ASCENDING", "DESCENDING")
}  # of --index labels.room
CALLS = [("of_device", "d"), ("of_type_since", "t", 1), ("newest_of_each_device", 1), ("latest", "d"),
         ("history", "d", 1, 2), ("of_room", "r"), ("states",), ("silent", 1)]  # fmt: skip


def index_of(query: StructuredQuery) -> tuple[Any, ...]:
    """Return the index that a query needs: its collection, the fields of its equalities, then its order."""
    where = query.where
    filters = list(where.composite_filter.filters) if where.composite_filter.filters else [where]
    fields = [each.field_filter for each in filters if each.field_filter.field.field_path]
    equal = [(each.field.field_path, "ASCENDING") for each in fields if each.op.name == "EQUAL"]
    order = [(each.field.field_path, each.direction.name) for each in query.order_by]
    ranges = [(each.field.field_path, "ASCENDING") for each in fields if each.op.name != "EQUAL"]
    return (query.from_[0].collection_id, *equal, *(order or dict.fromkeys(ranges)))


@pytest.fixture
def queries(monkeypatch: pytest.MonkeyPatch) -> list[StructuredQuery]:
    """Return the list of each query that is sent from now on; each finds nothing."""
    sent: list[StructuredQuery] = []

    def stream(query: Query, *_: Any, **__: Any) -> Iterator[Any]:
        sent.append(query._to_protobuf())
        return iter(())

    def get(query: Query, *_: Any, **__: Any) -> list[Any]:
        if query._limit_to_last:
            reverse = {"ASCENDING": "DESCENDING", "DESCENDING": "ASCENDING"}
            message = query._to_protobuf()
            for each in message.order_by:
                each.direction = getattr(StructuredQuery.Direction, reverse[each.direction.name])
            sent.append(message)
            return []
        return list(stream(query))

    monkeypatch.setattr(Query, "stream", stream)
    monkeypatch.setattr(Query, "get", get)
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "demo-indexes")
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", "127.0.0.1:1")
    return sent


def test_each_query_has_its_index(queries: list[StructuredQuery]) -> None:
    """Each query of README and docs/ has its composite index, or uses the index of one field that is not exempt."""
    for page in PAGES:
        if code := "\n".join(blocks(page, "python")):
            names: dict[str, Any] = {}
            exec(code, names)  # noqa: S102 - the page's own code
            for name, *arguments in CALLS:
                if name in names:
                    names[name](*arguments)

    assert len(queries) > 3
    for query in queries:
        collection, *fields = index_of(query)
        if len(fields) > 1:
            assert (collection, *fields) in INDEXED | LABELS
        for path, _ in fields if len(fields) == 1 else ():
            assert not {(collection, path), (collection, path.partition(".")[0])} & EXEMPT


def test_the_order_of_limit_to_last_is_reversed(queries: list[StructuredQuery]) -> None:
    """The last of an ascending order needs the descending index."""
    events = firestore.Client().collection("events")

    events.where(filter=FieldFilter("targetName", "==", "d")).order_by("timestamp").limit_to_last(1).get()

    assert index_of(queries[0]) == ("events", ("targetName", "ASCENDING"), ("timestamp", "DESCENDING"))
