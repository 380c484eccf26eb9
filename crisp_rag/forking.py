"""What a process must know that was made by fork: which one it is, and that its parent's locks and threads are not its own.

A fork copies memory and one thread.  A lock that another thread held stays locked for ever in the copy, a thread pool
waits for threads that are not there, and OpenMP, which runs below torch and FAISS, waits for its own.

    guard = Lock()                              # open in every new process
    handle = PerProcess(first, make_another)    # handle.get() is this process's own
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

_T = TypeVar("_T")
_here = os.getpid()
_settled = _here


def forked() -> bool:
    """Whether this process is a copy of the one that loaded this package."""
    return os.getpid() != _here


def settle() -> None:
    """Let torch and FAISS compute in a forked process, with one thread each.

    To be called before either is used.  OpenMP's threads are not copied by a fork, and whatever needs them hangs.
    """
    global _settled
    process = os.getpid()
    if process == _settled:
        return
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)
    if (faiss := sys.modules.get("faiss")) is not None:
        faiss.omp_set_num_threads(1)
    _settled = process


class Lock:
    """A lock that a thread may take again, and that a forked process finds open."""

    def __init__(self) -> None:
        # One a process: what another process has locked says nothing here.  setdefault is one step for all threads.
        self._locks: dict[int, threading.RLock] = {}  # type: ignore[valid-type]  # RLock is a function in typeshed

    def __enter__(self) -> Lock:
        self._locks.setdefault(os.getpid(), threading.RLock()).acquire()
        return self

    def __exit__(self, *exc: object) -> None:
        lock = self._locks.get(os.getpid())
        if lock is not None:
            with contextlib.suppress(RuntimeError):  # where the process was forked inside of the block
                lock.release()


class PerProcess(Generic[_T]):
    """A thing of which each process has one of its own.

    Args:
        first: That of this process.
        another: Makes one for a forked process, from that of the process it was forked from.
        discard: Called with one that was made in vain, because another thread was quicker.
    """

    def __init__(self, first: _T, another: Callable[[_T], _T], discard: Callable[[_T], None]) -> None:
        self._another = another
        self._discard = discard
        self._newest = first
        self._things = {os.getpid(): first}

    def get(self) -> _T:
        """This process's own, made now where it has none."""
        process = os.getpid()
        found = self._things.get(process)
        if found is not None:
            return found
        made = self._another(self._newest)
        found = self._things.setdefault(process, made)
        if found is not made:
            self._discard(made)
        self._newest = found
        return found

    def last(self) -> _T:
        """This process's own, or for a process that has none that of the one it was forked from."""
        return self._things.setdefault(os.getpid(), self._newest)
