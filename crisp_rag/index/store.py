"""Passages and metadata in SQLite: the truth about what the index holds.

A change is visible when its one SQLite transaction has committed, and not before.  Every row carries a digest over
all that it says, which is checked when the row answers a query.  What is looked up by id or by a filter must not be
missed either because the file was altered: before the first such look-up the whole file is checked once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crisp_rag.errors import IndexCorruptError
from crisp_rag.index.access import explained
from crisp_rag.index.codecs import CODECS, FORMAT_1_CODEC
from crisp_rag.index.connecting import PATIENCE, Connected, connect
from crisp_rag.index.connections import Connections
from crisp_rag.index.metadata import decode_metadata, encode_metadata
from crisp_rag.index.numbers import is_number
from crisp_rag.index.schema import CODEC_COLUMN, HAS_NUL, TABLES, check_schema, statements
from crisp_rag.index.segments import SegmentInfo, is_segment_name
from crisp_rag.index.sqlite_errors import explaining
from crisp_rag.index.types import Passage

DATABASE = ("index.sqlite", "index.sqlite-wal", "index.sqlite-shm")
_COLUMNS = "row, id, text, context, metadata, segment, start, count, digest"
_MANY = 500  # bound parameters a statement; old SQLite builds allow 999


@dataclass(frozen=True, slots=True)
class Record:
    """A stored passage and where its vectors lie: ``count`` rows of a segment from ``start`` on."""

    row: int
    passage: Passage
    segment: int
    start: int
    count: int


class Store:
    """The SQLite file of an index.  Safe to use from several threads; each gets its own connection.

    Args:
        path: The database file.
        fresh: It is about to be made: there is nothing to check yet.

    Raises:
        IndexCorruptError: if the file is not a sound database.
    """

    def __init__(self, path: Path, *, fresh: bool = False) -> None:
        self.path = path
        self._fresh = fresh
        self._known = fresh
        self._connections = Connections(path, self._connect)
        self._checking = threading.Lock()
        self._checked = fresh

    @property
    def checked(self) -> bool:
        """Whether the whole file was found sound since it was opened."""
        return self._checked

    def trust(self) -> None:
        """Take the file as checked: the process that this one was forked from did it."""
        self._checked = True

    def make_tables(self) -> None:
        """Make the tables of an empty index, in the caller's transaction."""
        for statement in statements(TABLES):
            self.connection.execute(statement)

    def tables(self) -> list[str]:
        """The names of what the database holds."""
        with self.guarded():
            return [name for (name,) in self.connection.execute("SELECT name FROM sqlite_master").fetchall()]

    def check(self, *, again: bool = False) -> None:
        """Check the whole file: its structure, its indexes against its rows, and every row's digest.

        Args:
            again: Check it even if it was checked since it was opened.

        Raises:
            IndexCorruptError: if it is not sound.
        """
        if self._checked and not again:
            return
        with self._checking:
            if self._checked and not again:
                return
            with self.guarded():
                verdict = self.connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
            if verdict != "ok":
                raise IndexCorruptError(f"{self.path} is damaged ({verdict}); restore it from a copy.")
            for values in self._every_row():
                self._check_digest(values)
            self._checked = True

    @property
    def connection(self) -> sqlite3.Connection:
        """This thread's connection."""
        with explaining(self.path, lambda: self._connections.closed):
            return self._connections.current

    def _connect(self) -> Connected:
        try:
            with explained(self.path):
                connected = connect(self.path, fresh=self._fresh)
        except FileNotFoundError as error:
            raise IndexCorruptError(f"{self.path} is missing; restore it from a copy.") from error
        try:
            if not self._known:
                check_schema(connected.connection, self.path)
                self._known = True
        except BaseException:
            connected.connection.close()
            raise
        return connected

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Keep the connection from being closed, and turn SQLite's complaints about the file into an error that names it.

        Raises:
            IndexClosedError: if the store is closed.
        """
        with explaining(self.path, lambda: self._connections.closed), self._connections.using():
            yield

    def check_open(self) -> None:
        """Raise IndexClosedError if the store is closed."""
        self._connections.check_open()

    @contextlib.contextmanager
    def transaction(self, *, write: bool = False) -> Iterator[sqlite3.Connection]:
        """One transaction: a snapshot for reading, or all or nothing for writing."""
        with self.guarded():
            connection = self.connection
            if connection.in_transaction:
                yield connection
                return
            connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                # SQLite may have rolled back by itself, as on a full disk; and in a fork it is the parent's transaction.
                if self._connections.own and connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def shrink(self, share: float) -> None:
        """Give back the space of what was deleted, where at least this share of the file is unused.

        Nobody is waited for: where readers use the old pages, the files shrink with a later call.
        """
        with self.guarded():
            connection = self.connection
            free, pages = (connection.execute(f"PRAGMA {of}").fetchone()[0] for of in ("freelist_count", "page_count"))
            connection.execute("PRAGMA busy_timeout=0")
            try:
                if free and free >= share * pages:
                    connection.execute("VACUUM")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            except sqlite3.OperationalError as error:
                if "in progress" not in str(error) and "locked" not in str(error):
                    raise
            finally:
                connection.execute(f"PRAGMA busy_timeout={PATIENCE * 1000}")

    def close(self) -> None:
        """Close every thread's connection, each as soon as its thread is not using it."""
        self._connections.close()

    def meta(self) -> dict[str, str]:
        """All settings."""
        with self.guarded():
            settings = dict(self.connection.execute("SELECT key, value FROM meta").fetchall())
        if not all(isinstance(text, str) for pair in settings.items() for text in pair):
            raise IndexCorruptError(f"{self.path} was altered: its settings are no text; restore it from a copy.")
        return settings

    def setting(self, key: str) -> str | None:
        """One setting as it is now, None where it was never made."""
        with self.guarded():
            row = self.connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def set_meta(self, values: dict[str, str]) -> None:
        """Write settings, in the caller's transaction."""
        self.connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())

    def generation(self) -> int:
        """A number that grows with every change, whoever makes it."""
        said = self.setting("generation")
        if said is None or not is_number(said):
            raise IndexCorruptError(f"{self.path} has no generation; restore it from a copy.")
        return int(said)

    def advance(self) -> None:
        """Announce a change, in the caller's transaction."""
        self.set_meta({"generation": str(self.generation() + 1)})

    def segments(self) -> list[SegmentInfo]:
        """Every segment that the index refers to."""
        with self.guarded():
            codec = "codec" if self._names_codecs() else f"'{FORMAT_1_CODEC}'"
            found = self.connection.execute(f"SELECT id, file, vectors, checksum, {codec} FROM segments ORDER BY id")
            segments = [SegmentInfo(*row) for row in found.fetchall()]
        for segment in segments:
            sound = isinstance(segment.file, str) and isinstance(segment.vectors, int) and segment.codec in CODECS
            if not sound or not is_segment_name(segment.file):
                raise IndexCorruptError(f"{self.path} was altered: {segment} is no segment; restore it from a copy.")
        return segments

    def add_segment(self, file: str, vectors: int, checksum: str, codec: str) -> int:
        """Refer to a written segment, in the caller's transaction."""
        said = {"file": file, "vectors": vectors, "checksum": checksum, "codec": codec}
        if not self._names_codecs():  # format 1: all are of the same codec
            del said["codec"]
        cursor = self.connection.execute(
            f"INSERT INTO segments ({', '.join(said)}) VALUES ({_marks(list(said))})", list(said.values())
        )
        return int(cursor.lastrowid or 0)

    def _names_codecs(self) -> bool:
        """Whether segments say what they are coded with; those of format 1 do not."""
        found = self.connection.execute("SELECT 1 FROM pragma_table_info('segments') WHERE name = 'codec'")
        return found.fetchone() is not None

    def upgrade(self) -> None:
        """From format 1 to the present one, in the caller's transaction."""
        if not self._names_codecs():
            self.connection.execute(CODEC_COLUMN)

    def drop_segments(self, ids: Iterable[int]) -> None:
        """Forget segments, in the caller's transaction."""
        self.connection.executemany("DELETE FROM segments WHERE id = ?", [(id_,) for id_ in ids])

    def insert(self, passages: Sequence[Passage], segment: int, starts: Sequence[int], counts: Sequence[int]) -> None:
        """Insert passages in order, in the caller's transaction."""
        rows = []
        for passage, start, count in zip(passages, starts, counts, strict=True):
            said = (passage.id, passage.text, passage.context, encode_metadata(passage), segment, start, count)
            rows.append((*said, _digest(*said)))
        self.connection.executemany(
            "INSERT INTO passages (id, text, context, metadata, segment, start, count, digest) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            rows,
        )

    def move(self, moves: Iterable[tuple[Record, int, int]]) -> None:
        """Point passages to their vectors' new place: (record, segment, start), in the caller's transaction."""
        updates = []
        for record, segment, start in moves:
            passage = record.passage
            said = (passage.id, passage.text, passage.context, encode_metadata(passage), segment, start, record.count)
            updates.append((segment, start, _digest(*said), record.row))
        self.connection.executemany("UPDATE passages SET segment = ?, start = ?, digest = ? WHERE row = ?", updates)

    def delete_rows(self, rows: Iterable[int]) -> int:
        """Delete passages by row, in the caller's transaction; returns how many there were."""
        return self.connection.executemany("DELETE FROM passages WHERE row = ?", [(row,) for row in rows]).rowcount

    def rows_of(self, ids: Sequence[str]) -> list[int]:
        """The rows of those ids that exist."""
        self.check()
        return [row for chunk in _chunks(ids) for (row,) in self._select("row", f"id IN ({_marks(chunk)})", chunk)]

    def rows_where(
        self, sql: str, parameters: Sequence[Any], lookup: tuple[str, list[Any]] | None = None
    ) -> list[tuple[int, bool]]:
        """The rows that satisfy a condition over the metadata, and those with a NUL in it, in insertion order.

        SQLite cuts a JSON string at a NUL, so that it would find "a" where "a\\0b" is written: what it says of such
        a row has to be looked at again.

        Args:
            sql: The condition.
            parameters: What is bound to it.
            lookup: Another one that it implies and that an index answers; see :mod:`crisp_rag.index.declared`.

        Returns:
            (row, whether there is a NUL in its metadata).
        """
        self.check()
        if lookup is None:
            found = self._select(f"row, {HAS_NUL}", f"{sql} OR {HAS_NUL} ORDER BY row", parameters)
            return [(row, bool(flag)) for row, flag in found]
        doubtful = {row: True for (row,) in self._select("row", HAS_NUL, ())}
        sound = self._select("row", f"{lookup[0]} AND {sql}", [*lookup[1], *parameters])
        return sorted(({row: False for (row,) in sound} | doubtful).items())

    def records(self, rows: Sequence[int]) -> dict[int, Record]:
        """Checked records by row; rows that are gone are left out."""
        found = (
            self._record(values)
            for chunk in _chunks(rows)
            for values in self._select(_COLUMNS, f"row IN ({_marks(chunk)})", chunk)
        )
        return {record.row: record for record in found}

    def by_id(self, ids: Sequence[str]) -> dict[str, Record]:
        """Checked records by id; ids that do not exist are left out."""
        return {record.passage.id: record for record in self.records(self.rows_of(ids)).values()}

    def scan(self) -> Iterator[Record]:
        """Every record, checked, in insertion order."""
        self.check()
        yield from map(self._record, self._every_row())

    def _every_row(self) -> Iterator[tuple[Any, ...]]:
        last = -(2**63)
        while found := self._select(_COLUMNS, f"row > ? ORDER BY row LIMIT {_MANY}", [last]):
            yield from found
            last = found[-1][0]

    def _select(self, columns: str, condition: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        # All at once: a statement that waits for its reader would keep the connection in use, and a fork waiting.
        with self.guarded():
            return self.connection.execute(f"SELECT {columns} FROM passages WHERE {condition}", parameters).fetchall()

    def _check_digest(self, values: tuple[Any, ...]) -> None:
        _, id_, text, context, metadata, segment, start, count, digest = values
        if _digest(id_, text, context, metadata, segment, start, count) != digest:
            raise IndexCorruptError(f"{self.path} was altered: passage {id_!r} fails its checksum; restore it from a copy.")

    def _record(self, values: tuple[Any, ...]) -> Record:
        self._check_digest(values)
        row, id_, text, context, metadata, segment, start, count, _ = values
        return Record(row, Passage(id_, text, decode_metadata(id_, metadata), context), segment, start, count)


def _digest(*values: Any) -> str:
    said = json.dumps(values, ensure_ascii=False, default=repr).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(said, digest_size=8).hexdigest()


def _chunks(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(values), _MANY):
        yield values[start : start + _MANY]


def _marks(values: Sequence[Any]) -> str:
    return ",".join("?" * len(values))
