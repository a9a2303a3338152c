"""Documents and their indexes in an SQLite file."""

import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from local.embedded.document import Document, Name, Value, rfc3339, to_json
from local.embedded.query import Scan
from local.embedded.sort_key import Column, index_key

_SCHEMA = """
CREATE TABLE IF NOT EXISTS documents (
    project TEXT NOT NULL, database TEXT NOT NULL,
    path TEXT NOT NULL,        -- alternating collection and document ids: events/c9a8b7
    collection TEXT NOT NULL,  -- the path without the last id: events
    create_time TEXT NOT NULL, update_time TEXT NOT NULL, -- RFC 3339, UTC, microseconds
    fields TEXT NOT NULL,      -- JSON
    document BLOB NOT NULL,    -- google.firestore.v1.Document
    PRIMARY KEY (project, database, path)
);
CREATE TABLE IF NOT EXISTS indexes (
    id INTEGER PRIMARY KEY,
    project TEXT NOT NULL, database TEXT NOT NULL, collection TEXT NOT NULL,
    columns TEXT NOT NULL,     -- JSON: [[field path, whether descending], ...]
    built_to TEXT,             -- the last path that is indexed; NULL when all are
    UNIQUE (project, database, collection, columns)
);
CREATE TABLE IF NOT EXISTS entries ( -- one for each document that has all columns of an index
    index_id INTEGER NOT NULL, key BLOB NOT NULL, path TEXT NOT NULL, PRIMARY KEY (index_id, key)
) WITHOUT ROWID;
"""
_FIND = """
SELECT document FROM entries CROSS JOIN documents USING (path)
WHERE index_id = ? AND key >= ? AND key < ? AND project = ? AND database = ? ORDER BY key LIMIT ?
"""
_ADD_INDEX = "INSERT OR IGNORE INTO indexes VALUES (NULL, ?, ?, ?, ?, ?)"
_GET_INDEX = """
SELECT id, built_to FROM indexes WHERE project = ? AND database = ? AND collection = ? AND columns = ?
"""
_GET_PART = """
SELECT path, document FROM documents
WHERE project = ? AND database = ? AND path > ? AND path < ? AND collection = ? ORDER BY path LIMIT ?
"""
_PART = 10_000  # documents, some 0.3 s
_COUNT = "SELECT count(*) FROM (SELECT 1 FROM entries WHERE index_id = ? AND key >= ? AND key < ? LIMIT ?)"


class Storage:
    """An SQLite file behind a lock: one transaction at a time, on disk before it is answered.

    A query's index is built when a query first needs it, and kept up to date from then on.
    """

    def __init__(self, file: Path) -> None:
        """Open the file, or create it.

        Raises:
            sqlite3.Error: it cannot be opened, or is not an SQLite file.
        """
        self._file = file
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        self._connection.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;" + _SCHEMA)
        self._last = 0

    def close(self) -> None:
        """Close the file after the current transaction."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """Make the reads and writes of a block one transaction.

        Yields:
            The commit time, a protobuf Timestamp: later than any before.
        """
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._tick()
                self._connection.execute("COMMIT")
            except BaseException:
                self._connection.rollback()
                raise

    def _tick(self) -> Any:
        self._last = max(self._last + 1, time.time_ns() // 1000)
        now = Value().timestamp_value
        now.FromMicroseconds(self._last)
        return now

    def get(self, name: Name) -> Any:
        """Return a protobuf Document or None; only within a transaction."""
        sql = "SELECT document FROM documents WHERE project = ? AND database = ? AND path = ?"
        row = self._connection.execute(sql, name).fetchone()
        return Document.FromString(row[0]) if row else None

    def put(self, name: Name, document: Any, replaced: Any) -> None:
        """Store a document in place of the current one or None; only within a transaction."""
        times = rfc3339(document.create_time), rfc3339(document.update_time)
        fields = json.dumps(to_json(document.fields), ensure_ascii=False)
        row = (*name, name.parent.path, *times, fields, document.SerializeToString())
        self._connection.execute("INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        self._update_indexes(name, replaced, document)

    def delete(self, name: Name, deleted: Any) -> None:
        """Delete the current document; only within a transaction."""
        self._connection.execute("DELETE FROM documents WHERE project = ? AND database = ? AND path = ?", name)
        self._update_indexes(name, deleted, None)

    def _update_indexes(self, name: Name, old: Any, new: Any) -> None:
        sql = "SELECT id, columns FROM indexes WHERE project = ? AND database = ? AND collection = ?"
        for index, text in self._connection.execute(sql, name.parent).fetchall():
            columns = [Column(*column) for column in json.loads(text)]
            before, after = (document and index_key(document, columns) for document in (old, new))
            if before and before != after:
                self._connection.execute("DELETE FROM entries WHERE index_id = ? AND key = ?", (index, before))
            if after and before != after:
                self._connection.execute("INSERT INTO entries VALUES (?, ?, ?)", (index, after, name.path))

    def _index(self, collection: Name, columns: tuple[Column, ...]) -> int:
        """Return the id of an index, after building it if necessary: a part at a time, so that writes go on."""
        row = (*collection, json.dumps(columns))
        while True:
            with self.transaction():
                self._connection.execute(_ADD_INDEX, (*row, f"{collection.path}/"))
                index, built_to = self._connection.execute(_GET_INDEX, row).fetchone()
                if built_to is None:
                    return int(index)
                self._build(index, collection, columns, built_to)
            time.sleep(0.01)  # a lock is not fair: let the writes that wait for it go first

    def _build(self, index: int, collection: Name, columns: tuple[Column, ...], built_to: str) -> None:
        parameters = (*collection[:2], built_to, f"{collection.path}0", collection.path, _PART)  # "0" comes after "/"
        rows = self._connection.execute(_GET_PART, parameters).fetchall()
        keys = ((index_key(Document.FromString(content), columns), path) for path, content in rows)
        entries = sorted((index, key, path) for key, path in keys if key)
        self._connection.executemany("INSERT OR IGNORE INTO entries VALUES (?, ?, ?)", entries)
        last = rows[-1][0] if len(rows) == _PART else None
        self._connection.execute("UPDATE indexes SET built_to = ? WHERE id = ?", (last, index))

    @contextmanager
    def find(self, collection: Name, scan: Scan) -> Iterator[tuple[Iterator[Any], Any]]:
        """Read the documents of a collection that a scan finds, one by one.

        Yields:
            The protobuf Documents, all as they are at one time, whatever is written meanwhile, and that time.
        """
        parameters = (self._index(collection, scan.columns), scan.start, scan.end, *collection[:2], scan.limit)
        with closing(sqlite3.connect(self._file, check_same_thread=False)) as reader:
            with self._lock:
                rows, now = reader.execute(_FIND, parameters), self._tick()
            yield (Document.FromString(content) for (content,) in rows), now

    def count(self, collection: Name, scan: Scan) -> tuple[int, Any]:
        """Return the number of documents of a collection that a scan finds, and the time of the count."""
        parameters = (self._index(collection, scan.columns), scan.start, scan.end, scan.limit)
        with self.transaction() as now:
            (number,) = self._connection.execute(_COUNT, parameters).fetchone()
        return number, now
