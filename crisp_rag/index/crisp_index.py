"""CrispIndex: the one class that users and both frameworks hold.

    with CrispIndex.create("handbook.crisp") as index:
        index.add_texts(["Refunds take five days."], metadatas=[{"year": 2026}])
        index.search("how long do refunds take?", k=3, where={"year": 2026})

An index is a folder: ``index.sqlite`` (passages, metadata, what exists) and ``segments/`` (vectors).  Searches may
run from any number of threads and processes, each over a snapshot; writes queue behind one lock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from filelock import Timeout

from crisp_rag.errors import (
    EncoderMismatchError,
    IndexCorruptError,
    IndexExistsError,
    IndexLockedError,
    InvalidInputError,
)
from crisp_rag.index import places
from crisp_rag.index.backend import LocalBackend
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
from crisp_rag.index.codecs import DEFAULT_CODEC, FORMAT_1_CODEC, check_codec
from crisp_rag.index.copying import copy_index
from crisp_rag.index.declared import check_fields, declared_fields
from crisp_rag.index.filters import check_filter
from crisp_rag.index.locking import WriterLock
from crisp_rag.index.lookups import FilteredRows, matching_rows, passages_of
from crisp_rag.index.opening import bytes_of, exists, make_store, open_store
from crisp_rag.index.planner import check_recall
from crisp_rag.index.snapshots import Snapshot
from crisp_rag.index.store import DATABASE, Record, Store
from crisp_rag.index.streams import Stream
from crisp_rag.index.types import Compaction, Hit, Hits, IndexStats, Passage, Where, copied
from crisp_rag.index.writing import Writer

if TYPE_CHECKING:
    from crisp_rag.models.encoder import Encoder

CHECKED_AT_OPEN = 32 << 20
"""Bytes of an index up to which opening it checks every one of them; a larger one is checked as it is used."""
_ATTEMPTS = 50
_T = TypeVar("_T")


class CrispIndex:
    """Passages with their vectors in a folder.  Make one with :meth:`create` or :meth:`open`."""

    def __init__(self, path: Path, store: Store, encoder: Encoder | None, wait: float) -> None:
        self._path = path
        self._store = store
        self._meta = store.meta()
        self._encoder = encoder
        self._backend = LocalBackend(path / "segments", int(self._meta["dim"]))
        self._lock = WriterLock(path, wait)
        self._writer = Writer(path, store, self._backend, self._lock)
        self._guard = threading.RLock()
        self._snapshot: Snapshot | None = None
        self._filtered = FilteredRows()

    @classmethod
    def create(
        cls,
        path: str | Path,
        encoder: Encoder | None = None,
        *,
        exist_ok: bool = False,
        wait: float = 0.0,
        indexed_fields: Sequence[str] = (),
        codec: str = DEFAULT_CODEC,
    ) -> CrispIndex:
        """Make an empty index.

        Args:
            path: The folder to make.
            encoder: What turns texts into vectors; None for the default one.
            exist_ok: Open an index that is there already instead of raising.
            wait: Seconds to wait for another process that writes, 0 to fail at once.
            indexed_fields: Metadata fields that filters use often; see :meth:`declare`.
            codec: How vectors are stored: ``auto``, which goes by the size of the index, ``7bit``, ``5bit``, ``4bit``,
                ``float16``, ``int8``, ``ternary`` or ``1bit``; see :mod:`crisp_rag.index.codecs`.  An index that is there
                already keeps its own.

        Raises:
            IndexExistsError: if there is something at the path.
            InvalidInputError: if there is no such codec.
        """
        path = Path(path)
        fields = check_fields(indexed_fields)
        check_codec(codec)
        if exists(path):
            if exist_ok:
                there = cls.open(path, encoder, wait=wait)
                if not set(fields) <= set(there.indexed_fields):
                    there.declare(fields)
                return there
            raise IndexExistsError(f"There is an index at {path} already: open it, or choose another path.")
        if path.exists() and (not path.is_dir() or not {file.name for file in path.iterdir()} <= {*DATABASE, "segments"}):
            raise IndexExistsError(f"{path} is there and is no index: choose another path.")
        encoder = encoder if encoder is not None else _load_encoder(None)
        store = make_store(path, encoder, codec, fields)
        return cls(path, store, encoder, wait)

    @classmethod
    def open(cls, path: str | Path, encoder: Encoder | None = None, *, wait: float = 0.0) -> CrispIndex:
        """Open an index, checked.

        A small index is checked whole.  Of a large one the settings, the sizes of all files and where its passages
        lie are checked now; a segment is checked when it is first read, a passage when it answers, and the whole
        database before the first filter, look-up by id or write: nothing corrupt is ever answered from.
        :func:`crisp_rag.index.verify_index` checks everything at once.

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
        store = open_store(path)
        try:
            index = cls(path, store, encoder, wait)
            if encoder is not None:
                index._check_encoder(encoder)
            whole = not places.built(store) or bytes_of(path) <= CHECKED_AT_OPEN
            if whole:
                store.check()
            index._retrying(lambda snapshot: index._backend.check(snapshot, whole=whole))
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
            self._store.check_open()
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
        self._store.check_open()
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
        self._store.close()
        self._backend.close()
        self._snapshot = None

    def stats(self) -> IndexStats:
        """Figures about the index as it is now."""
        snapshot = self._current()
        backend = self._backend.stats(snapshot)
        meta = self._store.meta()
        return IndexStats(
            path=str(self._path),
            passages=snapshot.passages,
            vectors=snapshot.live_vectors,
            vectors_per_passage=snapshot.live_vectors / snapshot.passages if snapshot.passages else 0.0,
            bytes_vectors=backend["bytes_vectors"],
            bytes_on_disk=bytes_of(self._path),
            encoder=self._meta["encoder"],
            fingerprint=self._meta["fingerprint"],
            dim=int(self._meta["dim"]),
            pooling=self._meta["pooling"],
            codec=meta.get("codec", FORMAT_1_CODEC),
            codecs=tuple(sorted({view.info.codec for view in snapshot.views})),
            search=backend["search"],
            passages_in_lists=backend["passages_in_lists"],
            format_version=int(meta["format_version"]),
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
        self._store.check_open()
        added = list(passages)
        gone = delete_ids if callable(delete_ids) else check_ids(delete_ids)
        check_filter(where)
        check_passages(added)
        check_within(added, where)
        if vectors is None:
            vectors = self._encode_documents([passage.encoded_text for passage in added], show_progress)
        blocks = check_vectors(added, vectors, int(self._meta["dim"]))
        if added or gone:
            self._writer.replace(gone, added, blocks, [len(block) for block in blocks], where)
        return [passage.id for passage in added]

    def add_stream(
        self,
        passages: Iterable[Passage],
        *,
        vectors: Iterable[np.ndarray] | None = None,
        where: Where | None = None,
        commit_every: int = 8192,
        on_commit: Callable[[int], None] | None = None,
    ) -> int:
        """Add passages from an iterator of any length, in memory for ``commit_every`` of them.

        Every ``commit_every`` passages are one commit.  What has been committed stays, whatever happens later: a
        crash after hours of encoding costs one batch, and what is there is always a beginning of the stream.  A
        passage whose id exists, or came earlier in the stream, replaces it.  No other process can write meanwhile.

        Args:
            passages: What to add.
            vectors: A (vectors, dim) array a passage, an iterator too; encoded here by default.
            where: What this writer may touch; see :meth:`add`.
            commit_every: Passages a commit.
            on_commit: Called after each commit with the number of passages taken so far, all of them on disk.

        Returns:
            How many passages were taken.

        Raises:
            InvalidInputError: naming passages that cannot be added, and how many are in the index already.
            IndexLockedError: if another process is writing.
        """
        self._store.check_open()
        check_filter(where)
        if not isinstance(commit_every, int) or commit_every < 1:
            raise InvalidInputError(f"commit_every is a whole number of at least 1, got {commit_every!r}.")
        stream = Stream(passages, vectors, self._encode_documents, int(self._meta["dim"]), where)
        done = 0
        with self._writer.writing():
            try:
                for batch in stream.batches(commit_every):
                    self._writer.replace((), batch.passages, batch.blocks, batch.counts, where)
                    done += len(batch.taken)
                    if on_commit is not None:
                        on_commit(done)
            except InvalidInputError as error:
                said = str(error).removesuffix(" Nothing was added.")
                raise InvalidInputError(f"{said} The {done} passages before this batch are in the index.") from error
        return done

    def delete(self, ids: Iterable[str] | None = None, where: Where | None = None) -> int:
        """Delete passages by id, by filter, or those with both.

        Returns:
            How many were deleted; ids that do not exist are passed over.

        Raises:
            InvalidInputError: if neither is given, so that nothing is ever emptied by mistake.
        """
        self._store.check_open()
        if ids is None and where is None:
            raise InvalidInputError("delete needs ids or where; delete(where={}) deletes everything.")
        return self._writer.delete(None if ids is None else check_ids(ids), where)

    def compact(self, codec: str | None = None) -> Compaction:
        """Rewrite all live vectors into one segment and give back the space of deleted passages.

        Needs as much free disk as the live part of the index takes, and memory for about 100 bytes a passage.
        Searches go on meanwhile.  An index of an older format gets the present one.

        Args:
            codec: How vectors are stored from now on, as before by default; see :mod:`crisp_rag.index.codecs`.

        Returns:
            The index's bytes on disk before and after.

        Raises:
            DiskFullError: if there is too little space; the index is as it was before.
            IndexLockedError: if another process is writing.
        """
        self._store.check_open()
        before = bytes_of(self._path)
        self._writer.compact(None if codec is None else check_codec(codec))
        return Compaction(before, bytes_of(self._path))

    def prepare(self) -> None:
        """Make now what a large index is searched with, instead of in the background of its first searches.

        Needs no lock and keeps nobody waiting: readers go on, and so do writers.

        Raises:
            IndexLockedError: if another process is doing the same.
        """
        self._store.check_open()
        try:
            self._retrying(self._backend.prepare)
        except Timeout:
            raise IndexLockedError(f"{self._path} is being prepared by another process: wait for it.") from None

    def declare(self, fields: Sequence[str]) -> None:
        """Index metadata fields, so that a filter which demands a value of one need not read every passage.

        Takes effect at once, for what is there and for what comes; filters mean the same with and without.

        Args:
            fields: Names of metadata fields, such as ``["tenant"]``.

        Raises:
            InvalidInputError: if one is no field name.
            IndexLockedError: if another process is writing.
        """
        self._store.check_open()
        self._writer.declare(check_fields(fields))

    @property
    def indexed_fields(self) -> list[str]:
        """The metadata fields that :meth:`create` and :meth:`declare` were told of."""
        self._store.check_open()
        return declared_fields(self._store)

    def copy_to(self, path: str | Path) -> Path:
        """Copy the index as it is now to another folder, which :meth:`open` opens; returns the folder.

        A newer copy takes the place of an older one of the same index, which nobody may have open meanwhile; the
        index's own folder needs no copy.

        Raises:
            IndexExistsError: if there is anything else at the path, or anything else in the older copy's folder.
            IndexLockedError: if another process is writing.
        """
        self._store.check_open()
        with self._lock.held():
            return copy_index(self._path, self._store, Path(path))

    # -- reading ------------------------------------------------------------------------------------------------

    def get(self, ids: Sequence[str], where: Where | None = None) -> list[Passage]:
        """The passages with these ids, in the order asked for; missing ones, and those a filter drops, are left out."""
        self._store.check_open()
        return passages_of(self._store, check_ids(ids), where)

    def passages(self, where: Where | None = None) -> Iterator[Passage]:
        """Every passage, or every one that a filter keeps, in insertion order."""
        self._store.check_open()
        with self._store.transaction():
            rows = matching_rows(self._store, where if where is not None else {})
        for first in range(0, len(rows), 1000):
            part = rows[first : first + 1000]
            records = self._store.records(part)
            yield from (records[row].passage for row in part if row in records)

    def search(
        self,
        query: str,
        k: int = 10,
        where: Where | None = None,
        *,
        exact: bool = False,
        target_recall: float | None = None,
    ) -> Hits:
        """The passages that answer a query best.

        Args:
            query: Plain words.
            k: How many hits at most; k matching passages give k hits.
            where: A filter, applied before the cut; see :mod:`crisp_rag.index.filters`.
            exact: Score every passage that the filter keeps, however many there are.
            target_recall: The share of the true best ten to find, .99 by default.  A small index is searched exactly
                in any case.

        Returns:
            Hits, best first, ties in insertion order; empty for an empty index.  Their ``search`` says how they were
            found.

        Raises:
            InvalidInputError: for a blank query, k below 1 or a target that is no share.
            FilterError: for a malformed filter.
        """
        return self.search_batch([query], k, where, exact=exact, target_recall=target_recall)[0]

    def search_batch(
        self,
        queries: Sequence[str],
        k: int = 10,
        where: Where | None = None,
        *,
        exact: bool = False,
        target_recall: float | None = None,
    ) -> list[Hits]:
        """As :meth:`search` for several queries at once, which is faster than one by one."""
        self._store.check_open()
        if isinstance(queries, str):
            raise InvalidInputError("queries is a list of strings, got one string.")
        check_k(k)
        for query in queries:
            check_query(query)
        check_filter(where)
        check_recall(target_recall)
        if not queries or not len(self):
            return [Hits() for _ in queries]
        vectors = self.encoder.encode_query(list(queries))
        return self.search_vectors(vectors, k, where, exact=exact, target_recall=target_recall)

    def search_vectors(
        self,
        queries: Sequence[np.ndarray],
        k: int = 10,
        where: Where | None = None,
        *,
        exact: bool = False,
        target_recall: float | None = None,
    ) -> list[Hits]:
        """As :meth:`search_batch` for queries that are encoded already, a (vectors, dim) array each."""
        self._store.check_open()
        check_k(k)
        arrays = [np.asarray(query, dtype=np.float32) for query in queries]
        for number, array in enumerate(arrays):
            if problem := vector_problem(array, int(self._meta["dim"])):
                raise InvalidInputError(f"Query {number}: {problem}.")
        check_filter(where)
        recall = check_recall(target_recall)
        if not arrays:
            return []

        def attempt(snapshot: Snapshot) -> list[Hits] | None:
            def look_up() -> np.ndarray | None:
                assert where is not None
                with self._store.transaction():
                    if self._store.generation() != snapshot.generation:
                        return None
                    return np.asarray(sorted(matching_rows(self._store, where)), dtype=np.int64)

            allowed = None
            if where is not None and (allowed := self._filtered.of(snapshot.generation, where, look_up)) is None:
                return None
            found = self._backend.search(snapshot, arrays, k, allowed, exact=exact, target_recall=recall)
            records = self._store.records(sorted({row for hits, _ in found for row, _ in hits}))
            if any(row not in records for hits, _ in found for row, _ in hits):
                if self._store.generation() == snapshot.generation:
                    raise IndexCorruptError(f"{self._store.path} lacks passages that it lists; restore it from a copy.")
                return None
            bounds = [float(np.linalg.norm(array, axis=1).sum()) or 1.0 for array in arrays]
            return [
                Hits([_hit(records[row], score, bound) for row, score in hits], info)
                for (hits, info), bound in zip(found, bounds, strict=True)
            ]

        return self._retrying(attempt)

    # -- inside -------------------------------------------------------------------------------------------------

    def _encode_documents(self, texts: list[str], show_progress: bool = False) -> Sequence[np.ndarray]:
        return self.encoder.encode_document(texts, show_progress=show_progress) if texts else []

    def _check_encoder(self, encoder: Encoder) -> None:
        if encoder.fingerprint != self._meta["fingerprint"]:
            raise EncoderMismatchError(
                f"{self._path} was built with {self._meta['encoder']!r} ({self._meta['pooling']}, "
                f"{self._meta['fingerprint'][:12]}) and cannot be used with {encoder.name!r} ({encoder.pooling}, "
                f"{encoder.fingerprint[:12]}): pass the encoder it was built with, or index again."
            )

    def _current(self) -> Snapshot:
        """The newest snapshot, loaded anew if anyone has changed the index."""
        self._store.check_open()
        snapshot = self._snapshot
        if snapshot is None or snapshot.generation != self._store.generation():
            snapshot = places.load_snapshot(self._store, snapshot)
            self._snapshot = snapshot
        return snapshot

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


def _load_encoder(source: str | None) -> Encoder:
    from crisp_rag.models.encoder import load_encoder

    return load_encoder(source)


def _hit(record: Record, score: float, bound: float) -> Hit:
    passage = record.passage
    return Hit(passage.id, score, passage.text, copied(passage.metadata), score / bound, passage.context)
