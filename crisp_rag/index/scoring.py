"""MaxSim over coded vectors: of whole segments, block by block, or of chosen passages, gathered.

The score of a passage is the sum over the query's vectors of their best inner product with one of the passage's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from crisp_rag.index import planner
from crisp_rag.index.codecs import Codec
from crisp_rag.index.codecs.base import inner, scales_of
from crisp_rag.index.segments import Segment, picked
from crisp_rag.index.sketch import Sketch
from crisp_rag.index.snapshots import SegmentView, Snapshot, runs, starts_of

BLOCK_VECTORS = 16_384
"""Passage vectors scored or looked at at once: 25 MB of float32 at 384 dims, or 6 MB of unpacked bits."""

QUERIES_AT_ONCE = 64

SegmentOf = Callable[[SegmentView], Segment]


class Turned:
    """A query's vectors as each codec wants them, computed once.

    Args:
        vectors: (vectors, dim) float32.
    """

    def __init__(self, vectors: np.ndarray) -> None:
        self._vectors = np.array(vectors, dtype=np.float32)  # a copy: torch warns of arrays that are read-only
        self._turned: dict[str, np.ndarray] = {}
        self._sketches: dict[str, Sketch] = {}

    def __len__(self) -> int:
        return len(self._vectors)

    def by(self, codec: Codec) -> np.ndarray:
        """(vectors, dim) in the space of a codec."""
        if codec.name not in self._turned:
            self._turned[codec.name] = codec.turn(self._vectors)
        return self._turned[codec.name]

    def sketch(self, codec: Codec) -> Sketch:
        """The same for its sign plane."""
        if codec.name not in self._sketches:
            self._sketches[codec.name] = Sketch(self.by(codec))
        return self._sketches[codec.name]


def score_all(
    snapshot: Snapshot, queries: Sequence[np.ndarray], segment_of: SegmentOf, allowed: np.ndarray | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Score every live, allowed passage.

    Args:
        snapshot: What is live.
        queries: (vectors, dim) float32 arrays, at most :data:`QUERIES_AT_ONCE` for the memory's sake.
        segment_of: Gives the mapped segment of a view.
        allowed: Sorted rows to choose from, all by default.

    Yields:
        (n,) rows and (queries, n) float32 scores, block by block.
    """
    stacked = Turned(np.concatenate(queries))
    borders = starts_of([len(query) for query in queries])
    best_of_part = _best_in_memory if snapshot.stored_vectors <= planner.EXACT_VECTORS else _best
    for view in snapshot.views:
        live = np.arange(len(view.rows)) if allowed is None else np.flatnonzero(np.isin(view.rows, allowed))
        if not len(live):
            continue
        segment = segment_of(view)
        for part in _blocks(live, view.counts, BLOCK_VECTORS):
            best = best_of_part(stacked, segment, view.starts[part], view.counts[part])
            yield view.rows[part], np.add.reduceat(best, borders, axis=0)


def score_chosen(snapshot: Snapshot, positions: np.ndarray, query: Turned, segment_of: SegmentOf) -> np.ndarray:
    """(n,) float32 scores of passages at these positions of the snapshot's flat line."""
    return _passages_scored(snapshot, positions, segment_of, lambda *of: _best(query, *of).sum(axis=0))


def sketch_chosen(snapshot: Snapshot, positions: np.ndarray, query: Turned, segment_of: SegmentOf) -> np.ndarray:
    """As :func:`score_chosen` by the sign plane alone, where there is one."""
    return _passages_scored(snapshot, positions, segment_of, lambda *of: _sketched(query, *of))


def look_at(
    snapshot: Snapshot, positions: np.ndarray, numbers: np.ndarray, query: Turned, segment_of: SegmentOf
) -> np.ndarray:
    """(query vectors, n) float32 inner products with single vectors, by the sign plane where there is one.

    Args:
        snapshot: What is live.
        positions: (n,) of passages in its flat line.
        numbers: (n,) which of its passage's vectors each is.
        query: The query.
        segment_of: Gives the mapped segment of a view.
    """
    where = snapshot.flat.starts[positions] + numbers
    similarity = np.empty((len(query), len(positions)), dtype=np.float32)
    for chosen, segment in _by_segment(snapshot, positions, segment_of):
        for first in range(0, len(chosen), BLOCK_VECTORS):
            part = chosen[first : first + BLOCK_VECTORS]
            similarity[:, part] = _looked_at(query, segment, where[part])
    return similarity


def has_sketch(snapshot: Snapshot, segment_of: SegmentOf) -> bool:
    """Whether all of its segments have a sign plane: scores with and without one cannot be compared."""
    return all(segment_of(view).codec.sketch is not None for view in snapshot.views if len(view.rows))


def _by_segment(snapshot: Snapshot, positions: np.ndarray, segment_of: SegmentOf) -> Iterator[tuple[np.ndarray, Segment]]:
    """Which of some positions of the flat line lie in which segment."""
    numbers = snapshot.flat.segments[positions]
    for number in np.flatnonzero(np.bincount(numbers)).tolist():
        yield np.flatnonzero(numbers == number), segment_of(snapshot.views[number])


def _passages_scored(
    snapshot: Snapshot,
    positions: np.ndarray,
    segment_of: SegmentOf,
    score: Callable[[Segment, np.ndarray, np.ndarray], np.ndarray],
) -> np.ndarray:
    flat = snapshot.flat
    counts = flat.counts[positions]
    scores = np.empty(len(positions), dtype=np.float32)
    for chosen, segment in _by_segment(snapshot, positions, segment_of):
        for part in _blocks(chosen, counts, BLOCK_VECTORS):
            where = positions[part]
            scores[part] = score(segment, flat.starts[where], counts[part])
    return scores


def _blocks(live: np.ndarray, counts: np.ndarray, block: int) -> Iterable[np.ndarray]:
    """Split positions into runs of about ``block`` vectors."""
    ends = np.cumsum(counts[live])
    borders = np.searchsorted(ends, np.arange(block, int(ends[-1]), block), side="left") + 1
    return [part for part in np.split(live, np.unique(borders)) if len(part)]


def _best(queries: Turned, segment: Segment, starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(query vectors, passages) best inner product of each query vector with each passage's vectors."""
    similarity = segment.codec.similarity(queries.by(segment.codec), segment[_gathered(starts, counts)])
    return np.maximum.reduceat(similarity, starts_of(counts), axis=1)


def _best_in_memory(queries: Turned, segment: Segment, starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The same, over what was decoded before."""
    similarity = inner(queries.by(segment.codec), picked(segment.decoded, _gathered(starts, counts)))
    return np.maximum.reduceat(similarity, starts_of(counts), axis=1)


def sums_of_best(similarity: np.ndarray, counts: np.ndarray, floors: np.ndarray) -> np.ndarray:
    """(runs,) sums over query vectors of the maxima of runs of ``counts`` columns each, and of a floor.

    The longest first, and one member of all runs at a time: for many short runs a third of the time of ``reduceat``.

    Args:
        similarity: (query vectors, n) float32.
        counts: (runs,) at least 1 each, n in all.
        floors: (query vectors,) float32.
    """
    narrow = np.min_scalar_type(int(counts.max()))  # which NumPy sorts by radix
    order = np.argsort(counts.astype(narrow), kind="stable")[::-1]
    firsts = starts_of(counts)[order]
    lines = np.ascontiguousarray(similarity.T)  # a column's numbers lie side by side, and are taken at once
    best = np.maximum(np.take(lines, firsts, axis=0), floors)
    for member, longer in enumerate(len(counts) - np.cumsum(np.bincount(counts))[1:-1], start=1):
        np.maximum(best[:longer], np.take(lines, firsts[:longer] + member, axis=0), out=best[:longer])
    sums = np.empty(len(counts), dtype=np.float32)
    sums[order] = best @ np.ones(len(floors), dtype=np.float32)
    return sums


def _looked_at(query: Turned, segment: Segment, chosen: slice | np.ndarray) -> np.ndarray:
    """(query vectors, n) inner products with vectors of a segment."""
    sketch = segment.codec.sketch
    if sketch is None:
        return segment.codec.similarity(query.by(segment.codec), segment[chosen])
    signs, scales = (picked(segment.planes[number], chosen) for number in (sketch.signs, sketch.scales))
    return query.sketch(segment.codec).similarity(np.ascontiguousarray(signs), scales_of(scales) * np.float32(sketch.factor))


def _sketched(query: Turned, segment: Segment, starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(passages,) sums over query vectors of the best estimate."""
    similarity = _looked_at(query, segment, _gathered(starts, counts))
    return np.maximum.reduceat(similarity, starts_of(counts), axis=1).sum(axis=0)


def _gathered(starts: np.ndarray, counts: np.ndarray) -> slice | np.ndarray:
    """Which vectors of a segment belong to passages."""
    if (starts[1:] == starts[:-1] + counts[:-1]).all():
        return slice(int(starts[0]), int(starts[-1] + counts[-1]))
    return runs(starts, counts)


def best_of(rows: np.ndarray, scores: np.ndarray, k: int) -> list[tuple[int, float]]:
    """The k best (row, score), ties by row: everything at or above the k-th score, sorted, then cut."""
    if k < len(scores):
        kept = np.flatnonzero(scores >= np.partition(scores, len(scores) - k)[len(scores) - k])
        rows, scores = rows[kept], scores[kept]
    order = np.lexsort((rows, -scores))[:k]
    return [(int(rows[i]), float(scores[i])) for i in order]


def largest(scores: np.ndarray, n: int) -> np.ndarray:
    """Positions of the n largest, in any order."""
    if n >= len(scores):
        return np.arange(len(scores))
    return np.argpartition(scores, len(scores) - n)[len(scores) - n :]
