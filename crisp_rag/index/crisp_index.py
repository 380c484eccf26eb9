"""CrispIndex: the one class that users and both frameworks hold.

    with CrispIndex.create("handbook.crisp") as index:
        index.add_texts(["Refunds take five days."], metadatas=[{"year": 2026}])
        index.search("how long do refunds take?", k=3, where={"year": 2026})

An index is a folder: ``index.sqlite`` (passages, metadata, what exists) and ``segments/`` (vectors).  Searches may
run from any number of threads and processes, each over a snapshot; writes queue behind one lock.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from crisp_rag.errors import (
    EncoderMismatchError,
    IndexClosedError,
    IndexCorruptError,
    IndexExistsError,
    IndexFormatError,
    IndexNotFoundError,
    InvalidInputError,
)
from crisp_rag.index.backend import ExactBackend, SegmentView, Snapshot, starts_of
from crisp_rag.index.checks import (
    check_ids,
    check_k,
    check_passages,
    check_query,
    check_vectors,
    check_within,
    passages_from_texts,
    vector_problem,
)
from crisp_rag.index.copying import copy_index
from crisp_rag.index.filters import check_filter, matches, parse_filter, predicate, to_sql
from crisp_rag.index.locking import WriterLock
from crisp_rag.index.segments import DTYPE
from crisp_rag.index.store import Record, Store
from crisp_rag.index.types import Hit, Passage, Where, copied

if TYPE_CHECKING:
    from crisp_rag.models.encoder import Encoder

FORMAT_VERSION = 1
SMALL_SEGMENT = 65_536
MAX_SMALL_SEGMENTS = 16
MIN_DEAD_VECTORS = 1_024
_ATTEMPTS = 50
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class IndexStats:
    """Figures about an index.  Sizes are bytes; ``bytes_vectors`` is what the segment files take."""

    path: str
    passages: int
    vectors: int
    vectors_per_passage: float
    bytes_vectors: int
    bytes_on_disk: int
    encoder: str
    fingerprint: str
    dim: int
    pooling: str
    dtype: str
    search: str
    format_version: int

    def to_dict(self) -> dict[str, Any]:
        """The same as a dict."""
        return asdict(self)


class CrispIndex:
    """Passages with their vectors in a folder.  Make one with :meth:`create` or :meth:`open`."""

    def __init__(self, path: Path, store: Store, encoder: Encoder | None, wait: float) -> None:
        self._path = path
        self._store = store
        self._meta = store.meta()
        self._encoder = encoder
        self._backend = ExactBackend(path / "segments", int(self._meta["dim"]))
        self._lock = WriterLock(path, wait)
        self._guard = threading.RLock()
        self._snapshot: Snapshot | None = None
        self._swept = False
        self._closed = False

    @classmethod
    def create(
        cls, path: str | Path, encoder: Encoder | None = None, *, exist_ok: bool = False, wait: float = 0.0
    ) -> CrispIndex:
        """Make an empty index.

        Args:
            path: The folder to make.
            encoder: What turns texts into vectors; None for the default one.
            exist_ok: Open an index that is there already instead of raising.
            wait: Seconds to wait for another process that writes, 0 to fail at once.

        Raises:
            IndexExistsError: if there is something at the path.
        """
        path = Path(path)
        if (path / "index.sqlite").exists():
            if exist_ok:
                return cls.open(path, encoder, wait=wait)
            raise IndexExistsError(f"There is an index at {path} already: open it, or choose another path.")
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise IndexExistsError(f"{path} is there and is no index: choose another path.")
        encoder = encoder if encoder is not None else _load_encoder(None)
        (path / "segments").mkdir(parents=True, exist_ok=True)
        store = Store(path / "index.sqlite", create=True)
        with store.transaction(write=True):
            store.set_meta(
                {
                    "format_version": str(FORMAT_VERSION),
                    "generation": "0",
                    "encoder": encoder.name,
                    "encoder_source": getattr(encoder, "source", None) or "",
                    "fingerprint": encoder.fingerprint,
                    "dim": str(encoder.dim),
                    "pooling": encoder.pooling,
                    "dtype": DTYPE.str,
                    "identity": uuid.uuid4().hex,
                }
            )
        return cls(path, store, encoder, wait)

    @classmethod
    def open(cls, path: str | Path, encoder: Encoder | None = None, *, wait: float = 0.0) -> CrispIndex:
        """Open an index and check every file of it.

        Args:
            path: Its folder.
            encoder: The encoder it was built with; None loads it when it is first needed.
            wait: Seconds to wait for another process that writes, 0 to fail at once.

        Raises:
            IndexNotFoundError: if there is none.
            IndexFormatError: if a newer version wrote it.
            IndexCorruptError: if a file is missing, truncated or altered; the message names it.
            EncoderMismatchError: if ``encoder`` is not the one it was built with; the message names both.
        """
        path = Path(path)
        if not path.is_dir() or not ((path / "index.sqlite").exists() or (path / "segments").exists()):
            raise IndexNotFoundError(f"There is no index at {path}: make one with CrispIndex.create or crisp-rag index.")
        if not (path / "index.sqlite").exists():
            raise IndexCorruptError(f"{path / 'index.sqlite'} is missing; restore it from a copy.")
        store = Store(path / "index.sqlite")
        try:
            meta = store.meta()
            version = meta.get("format_version", "")
            if version.isdigit() and int(version) > FORMAT_VERSION:
                raise IndexFormatError(
                    f"{path} has format {version} and this crisp-rag reads up to {FORMAT_VERSION}: upgrade crisp-rag."
                )
            needed = ("format_version", "generation", "encoder", "encoder_source", "fingerprint", "dim", "pooling")
            if not all(key in meta for key in needed) or not meta["dim"].isdigit() or not version.isdigit():
                raise IndexCorruptError(f"{path / 'index.sqlite'} lacks its settings; restore it from a copy.")
            index = cls(path, store, encoder, wait)
            if encoder is not None:
                index._check_encoder(encoder)
            for _ in store.scan():
                pass
            index._retrying(index._backend.check)
        except BaseException:
            store.close()
            raise
        return index

    # -- what it is ---------------------------------------------------------------------------------------------

    @property
    def path(self) -> Path:
        """The index folder."""
        return self._path

    @property
    def encoder(self) -> Encoder:
        """The encoder, loaded when first needed.

        Raises:
            EncoderMismatchError: if what loads now is not what the index was built with.
        """
        with self._guard:
            self._check_open()
            if self._encoder is None:
                source = self._meta["encoder_source"]
                if not source:
                    raise EncoderMismatchError(
                        f"{self._path} was built with {self._meta['encoder']!r}, which has no path to load it from: "
                        "pass encoder= when you open the index."
                    )
                encoder = _load_encoder(source)
                self._check_encoder(encoder)
                self._encoder = encoder
            return self._encoder

    @property
    def generation(self) -> int:
        """A number that grows with every change, whoever makes it: what was derived from the passages is stale then."""
        self._check_open()
        return self._store.generation()

    def __len__(self) -> int:
        return self._current().passages

    def __repr__(self) -> str:
        return f"CrispIndex({str(self._path)!r})"

    def __enter__(self) -> CrispIndex:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Release files.  Using the index afterwards raises IndexClosedError; closing again does nothing.

        Other threads' searches that read at this moment are waited for; those that go on afterwards get the error.
        """
        if not self._closed:
            self._closed = True
            self._store.close()
            self._snapshot = None

    def stats(self) -> IndexStats:
        """Figures about the index as it is now."""
        snapshot = self._current()
        backend = self._backend.stats()
        files = [file for file in self._path.rglob("*") if file.is_file()]
        return IndexStats(
            path=str(self._path),
            passages=snapshot.passages,
            vectors=snapshot.live_vectors,
            vectors_per_passage=snapshot.live_vectors / snapshot.passages if snapshot.passages else 0.0,
            bytes_vectors=backend["bytes_vectors"],
            bytes_on_disk=sum(file.stat().st_size for file in files),
            encoder=self._meta["encoder"],
            fingerprint=self._meta["fingerprint"],
            dim=int(self._meta["dim"]),
            pooling=self._meta["pooling"],
            dtype=backend["dtype"],
            search=backend["search"],
            format_version=int(self._meta["format_version"]),
        )

    # -- writing ------------------------------------------------------------------------------------------------

    def add_texts(
        self,
        texts: Sequence[str],
        ids: Sequence[str] | None = None,
        metadatas: Sequence[Mapping[str, Any]] | None = None,
        *,
        show_progress: bool = False,
    ) -> list[str]:
        """Add texts; see :meth:`add`.

        Args:
            texts: What to add.
            ids: Their ids, new random ones by default.
            metadatas: Their metadata, empty by default.
            show_progress: Draw a progress bar on stderr.

        Returns:
            The ids, in order.
        """
        return self.add(passages_from_texts(texts, ids, metadatas), show_progress=show_progress)

    def add(
        self,
        passages: Iterable[Passage],
        *,
        vectors: Sequence[np.ndarray] | None = None,
        show_progress: bool = False,
        where: Where | None = None,
    ) -> list[str]:
        """Add passages in one commit, all or nothing.  A passage whose id exists replaces it.

        Args:
            passages: What to add.
            vectors: A (vectors, dim) array a passage, encoded here by default.
            show_progress: Draw a progress bar on stderr.
            where: A filter that says what this writer may touch: a passage that it does not keep is neither
                added nor replaced.

        Returns:
            The ids, in order.  When this returns, the passages are on disk.

        Raises:
            InvalidInputError: naming the passages that cannot be added; nothing was written.
            IndexLockedError: if another process is writing.
        """
        return self.replace((), passages, vectors=vectors, show_progress=show_progress, where=where)

    def replace(
        self,
        delete_ids: Iterable[str] | Callable[[], Iterable[str]],
        passages: Iterable[Passage],
        *,
        vectors: Sequence[np.ndarray] | None = None,
        show_progress: bool = False,
        where: Where | None = None,
    ) -> list[str]:
        """Delete ids and add passages in one commit; arguments as :meth:`add`.

        Args:
            delete_ids: What to delete.  Ids of passages that ``where`` does not keep are passed over.  A function
                that gives the ids is called when nobody else can write, so that what it finds is still true.
        """
        self._check_open()
        added = list(passages)
        find = delete_ids if callable(delete_ids) else None
        deleted = [] if callable(delete_ids) else check_ids(delete_ids)
        check_filter(where)
        check_passages(added)
        check_within(added, where)
        if vectors is None:
            texts = [passage.encoded_text for passage in added]
            vectors = self.encoder.encode_document(texts, show_progress=show_progress) if texts else []
        blocks = check_vectors(added, vectors, int(self._meta["dim"]))
        if not added and not deleted and find is None:
            return []
        with self._writing():
            if find is not None:
                deleted = check_ids(find())
            gone = [*deleted, *(passage.id for passage in added)]
            if where is not None:  # nobody else writes while the lock is held: what is checked here stays true
                check_within(self.get([passage.id for passage in added]), where, there=True)
                gone = [passage.id for passage in self.get(gone, where)]
            written = self._backend.add(blocks) if blocks else None
            try:
                with self._store.transaction(write=True):
                    self._store.delete_rows(self._store.rows_of(gone))
                    if written:
                        counts = [len(block) for block in blocks]
                        starts = starts_of(counts).tolist()
                        self._store.insert(added, self._store.add_segment(*written), starts, counts)
                    self._store.advance()
            except BaseException:
                if written:
                    self._backend.delete([written[0]])
                raise
            self._tidy()
        return [passage.id for passage in added]

    def delete(self, ids: Iterable[str] | None = None, where: Where | None = None) -> int:
        """Delete passages by id, by filter, or those with both.

        Returns:
            How many were deleted; ids that do not exist are passed over.

        Raises:
            InvalidInputError: if neither is given, so that nothing is ever emptied by mistake.
        """
        self._check_open()
        if ids is None and where is None:
            raise InvalidInputError("delete needs ids or where; delete(where={}) deletes everything.")
        chosen = None if ids is None else check_ids(ids)
        with self._writing():
            with self._store.transaction(write=True):
                rows = set(self._matching(where)) if where is not None else None
                if chosen is not None:
                    named = set(self._store.rows_of(chosen))
                    rows = named if rows is None else rows & named
                deleted = self._store.delete_rows(sorted(rows or ())) if rows else 0
                if deleted:
                    self._store.advance()
            if deleted:
                self._tidy()
        return deleted

    def compact(self) -> None:
        """Rewrite all live vectors into one segment and give back the space of deleted ones."""
        self._check_open()
        with self._writing():
            self._merge([view.info.id for view in self._load_snapshot().views])

    def copy_to(self, path: str | Path) -> Path:
        """Copy the index as it is now to another folder, which :meth:`open` opens; returns the folder.

        A newer copy takes the place of an older one of the same index, which nobody may have open meanwhile; the
        index's own folder needs no copy.

        Raises:
            IndexExistsError: if there is anything else at the path, or anything else in the older copy's folder.
            IndexLockedError: if another process is writing.
        """
        self._check_open()
        with self._lock.held():
            return copy_index(self._path, self._store, Path(path))

    # -- reading ------------------------------------------------------------------------------------------------

    def get(self, ids: Sequence[str], where: Where | None = None) -> list[Passage]:
        """The passages with these ids, in the order asked for; missing ones, and those a filter drops, are left out."""
        self._check_open()
        ids = check_ids(ids)
        found = self._store.by_id(ids)
        passages = [found[id_].passage for id_ in ids if id_ in found]
        if where is None:
            return passages
        keeps = predicate(where)
        return [passage for passage in passages if keeps(copied(passage.metadata))]

    def passages(self, where: Where | None = None) -> Iterator[Passage]:
        """Every passage, or every one that a filter keeps, in insertion order."""
        self._check_open()
        with self._store.transaction():
            rows = self._matching(where if where is not None else {})
        for first in range(0, len(rows), 1000):
            part = rows[first : first + 1000]
            records = self._store.records(part)
            yield from (records[row].passage for row in part if row in records)

    def search(self, query: str, k: int = 10, where: Where | None = None) -> list[Hit]:
        """The passages that answer a query best.

        Args:
            query: Plain words.
            k: How many hits at most; k matching passages give k hits.
            where: A filter, applied before the cut; see :mod:`crisp_rag.index.filters`.

        Returns:
            Hits, best first, ties in insertion order; empty for an empty index.

        Raises:
            InvalidInputError: for a blank query or k below 1.
            FilterError: for a malformed filter.
        """
        return self.search_batch([query], k, where)[0]

    def search_batch(self, queries: Sequence[str], k: int = 10, where: Where | None = None) -> list[list[Hit]]:
        """As :meth:`search` for several queries at once, which is faster than one by one."""
        self._check_open()
        if isinstance(queries, str):
            raise InvalidInputError("queries is a list of strings, got one string.")
        check_k(k)
        for query in queries:
            check_query(query)
        check_filter(where)
        if not queries or not len(self):
            return [[] for _ in queries]
        return self.search_vectors(self.encoder.encode_query(list(queries)), k, where)

    def search_vectors(self, queries: Sequence[np.ndarray], k: int = 10, where: Where | None = None) -> list[list[Hit]]:
        """As :meth:`search_batch` for queries that are encoded already, a (vectors, dim) array each."""
        self._check_open()
        check_k(k)
        arrays = [np.asarray(query, dtype=np.float32) for query in queries]
        for number, array in enumerate(arrays):
            if problem := vector_problem(array, int(self._meta["dim"])):
                raise InvalidInputError(f"Query {number}: {problem}.")
        check_filter(where)
        if not arrays:
            return []

        def attempt(snapshot: Snapshot) -> list[list[Hit]] | None:
            allowed = None
            if where is not None:
                with self._store.transaction():
                    if self._store.generation() != snapshot.generation:
                        return None
                    rows = self._matching(where)
                allowed = np.asarray(sorted(rows), dtype=np.int64)
            found = self._backend.search(snapshot, arrays, k, allowed)
            records = self._store.records(sorted({row for hits in found for row, _ in hits}))
            if any(row not in records for hits in found for row, _ in hits):
                return None
            bounds = [float(np.linalg.norm(array, axis=1).sum()) or 1.0 for array in arrays]
            return [
                [_hit(records[row], score, bound) for row, score in hits] for hits, bound in zip(found, bounds, strict=True)
            ]

        return self._retrying(attempt)

    # -- inside -------------------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._closed:
            raise IndexClosedError(f"The index at {self._path} is closed: open it again.")

    def _check_encoder(self, encoder: Encoder) -> None:
        if encoder.fingerprint != self._meta["fingerprint"]:
            raise EncoderMismatchError(
                f"{self._path} was built with {self._meta['encoder']!r} ({self._meta['pooling']}, "
                f"{self._meta['fingerprint'][:12]}) and cannot be used with {encoder.name!r} ({encoder.pooling}, "
                f"{encoder.fingerprint[:12]}): pass the encoder it was built with, or index again."
            )

    def _current(self) -> Snapshot:
        """The newest snapshot, loaded anew if anyone has changed the index."""
        self._check_open()
        snapshot = self._snapshot
        if snapshot is None or snapshot.generation != self._store.generation():
            snapshot = self._load_snapshot()
            self._snapshot = snapshot
        return snapshot

    def _load_snapshot(self) -> Snapshot:
        with self._store.transaction():
            generation = self._store.generation()
            segments = self._store.segments()
            places = np.asarray(self._store.places(), dtype=np.int64).reshape(-1, 4)
        known = {info.id for info in segments}
        if len(places) and not set(np.unique(places[:, 0]).tolist()) <= known:
            raise IndexCorruptError(f"{self._store.path} refers to segments that it does not list.")
        views = []
        for info in segments:
            _, rows, starts, counts = places[places[:, 0] == info.id].T
            views.append(SegmentView(info, rows.copy(), starts.copy(), counts.copy()))
        return Snapshot(generation, tuple(views))

    def _retrying(self, attempt: Callable[[Snapshot], _T | None]) -> _T:
        """Run against the newest snapshot; again where a writer took something away meanwhile.

        A file that is gone is a normal event while another process compacts, and a loss if it stays gone.
        """
        for _ in range(_ATTEMPTS):
            snapshot = self._current()
            try:
                result = attempt(snapshot)
            except FileNotFoundError as error:
                # Files go after the commit that lets go of them: without a newer commit this one is lost.
                if self._store.generation() == snapshot.generation:
                    raise IndexCorruptError(f"{error.filename} is missing; restore it from a copy.") from error
                continue
            if result is not None:
                return result
            self._snapshot = None
        with self._lock.held():  # a busy writer: let it pause for the length of one search
            result = attempt(self._current())
        assert result is not None
        return result

    def _matching(self, where: Where) -> list[int]:
        """Rows that a filter keeps, in insertion order."""
        if callable(where):
            return [record.row for record in self._store.scan() if where(dict(record.passage.metadata))]
        expression = parse_filter(where)
        found = self._store.rows_where(*to_sql(expression))
        doubtful = self._store.records([row for row, has_nul in found if has_nul])
        return [row for row, has_nul in found if not has_nul or matches(expression, doubtful[row].passage.metadata)]

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """The writer's lock, on an index that is open and, at its first write, swept."""
        with self._lock.held():
            self._check_open()
            self._sweep()
            yield

    def _sweep(self) -> None:
        """Once an opened index, under the lock: remove what an interrupted write left behind."""
        if not self._swept:
            self._backend.delete_all_but(info.file for info in self._store.segments())
            self._swept = True

    def _tidy(self) -> None:
        """Merge small segments, and rewrite when most vectors are dead."""
        snapshot = self._load_snapshot()
        dead = snapshot.stored_vectors - snapshot.live_vectors
        if dead >= MIN_DEAD_VECTORS and dead > snapshot.stored_vectors / 2:
            self._merge([view.info.id for view in snapshot.views])
            return
        small = [view.info.id for view in snapshot.views if view.info.vectors < SMALL_SEGMENT]
        if len(small) > MAX_SMALL_SEGMENTS:
            self._merge(small)

    def _merge(self, segments: Sequence[int]) -> None:
        """Rewrite the live vectors of these segments into one new segment, by row; called under the lock."""
        chosen = [view for view in self._load_snapshot().views if view.info.id in set(segments)]
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


def _load_encoder(source: str | None) -> Encoder:
    from crisp_rag.models.encoder import load_encoder

    return load_encoder(source)


def _hit(record: Record, score: float, bound: float) -> Hit:
    passage = record.passage
    return Hit(passage.id, score, passage.text, copied(passage.metadata), score / bound, passage.context)
