"""Prints what deploy/firestore.indexes.json wants of a database, for deploy.sh.

The first argument is the file; the next are the names of the collections events and devices (empty: not used); the rest
are labels to index. Standard input holds the composite indexes of the database, as gcloud lists them in JSON. It needs
a Python 3.8 or newer without packages.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def main(argv: list[str]) -> int:
    """Print a line for each missing index, and for each exemption and TTL field."""
    path, events, devices, *labels = argv
    groups = {
        "events": events,
        "events_quarantine": f"{events}_quarantine",
        "events_repair": f"{events}_repair",
        "devices": devices,
    }
    with open(path, encoding="utf-8") as file:  # noqa: PTH123 - Python 3.8 without packages
        wanted = json.load(file)
    present = {_group(index) + _line(index) for index in json.loads(sys.stdin.read() or "[]")}
    for index in [*wanted["indexes"], *(_of_label(label, order) for label in labels for order in _ORDERS)]:
        group = groups[index["collectionGroup"]]
        if group and group + _line(index) not in present:
            print(f"index {group}{_line(index)}")
    for field in wanted["fieldOverrides"]:
        if group := groups[field["collectionGroup"]]:
            print(f"exempt {group} {field['fieldPath']}")
            if field.get("ttl"):
                print(f"ttl {group} {field['fieldPath']}")
    return 0


_ORDERS = ("ASCENDING", "DESCENDING")


def _of_label(label: str, order: str) -> dict[str, Any]:
    fields = [{"fieldPath": label, "order": "ASCENDING"}, {"fieldPath": "timestamp", "order": order}]
    return {"collectionGroup": "events", "fields": fields}


def _group(index: dict[str, Any]) -> str:
    return str(index["name"].split("/")[5])


def _line(index: dict[str, Any]) -> str:
    fields = [field for field in index["fields"] if field["fieldPath"] != "__name__"]
    return "".join(f" {field['fieldPath']} {field.get('order')}" for field in fields)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
