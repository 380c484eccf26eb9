"""A lock over a file that one process holds, and that goes when the process does.

A forked process inherits the file, and with it the lock: it lets go of it at once and without unlocking, because a copy
of a writer must neither keep others out after the writer's death nor let them in during its life.
"""

from __future__ import annotations

import os
import sys
import time
import weakref
from pathlib import Path

from crisp_rag.index.access import explained
from crisp_rag.index.plain_files import NO_SURPRISES

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_POLL = 0.02
_known: weakref.WeakSet[FileLock] = weakref.WeakSet()


class FileLock:
    """An exclusive lock.  Not for several threads at once.

    Args:
        path: The file, made where it is missing; it stays.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._process = os.getpid()
        _known.add(self)

    def acquire(self, timeout: float = 0.0) -> bool:
        """Take the lock; False where another process holds it for longer than ``timeout`` seconds.

        Raises:
            AccessError: if the file cannot be made or locked.
        """
        end = time.monotonic() + timeout
        while not self._attempt():
            if time.monotonic() >= end:
                return False
            time.sleep(_POLL)
        return True

    def release(self) -> None:
        """Give the lock up; in a forked process this leaves the lock of the parent alone."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        if self._process == os.getpid():
            _unlock(descriptor)
        os.close(descriptor)

    def _attempt(self) -> bool:
        with explained(self._path, missing=True):
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | NO_SURPRISES, 0o666)
            try:
                locked = _locked(descriptor) and _is_at(descriptor, self._path)
            except BaseException:
                os.close(descriptor)
                raise
            if not locked:
                os.close(descriptor)
                return False
        self._descriptor, self._process = descriptor, os.getpid()
        return True


def _locked(descriptor: int) -> bool:
    try:
        if sys.platform == "win32":
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _unlock(descriptor: int) -> None:
    if sys.platform == "win32":
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the file that was locked still has its name: where it was replaced, others lock another one."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _let_go() -> None:
    for lock in list(_known):
        lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
