"""How a connection to the database of an index is made: for writing, or where that cannot be, for reading.

SQLite shares memory with other processes in a file beside the database.  Where it can neither find nor make one, because
the folder is on a read-only mount or another user's, it refuses to open the database, unless it is told that the file
never changes.  That is said only where there is no log beside it, and the file is looked at again around every use, so
that what another user writes meanwhile is noticed.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from crisp_rag.errors import AccessError
from crisp_rag.index.access import writable
from crisp_rag.index.filters import lower
from crisp_rag.index.plain_files import check_plain

PATIENCE = 30
"""Seconds to wait for another connection to SQLite."""

Stamp = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Connected:
    """A connection, and for one that takes the file as unchanging what the file was like."""

    connection: sqlite3.Connection
    stamp: Stamp | None = None


def connect(path: Path, *, fresh: bool = False) -> Connected:
    """Connect to a database.

    Args:
        path: The file.
        fresh: It may be made where there is none.

    Raises:
        FileNotFoundError: if there is none.
        IndexCorruptError: if it, or a file that SQLite keeps beside it, is no plain file.
        AccessError: if it may only be read, and has a log that only a writer can read.
        sqlite3.Error: what SQLite says.
    """
    files = [path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))]
    there = [_size(file) for file in files]
    if there[0] is None:
        if not fresh:
            raise FileNotFoundError(2, "No such file", str(path))
    elif not (writable(path) and writable(path.parent)):
        return _for_reading(path, log=bool(there[1]))
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=PATIENCE)
    return Connected(_set_up(connection, "PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL"))


def stamp_of(path: Path) -> Stamp:
    """What changes when anyone writes to the database: its file, and its log."""
    status = path.stat()
    log = path.with_name(path.name + "-wal")
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, log.stat().st_size if log.exists() else 0


def _for_reading(path: Path, log: bool) -> Connected:
    try:
        return Connected(_read_only(path, "mode=ro"))
    except sqlite3.OperationalError as error:
        if "unable to open" not in str(error) and "readonly" not in str(error):
            raise
        if log:
            raise AccessError(
                f"{path} cannot be used, it may only be read and changes are left in {path.name}-wal: open it once where it "
                "can be written, or copy the folder."
            ) from error
    stamp = stamp_of(path)
    return Connected(_read_only(path, "mode=ro&immutable=1"), stamp)


def _read_only(path: Path, how: str) -> sqlite3.Connection:
    address = f"{path.absolute().as_uri()}?{how}"
    return _set_up(sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False, timeout=PATIENCE))


def _set_up(connection: sqlite3.Connection, *statements: str) -> sqlite3.Connection:
    try:
        for statement in (*statements, "SELECT 1 FROM sqlite_master"):
            connection.execute(statement).fetchall()
        connection.create_function("crisp_lower", 1, lower, deterministic=True)
    except BaseException:
        connection.close()
        raise
    return connection


def _size(path: Path) -> int | None:
    try:
        return check_plain(path).st_size
    except FileNotFoundError:
        return None
