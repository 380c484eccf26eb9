"""Where vectors are stored and scored: the protocol that every engine fulfils, and the one on local disk.

:class:`LocalBackend` keeps coded vectors in memory-mapped segments.  A small index is scored exactly, every passage;
a large one candidates first, and then the best of them in full.  What scores everything stays there for every index,
as the yardstick.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from crisp_rag.index.candidates.cache import CandidateCache
from crisp_rag.index.codecs import codec_for
from crisp_rag.index.planner import DEFAULT_RECALL, SearchInfo, method_for
from crisp_rag.index.scoring import QUERIES_AT_ONCE, best_of, score_all
from crisp_rag.index.segments import Segment, check_size, encoded, map_segment, segment_files, write_segment
from crisp_rag.index.sizes import bytes_of
from crisp_rag.index.snapshots import SegmentView, Snapshot, runs

Found = tuple[list[tuple[int, float]], SearchInfo]
_COPIED_AT_ONCE = 4_096


class VectorBackend(Protocol):
    """An engine that keeps vectors and finds the passages that score best."""

    def add(self, blocks: Iterable[np.ndarray], codec: str) -> tuple[str, int, str, str]:
        """Store (n, dim) blocks durably; returns the name to refer to them, their number, checksum and codec."""

    def delete(self, names: Iterable[str]) -> None:
        """Give back the space of stored blocks that nothing refers to any more."""

    def search(
        self,
        snapshot: Snapshot,
        queries: Sequence[np.ndarray],
        k: int,
        allowed: np.ndarray | None = None,
        *,
        exact: bool = False,
        target_recall: float = DEFAULT_RECALL,
    ) -> list[Found]:
        """The k best (row, MaxSim) of each (vectors, dim) query, best first, ties by row; and how they were found.

        ``allowed`` is a sorted int64 array of rows to choose from, all by default.
        """

    def stats(self, snapshot: Snapshot) -> dict[str, Any]:
        """Figures for people: bytes, and how it searches."""


class LocalBackend:
    """Segments on local disk.

    Args:
        folder: Where the segment files lie; what is cached for searches goes beside it.
        dim: The width of a vector.
    """

    def __init__(self, folder: Path, dim: int) -> None:
        self._folder = folder
        self.dim = dim
        self._segments: dict[str, Segment] = {}
        self._closed = False
        self._guard = threading.Lock()
        self._candidates = CandidateCache(folder.parent / "candidates", self.segment, dim)

    def add(self, blocks: Iterable[np.ndarray], codec: str) -> tuple[str, int, str, str]:
        coding = codec_for(codec, self.dim)
        return write_segment(self._folder, encoded(blocks, coding), coding)

    def rewrite(
        self, views: Sequence[SegmentView], numbers: np.ndarray, starts: np.ndarray, counts: np.ndarray, codec: str
    ) -> tuple[str, int, str, str]:
        """Write passages of several segments to one: their bytes, where the codec stays, else decoded and coded anew.

        Args:
            views: The segments.
            numbers: (passages,) which of them each passage lies in.
            starts: (passages,) where its vectors begin there.
            counts: (passages,) how many it has.
            codec: That of the new segment.
        """
        coding = codec_for(codec, self.dim)

        def parts() -> Iterator[list[np.ndarray]]:
            for number, first, last in _runs(numbers):
                segment = self.segment(views[number])
                length = counts[first:last]
                chosen = runs(starts[first:last], length)
                same = segment.codec is coding
                yield segment[chosen] if same else coding.encode(segment.vectors(chosen))
                segment.forget()

        return write_segment(self._folder, parts(), coding)

    def delete(self, names: Iterable[str]) -> None:
        for name in names:
            with self._guard:
                self._segments.pop(name, None)
            with contextlib.suppress(OSError):  # what stays is swept by a later writer
                (self._folder / name).unlink(missing_ok=True)

    def delete_all_but(self, names: Iterable[str]) -> None:
        """Remove what interrupted writes left behind."""
        kept = set(names)
        self.delete(path.name for path in segment_files(self._folder) if path.name not in kept)

    def segment(self, view: SegmentView) -> Segment:
        """The segment's planes, mapped, checked when it is first used.

        Raises:
            FileNotFoundError: if the file is gone.
            IndexCorruptError: if it was truncated or altered.
        """
        mapped = self._segments.get(view.info.file)
        if mapped is None:
            mapped = map_segment(self._folder, view.info, self.dim)
            with self._guard:
                if not self._closed:
                    self._segments[view.info.file] = mapped
        return mapped

    def check(self, snapshot: Snapshot, *, whole: bool = True) -> bool:
        """Check every segment, by its checksum or, which is quick, by its size alone; True where all is well.

        Raises:
            FileNotFoundError: if a file is gone.
            IndexCorruptError: naming the file that is truncated or altered.
        """
        for view in snapshot.views:
            if whole:
                self.segment(view)
            else:
                check_size(self._folder, view.info, self.dim)
        return True

    def prepare(self, snapshot: Snapshot) -> bool:
        """Make the lists of candidates for a snapshot now, whatever its size; True when they are there.

        Raises:
            IndexLockedError: if another process is making them.
        """
        if snapshot.passages:
            self._candidates.build(snapshot)
        return True

    def wait(self) -> None:
        """Wait for lists that are being made in the background."""
        self._candidates.wait()

    def close(self) -> None:
        """Stop what runs in the background, and let go of the segments: their files are closed when nobody reads them."""
        self._candidates.close()
        self._closed = True
        self._segments.clear()

    def take_over(self, other: LocalBackend) -> None:
        """Use what the process that this one was forked from has mapped and checked: it never changes."""
        self._segments.update(other._segments)

    def stats(self, snapshot: Snapshot) -> dict[str, Any]:
        return {
            "bytes_vectors": bytes_of(segment_files(self._folder)),
            "search": method_for(snapshot.live_vectors, snapshot.passages, 10),
            "passages_in_lists": self._candidates.coverage(snapshot),
        }

    def search(
        self,
        snapshot: Snapshot,
        queries: Sequence[np.ndarray],
        k: int,
        allowed: np.ndarray | None = None,
        *,
        exact: bool = False,
        target_recall: float = DEFAULT_RECALL,
    ) -> list[Found]:
        passages = snapshot.passages if allowed is None else len(allowed)
        if method_for(snapshot.live_vectors, passages, k, exact=exact, target_recall=target_recall) == "exact":
            return self._exact(snapshot, queries, k, allowed)
        searcher = self._candidates.searcher(snapshot)
        positions = None if allowed is None else _there(snapshot, allowed)

        def one(query: np.ndarray) -> Found:
            return searcher.search(query, k, target_recall, positions)

        if len(queries) == 1:
            return [one(queries[0])]
        with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
            return list(pool.map(one, queries))

    def _exact(self, snapshot: Snapshot, queries: Sequence[np.ndarray], k: int, allowed: np.ndarray | None) -> list[Found]:
        found: list[Found] = []
        for first in range(0, len(queries), QUERIES_AT_ONCE):
            chunk = queries[first : first + QUERIES_AT_ONCE]
            rows: list[np.ndarray] = [np.empty(0, dtype=np.int64)]
            scores: list[np.ndarray] = [np.empty((len(chunk), 0), dtype=np.float32)]
            for some, their_scores in score_all(snapshot, chunk, self.segment, allowed):
                rows.append(some)
                scores.append(their_scores)
            every, lines = np.concatenate(rows), np.concatenate(scores, axis=1)
            info = SearchInfo("exact", len(every), len(every), len(every))
            found += [(best_of(every, line, k), info) for line in lines]
        return found


def _there(snapshot: Snapshot, rows: np.ndarray) -> np.ndarray:
    """The flat positions of those rows that are live."""
    positions, there = snapshot.flat.positions_of(rows)
    return positions[there]


def _runs(numbers: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """(number, first, last) of runs of equal numbers, none longer than some thousand."""
    borders = np.flatnonzero(np.diff(numbers)) + 1
    for first, last in zip([0, *borders.tolist()], [*borders.tolist(), len(numbers)], strict=True):
        for start in range(first, last, _COPIED_AT_ONCE):
            yield int(numbers[first]), start, min(start + _COPIED_AT_ONCE, last)
