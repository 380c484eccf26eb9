"""What the system refuses, told apart from damage and said in one sentence.

A folder that may not be read, a read-only mount, too many open files and a path that is too long say nothing about the
bytes of an index: nobody should restore a copy because of them.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from crisp_rag.errors import AccessError, CrispError
from crisp_rag.index.space import disk_full, is_full

_FILES_OF_SQLITE = 6
"""The database, its log, the memory that it shares, and a folder to sync; and some to spare."""
_REASONS = {
    errno.EACCES: "this user lacks the rights: give them, or use another place",
    errno.EPERM: "this user lacks the rights: give them, or use another place",
    errno.EROFS: "its file system is read-only: write to a copy elsewhere",
    errno.EMFILE: "this process has too many open files: close some, or raise the limit (ulimit -n)",
    errno.ENFILE: "the system has too many open files: close some, or raise its limit",
    errno.ENAMETOOLONG: "the path is too long: choose a shorter one",
    errno.ELOOP: "the path leads through a link that may not be followed: name the folder itself",
    errno.ENOMEM: "there is too little memory: free some and try again",
    errno.EBUSY: "another program uses it: try again later",
}


def refused(path: Path | str, code: int | None, said: str = "") -> AccessError:
    """The error for a file that the system refuses.

    Args:
        path: The file or folder.
        code: The system's error number.
        said: What the system says, for numbers that are not known here.
    """
    reason = _REASONS.get(code or 0) or f"the system says {said or os.strerror(code or 0)!r}"
    error = AccessError(f"{_short(str(path))} cannot be used, {reason}.")
    error.errno = code
    return error


@contextlib.contextmanager
def explained(path: Path, *, missing: bool = False) -> Iterator[None]:
    """Turn what the system refuses inside of the block into an error of one sentence that names the file.

    Args:
        path: What the block is about; a file that the system names goes before it.
        missing: Also explain a file that is not there, of which the caller would know more otherwise.

    Raises:
        DiskFullError: if there is no space left.
        AccessError: for everything else but, unless ``missing``, a file that is not there.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, CrispError) or (isinstance(error, FileNotFoundError) and not missing):
            raise
        if is_full(path, error):
            raise disk_full(path) from error
        raise refused(error.filename or path, error.errno, error.strerror or str(error)) from error


def writable(path: Path) -> bool:
    """Whether this process may write to a file or folder, by its rights and those of the file system."""
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def reason_of(path: Path) -> AccessError | None:
    """Why SQLite could not open a database, where it is the system's refusal; None where it is not.

    The database itself is not opened for the question: closing it again would give up the locks that SQLite holds.
    """
    taken: list[int] = []
    try:
        # As many as SQLite wanted: those that it got are free again by now.
        for _ in range(_FILES_OF_SQLITE):
            taken.append(os.open(os.devnull, os.O_RDONLY))
        os.stat(path)
        os.scandir(path.parent).close()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        named = path if error.filename == os.devnull else error.filename or path
        return refused(named, error.errno, error.strerror or "")
    finally:
        for descriptor in taken:
            os.close(descriptor)
    for file in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))):
        if file.exists() and not os.access(file, os.R_OK):
            return refused(file, errno.EACCES)
    return None


def _short(path: str, most: int = 200) -> str:
    return path if len(path) <= most else f"{path[: most // 2]}…{path[-most // 2 :]}"
