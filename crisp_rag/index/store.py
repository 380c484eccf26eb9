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

from crisp_rag.errors import FilterError, IndexClosedError, IndexCorruptError, IndexLockedError, InvalidInputError
from crisp_rag.index.codecs import CODECS, FORMAT_1_CODEC
from crisp_rag.index.filters import lower
from crisp_rag.index.segments import SegmentInfo
from crisp_rag.index.space import disk_full, is_full
from crisp_rag.index.types import Passage

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE segments (id INTEGER PRIMARY KEY AUTOINCREMENT, file TEXT NOT NULL, vectors INTEGER NOT NULL,
                       checksum TEXT NOT NULL, codec TEXT NOT NULL);
CREATE TABLE passages (row INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, text TEXT NOT NULL,
                       context TEXT NOT NULL, metadata TEXT NOT NULL, segment INTEGER NOT NULL REFERENCES segments,
                       start INTEGER NOT NULL, count INTEGER NOT NULL, digest TEXT NOT NULL);
"""
DATABASE = ("index.sqlite", "index.sqlite-wal", "index.sqlite-shm")
_COLUMNS = "row, id, text, context, metadata, segment, start, count, digest"
HAS_NUL = r"instr(metadata, '\u0000') > 0"
_PATIENCE = 30  # seconds to wait for another connection to SQLite
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
        self._local = threading.local()
        self._connections: list[tuple[sqlite3.Connection, threading.RLock, threading.Thread]] = []
        self._guard = threading.Lock()
        self._closed = False
        self._checking = threading.Lock()
        self._checked = fresh

    def make_tables(self) -> None:
        """Make the tables of an empty index, in the caller's transaction."""
        for statement in _SCHEMA.split(";\n")[:-1]:
            self.connection.execute(statement)

    def tables(self) -> list[str]:
        """The names of what the database holds."""
        with self.guarded():
            return [name for (name,) in self.connection.execute("SELECT name FROM sqlite_master")]

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
            for values in self._select(_COLUMNS, "1 ORDER BY row", ()):
                self._record(values)
            self._checked = True

    @property
    def connection(self) -> sqlite3.Connection:
        """This thread's connection."""
        connection = getattr(self._local, "connection", None)
        if connection is None:
            with self._explaining():
                connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=_PATIENCE)
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=FULL")
                connection.create_function("crisp_lower", 1, lower, deterministic=True)
            self._local.connection = connection
            self._keep(connection)
        return connection

    def _keep(self, connection: sqlite3.Connection) -> None:
        """Note this thread's connection for :meth:`close`, and close those of threads that have ended.

        A server that answers each request on a new thread would run out of files otherwise.
        """
        with self._guard:
            ended = [kept for kept in self._connections if not kept[2].is_alive()]
            self._connections = [kept for kept in self._connections if kept[2].is_alive()]
            self._connections.append((connection, self._in_use, threading.current_thread()))
        for left, *_ in ended:
            left.close()

    @property
    def _in_use(self) -> threading.RLock:
        """Held while this thread uses its connection: SQLite crashes where another one closes it meanwhile."""
        lock = getattr(self._local, "lock", None)
        if lock is None:
            lock = self._local.lock = threading.RLock()
        return lock

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Keep the connection from being closed, and turn SQLite's complaints about the file into an error that names it.

        Raises:
            IndexClosedError: if the store is closed.
        """
        with self._in_use:
            self.check_open()
            with self._explaining():
                yield

    def check_open(self) -> None:
        """Raise IndexClosedError if the store is closed."""
        if self._closed:
            raise IndexClosedError(f"The index at {self.path.parent} is closed: open it again.")

    @contextlib.contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if any(words in str(error) for words in ("too large", "too many", "overflow", "too deep")):
                raise FilterError(f"The filter is too large for SQLite ({error}): name fewer values.") from error
            if is_full(self.path, error):
                raise disk_full(self.path) from error
            if "locked" in str(error):
                raise IndexLockedError(f"{self.path} is locked by another program; try again later.") from error
            raise IndexCorruptError(f"{self.path} cannot be read ({error}); restore it from a copy.") from error
        except UnicodeEncodeError as error:
            raise InvalidInputError(f"An id or a filter holds characters that are not Unicode: {error}.") from error
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            if self._closed:  # by this very thread, in the middle of its own search
                raise IndexClosedError(f"The index at {self.path.parent} is closed: open it again.") from error
            raise IndexCorruptError(f"{self.path} is damaged ({error}); restore it from a copy.") from error

    @contextlib.contextmanager
    def transaction(self, *, write: bool = False) -> Iterator[sqlite3.Connection]:
        """One transaction: a snapshot for reading, or all or nothing for writing."""
        connection = self.connection
        with self.guarded():
            if connection.in_transaction:
                yield connection
                return
            connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # SQLite may have rolled back by itself, as on a full disk
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
                connection.execute(f"PRAGMA busy_timeout={_PATIENCE * 1000}")

    def close(self) -> None:
        """Close every thread's connection, each as soon as its thread is not using it."""
        self._closed = True
        with self._guard:
            connections, self._connections = self._connections, []
        for connection, in_use, _ in connections:
            with in_use:
                connection.close()

    def meta(self) -> dict[str, str]:
        """All settings."""
        with self.guarded():
            settings = dict(self.connection.execute("SELECT key, value FROM meta"))
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
        if said is None or not said.isascii() or not said.isdigit():
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
            segments = [SegmentInfo(*row) for row in found]
        for segment in segments:
            sound = isinstance(segment.file, str) and isinstance(segment.vectors, int) and segment.codec in CODECS
            if not sound or "/" in segment.file:
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
            self.connection.execute(f"ALTER TABLE segments ADD COLUMN codec TEXT NOT NULL DEFAULT '{FORMAT_1_CODEC}'")

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
        yield from map(self._record, self._select(_COLUMNS, "1 ORDER BY row", ()))

    def _select(self, columns: str, condition: str, parameters: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
        with self.guarded():
            cursor = self.connection.execute(f"SELECT {columns} FROM passages WHERE {condition}", parameters)
        while True:
            with self.guarded():  # not around the yield: who stops in the middle would keep the connection in use
                found = cursor.fetchmany(_MANY)
            if not found:
                return
            yield from found

    def _record(self, values: tuple[Any, ...]) -> Record:
        row, id_, text, context, metadata, segment, start, count, digest = values
        if _digest(id_, text, context, metadata, segment, start, count) != digest:
            raise IndexCorruptError(f"{self.path} was altered: passage {id_!r} fails its checksum; restore it from a copy.")
        return Record(row, Passage(id_, text, json.loads(metadata), context), segment, start, count)


def encode_metadata(passage: Passage) -> str:
    """A passage's metadata as JSON.

    Raises:
        InvalidInputError: if JSON cannot hold it and give it back.
    """
    try:
        metadata = dict(passage.metadata)
        _check_keys(metadata)
        return json.dumps(metadata, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"The metadata of passage {passage.id!r} cannot be stored as JSON: {error}.") from error
    except RecursionError as error:
        raise InvalidInputError(f"The metadata of passage {passage.id!r} is nested too deep to be stored.") from error


def _check_keys(value: Any) -> None:
    """Refuse keys that are no strings, however deep: JSON would turn 1, True and None into strings in silence."""
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("keys must be strings")
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return
    for inner in value:
        if isinstance(inner, (dict, list, tuple)):
            _check_keys(inner)


def _digest(*values: Any) -> str:
    said = json.dumps(values, ensure_ascii=False, default=repr).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(said, digest_size=8).hexdigest()


def _chunks(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(values), _MANY):
        yield values[start : start + _MANY]


def _marks(values: Sequence[Any]) -> str:
    return ",".join("?" * len(values))
