"""Keeps the lists of an index current: loads them, and makes new ones when the index has outgrown them.

Making lists needs no lock of the index and keeps no reader waiting: it reads immutable segments of one snapshot, and
the finished file takes the place of the old one in one step.  One process makes lists at a time.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from crisp_rag.errors import CrispError, IndexLockedError
from crisp_rag.index import planner
from crisp_rag.index.access import explained
from crisp_rag.index.candidates import calibration, files
from crisp_rag.index.candidates.clusters import TRAINED_ON, TRAINED_ON_AT_MOST, Clusters, cluster_count, train
from crisp_rag.index.candidates.lists import CandidateLists, Effort, invert
from crisp_rag.index.candidates.search import CandidateSearch, Coverage
from crisp_rag.index.codecs import Codec
from crisp_rag.index.file_lock import FileLock
from crisp_rag.index.scoring import QUERIES_AT_ONCE, SegmentOf, best_of, score_all
from crisp_rag.index.sketch import eight_bits
from crisp_rag.index.snapshots import Snapshot, runs

OUTGROWN = 0.2
"""The share of passages that the lists miss, or hold in vain, from which on new ones are made."""
_ASSIGNED_AT_ONCE = 65_536
_SEED = 20240612


class Cancelled(Exception):
    """The index was closed while its lists were made."""


class CandidateCache:
    """The lists of one index folder.

    Args:
        folder: Where they are kept.
        segment_of: Gives the mapped segment of a view.
        dim: The width of a vector.
    """

    def __init__(self, folder: Path, segment_of: SegmentOf, dim: int) -> None:
        self._folder = folder
        self._segment_of = segment_of
        self._dim = dim
        self._guard = threading.Lock()
        self._loaded: tuple[tuple[int, int] | None, CandidateLists | None] = (None, None)
        self._searcher: CandidateSearch | None = None
        self._closed = threading.Event()
        self._running: list[threading.Thread] = []
        weakref.finalize(self, _end, self._closed, self._running)

    def searcher(self, snapshot: Snapshot) -> CandidateSearch:
        """The newest lists, made to go with a snapshot; starts to make new ones where they have been outgrown."""
        lists = self._lists(snapshot.generation)
        searcher = self._searcher
        if searcher is None or searcher.snapshot is not snapshot or searcher.lists is not lists:
            searcher = CandidateSearch(snapshot, lists, self._segment_of, self._dim)
            self._searcher = searcher
            if outgrown(snapshot, searcher.coverage):
                self._build_in_background(snapshot)
        return searcher

    def coverage(self, snapshot: Snapshot) -> int:
        """How many live passages the lists cover."""
        return len(snapshot.flat) - len(Coverage.of(snapshot, self._lists(snapshot.generation)).uncovered)

    def build(self, snapshot: Snapshot) -> None:
        """Make lists for a snapshot and keep them; returns when they are there.

        Raises:
            IndexLockedError: if another process is making lists.
            AccessError: if the folder cannot be written to.
            Cancelled: if the index was closed meanwhile.
        """
        with explained(self._folder):
            self._folder.mkdir(exist_ok=True)
        lock = FileLock(self._folder / "build.lock")
        if not lock.acquire():
            raise IndexLockedError(f"{self._folder.parent} is being prepared by another process: wait for it.")
        try:
            made = self._made(snapshot)
            with explained(self._folder):
                files.save(self._folder, made, snapshot.generation)
        finally:
            lock.release()

    def wait(self) -> None:
        """Wait for lists that are being made in the background."""
        for thread in list(self._running):
            thread.join()

    def close(self) -> None:
        """Tell the background to stop; it does so at its next step."""
        self._closed.set()
        self._searcher = None
        self._loaded = (None, None)

    def _lists(self, generation: int) -> CandidateLists | None:
        """What the file says, read again when it has changed."""
        try:
            status = (self._folder / files.CURRENT).stat()
        except OSError:
            return None
        stamp = (status.st_mtime_ns, status.st_ino)
        if self._loaded[0] != stamp:
            with self._guard:
                if self._loaded[0] != stamp:
                    self._loaded = (stamp, files.load(self._folder, generation))
        return self._loaded[1]

    def _build_in_background(self, snapshot: Snapshot) -> None:
        with self._guard:
            if self._closed.is_set() or any(thread.is_alive() for thread in self._running):
                return
            thread = threading.Thread(target=self._build_quietly, args=(snapshot,), name="crisp-lists", daemon=True)
            self._running[:] = [thread]
            thread.start()

    def _build_quietly(self, snapshot: Snapshot) -> None:
        # Whatever goes wrong here costs speed only: the folder may be read-only, gone, or full.
        with contextlib.suppress(OSError, CrispError, Cancelled):
            self.build(snapshot)

    def _made(self, snapshot: Snapshot) -> CandidateLists:
        flat = snapshot.flat
        codec = self._segment_of(snapshot.views[int(flat.segments[0])]).codec
        clusters = self._clusters(snapshot, codec)
        codes, passages, numbers = [], [], []
        for positions, own, vectors in self._vectors(snapshot, codec):
            codes.append(clusters.assign(vectors))
            passages.append(positions)
            numbers.append(own)
        borders, listed, own = invert(
            np.concatenate(codes), np.concatenate(passages), np.concatenate(numbers), len(clusters.centroids)
        )
        centroids, steps = eight_bits(clusters.centroids)
        lists = CandidateLists(flat.rows, centroids, steps, borders, listed, own, codec.name)
        return replace(lists, recalls=self._recalls(snapshot, lists))

    def _clusters(self, snapshot: Snapshot, codec: Codec) -> Clusters:
        """Trained on vectors of passages drawn at random."""
        flat = snapshot.flat
        wanted = cluster_count(int(flat.counts.sum()))
        share = min(1.0, min(wanted * TRAINED_ON, TRAINED_ON_AT_MOST) / int(flat.counts.sum()))
        random = np.random.default_rng(_SEED)
        chosen = np.sort(random.choice(len(flat), size=max(1, round(share * len(flat))), replace=False))
        sample = np.empty((int(flat.counts[chosen].sum()), self._dim), dtype=np.float32)
        filled = 0
        for number, view in enumerate(snapshot.views):
            segment = self._segment_of(view)
            own = chosen[flat.segments[chosen] == number]
            for part in np.array_split(own, max(1, len(own) // 1024)):
                self._go_on()
                if len(part):
                    counts = flat.counts[part]
                    picked = runs(flat.starts[part], counts)
                    sample[filled : filled + len(picked)] = segment.turned_for(codec, picked)
                    filled += len(picked)
                    segment.forget()
        return train(sample, wanted, self._closed.is_set)

    def _vectors(self, snapshot: Snapshot, codec: Codec) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """The vectors of all live passages, some at a time: (n,) int32 flat positions of their passages, (n,) int32
        which of its passage's vectors each is, and (n, dim) float32, turned as ``codec`` does."""
        for view in snapshot.views:
            segment = self._segment_of(view)
            owners = np.repeat(snapshot.flat.positions_of(view.rows)[0].astype(np.int32), view.counts)
            numbers = runs(np.zeros_like(view.counts), view.counts)
            where = runs(view.starts, view.counts)
            for first in range(0, len(owners), _ASSIGNED_AT_ONCE):
                self._go_on()
                part = slice(first, first + _ASSIGNED_AT_ONCE)
                yield owners[part], numbers[part].astype(np.int32), segment.turned_for(codec, where[part])
                segment.forget()

    def _recalls(self, snapshot: Snapshot, lists: CandidateLists) -> tuple[float, ...]:
        searcher = CandidateSearch(snapshot, lists, self._segment_of, self._dim)
        flat = snapshot.flat

        def vectors_of(passage: int) -> np.ndarray:
            segment = self._segment_of(snapshot.views[int(flat.segments[passage])])
            start = int(flat.starts[passage])
            return segment.vectors(slice(start, start + int(flat.counts[passage])))

        def truth(queries: Sequence[np.ndarray], k: int) -> list[np.ndarray]:
            best: list[list[tuple[int, float]]] = []
            for first in range(0, len(queries), QUERIES_AT_ONCE):
                part = queries[first : first + QUERIES_AT_ONCE]
                kept: list[list[tuple[int, float]]] = [[] for _ in part]
                for rows, scores in score_all(snapshot, part, self._segment_of):
                    self._go_on()
                    kept = [_merged(old, best_of(rows, line, k), k) for old, line in zip(kept, scores, strict=True)]
                best += kept
            return [positions(line) for line in best]

        def answer(query: np.ndarray, k: int, effort: Effort, others: np.ndarray) -> np.ndarray:
            self._go_on()
            return positions(searcher.search_with(query, k, effort, others)[0])

        def positions(hits: Sequence[tuple[int, float]]) -> np.ndarray:
            return flat.positions_of(np.array([row for row, _ in hits], dtype=np.int64))[0]

        queries = calibration.made_queries(vectors_of, len(flat), calibration.QUERIES)
        return calibration.measure(queries, len(flat), vectors_of, truth, answer)

    def _go_on(self) -> None:
        if self._closed.is_set():
            raise Cancelled


def _end(closed: threading.Event, running: list[threading.Thread]) -> None:
    """Stop and wait, at the latest before the interpreter ends: it must not go while a thread is inside FAISS."""
    closed.set()
    for thread in running:
        if thread is not threading.current_thread():
            thread.join()


def outgrown(snapshot: Snapshot, coverage: Coverage) -> bool:
    """Whether lists should be made: there are enough passages, and those that there are miss or outlive too many."""
    if snapshot.live_vectors <= planner.EXACT_VECTORS:
        return False
    missed = len(coverage.uncovered)
    in_vain = 0 if coverage.alive is None else int((~coverage.alive).sum())
    return missed + in_vain > OUTGROWN * len(snapshot.flat)


def _merged(old: list[tuple[int, float]], new: list[tuple[int, float]], k: int) -> list[tuple[int, float]]:
    return sorted([*old, *new], key=lambda pair: (-pair[1], pair[0]))[:k]
