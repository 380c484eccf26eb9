"""Where vectors are scored: the protocol that every engine fulfils, and the exact one.

:class:`ExactBackend` scores every live passage with blocked MaxSim over the memory-mapped segments.  It is the
yardstick for any engine that looks at candidates only.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from crisp_rag.errors import IndexCorruptError
from crisp_rag.index.segments import SegmentInfo, map_segment, write_segment

BLOCK_VECTORS = 16_384
"""Passage vectors scored at once: 25 MB of float32 at 384 dims, small enough to stay near the cache."""

QUERIES_AT_ONCE = 64


@dataclass(frozen=True)
class SegmentView:
    """The live passages of one segment, by start: parallel int64 arrays (n,)."""

    info: SegmentInfo
    rows: np.ndarray
    starts: np.ndarray
    counts: np.ndarray


@dataclass(frozen=True)
class Snapshot:
    """What a reader sees: the live passages at one moment.  Never changes."""

    generation: int
    views: tuple[SegmentView, ...]

    @property
    def passages(self) -> int:
        return sum(len(view.rows) for view in self.views)

    @property
    def live_vectors(self) -> int:
        return sum(int(view.counts.sum()) for view in self.views)

    @property
    def stored_vectors(self) -> int:
        return sum(view.info.vectors for view in self.views)


class VectorBackend(Protocol):
    """An engine that keeps vectors and finds the passages that score best."""

    def add(self, blocks: Iterable[np.ndarray]) -> tuple[str, int, str]:
        """Store (n, dim) blocks durably; returns the name to refer to them, their number and their checksum."""

    def delete(self, names: Iterable[str]) -> None:
        """Give back the space of stored blocks that nothing refers to any more."""

    def search(
        self, snapshot: Snapshot, queries: Sequence[np.ndarray], k: int, allowed: np.ndarray | None = None
    ) -> list[list[tuple[int, float]]]:
        """The k best (row, MaxSim) of each (vectors, dim) query, best first, ties by row.

        ``allowed`` is a sorted int64 array of rows to choose from, all by default.
        """

    def stats(self) -> dict[str, Any]:
        """Figures for people: bytes, and how it searches."""


class ExactBackend:
    """Exact MaxSim over segments on local disk.

    Args:
        folder: Where the segment files lie.
        dim: The width of a vector.
    """

    def __init__(self, folder: Path, dim: int) -> None:
        self._folder = folder
        self.dim = dim
        self._maps: dict[str, np.ndarray] = {}
        self._guard = threading.Lock()

    def add(self, blocks: Iterable[np.ndarray]) -> tuple[str, int, str]:
        return write_segment(self._folder, blocks, self.dim)

    def delete(self, names: Iterable[str]) -> None:
        for name in names:
            with self._guard:
                self._maps.pop(name, None)
            (self._folder / name).unlink(missing_ok=True)

    def delete_all_but(self, names: Iterable[str]) -> None:
        """Remove what interrupted writes left behind."""
        kept = set(names)
        self.delete(path.name for path in self._folder.glob("*.f16") if path.name not in kept)

    def vectors(self, info: SegmentInfo) -> np.ndarray:
        """The segment's (vectors, dim) float16 memory map, checked when it is first used.

        Raises:
            FileNotFoundError: if the file is gone.
            IndexCorruptError: if it was truncated or altered.
        """
        mapped = self._maps.get(info.file)
        if mapped is None:
            mapped = map_segment(self._folder, info, self.dim)
            with self._guard:
                self._maps[info.file] = mapped
        return mapped

    def check(self, snapshot: Snapshot) -> bool:
        """Map every segment, and see that passages point into them; True where all is well.

        Raises:
            FileNotFoundError: if a file is gone.
            IndexCorruptError: naming the file that is truncated or altered.
        """
        for view in snapshot.views:
            self.vectors(view.info)
            ends = view.starts + view.counts
            if len(ends) and (int(ends.max()) > view.info.vectors or int(view.starts.min()) < 0):
                raise IndexCorruptError(f"Passages point behind the end of {self._folder / view.info.file}.")
        return True

    def stats(self) -> dict[str, Any]:
        files = list(self._folder.glob("*.f16"))
        return {"bytes_vectors": sum(file.stat().st_size for file in files), "search": "exact", "dtype": "float16"}

    def search(
        self, snapshot: Snapshot, queries: Sequence[np.ndarray], k: int, allowed: np.ndarray | None = None
    ) -> list[list[tuple[int, float]]]:
        results: list[list[tuple[int, float]]] = []
        for first in range(0, len(queries), QUERIES_AT_ONCE):
            chunk = queries[first : first + QUERIES_AT_ONCE]
            rows, scores = self._score(snapshot, chunk, allowed)
            results += [_top(rows, line, k) for line in scores]
        return results

    def _score(
        self, snapshot: Snapshot, queries: Sequence[np.ndarray], allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """(n,) rows and (queries, n) float32 scores of the live, allowed passages."""
        stacked = np.ascontiguousarray(np.concatenate(queries), dtype=np.float32)
        borders = starts_of([len(query) for query in queries])
        rows: list[np.ndarray] = [np.empty(0, dtype=np.int64)]
        scores: list[np.ndarray] = [np.empty((len(queries), 0), dtype=np.float32)]
        for view in snapshot.views:
            live = _positions(view.rows, allowed)
            if not len(live):
                continue
            vectors = self.vectors(view.info)
            for part in _blocks(live, view.counts):
                best = _maxsim_block(stacked, vectors, view.starts[part], view.counts[part])
                scores.append(np.add.reduceat(best, borders, axis=0))
                rows.append(view.rows[part])
        return np.concatenate(rows), np.concatenate(scores, axis=1)


def starts_of(counts: Sequence[int] | np.ndarray) -> np.ndarray:
    """(n,) int64: where each of n runs begins, when runs of these lengths lie one behind the other."""
    ends = np.cumsum(counts, dtype=np.int64)
    return ends - np.asarray(counts, dtype=np.int64)


def _positions(rows: np.ndarray, allowed: np.ndarray | None) -> np.ndarray:
    if allowed is None:
        return np.arange(len(rows))
    return np.flatnonzero(np.isin(rows, allowed))


def _blocks(live: np.ndarray, counts: np.ndarray) -> Iterable[np.ndarray]:
    """Split positions into runs of about BLOCK_VECTORS vectors."""
    ends = np.cumsum(counts[live])
    borders = np.searchsorted(ends, np.arange(BLOCK_VECTORS, int(ends[-1]), BLOCK_VECTORS), side="left") + 1
    return [part for part in np.split(live, np.unique(borders)) if len(part)]


def _maxsim_block(queries: np.ndarray, vectors: np.ndarray, starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(query vectors, passages) best inner product of each query vector with each passage's vectors."""
    ends = starts + counts
    if np.array_equal(starts[1:], ends[:-1]):
        block = vectors[starts[0] : ends[-1]]
    else:
        offsets = np.repeat(starts - starts_of(counts), counts)
        block = vectors[offsets + np.arange(len(offsets))]
    similarity = queries @ block.astype(np.float32).T
    if (counts == counts[0]).all():
        return similarity.reshape(len(queries), len(counts), int(counts[0])).max(axis=2)
    return np.maximum.reduceat(similarity, starts_of(counts), axis=1)


def _top(rows: np.ndarray, scores: np.ndarray, k: int) -> list[tuple[int, float]]:
    """The k best, ties by row: everything at or above the k-th score, sorted, then cut."""
    if k < len(scores):
        kept = np.flatnonzero(scores >= np.partition(scores, len(scores) - k)[len(scores) - k])
        rows, scores = rows[kept], scores[kept]
    order = np.lexsort((rows, -scores))[:k]
    return [(int(rows[i]), float(scores[i])) for i in order]
