"""CrispIndex: the one class that users and both frameworks hold.

    with CrispIndex.create("handbook.crisp") as index:
        index.add_texts(["Refunds take five days."], metadatas=[{"year": 2026}])
        index.search("how long do refunds take?", k=3, where={"year": 2026})

An index is a folder: ``index.sqlite`` (passages, metadata, what exists) and ``segments/`` (vectors).  Searches may
run from any number of threads and processes, each over a snapshot; writes queue behind one lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crisp_rag.errors import IndexExistsError, InvalidInputError
from crisp_rag.forking import Lock, PerProcess, settle
from crisp_rag.index import places
from crisp_rag.index.access import explained
from crisp_rag.index.checks import (
    check_ids,
    check_passages,
    check_vectors,
    check_within,
    passages_from_texts,
)
from crisp_rag.index.codecs import DEFAULT_CODEC, FORMAT_1_CODEC, check_codec
from crisp_rag.index.copying import copy_index
from crisp_rag.index.declared import check_fields, declared_fields
from crisp_rag.index.encoders import check_encoder, encoder_of, load_encoder
from crisp_rag.index.filters import check_filter
from crisp_rag.index.handle import Handle
from crisp_rag.index.opening import LEFT_BY_MAKING, exists, make_store
from crisp_rag.index.reading import Readable
from crisp_rag.index.sizes import bytes_below
from crisp_rag.index.streams import Stream
from crisp_rag.index.types import Compaction, IndexStats, Passage, Where

if TYPE_CHECKING:
    from crisp_rag.index.backend import LocalBackend
    from crisp_rag.index.locking import WriterLock
    from crisp_rag.index.snapshots import Snapshot
    from crisp_rag.index.store import Store
    from crisp_rag.models.encoder import Encoder

CHECKED_AT_OPEN = 32 << 20
"""Bytes of an index up to which opening it checks every one of them; a larger one is checked as it is used."""


class CrispIndex(Readable):
    """Passages with their vectors in a folder.  Make one with :meth:`create` or :meth:`open`."""

    def __init__(self, path: Path, handle: Handle, encoder: Encoder | None) -> None:
        self._path = path
        self._handles = PerProcess(handle, Handle.another, Handle.close)
        self._meta = handle.meta
        self._encoder = encoder
        self._guard = Lock()

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
        with explained(path):
            free = not path.exists() or (path.is_dir() and {file.name for file in path.iterdir()} <= LEFT_BY_MAKING)
        if not free:
            raise IndexExistsError(f"{path} is there and is no index: choose another path.")
        encoder = encoder if encoder is not None else load_encoder(None)
        make_store(path, encoder, codec, fields).close()
        return cls(path, Handle.open(path, wait), encoder)

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
            AccessError: if the system refuses a file, which is no damage.
            EncoderMismatchError: if ``encoder`` is not the one it was built with; the message names both.
        """
        path = Path(path)
        handle = Handle.open(path, wait)
        try:
            if encoder is not None:
                check_encoder(path, handle.meta, encoder)
            whole = not places.built(handle.store) or bytes_below(handle.folder) <= CHECKED_AT_OPEN
            if whole:
                handle.store.check()
            handle.retrying(lambda snapshot: handle.backend.check(snapshot, whole=whole))
        except BaseException:
            handle.close()
            raise
        return cls(path, handle, encoder)

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
            self._handle()
            if self._encoder is None:
                self._encoder = encoder_of(self._path, self._meta)
            return self._encoder

    @property
    def generation(self) -> int:
        """A number that grows with every change, whoever makes it: what was derived from the passages is stale then."""
        return self._handle().store.generation()

    def __len__(self) -> int:
        return self._handle().current().passages

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
        self._handles.last().close()

    def stats(self) -> IndexStats:
        """Figures about the index as it is now."""
        handle = self._handle()
        snapshot = handle.current()
        backend = handle.backend.stats(snapshot)
        meta = handle.store.meta()
        return IndexStats(
            path=str(self._path),
            passages=snapshot.passages,
            vectors=snapshot.live_vectors,
            vectors_per_passage=snapshot.live_vectors / snapshot.passages if snapshot.passages else 0.0,
            bytes_vectors=backend["bytes_vectors"],
            bytes_on_disk=bytes_below(handle.folder),
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
        handle = self._handle()
        added = list(passages)
        gone = delete_ids if callable(delete_ids) else check_ids(delete_ids)
        check_filter(where)
        check_passages(added)
        check_within(added, where)
        if vectors is None:
            vectors = self._encode_documents([passage.encoded_text for passage in added], show_progress)
        blocks = check_vectors(added, vectors, int(self._meta["dim"]))
        if added or gone:
            handle.writer.replace(gone, added, blocks, [len(block) for block in blocks], where)
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
        handle = self._handle()
        check_filter(where)
        if not isinstance(commit_every, int) or commit_every < 1:
            raise InvalidInputError(f"commit_every is a whole number of at least 1, got {commit_every!r}.")
        stream = Stream(passages, vectors, self._encode_documents, int(self._meta["dim"]), where)
        done = 0
        with handle.writer.writing():
            try:
                for batch in stream.batches(commit_every):
                    handle.writer.replace((), batch.passages, batch.blocks, batch.counts, where)
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
        handle = self._handle()
        if ids is None and where is None:
            raise InvalidInputError("delete needs ids or where; delete(where={}) deletes everything.")
        return handle.writer.delete(None if ids is None else check_ids(ids), where)

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
        handle = self._handle()
        before = bytes_below(handle.folder)
        handle.writer.compact(None if codec is None else check_codec(codec))
        return Compaction(before, bytes_below(handle.folder))

    def prepare(self) -> None:
        """Make now what a large index is searched with, instead of in the background of its first searches.

        Needs no lock and keeps nobody waiting: readers go on, and so do writers.

        Raises:
            IndexLockedError: if another process is doing the same.
        """
        handle = self._handle()
        handle.retrying(handle.backend.prepare)

    def declare(self, fields: Sequence[str]) -> None:
        """Index metadata fields, so that a filter which demands a value of one need not read every passage.

        Takes effect at once, for what is there and for what comes; filters mean the same with and without.

        Args:
            fields: Names of metadata fields, such as ``["tenant"]``.

        Raises:
            InvalidInputError: if one is no field name.
            IndexLockedError: if another process is writing.
        """
        self._handle().writer.declare(check_fields(fields))

    @property
    def indexed_fields(self) -> list[str]:
        """The metadata fields that :meth:`create` and :meth:`declare` were told of."""
        return declared_fields(self._handle().store)

    def copy_to(self, path: str | Path) -> Path:
        """Copy the index as it is now to another folder, which :meth:`open` opens; returns the folder.

        A newer copy takes the place of an older one of the same index, which nobody may have open meanwhile; the
        index's own folder needs no copy.

        Raises:
            IndexExistsError: if there is anything else at the path, or anything else in the older copy's folder.
            IndexLockedError: if another process is writing.
        """
        handle = self._handle()
        with handle.lock.held():
            handle.check()
            return copy_index(handle.folder, handle.store, Path(path))

    # -- inside -------------------------------------------------------------------------------------------------

    def _encode_documents(self, texts: list[str], show_progress: bool = False) -> Sequence[np.ndarray]:
        return self.encoder.encode_document(texts, show_progress=show_progress) if texts else []

    @property
    def _store(self) -> Store:
        return self._handles.get().store

    @property
    def _backend(self) -> LocalBackend:
        return self._handles.get().backend

    @property
    def _lock(self) -> WriterLock:
        return self._handles.get().lock

    def _current(self) -> Snapshot:
        return self._handle().current()

    def _handle(self) -> Handle:
        """What this process holds of the index.

        Raises:
            IndexClosedError: after :meth:`close`.
            IndexReplacedError: if the folder was moved, removed or replaced while it was open.
            ForkedError: if this process was forked in the middle of a search or a write.
        """
        settle()
        handle = self._handles.get()
        handle.check()
        return handle
