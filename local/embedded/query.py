"""Firestore's structured queries as ranges of an index.

As in Firestore itself, an index is sorted by the fields that are compared for equality, then by the orders. Therefore
all that a query finds is one range of the index, in the order of the results.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import grpc
from google.cloud.firestore_v1 import types

from local.embedded.document import StatusError, check_fields, invalid, parse_field_path, parse_name, unimplemented
from local.embedded.sort_key import NAME, NAN, NULL, Column, sort_key

_Op = types.StructuredQuery.FieldFilter.Operator
_Composite = types.StructuredQuery.CompositeFilter.Operator
_Unary = types.StructuredQuery.UnaryFilter.Operator
_DESCENDING = types.StructuredQuery.Direction.DESCENDING

_GREATER = (_Op.GREATER_THAN, _Op.GREATER_THAN_OR_EQUAL)
_INCLUSIVE = (_Op.LESS_THAN_OR_EQUAL, _Op.GREATER_THAN_OR_EQUAL)
_SUPPORTED = (_Op.EQUAL, _Op.LESS_THAN, *_INCLUSIVE, _Op.GREATER_THAN)
_BEYOND = b"\xff"  # a key followed by this byte sorts after every key that continues the first: no key begins with it


class Scan(NamedTuple):
    """The part of an index that answers a query.

    Attributes:
        columns: those of the index.
        start: the first key.
        end: the first key beyond the part.
        limit: the maximum number of results; -1 for all.
    """

    columns: tuple[Column, ...]
    start: bytes
    end: bytes
    limit: int


def plan(query: Any) -> Scan:
    """Turn a protobuf StructuredQuery into a scan of an index.

    Raises:
        StatusError: INVALID_ARGUMENT, the query is not valid; UNIMPLEMENTED, the embedded store cannot answer it;
            FAILED_PRECONDITION, Firestore cannot either.
    """
    _check_support(query)
    filters = list(_filters(query.where))
    equalities = sorted((part for part in filters if part.op == _Op.EQUAL), key=_path)
    inequalities = [part for part in filters if part.op != _Op.EQUAL]
    orders = _orders(query, filters, {_path(part) for part in inequalities})
    columns = (*(Column(_path(part), descending=False) for part in equalities), *orders)
    for column in columns:
        column.path == NAME or parse_field_path(column.path)  # raises
    prefix = b"".join(sort_key(part.value) for part in equalities)
    ranges = [(prefix, prefix + _BEYOND), *(_range(prefix, orders[0], part) for part in inequalities)]
    starts, ends = zip(*ranges, *_cursors(prefix, query, orders), strict=True)
    return Scan(columns, max(starts), min(ends), query.limit.value if query.HasField("limit") else -1)


def _check_support(query: Any) -> None:
    if len(query.from_) != 1 or not query.from_[0].collection_id or query.from_[0].all_descendants:
        raise unimplemented("collection groups")
    if query.offset or query.HasField("find_nearest"):
        raise unimplemented("offset" if query.offset else "find_nearest")
    if query.limit.value < 0:
        raise invalid("A limit cannot be negative.")


def _path(field_filter: Any) -> str:
    path: str = field_filter.field.field_path
    return path


def _filters(clause: Any) -> Iterator[Any]:
    """Yield the field filters of a clause, all of which must hold."""
    match clause.WhichOneof("filter_type"):
        case "composite_filter":
            if clause.composite_filter.op != _Composite.AND:
                raise unimplemented(f"the operator {_Composite(clause.composite_filter.op).name}")
            for part in clause.composite_filter.filters:
                yield from _filters(part)
        case "unary_filter":
            raise unimplemented(f"the operator {_Unary(clause.unary_filter.op).name}")
        case "field_filter":
            yield _checked(clause.field_filter)


def _checked(field_filter: Any) -> Any:
    if field_filter.op not in _SUPPORTED:
        raise unimplemented(f"the operator {_Op(field_filter.op).name}")
    _check_operand(_path(field_filter), field_filter.value)
    if sort_key(field_filter.value) in (NULL, NAN):
        raise unimplemented("comparisons with null and NaN")
    return field_filter


def _check_operand(path: str, value: Any) -> None:
    check_fields({"operand": value})
    if path == NAME:
        if not value.HasField("reference_value"):
            raise invalid("__name__ can be compared only with a document reference.")
        parse_name(value.reference_value)


def _orders(query: Any, filters: list[Any], unequal: set[str]) -> list[Column]:
    """Return the orders of a query: explicit ones, then the field of its inequalities, then the name."""
    orders = [Column(order.field.field_path, order.direction == _DESCENDING) for order in query.order_by]
    paths = [order.path for order in orders]
    if len(set(paths)) < len(paths) or NAME in paths[:-1]:
        raise invalid("A query cannot be ordered by a field twice, nor by another field after __name__.")
    descending = orders[-1].descending if orders else False
    implied = [*unequal.difference(paths, {NAME}), NAME] if NAME not in paths else []
    orders += [Column(path, descending) for path in implied]
    if unequal - {orders[0].path}:
        raise unimplemented("inequalities on another field than the first one of the order")
    if orders[0] == (NAME, True) and all(_path(part) == NAME for part in filters):
        raise StatusError(grpc.StatusCode.FAILED_PRECONDITION, "Firestore does not scan backwards by name.")
    return orders


def _range(prefix: bytes, column: Column, field_filter: Any) -> tuple[bytes, bytes]:
    """Return the first key that passes an inequality, and the first key beyond: all of the operand's type."""
    key = prefix + column.encode(field_filter.value)
    rank = key[len(prefix)]
    is_start = (field_filter.op in _GREATER) != column.descending
    bound = key if is_start == (field_filter.op in _INCLUSIVE) else key + _BEYOND
    return (bound, prefix + bytes([rank + 1])) if is_start else (prefix + bytes([rank]), bound)


def _cursors(prefix: bytes, query: Any, orders: list[Column]) -> Iterator[tuple[bytes, bytes]]:
    if query.HasField("start_at"):
        yield _position(prefix, query.start_at, orders[: len(query.order_by)]), prefix + _BEYOND
    if query.HasField("end_at"):
        yield prefix, _position(prefix, query.end_at, orders[: len(query.order_by)])


def _position(prefix: bytes, cursor: Any, orders: list[Column]) -> bytes:
    """Return the first key after the position of a cursor."""
    if len(cursor.values) > len(orders):
        raise invalid("A cursor has more values than the query has orders.")
    for order, value in zip(orders, cursor.values, strict=False):
        _check_operand(order.path, value)
        prefix += order.encode(value)
    return prefix if cursor.before else prefix + _BEYOND
