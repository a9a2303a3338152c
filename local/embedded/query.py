"""Firestore's structured queries over documents in memory: filter, order, cursors, offset, limit, projection.

The order of values: https://firebase.google.com/docs/firestore/manage-data/data-types#value_type_ordering.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import grpc
from google.cloud.firestore_v1 import types

from local.embedded.document import (
    SIMPLE_PATH,
    RefusalError,
    check_fields,
    get_field,
    invalid,
    masked,
    parse_field_path,
    parse_name,
    rfc3339,
)

Predicate = Callable[[Any], bool]
Key = tuple[Any, ...]

_Value = types.Value.pb()
_Op = types.StructuredQuery.FieldFilter.Operator
_Composite = types.StructuredQuery.CompositeFilter.Operator
_Unary = types.StructuredQuery.UnaryFilter.Operator
_DESCENDING = types.StructuredQuery.Direction.DESCENDING
_NAME = "__name__"
_MAX_ALTERNATIVES = 30

_NULL, _NAN, _ARRAY = (0,), (2,), 9
_KEYS: dict[str | None, Callable[[Any], Key]] = {
    "null_value": lambda _: _NULL,
    "boolean_value": lambda truth: (1, truth),
    "integer_value": lambda number: (3, number),
    "double_value": lambda number: _NAN if math.isnan(number) else (3, number),
    "timestamp_value": lambda timestamp: (4, timestamp.seconds, timestamp.nanos),
    "string_value": lambda text: (5, text),
    "bytes_value": lambda content: (6, content),
    "reference_value": lambda name: (7, name.split("/")),
    "geo_point_value": lambda point: (8, point.latitude, point.longitude),
    "array_value": lambda array: (_ARRAY, [sort_key(element) for element in array.values]),
    "map_value": lambda content: (10, [(name, sort_key(content.fields[name])) for name in sorted(content.fields)]),
}
_SQL: dict[int, str] = {  # texts sort in SQLite as in Firestore, and times as texts
    _Op.LESS_THAN: "<",
    _Op.LESS_THAN_OR_EQUAL: "<=",
    _Op.GREATER_THAN: ">",
    _Op.GREATER_THAN_OR_EQUAL: ">=",
    _Op.EQUAL: "=",
}
_WITH_LISTS = (_Op.IN, _Op.NOT_IN, _Op.ARRAY_CONTAINS_ANY)
_UNORDERED = (_Op.EQUAL, _Op.IN, _Op.ARRAY_CONTAINS, _Op.ARRAY_CONTAINS_ANY)
_UNARY_UNORDERED = (_Unary.IS_NULL, _Unary.IS_NAN)


class _Order(NamedTuple):
    path: str
    descending: bool


def run(query: Any, documents: Iterable[Any]) -> list[Any]:
    """Run a query.

    Args:
        query: a protobuf StructuredQuery; its `from` is what the caller chose the documents by.
        documents: the protobuf Documents to choose from.

    Returns:
        The documents found, in order, with the fields that the query selects.

    Raises:
        RefusalError: INVALID_ARGUMENT, the query makes no sense; UNIMPLEMENTED or FAILED_PRECONDITION, it does, but
            is not answered.
    """
    orders = _orders(query)
    found = _filtered(query, orders, documents)
    for order in reversed(orders):  # Python's sort is stable: the last key first
        found.sort(key=_reader(order.path), reverse=order.descending)
    found = _between_cursors(query, orders, found)
    if query.offset < 0 or query.limit.value < 0:
        raise invalid("offset and limit cannot be negative.")
    end = query.offset + query.limit.value if query.HasField("limit") else None
    found = found[query.offset : end]
    if query.HasField("select"):
        return [masked(document, [field.field_path for field in query.select.fields]) for document in found]
    return found


def narrowing(query: Any) -> tuple[str, list[str]]:
    """Say in SQL what every document found has in its JSON, so that few of the others need be read.

    Args:
        query: a protobuf StructuredQuery.

    Returns:
        A condition on the column `fields`, and its parameters. It may hold for documents that the query does not find.

    Raises:
        RefusalError: INVALID_ARGUMENT, a filter compares with a value that cannot be.
    """
    conditions, parameters = ["1"], []
    composite = query.where.composite_filter
    for clause in [query.where, *(composite.filters if composite.op == _Composite.AND else [])]:
        compared = clause.field_filter
        check_fields({"operand": compared.value} if clause.HasField("field_filter") else {})
        text = rfc3339(compared.value.timestamp_value) if compared.value.HasField("timestamp_value") else None
        text = compared.value.string_value or text
        if text and "\0" not in text and compared.op in _SQL and SIMPLE_PATH.fullmatch(compared.field.field_path):
            conditions.append(f"json_extract(fields, ?) {_SQL[compared.op]} ?")
            parameters += [f"$.{compared.field.field_path}", text]
    return " AND ".join(conditions), parameters


def sort_key(value: Any) -> Key:
    """Return what sorts, and equals, as Firestore's value does: the rank of its type, then its content."""
    kind = value.WhichOneof("value_type")
    if kind not in _KEYS:
        raise invalid("A value is without a type.")
    return _KEYS[kind](getattr(value, kind))


def _comparable(key: Key, operand: Key) -> bool:
    return key[0] == operand[0] and operand not in (_NULL, _NAN)


def _equal(key: Key, operand: Key) -> bool:
    return key == operand and operand not in (_NULL, _NAN)  # which equal nothing, not even themselves


def _among(key: Key, operands: list[Key]) -> bool:
    return any(_equal(key, operand) for operand in operands)


_TESTS: dict[int, Callable[[Key, Key], bool]] = {
    _Op.LESS_THAN: lambda key, operand: _comparable(key, operand) and key < operand,
    _Op.LESS_THAN_OR_EQUAL: lambda key, operand: _comparable(key, operand) and key <= operand,
    _Op.GREATER_THAN: lambda key, operand: _comparable(key, operand) and key > operand,
    _Op.GREATER_THAN_OR_EQUAL: lambda key, operand: _comparable(key, operand) and key >= operand,
    _Op.EQUAL: _equal,
    _Op.NOT_EQUAL: lambda key, operand: not (_equal(key, operand) or _NULL in (key, operand)),
    _Op.IN: lambda key, operands: _among(key, operands[1]),
    _Op.NOT_IN: lambda key, operands: not (_among(key, operands[1]) or key == _NULL or _NULL in operands[1]),
    _Op.ARRAY_CONTAINS: lambda key, operand: key[0] == _ARRAY and _among(operand, key[1]),
    _Op.ARRAY_CONTAINS_ANY: lambda key, operands: (
        key[0] == _ARRAY and any(_among(operand, key[1]) for operand in operands[1])
    ),
}
_UNARY_TESTS: dict[int, Callable[[Key], bool]] = {
    _Unary.IS_NULL: lambda key: key == _NULL,
    _Unary.IS_NOT_NULL: lambda key: key != _NULL,
    _Unary.IS_NAN: lambda key: key == _NAN,
    _Unary.IS_NOT_NAN: lambda key: key not in (_NULL, _NAN),
}


def _reader(path: str) -> Callable[[Any], Any]:
    """Return what reads a field of a document as a key, None where it has no such field."""
    if path == _NAME:
        return lambda document: sort_key(_Value(reference_value=document.name))
    names = parse_field_path(path)

    def read(document: Any) -> Key | None:
        value = get_field(document.fields, names)
        return None if value is None else sort_key(value)

    return read


def _filtered(query: Any, orders: list[_Order], documents: Iterable[Any]) -> list[Any]:
    """Return the documents that pass the filter and have every field that they are ordered by."""
    passes = _predicate(query.where) if query.HasField("where") else lambda _: True
    ordered_by = [_reader(order.path) for order in orders[:-1]]
    return [
        document
        for document in documents
        if passes(document) and all(read(document) is not None for read in ordered_by)
    ]


def _predicate(clause: Any) -> Predicate:
    match clause.WhichOneof("filter_type"):
        case "composite_filter":
            return _composite(clause.composite_filter)
        case "field_filter":
            reader, test = _reader(clause.field_filter.field.field_path), _field_test(clause.field_filter)
        case "unary_filter" if clause.unary_filter.op in _UNARY_TESTS:
            reader, test = _reader(clause.unary_filter.field.field_path), _UNARY_TESTS[clause.unary_filter.op]
        case _:
            raise invalid("A filter is of no known kind.")
    return lambda document: (key := reader(document)) is not None and test(key)


def _composite(composite: Any) -> Predicate:
    if composite.op not in (_Composite.AND, _Composite.OR):
        raise invalid("A composite filter is neither AND nor OR.")
    joined = all if composite.op == _Composite.AND else any
    parts = [_predicate(part) for part in composite.filters]
    return lambda document: joined(part(document) for part in parts) or not parts


def _field_test(field_filter: Any) -> Callable[[Key], bool]:
    if field_filter.op not in _TESTS:
        raise invalid("A field filter has no known operator.")
    if field_filter.field.field_path == _NAME:
        _check_names(field_filter.value)
    if field_filter.op in _WITH_LISTS and not 1 <= len(field_filter.value.array_value.values) <= _MAX_ALTERNATIVES:
        raise invalid(f"IN, NOT_IN and ARRAY_CONTAINS_ANY take an array of 1 to {_MAX_ALTERNATIVES} values.")
    test, operand = _TESTS[field_filter.op], sort_key(field_filter.value)
    return lambda key: test(key, operand)


def _check_names(value: Any) -> None:
    values = value.array_value.values if value.HasField("array_value") else [value]
    for element in values:
        if not element.HasField("reference_value"):
            raise invalid("__name__ is compared with document references only.")
        parse_name(element.reference_value)


def _orders(query: Any) -> list[_Order]:
    """Return what the query is ordered by: as it says, then by the fields of its inequalities, then by name."""
    orders = [_Order(order.field.field_path, order.direction == _DESCENDING) for order in query.order_by]
    paths = [order.path for order in orders]
    if len(set(paths)) < len(paths) or _NAME in paths[:-1]:
        raise invalid("No field is ordered by twice, nor any after __name__.")
    descending = orders[-1].descending if orders else False
    implied = sorted({path for path, ordering in _compared(query.where) if ordering} - {*paths, _NAME})
    if _NAME not in paths:
        orders += [_Order(path, descending) for path in [*implied, _NAME]]
    if orders[0] == (_NAME, True) and all(path == _NAME for path, _ in _compared(query.where)):
        raise RefusalError(grpc.StatusCode.FAILED_PRECONDITION, "Firestore does not scan backwards by name.")
    return orders


def _compared(clause: Any) -> Iterator[tuple[str, bool]]:
    """Yield each field path of a filter, and whether the filter orders the result by it."""
    for part in clause.composite_filter.filters:
        yield from _compared(part)
    if clause.HasField("field_filter"):
        yield clause.field_filter.field.field_path, clause.field_filter.op not in _UNORDERED
    elif clause.HasField("unary_filter"):
        yield clause.unary_filter.field.field_path, clause.unary_filter.op not in _UNARY_UNORDERED


def _between_cursors(query: Any, orders: list[_Order], documents: list[Any]) -> list[Any]:
    if query.HasField("start_at"):
        side = _sides(query, query.start_at, orders)
        documents = [document for document in documents if side(document) >= 0]
    if query.HasField("end_at"):
        side = _sides(query, query.end_at, orders)
        documents = [document for document in documents if side(document) < 0]
    return documents


def _sides(query: Any, cursor: Any, orders: list[_Order]) -> Callable[[Any], int]:
    """Return what tells whether a document lies before the cursor (-1) or after it (1)."""
    positions = cursor.values
    if len(positions) > len(query.order_by):
        raise invalid("A cursor has more values than the query has orders.")
    columns = []
    for order, value in zip(orders, positions, strict=False):
        if order.path == _NAME:
            _check_names(value)
        columns.append((_reader(order.path), sort_key(value), order.descending))

    def side(document: Any) -> int:
        for read, position, descending in columns:
            if (key := read(document)) != position:
                return 1 if (key > position) != descending else -1
        return 1 if cursor.before else -1

    return side
