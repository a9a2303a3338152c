"""Compares what was sent with what is stored.

What was sent is recorded in a SQLite file, so that a soak of hours uses no more memory than one of a minute.
"""

import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from google.cloud.firestore import Client, DocumentSnapshot

from simulator.faulty_connector import DeliveryObserver

_PAGE = 500
_KEYS_KEPT = 50  # of each kind; a broken promise may have thousands
_SCHEMA = """
CREATE TABLE sent (body BLOB PRIMARY KEY, key TEXT, kind TEXT, acknowledged INTEGER DEFAULT 0, discarded TEXT,
                   stored INTEGER DEFAULT 0) WITHOUT ROWID;
CREATE INDEX by_key ON sent (key);
"""

PROMISES = (
    "acknowledged but missing",
    "stored but never sent",
    "stored with a field that differs",
    "stored twice or rewritten",
    "forged and stored",
    "forged and acknowledged",
    "forged and not refused",
    "keys fetched too often",
    "keys fetched from a stranger",
    "unprocessable and not in quarantine",
    "unprocessable and acknowledged",
    "valid and in quarantine",
    "neither acknowledged nor discarded",
    "device not at its newest event",
)


@dataclass
class Account:
    """The counts of a ledger, with the keys of what is wrong.

    Attributes:
        counts: by name.
        keys: some keys, by name: eventIds, or keys of quarantine documents.
    """

    counts: Counter[str] = field(default_factory=Counter)
    keys: dict[str, list[str]] = field(default_factory=dict)

    def note(self, what: str, key: str) -> None:
        """Count one by name, and keep its key."""
        self.counts[what] += 1
        keys = self.keys.setdefault(what, [])
        if len(keys) < _KEYS_KEPT:
            keys.append(key)

    def add(self, other: "Account") -> None:
        """Add the account of a later part of the same run."""
        self.counts += other.counts
        for what, keys in other.keys.items():
            self.keys[what] = (self.keys.get(what, []) + keys)[:_KEYS_KEPT]

    @property
    def clean(self) -> bool:
        """Whether every promise held, and something was acknowledged at all."""
        return self.counts["acknowledged"] > 0 and not any(self.counts[promise] for promise in PROMISES)

    def lines(self) -> list[str]:
        """Return the account as text."""
        first = ("made", "acknowledged", "stored", "forged", "unprocessable", "quarantined")
        others = sorted(what for what in self.counts if what not in (*first, *PROMISES))
        lines = [f"{what:40}{self.counts[what]:9}" for what in (*first, *others)]
        for promise in PROMISES:
            verdict = f"BROKEN: {', '.join(self.keys[promise][:3])} …" if self.counts[promise] else "holds"
            lines.append(f"{promise:40}{self.counts[promise]:9}   {verdict}")
        return lines


class Ledger(DeliveryObserver):
    """Records what a `FaultyConnector` sent, and compares it with what is stored.

    Args:
        file: of SQLite; must not exist.
    """

    def __init__(self, file: Path) -> None:
        """Creates the file."""
        self._database = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        self._database.executescript(f"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; {_SCHEMA}")

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def made(self, key: str, body: bytes) -> None:
        """Record a valid event."""
        self._sent(body, key, "valid")

    def unprocessable(self, body: bytes) -> None:
        """Record an authentic body that is not a valid document."""
        self._sent(body, hashlib.sha256(body).hexdigest(), "unprocessable")

    def forged(self, key: str, body: bytes) -> None:
        """Record a body that must not be stored."""
        self._sent(body, key, "forged")

    def _sent(self, body: bytes, key: str, kind: str) -> None:
        self._database.execute("INSERT INTO sent (body, key, kind) VALUES (?, ?, ?)", (body, key, kind))

    def acknowledged(self, body: bytes) -> None:
        """Record that a request with this body was answered with a 2xx."""
        self._database.execute("UPDATE sent SET acknowledged = 1 WHERE body = ?", (body,))

    def discarded(self, body: bytes, reason: str) -> None:
        """Record that the connector stopped sending a body, and the last answer."""
        self._database.execute("UPDATE sent SET discarded = ? WHERE body = ?", (reason, body))

    def settle(
        self,
        events: Iterable[DocumentSnapshot[Any]],
        quarantine: Iterable[DocumentSnapshot[Any]],
        devices: Iterable[DocumentSnapshot[Any]] | None = None,
    ) -> Account:
        """Compare what was sent with all documents of the collections, then clear the ledger.

        Args:
            events: the documents of events.
            quarantine: the documents of the quarantine.
            devices: the documents of devices; None leaves them out.
        """
        account = Account()
        for document in events:
            self._compare_event(document, account)
        for document in quarantine:
            self._compare_quarantined(document, account)
        self._count_sent(account)
        if devices is not None:
            self._compare_devices(devices, account)
        self._database.execute("DELETE FROM sent")
        return account

    def _compare_event(self, document: DocumentSnapshot[Any], account: Account) -> None:
        account.counts["stored"] += 1
        _check_written_once(document, account)
        content = canonical(_without_receipt(document.to_dict() or {}))
        sent = self._find(document.id)
        matching = [kind for body, kind in sent if canonical(expected(body)) == content]
        if "valid" in matching:
            self._mark_stored(document.id, "valid")
        elif "forged" in matching:
            account.note("forged and stored", document.id)
        elif not sent:
            account.note("stored but never sent", document.id)
        if sent and "valid" not in matching and any(kind == "valid" for _, kind in sent):
            self._mark_stored(document.id, "valid")
            account.note("stored with a field that differs", document.id)

    def _compare_quarantined(self, document: DocumentSnapshot[Any], account: Account) -> None:
        account.counts["quarantined"] += 1
        _check_written_once(document, account)
        sent = [body for body, kind in self._find(document.id) if kind == "unprocessable"]
        if not sent:
            known = self._database.execute("SELECT 1 FROM sent WHERE body = ?", (document.get("body"),)).fetchone()
            account.note("valid and in quarantine" if known else "stored but never sent", document.id)
        elif document.get("body") == sent[0] and document.get("reason"):
            self._mark_stored(document.id, "unprocessable")
        else:
            account.note("stored with a field that differs", document.id)

    def _compare_devices(self, documents: Iterable[DocumentSnapshot[Any]], account: Account) -> None:
        """Compare each device with its newest acknowledged events.

        A newer event that is stored and was never acknowledged may be there instead, or not.
        """
        newest = self._newest()
        found = {document.id: document.to_dict() or {} for document in documents}
        for device in newest.keys() | found.keys():
            if not self._is_newest(found.get(device, {}), newest.get(device, {})):
                account.note("device not at its newest event", device)

    def _newest(self) -> dict[str, dict[str, tuple[datetime, str]]]:
        """Return timestamp and eventId of the newest acknowledged event, by device and type."""
        newest: dict[str, dict[str, tuple[datetime, str]]] = {}
        for (body,) in self._database.execute("SELECT body FROM sent WHERE kind = 'valid' AND acknowledged"):
            fields = expected(body)
            types = newest.setdefault(fields["targetName"].rpartition("/")[2], {})
            key = (fields["timestamp"], fields["eventId"])
            types[fields["eventType"]] = max(key, types.get(fields["eventType"], key))
        return newest

    def _is_newest(self, device: Mapping[str, Any], newest: Mapping[str, tuple[datetime, str]]) -> bool:
        entries = device.get("newest", {})
        keys = {kind: (entry["timestamp"], entry["eventId"]) for kind, entry in entries.items()}
        if any(kind not in keys or keys[kind] < key for kind, key in newest.items()):
            return False
        if not all(self._was_sent(entry) for entry in entries.values()) or not keys:
            return False
        timestamp, event_id = max(keys.values())
        sent = [expected(body) for body, kind in self._find(event_id) if kind == "valid"]
        shared = ("targetName", "labels", "metadata")
        content = canonical({name: device[name] for name in shared if name in device})
        return device.get("lastSeen") == timestamp and content in [
            canonical({name: fields[name] for name in shared if name in fields}) for fields in sent
        ]

    def _was_sent(self, entry: Mapping[str, Any]) -> bool:
        sent = [expected(body) for body, kind in self._find(entry["eventId"]) if kind == "valid"]
        return canonical(entry) in [canonical({name: fields[name] for name in entry}) for fields in sent]

    def _find(self, key: str) -> list[tuple[bytes, str]]:
        return self._database.execute("SELECT body, kind FROM sent WHERE key = ?", (key,)).fetchall()

    def _mark_stored(self, key: str, kind: str) -> None:
        self._database.execute("UPDATE sent SET stored = 1 WHERE key = ? AND kind = ?", (key, kind))

    def _count_sent(self, account: Account) -> None:
        for kind, key, acknowledged, discarded, stored in self._database.execute(_RESULT):
            facts = {"acknowledged": acknowledged, "discarded": discarded is not None, "stored": stored}
            account.counts["made" if kind == "valid" else kind] += 1
            if kind == "valid":
                account.counts["acknowledged"] += acknowledged
                if discarded is not None:
                    account.note(f"discarded: {discarded}", key)
            for what, of_kind, condition in _FINDINGS:
                if kind == of_kind and condition(facts):
                    account.note(what, key)


_RESULT = "SELECT kind, key, acknowledged, discarded, stored FROM sent"
_Facts = Mapping[str, bool]
_FINDINGS: tuple[tuple[str, str, Callable[[_Facts], bool]], ...] = (
    ("acknowledged but missing", "valid", lambda fact: fact["acknowledged"] and not fact["stored"]),
    ("neither acknowledged nor discarded", "valid", lambda fact: not fact["acknowledged"] and not fact["discarded"]),
    ("discarded and not stored", "valid", lambda fact: fact["discarded"] and not fact["stored"]),
    ("forged and acknowledged", "forged", lambda fact: fact["acknowledged"]),
    ("unprocessable and acknowledged", "unprocessable", lambda fact: fact["acknowledged"]),
    ("unprocessable and not in quarantine", "unprocessable", lambda fact: not fact["stored"]),
)


def _check_written_once(document: DocumentSnapshot[Any], account: Account) -> None:
    if document.create_time != document.update_time:
        account.note("stored twice or rewritten", document.id)


def expected(body: bytes) -> dict[str, Any]:
    """Return the fields of an event's document without `receivedAt`, made without the receiver's code."""
    envelope = json.loads(body)
    event = envelope.pop("event")
    fields: dict[str, Any] = envelope | event
    fields["timestamp"] = datetime.fromisoformat(fields["timestamp"])
    return fields


def canonical(fields: Mapping[str, Any]) -> str:
    """Return JSON that is equal only for equal fields of the same types: 1 differs from 1.0, a time from a string."""
    return json.dumps(fields, sort_keys=True, default=_tagged)


def _tagged(value: Any) -> dict[str, str]:
    return {"Timestamp": datetime.isoformat(value.astimezone(UTC))}


def _without_receipt(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Remove `receivedAt` if it is a Timestamp; any other type stays, and makes the documents differ."""
    return {name: value for name, value in fields.items() if name != "receivedAt" or not isinstance(value, datetime)}


def documents(client: Client, collection: str) -> Iterator[DocumentSnapshot[Any]]:
    """Yield all documents of a collection in the order of their ids, read page by page."""
    query = client.collection(collection).order_by("__name__").limit(_PAGE)
    page = list(query.stream())
    while page:
        yield from page
        page = list(query.start_after(page[-1]).stream())
