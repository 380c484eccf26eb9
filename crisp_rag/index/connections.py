"""The SQLite connections of one database, one a thread, and how they get over a fork.

SQLite keeps its locks in memory, a fork copies the memory, and the system does not give the copy the locks: a forked
process that uses or even closes a connection of its parent, or opens the same file beside it, reads a state that is
long gone and may delete what another process has written.  So no connection is open at a fork: whoever forks waits for
the statements of other threads, closes all connections, and keeps new ones from being opened until the fork is done.
Every process then opens its own when it needs them.

A thread that forks inside of its own transaction, or beside one that does not end, cannot be helped: the copy refuses
to use that database.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

from crisp_rag import forking
from crisp_rag.errors import ForkedError, IndexClosedError, IndexLockedError
from crisp_rag.index.access import explained
from crisp_rag.index.connecting import Connected, Stamp, stamp_of

PATIENCE_AT_FORK = 5.0
"""Seconds that a fork waits for what other threads are asking SQLite."""


class _Own:
    """What one thread has: its connection, None while there is none, and the lock that is held while it is used.

    SQLite crashes where another thread closes a connection in use.
    """

    def __init__(self) -> None:
        self.connection: sqlite3.Connection | None = None
        self.stamp: Stamp | None = None
        self.lock = threading.RLock()
        self.thread = threading.current_thread()

    def close(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()


class Connections:
    """The connections to one database, in this process.

    Args:
        path: The database file.
        connect: Makes one.
    """

    def __init__(self, path: Path, connect: Callable[[], Connected]) -> None:
        self._path = path
        self._connect = connect
        self._local = threading.local()
        self._kept: list[_Own] = []
        self._guard = threading.Lock()
        self._process = os.getpid()
        self.closed = False
        with _gate:
            _all.add(self)

    def __len__(self) -> int:
        return sum(own.connection is not None for own in self._kept)

    @property
    def own(self) -> bool:
        """Whether they are this process's, and not those of the one that it was forked from."""
        return self._process == os.getpid()

    @property
    def current(self) -> sqlite3.Connection:
        """This thread's connection, opened where there is none."""
        own = self._own()
        with own.lock:
            self._check_usable()
            return self._open(own)

    @contextlib.contextmanager
    def using(self) -> Iterator[None]:
        """Keep this thread's connection from being closed.

        Raises:
            IndexClosedError: if all are closed for good.
            ForkedError: if the database was in use when this process was forked.
            IndexLockedError: if a file that could only be taken as unchanging has changed meanwhile.
        """
        own = self._own()
        with own.lock:
            self.check_open()
            self._check_usable()
            if self._has_changed(own) and not self._in_transaction(own):
                own.close()
            yield
            if self._has_changed(own):
                raise IndexLockedError(f"{self._path} was changed while it was read from a place without locks: try again.")

    def check_open(self) -> None:
        """Raise IndexClosedError if they are closed for good."""
        if self.closed:
            raise IndexClosedError(f"The index at {self._path.parent} is closed: open it again.")

    def close(self) -> None:
        """Close all for good, each as soon as its thread is not using it."""
        self.closed = True
        if not self.own:  # they are the parent's
            return
        with self._guard:
            kept, self._kept = self._kept, []
        for own in kept:
            with own.lock:
                own.close()

    def let_go(self, until: float) -> None:
        """Close all, for as long as a fork takes; one whose thread goes on using it at ``until`` stays."""
        if not self.own:
            return
        for own in list(self._kept):
            if own.connection is not None and own.lock.acquire(timeout=max(0.0, until - time.monotonic())):
                try:
                    if not self._in_transaction(own):
                        own.close()
                finally:
                    own.lock.release()

    def abandon(self) -> None:
        """In a forked process: never touch, and never let Python close, what the parent goes on using."""
        for own in self._kept:
            if own.connection is not None:
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(own.connection))
                with contextlib.suppress(OSError):
                    _abandoned.add(_name_of(self._path))
                _abandoned_paths.add(self._path)
        self._kept = []

    def _own(self) -> _Own:
        own: _Own | None = getattr(self._local, "own", None)
        if own is None:
            own = self._local.own = _Own()
        return own

    def _has_changed(self, own: _Own) -> bool:
        if own.stamp is None or own.connection is None:
            return False
        with explained(self._path):
            return stamp_of(self._path) != own.stamp

    @staticmethod
    def _in_transaction(own: _Own) -> bool:
        return own.connection is not None and own.connection.in_transaction

    def _open(self, own: _Own) -> sqlite3.Connection:
        if own.connection is None:
            with _gate:
                _notice_fork()
                self.check_open()
                self._check_usable()
                connected = self._connect()
                own.connection, own.stamp = connected.connection, connected.stamp
            self._keep(own)
        return own.connection  # type: ignore[return-value]  # it was opened above

    def _check_usable(self) -> None:
        known = self._path in _abandoned_paths
        if not known and _abandoned:
            with contextlib.suppress(OSError):
                known = _name_of(self._path) in _abandoned
        if known or not self.own:
            raise ForkedError(
                f"This process was forked while {self._path.parent} was in use: fork before the index is opened or between "
                "searches and writes, or start processes by spawn."
            )

    def _keep(self, own: _Own) -> None:
        """Note this thread's connection for :meth:`close`, and close those of threads that have ended.

        A server that answers each request on a new thread would run out of files otherwise.
        """
        with self._guard:
            ended = [kept for kept in self._kept if not kept.thread.is_alive()]
            self._kept = [kept for kept in self._kept if kept.thread.is_alive() and kept is not own]
            self._kept.append(own)
        for left in ended:
            left.close()


_gate = forking.Lock()
"""Held while a connection is opened, and during a fork."""
_all: weakref.WeakSet[Connections] = weakref.WeakSet()
_abandoned: set[tuple[int, int]] = set()
_abandoned_paths: set[Path] = set()
_process = os.getpid()


def _name_of(path: Path) -> tuple[int, int]:
    """What SQLite itself knows a file by."""
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _notice_fork() -> None:
    """Once in a forked process: whatever its parent could not close is of no use here."""
    global _process
    if _process != os.getpid():
        _process = os.getpid()
        for connections in list(_all):
            connections.abandon()


atexit.register(_notice_fork)  # where a process was forked behind Python's back


def _before_fork() -> None:
    _gate.__enter__()
    until = time.monotonic() + PATIENCE_AT_FORK
    for connections in list(_all):
        connections.let_go(until)


def _after_fork_in_parent() -> None:
    _gate.__exit__()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_notice_fork)
