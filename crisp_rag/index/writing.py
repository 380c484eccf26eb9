"""Everything that changes an index: adds, replacements, deletions, and giving back the space of what is gone.

Every change is one SQLite transaction.  Vectors go into a new segment file, which is synced to disk before the
transaction that refers to it commits; files that nothing refers to any more go after the commit.  Who dies in
between leaves at worst a file that nothing refers to, which the next writer sweeps away.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from crisp_rag.index.backend import ExactBackend, starts_of
from crisp_rag.index.checks import check_ids, check_vectors, check_within
from crisp_rag.index.locking import WriterLock
from crisp_rag.index.lookups import load_snapshot, matching_rows, passages_of
from crisp_rag.index.store import Store
from crisp_rag.index.types import Passage, Where

SMALL_SEGMENT = 65_536
MAX_SMALL_SEGMENTS = 16
MIN_DEAD_VECTORS = 1_024


class Writer:
    """The writing half of an index.  Threads queue; other processes are kept out by the lock.

    Args:
        store: What the index says.
        backend: Where its vectors lie.
        lock: Held for the length of every change.
    """

    def __init__(self, store: Store, backend: ExactBackend, lock: WriterLock) -> None:
        self._store = store
        self._backend = backend
        self._lock = lock
        self._swept = False

    def replace(
        self,
        gone: Sequence[str] | Callable[[], Iterable[str]],
        passages: Sequence[Passage],
        vectors: Sequence[np.ndarray],
        where: Where | None = None,
    ) -> None:
        """Delete ids and add checked passages in one commit; see :meth:`CrispIndex.replace`.

        Args:
            gone: The ids to delete, or a function that finds them once nobody else can write.
            passages: What to add.
            vectors: A (vectors, dim) array a passage.
            where: What this writer may touch.
        """
        blocks = check_vectors(passages, vectors, self._backend.dim)
        if not passages and not callable(gone) and not gone:
            return
        with self.writing():
            deleted = check_ids(gone()) if callable(gone) else gone
            taken = [*deleted, *(passage.id for passage in passages)]
            if where is not None:  # nobody else writes while the lock is held: what is checked here stays true
                check_within(passages_of(self._store, [passage.id for passage in passages]), where, there=True)
                taken = [passage.id for passage in passages_of(self._store, taken, where)]
            written = self._backend.add(blocks) if blocks else None
            try:
                with self._store.transaction(write=True):
                    self._store.delete_rows(self._store.rows_of(taken))
                    if written:
                        counts = [len(block) for block in blocks]
                        starts = starts_of(counts).tolist()
                        self._store.insert(passages, self._store.add_segment(*written), starts, counts)
                    self._store.advance()
            except BaseException:
                if written:
                    self._backend.delete([written[0]])
                raise
            self._tidy()

    def delete(self, ids: Sequence[str] | None, where: Where | None) -> int:
        """Delete passages by id, by filter, or those with both; returns how many there were."""
        with self.writing():
            with self._store.transaction(write=True):
                rows = set(matching_rows(self._store, where)) if where is not None else None
                if ids is not None:
                    named = set(self._store.rows_of(ids))
                    rows = named if rows is None else rows & named
                deleted = self._store.delete_rows(sorted(rows or ())) if rows else 0
                if deleted:
                    self._store.advance()
            if deleted:
                self._tidy()
        return deleted

    def compact(self) -> None:
        """Rewrite all live vectors into one segment and give back the space of deleted ones."""
        with self.writing():
            self._merge([view.info.id for view in load_snapshot(self._store).views])

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """The writer's lock, on an index that is open and, at its first write, swept."""
        with self._lock.held():
            self._store.check_open()
            self._sweep()
            yield

    def _sweep(self) -> None:
        """Once an opened index, under the lock: remove what an interrupted write left behind."""
        if not self._swept:
            self._backend.delete_all_but(info.file for info in self._store.segments())
            self._swept = True

    def _tidy(self) -> None:
        """Merge small segments, and rewrite when most vectors are dead."""
        snapshot = load_snapshot(self._store)
        dead = snapshot.stored_vectors - snapshot.live_vectors
        if dead >= MIN_DEAD_VECTORS and dead > snapshot.stored_vectors / 2:
            self._merge([view.info.id for view in snapshot.views])
            return
        small = [view.info.id for view in snapshot.views if view.info.vectors < SMALL_SEGMENT]
        if len(small) > MAX_SMALL_SEGMENTS:
            self._merge(small)

    def _merge(self, segments: Sequence[int]) -> None:
        """Rewrite the live vectors of these segments into one new segment, by row; called under the lock."""
        chosen = [view for view in load_snapshot(self._store).views if view.info.id in set(segments)]
        if not chosen:
            return
        places = sorted(
            (int(row), number, int(start), int(count))
            for number, view in enumerate(chosen)
            for row, start, count in zip(view.rows, view.starts, view.counts, strict=True)
        )
        maps = [self._backend.vectors(view.info) for view in chosen]
        written = None
        if places:
            written = self._backend.add(maps[number][start : start + count] for _, number, start, count in places)
        with self._store.transaction(write=True):
            if written:
                segment = self._store.add_segment(*written)
                starts = starts_of([count for *_, count in places]).tolist()
                for first in range(0, len(places), 1000):
                    part = places[first : first + 1000]
                    records = self._store.records([row for row, *_ in part])
                    moved = [(records[row], segment, starts[first + i]) for i, (row, *_) in enumerate(part)]
                    self._store.move(moved)
            self._store.drop_segments([view.info.id for view in chosen])
            self._store.advance()
        self._backend.delete([view.info.file for view in chosen])
