"""deploy/firestore.indexes.json has the index of every query of README, docs/ and the viewer.

A local Firestore asks for no index, so nothing else would notice a missing one. The queries are recorded on their way
to Firestore, while the documented code and the viewer's functions run.
"""

import asyncio
import inspect
import io
import json
import os
import re
import sys
import threading
import trace
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

import pytest
from google.cloud import firestore
from google.cloud.firestore_v1.base_query import FieldFilter
from google.cloud.firestore_v1.types import StructuredQuery

import viewer.queries
from deploy import indexes
from tests.conftest import ROOT, Endpoint
from tests.query_recorder import QueryRecorder
from tests.test_docs import FRIDGE, PAGES, blocks, store_events
from viewer.connection import Source
from viewer.queries import EPOCH, Queries

Fields = list[tuple[str, str]]  # paths and directions

FILE = json.loads((ROOT / "deploy/firestore.indexes.json").read_text())
EXEMPT = {(each["collectionGroup"], each["fieldPath"]) for each in FILE["fieldOverrides"] if each["indexes"] == []}
COMPOSITE: list[tuple[str, Fields]] = [
    (index["collectionGroup"], [(field["fieldPath"], field["order"]) for field in index["fields"]])
    for index in FILE["indexes"]
]
WITH_LABELS = COMPOSITE + [
    ("events", [(label, "ASCENDING"), ("timestamp", order)])
    for label in {label for page in PAGES for label in re.findall(r"--index (labels\.\w+)", page.read_text())}
    for order in ("ASCENDING", "DESCENDING")
]

# What the pages do not call themselves, and the arguments of the viewer's queries by their names.
CALLS = {"data.md": 'warn({"document": "events/b"})'}
ARGUMENTS = {"limit": 5, "position": lambda: EPOCH, "since": EPOCH, "target": FRIDGE, "event_type": "touch", "key": "b"}


class Needed(NamedTuple):
    """The index that a query needs: the fields of its equalities, in any order, then those of its order."""

    collection: str
    equal: set[str]
    ordered: Fields


def needed_index(query: StructuredQuery) -> Needed:
    """Return the index that a query needs, by the rules of Firestore's documentation of index types.

    Raises:
        AssertionError: the query has a part for which this function knows no rule.
    """
    (source,) = query.from_
    assert not source.all_descendants, "collection groups are not known here"
    where = query.where
    assert where.composite_filter.op.name in ("OPERATOR_UNSPECIFIED", "AND"), "OR is not known here"
    filters = [each.field_filter for each in where.composite_filter.filters or [where] if each]
    equal = {each.field.field_path for each in filters if each.op.name in ("EQUAL", "IN")}
    ranges = [each for each in filters if each.op.name not in ("EQUAL", "IN")]
    assert all("_THAN" in each.op.name for each in ranges), "this operator is not known here"
    ordered = [(each.field.field_path, each.direction.name) for each in query.order_by]
    if len(ordered) > 1 and ordered[-1] == ("__name__", ordered[-2][1]):
        ordered.pop()  # each index ends with the name, in the direction of its last field
    paths = [path for path, _ in ordered]
    ordered += [(path, "ASCENDING") for path in {each.field.field_path for each in ranges} if path not in paths]
    return Needed(source.collection_id, equal, [field for field in ordered if field != ("__name__", "ASCENDING")])


def has_index(needed: Needed, composite: list[tuple[str, Fields]] = WITH_LABELS) -> bool:
    """Return whether one composite index serves a query, or the index of each single field, which is not exempt."""
    if len(needed.ordered) > 1 or (needed.equal and needed.ordered):
        size = len(needed.equal)
        return any(
            collection == needed.collection
            and {path for path, _ in fields[:size]} == needed.equal
            and fields[size:] == needed.ordered
            for collection, fields in composite
        )
    paths = needed.equal | {path for path, _ in needed.ordered}
    return not any(_is_exempt(needed.collection, path) for path in paths)


def _is_exempt(collection: str, path: str) -> bool:
    parts = path.split(".")
    return any((collection, ".".join(parts[:size])) in EXEMPT for size in range(1, len(parts) + 1))


@pytest.fixture
def recorder(
    start: Callable[..., Endpoint], database: firestore.Client, project: str, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Iterator[QueryRecorder]:  # fmt: skip
    """Return a recorder in front of a Firestore with events, devices and a quarantine; new clients use it."""
    store_events(start(DEVICES_COLLECTION="devices"), database, project, monkeypatch)
    recorder = QueryRecorder(os.environ["FIRESTORE_EMULATOR_HOST"])
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", recorder.host)
    monkeypatch.chdir(tmp_path)
    yield recorder
    recorder.stop()
    assert recorder.unknown == set()


def run_every_line(code: str, name: str) -> set[int]:
    """Run code, and return the numbers of its lines that did not run."""
    compiled = compile(code, name, "exec")
    names = {"__name__": name, "__file__": name}
    tracer = trace.Trace(count=True, trace=False)
    before, of_threads = sys.gettrace(), threading.gettrace()
    try:
        tracer.runctx(compiled, names, names)
    finally:  # the measurement of coverage goes on, also in new threads
        sys.settrace(before)
        if of_threads is not None:
            threading.settrace(of_threads)
    ran = {line for (file, line) in tracer.results().counts if file == name}
    return _lines(compiled) - ran


def _lines(code: CodeType) -> set[int]:
    inner = [each for each in code.co_consts if isinstance(each, CodeType)]
    return {line for _, _, line in code.co_lines() if line}.union(*map(_lines, inner))


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name)
def test_each_documented_query_has_its_index(page: Path, recorder: QueryRecorder) -> None:
    """The Python of a page runs as printed, each line of it, and Firestore has the index of each of its queries."""
    code = "\n".join([*blocks(page, "python"), CALLS.get(page.name, "")])

    missed = run_every_line(code, page.name)

    assert [code.splitlines()[line - 1] for line in sorted(missed)] == []
    assert len(recorder.queries) > 0
    assert [needed for query in recorder.queries if not has_index(needed := needed_index(query))] == []


def test_each_query_of_the_viewer_has_its_index(recorder: QueryRecorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each query of each method that the viewer reads with has a limit, and Firestore in the cloud has its index."""
    monkeypatch.setattr(Source, "is_local", False)
    monkeypatch.setattr(viewer.queries, "PAGE", 1)
    source = Source(firestore.Client().project, "(default)", "events", "devices")
    queries = Queries(source)

    async def run() -> set[str]:
        ran = set()
        for name, method in inspect.getmembers(queries, inspect.ismethod):
            if name[0] != "_" and name not in ("position", "document"):  # a time, and a read by key
                before = len(recorder.queries)
                await _finish(method(*(ARGUMENTS[parameter] for parameter in inspect.signature(method).parameters)))
                assert len(recorder.queries) > before, f"{name} sends no query"
                ran.add(name)
        return ran

    assert asyncio.run(run()) >= {"recent", "new_events", "devices", "of_sensor", "history", "quarantine"}
    limits = [StructuredQuery.pb(query).limit.value for query in recorder.queries]
    assert 0 < min(limits) <= max(limits) <= viewer.queries.HISTORY
    assert [needed for query in recorder.queries if not has_index(needed := needed_index(query))] == []


async def _finish(call: Any) -> None:
    """Do what a method of the viewer does: a read, the pages of one, or the live queries that it returns."""
    if isinstance(call, AsyncIterator):
        async for _ in call:
            pass
    elif inspect.isawaitable(call):
        await call
    else:
        for query in call if isinstance(call, list) else [call]:
            await query.look()
            query.close()


def test_only_one_module_of_the_viewer_queries() -> None:
    """The viewer's other modules make no query, so that all of them are in one place."""
    made = re.compile(r"\.(where|order_by)\(")
    users = [path.name for path in (ROOT / "viewer").glob("*.py") if made.search(path.read_text())]

    assert users == ["queries.py"]


_SCRIPT_QUERY = re.compile(r'query\(collection\(\w+\(?\w*\)?, "(\w+)"\)(.*?)\);', re.DOTALL)
_SCRIPT_PART = re.compile(r'(where|orderBy)\("([\w.]+)"(?:, "([^"]+)")?')


def test_each_query_of_a_web_page_has_its_index() -> None:
    """Firestore has the index of each query in the scripts of the pages."""
    found = []
    for page in PAGES:
        for script in blocks(page, "html"):
            queries = _SCRIPT_QUERY.findall(script)
            assert len(queries) == script.count("query(")
            for collection, rest in queries:
                parts = _SCRIPT_PART.findall(rest)
                equal = {path for kind, path, word in parts if kind == "where" and word == "=="}
                ordered = [
                    (path, "DESCENDING" if word == "desc" else "ASCENDING")
                    for kind, path, word in parts
                    if kind == "orderBy"
                ]
                found.append(Needed(collection, equal, ordered))

    assert found == [Needed("events", set(), [("timestamp", "DESCENDING")])]
    assert all(map(has_index, found))


def test_the_map_of_the_checkpoint_is_exempt(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Firestore indexes no device in the repair's checkpoint, also if the collection of events has another name."""
    monkeypatch.setattr("sys.stdin", io.StringIO("[]"))

    status = indexes.main([str(ROOT / "deploy/firestore.indexes.json"), "other", ""])

    assert _is_exempt("events_repair", "devices.bchonod7rihjtvdmd2vg")
    assert status == 0
    assert "exempt other_repair devices" in capsys.readouterr().out.splitlines()


def test_each_exemption_has_the_form_of_the_firebase_cli() -> None:
    """`firebase deploy` reads the same file: each exemption names a field once, and leaves it no index."""
    fields = [(each["collectionGroup"], each["fieldPath"]) for each in FILE["fieldOverrides"]]

    assert all(each.keys() - {"ttl"} == {"collectionGroup", "fieldPath", "indexes"} for each in FILE["fieldOverrides"])
    assert len(fields) == len(set(fields)) == len(EXEMPT)


QUERIES: dict[str, tuple[Callable[[Any], Any], bool]] = {
    "equality": (lambda events: events.where(filter=FieldFilter("targetName", "==", 1)), True),
    "equality and order": (
        lambda events: events.where(filter=FieldFilter("targetName", "==", 1)).order_by("timestamp"),
        True,
    ),
    "last of an order": (
        lambda events: events.where(filter=FieldFilter("eventType", "==", 1)).order_by("timestamp").limit_to_last(1),
        True,
    ),
    "two equalities and a range": (
        lambda events: (
            events.where(filter=FieldFilter("eventType", "==", 1))
            .where(filter=FieldFilter("targetName", "in", [1]))
            .where(filter=FieldFilter("timestamp", "<", 1))
        ),
        True,
    ),
    "exempt field": (lambda events: events.order_by("receivedAt"), False),
    "field of an exempt map": (lambda events: events.where(filter=FieldFilter("labels.floor", "==", 1)), False),
    "other order": (
        lambda events: events.where(filter=FieldFilter("targetName", "==", 1)).order_by("receivedAt"),
        False,
    ),
    "other label": (
        lambda events: events.where(filter=FieldFilter("labels.floor", "==", 1)).order_by("timestamp"),
        False,
    ),
    "order of two fields": (lambda events: events.order_by("timestamp").order_by("targetName"), False),
    "order by name, in the other direction": (
        lambda events: events.order_by("timestamp").order_by("__name__", direction="DESCENDING"),
        False,
    ),
}


@pytest.mark.parametrize("name", QUERIES)
def test_a_missing_index_is_found(name: str, recorder: QueryRecorder) -> None:
    """A query that has no index in the file is told from one that has."""
    make, indexed = QUERIES[name]

    make(firestore.Client().collection("events")).get()

    (query,) = recorder.queries
    assert has_index(needed_index(query)) is indexed


def test_each_index_is_needed_in_its_direction(recorder: QueryRecorder) -> None:
    """The last of an ascending order is read with the descending index: without that, the index is missing."""
    events = firestore.Client().collection("events")
    events.where(filter=FieldFilter("targetName", "==", "d")).order_by("timestamp").limit_to_last(1).get()

    needed = needed_index(recorder.queries[0])

    assert needed == Needed("events", {"targetName"}, [("timestamp", "DESCENDING")])
    assert not has_index(needed, [index for index in COMPOSITE if index[1][-1][1] == "ASCENDING"])


def test_a_line_that_does_not_run_is_found() -> None:
    """A documented function that nothing calls, whose query would be missed, is found."""
    assert run_every_line("def query():\n    return 1\n\n\nquery()\n", "called") == set()
    assert run_every_line("def query():\n    return 1\n", "not called") == {2}
