"""What SQLite complains of, as an error of one sentence that tells damage from everything else."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from crisp_rag.errors import FilterError, IndexClosedError, IndexCorruptError, IndexLockedError, InvalidInputError
from crisp_rag.index.access import reason_of, refused
from crisp_rag.index.space import disk_full, is_full

_TOO_LARGE = ("too large", "too many", "overflow", "too deep")


@contextlib.contextmanager
def explaining(path: Path, closed: Callable[[], bool]) -> Iterator[None]:
    """Turn what SQLite says inside of the block into an error that names the database.

    Args:
        path: The database.
        closed: Whether it has been closed meanwhile.
    """
    try:
        yield
    except sqlite3.OperationalError as error:
        said = str(error)
        if any(words in said for words in _TOO_LARGE):
            raise FilterError(f"The filter is too large or too deep for SQLite ({said}): name fewer values.") from error
        if is_full(path, error):
            raise disk_full(path) from error
        if "locked" in said:
            raise IndexLockedError(f"{path} is locked by another program; try again later.") from error
        if "readonly" in said:
            raise refused(path, None, said) from error
        if ("unable to open" in said or "disk I/O" in said) and (reason := reason_of(path)) is not None:
            raise reason from error
        raise IndexCorruptError(f"{path} cannot be read ({said}); restore it from a copy.") from error
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"An id or a filter holds characters that are not Unicode: {error}.") from error
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        if closed():  # by this very thread, in the middle of its own search
            raise IndexClosedError(f"The index at {path.parent} is closed: open it again.") from error
        raise IndexCorruptError(f"{path} is damaged ({error}); restore it from a copy.") from error
