"""What one process holds of one index folder: connections, mapped segments, locks, and the newest snapshot."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from crisp_rag.errors import AccessError, IndexCorruptError, IndexLockedError, IndexReplacedError
from crisp_rag.index import places
from crisp_rag.index.backend import LocalBackend
from crisp_rag.index.identity import Place
from crisp_rag.index.locking import WriterLock
from crisp_rag.index.lookups import FilteredRows
from crisp_rag.index.opening import open_store
from crisp_rag.index.snapshots import Snapshot
from crisp_rag.index.store import Store
from crisp_rag.index.writing import Writer

_ATTEMPTS = 50
_T = TypeVar("_T")


class Handle:
    """An open index folder.

    Args:
        folder: The index folder, as a path that does not depend on the current directory.
        store: Its database, open.
        place: What was found under the path before the database was opened.
        wait: Seconds to wait for another process that writes.
    """

    def __init__(self, folder: Path, store: Store, place: Place, wait: float) -> None:
        self.folder = folder
        self.store = store
        self.meta = store.meta()
        self.backend = LocalBackend(folder / "segments", int(self.meta["dim"]))
        self.lock = WriterLock(folder, wait)
        self.writer = Writer(folder, store, self.backend, self.lock, place)
        self.filtered = FilteredRows()
        self._place = place
        self._wait = wait
        self._snapshot: Snapshot | None = None
        self._closed = False
        place.check()

    @classmethod
    def open(cls, path: Path, wait: float) -> Handle:
        """Open the index in a folder; errors as for :func:`crisp_rag.index.opening.open_store`."""
        folder = Path(os.path.abspath(path))
        for last in (False, True):
            try:
                place = Place(folder)
            except (FileNotFoundError, NotADirectoryError):
                open_store(path).close()  # which says what is missing, or has put it back
                place = Place(folder)
            store = open_store(folder)
            try:
                return cls(folder, store, place, wait)
            except IndexReplacedError:  # in this very moment: the other one will do
                store.close()
                if last:
                    raise
            except BaseException:
                store.close()
                raise
        raise AssertionError

    def another(self) -> Handle:
        """The same for a process that was forked from the one that this is for.

        Snapshots and mapped segments are taken over: they never change, and were checked.

        Raises:
            IndexReplacedError: if the folder is another one by now.
        """
        if self._closed:
            return self
        self._place.check()
        store = open_store(self.folder)
        try:
            made = Handle(self.folder, store, self._place, self._wait)
            if made.meta.get("identity") != self.meta.get("identity"):
                raise IndexReplacedError(f"The index at {self.folder} is another one by now: close it and open it again.")
        except BaseException:
            store.close()
            raise
        if self.store.checked:
            store.trust()
        made.backend.take_over(self.backend)
        made._snapshot = self._snapshot
        return made

    def check(self) -> None:
        """See that the index is open, and that its folder is the one that was opened.

        Raises:
            IndexClosedError: after :meth:`close`.
            IndexReplacedError: if the folder was moved, removed or replaced.
        """
        self.store.check_open()
        self._place.check()

    def close(self) -> None:
        """Release files; searches that are under way are waited for."""
        self._closed = True
        self.store.close()
        self.backend.close()
        self.writer.close()
        self._snapshot = None

    def current(self) -> Snapshot:
        """The newest snapshot, loaded anew if anyone has changed the index."""
        self.check()
        snapshot = self._snapshot
        if snapshot is None or snapshot.generation != self.store.generation():
            snapshot = places.load_snapshot(self.store, snapshot)
            if not self._closed:
                self._snapshot = snapshot
        return snapshot

    def retrying(self, attempt: Callable[[Snapshot], _T | None]) -> _T:
        """Run against the newest snapshot; again where a writer took something away meanwhile.

        A file that is gone is a normal event while another process compacts, and a loss if it stays gone.
        """
        for _ in range(_ATTEMPTS):
            snapshot = self.current()
            try:
                result = attempt(snapshot)
            except FileNotFoundError as error:
                # Files go after the commit that lets go of them: without a newer commit this one is lost.
                self.check()
                if self.store.generation() == snapshot.generation:
                    raise IndexCorruptError(f"{error.filename} is missing; restore it from a copy.") from error
                continue
            if result is not None:
                return result
            self._snapshot = None
        try:
            with self.lock.held():  # a busy writer: let it pause for the length of one search
                result = attempt(self.current())
        except AccessError:
            raise IndexLockedError(f"{self.folder} changes faster than it can be read here: try again.") from None
        assert result is not None
        return result
