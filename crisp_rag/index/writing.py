"""Everything that changes an index: adds, replacements, deletions, and giving back the space of what is gone.

Every change is one SQLite transaction.  Vectors go into a new segment file, which is synced to disk before the
transaction that refers to it commits; files that nothing refers to any more go after the commit.  Who dies in
between leaves at worst a file that nothing refers to, which the next writer sweeps away.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from crisp_rag.errors import AccessError, DiskFullError, ForkedError, IndexCorruptError
from crisp_rag.index import merging, places
from crisp_rag.index.acknowledged import acknowledge
from crisp_rag.index.backend import LocalBackend
from crisp_rag.index.checks import check_ids, check_within
from crisp_rag.index.codecs import FORMAT_1_CODEC, codec_at
from crisp_rag.index.declared import declare
from crisp_rag.index.identity import Place
from crisp_rag.index.locking import WriterLock
from crisp_rag.index.lookups import matching_rows, passages_of
from crisp_rag.index.schema import FORMAT_VERSION
from crisp_rag.index.snapshots import SegmentView, Snapshot, starts_of
from crisp_rag.index.store import Store
from crisp_rag.index.types import Passage, Where

_MOVED_AT_ONCE = 1_000
_FREE_PAGES = 0.25
"""The share of unused pages from which on compaction rewrites the database."""

Gone = Sequence[str] | Callable[[], Iterable[str]]


class Writer:
    """The writing half of an index.  Threads queue; other processes are kept out by the lock.

    Args:
        folder: The index folder.
        store: What the index says.
        backend: Where its vectors lie.
        lock: Held for the length of every change.
        place: The folder that was opened.
    """

    def __init__(self, folder: Path, store: Store, backend: LocalBackend, lock: WriterLock, place: Place) -> None:
        self._folder = folder
        self._store = store
        self._backend = backend
        self._lock = lock
        self._place = place
        self._snapshot: Snapshot | None = None
        self._swept = False
        self._doubtful = False

    def replace(
        self,
        gone: Gone,
        passages: Sequence[Passage],
        blocks: Iterable[np.ndarray],
        counts: Sequence[int],
        where: Where | None = None,
    ) -> None:
        """Delete ids and add checked passages in one commit; see :meth:`CrispIndex.replace`.

        Args:
            gone: The ids to delete, or a function that finds them once nobody else can write.
            passages: What to add.
            blocks: A checked (vectors, dim) array a passage, taken one by one.
            counts: How many vectors each has, read after the last block.
            where: What this writer may touch.
        """
        with self.writing():
            deleted = check_ids(gone()) if callable(gone) else gone
            taken = [*deleted, *(passage.id for passage in passages)]
            if where is not None:  # nobody else writes while the lock is held: what is checked here stays true
                check_within(passages_of(self._store, [passage.id for passage in passages]), where, there=True)
                taken = [passage.id for passage in passages_of(self._store, taken, where)]
            written = self._backend.add(blocks, self._codec()) if passages else None
            with self._committing(written):
                self._store.delete_rows(self._store.rows_of(taken))
                if written:
                    starts = starts_of(counts).tolist()
                    self._store.insert(passages, self._store.add_segment(*written), starts, counts)
            self._tidy()

    def delete(self, ids: Sequence[str] | None, where: Where | None) -> int:
        """Delete passages by id, by filter, or those with both; returns how many there were."""
        with self.writing():
            rows = set(matching_rows(self._store, where)) if where is not None else None
            if ids is not None:
                named = set(self._store.rows_of(ids))
                rows = named if rows is None else rows & named
            if not rows:
                return 0
            with self._committing():
                deleted = self._store.delete_rows(sorted(rows))
            self._tidy()
        return deleted

    def declare(self, fields: Sequence[str]) -> None:
        """Index metadata fields; see :meth:`CrispIndex.declare`."""
        with self.writing(), self._committing():
            declare(self._store, fields)

    def compact(self, codec: str | None = None) -> None:
        """Rewrite all live vectors into one segment and give back the space of deleted ones.

        An index of an older format gets the present one.

        Args:
            codec: The codec from now on, or ``auto``; as before by default.
        """
        with self.writing():
            snapshot = self._current()
            views = snapshot.views
            if codec is not None and codec != self._choice():
                self._merge(views, codec_at(codec, snapshot.live_vectors), choice=codec)
            elif self._store.setting("format_version") != str(FORMAT_VERSION):
                self._merge(views, choice=self._choice())
            elif [view.info.codec for view in views] != [self._codec()] or snapshot.stored_vectors > snapshot.live_vectors:
                self._merge(views)
            self._store.shrink(_FREE_PAGES)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """The writer's lock, on an index that is open, in its place, sound and, at its first write, swept."""
        with self._lock.held():
            self._store.check_open()
            self._place.check()
            self._store.check()
            places.build(self._store)
            if not self._swept:
                self._sweep()
            yield

    @contextlib.contextmanager
    def _committing(self, written: tuple[str, int, str, str] | None = None) -> Iterator[None]:
        """One transaction around a change, and afterwards the note that it is acknowledged.

        What was written for a change that fails is removed, unless it is the commit itself that fails: then the
        database's log may hold it nevertheless, and the file stays until another commit has taken its place.

        Raises:
            IndexReplacedError: if another folder has taken this one's place meanwhile: nothing is acknowledged then.
            ForkedError: in a copy of the process that writes.
        """
        self._lock.check_process()
        with self._store.transaction(write=True):
            try:
                yield
                self._lock.check_process()
                self._place.check()
                self._store.advance()
            except ForkedError:  # the file is the parent's
                raise
            except BaseException:
                self._backend.delete([written[0]] if written else [])
                raise
            generation = self._store.generation()
            doubtful = self._doubtful
            self._doubtful = True  # until the commit has returned
        self._doubtful = False
        self._place.check()
        acknowledge(self._folder, generation)
        if doubtful:
            self._sweep()

    def close(self) -> None:
        """Let go of the snapshot."""
        self._snapshot = None

    def _choice(self) -> str:
        """The codec that was chosen, or ``auto``, as of the newest commit."""
        return self._store.setting("codec") or FORMAT_1_CODEC

    def _codec(self) -> str:
        """What new segments are coded with."""
        snapshot = self._current()
        return codec_at(self._choice(), snapshot.live_vectors, {view.info.codec for view in snapshot.views})

    def _sweep(self) -> None:
        """Remove what interrupted writes left behind; called under the lock."""
        self._backend.delete_all_but(info.file for info in self._store.segments())
        self._swept = True

    def _current(self) -> Snapshot:
        self._snapshot = places.load_snapshot(self._store, self._snapshot)
        return self._snapshot

    def _tidy(self) -> None:
        """Merge segments where it is time to, one tier into the next.

        The change that it follows is committed: a disk too full for tidying, or too many open files, must not make it
        look as if it were not.
        """
        with contextlib.suppress(DiskFullError, AccessError):
            while chosen := merging.due(self._current()):
                self._merge(chosen)

    def _merge(self, chosen: Sequence[SegmentView], codec: str | None = None, choice: str | None = None) -> None:
        """Rewrite the live vectors of these segments into one new segment, by row; called under the lock.

        Takes about 100 bytes of memory a passage, whatever its vectors take.

        Args:
            chosen: The segments.
            codec: That of the new one, the index's own by default.
            choice: They are all that there are, and the index gets the present format and this choice of a codec.
        """
        if not chosen and choice is None:
            return
        codec = codec or self._codec()
        numbers = np.repeat(np.arange(len(chosen)), [len(view.rows) for view in chosen])
        rows, starts, counts = (
            np.concatenate([np.empty(0, np.int64), *(getattr(view, name) for view in chosen)])
            for name in ("rows", "starts", "counts")
        )
        order = np.argsort(rows, kind="stable")
        numbers, rows, starts, counts = numbers[order], rows[order], starts[order], counts[order]
        written = None
        if len(rows):
            try:
                written = self._backend.rewrite(chosen, numbers, starts, counts, codec)
            except FileNotFoundError as error:  # nobody else takes segments away while the lock is held
                self._place.check()
                raise IndexCorruptError(f"{error.filename} is missing; restore it from a copy.") from error
        with self._committing(written):
            if choice is not None:
                self._store.upgrade()
                self._store.set_meta({"format_version": str(FORMAT_VERSION), "codec": choice})
            if written:
                self._move(rows, self._store.add_segment(*written), starts_of(counts))
            self._store.drop_segments([view.info.id for view in chosen])
        self._backend.delete([view.info.file for view in chosen])

    def _move(self, rows: np.ndarray, segment: int, starts: np.ndarray) -> None:
        """Point passages to their place in a new segment, in the caller's transaction."""
        for first in range(0, len(rows), _MOVED_AT_ONCE):
            part = rows[first : first + _MOVED_AT_ONCE].tolist()
            records = self._store.records(part)
            if len(records) < len(part):
                raise IndexCorruptError(f"{self._store.path} lacks passages that it lists; restore it from a copy.")
            places_ = starts[first : first + _MOVED_AT_ONCE].tolist()
            self._store.move((records[row], segment, start) for row, start in zip(part, places_, strict=True))
