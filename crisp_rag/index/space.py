"""A disk without space, told apart from a damaged file and said in one sentence."""

from __future__ import annotations

import contextlib
import errno
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from crisp_rag.errors import DiskFullError

_TOO_LITTLE = 256 << 10
"""Bytes of free disk below which SQLite may be unable to make the files that it shares with other processes."""


def disk_full(path: Path) -> DiskFullError:
    """The error of a write for which there is no space left."""
    error = DiskFullError(f"No space left on device to write {path}: free some and try again; the index is as it was.")
    error.errno = errno.ENOSPC
    return error


def is_full(path: Path, error: BaseException) -> bool:
    """Whether an error comes of a full disk: the one that ``path`` lies on.

    SQLite says "disk I/O error" or "unable to open" where it cannot even make its shared memory.
    """
    if isinstance(error, DiskFullError):
        return True
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    if not isinstance(error, sqlite3.OperationalError):
        return False
    if "disk is full" in str(error):
        return True
    return ("disk I/O" in str(error) or "unable to open" in str(error)) and _free(path) < _TOO_LITTLE


@contextlib.contextmanager
def full_disk_explained(path: Path) -> Iterator[None]:
    """Turn what Python and SQLite say of a full disk into an error that names the file.

    Raises:
        DiskFullError: if there is no space left for what the block writes.
    """
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        if is_full(path, error) and not isinstance(error, DiskFullError):
            raise disk_full(path) from error
        raise


def _free(path: Path) -> int:
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free
