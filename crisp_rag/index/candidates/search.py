"""A search that looks at candidates: a shortlist from the lists, a first look by one bit, a full score of the best.

Passages that the lists do not cover yet are looked at one and all, so that nothing new is missed; passages that are
gone, or that a filter drops, are taken out before anything is cut.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from crisp_rag.index.candidates.lists import CandidateLists, Effort
from crisp_rag.index.codecs import codec_for
from crisp_rag.index.planner import SearchInfo
from crisp_rag.index.scoring import SegmentOf, Turned, best_of, has_sketch, largest, score_chosen, sketch_chosen
from crisp_rag.index.snapshots import Snapshot

_SPARE = 4
"""Passages looked at for each one wanted, at least."""


@dataclass(frozen=True)
class Coverage:
    """How the lists and a snapshot go together.

    Args:
        positions: (covered,) where each covered row lies in the snapshot's flat line.
        alive: (covered,) whether it is still there; None where all are.
        uncovered: (n,) the flat positions of rows that the lists do not know.
    """

    positions: np.ndarray
    alive: np.ndarray | None
    uncovered: np.ndarray

    @classmethod
    def of(cls, snapshot: Snapshot, lists: CandidateLists | None) -> Coverage:
        """Compare them; without lists nothing is covered."""
        flat = snapshot.flat
        if lists is None:
            return cls(np.empty(0, np.int64), None, np.arange(len(flat)))
        positions, alive = flat.positions_of(lists.rows)
        known = np.zeros(len(flat), dtype=bool)
        known[positions[alive]] = True
        return cls(positions, None if alive.all() else alive, np.flatnonzero(~known))


class CandidateSearch:
    """Searches one snapshot through lists.

    Args:
        snapshot: What is live.
        lists: May be of an older state, and None where there are none.
        segment_of: Gives the mapped segment of a view.
        dim: The width of a vector.
    """

    def __init__(self, snapshot: Snapshot, lists: CandidateLists | None, segment_of: SegmentOf, dim: int) -> None:
        self.snapshot = snapshot
        self.lists = lists
        self.coverage = Coverage.of(snapshot, lists)
        self._segment_of = segment_of
        self._codec = codec_for(lists.codec, dim) if lists is not None else None

    def search(
        self, query: np.ndarray, k: int, target_recall: float, allowed: np.ndarray | None = None
    ) -> tuple[list[tuple[int, float]], SearchInfo]:
        """The k best (row, score) of a (vectors, dim) query, and how they were found.

        ``allowed`` are flat positions to choose from, all by default.
        """
        effort, recall = self.lists.effort(target_recall) if self.lists is not None else (None, None)
        hits, looked_at, scored = self.search_with(query, k, effort, allowed)
        passages = len(self.snapshot.flat) if allowed is None else len(allowed)
        method = "exact" if scored == passages else "approximate"
        if method == "exact":
            return hits, SearchInfo("exact", passages, looked_at, scored)
        return hits, SearchInfo("approximate", passages, looked_at, scored, target_recall, recall)

    def search_with(
        self, query: np.ndarray, k: int, effort: Effort | None, allowed: np.ndarray | None = None
    ) -> tuple[list[tuple[int, float]], int, int]:
        """As :meth:`search` with a given effort: hits, how many got a first look, how many were scored in full."""
        effort = effort or Effort(0, 0, 256)
        effort = replace(effort, shortlist=max(effort.shortlist, _SPARE * k), rescored=max(effort.rescored, _SPARE * k))
        turned = Turned(query)
        pool = self._pool(query, k, effort, allowed)
        chosen = pool
        if len(pool) > effort.rescored and has_sketch(self.snapshot, self._segment_of):
            looks = sketch_chosen(self.snapshot, pool, turned, self._segment_of)
            chosen = pool[largest(looks, effort.rescored)]
        scores = score_chosen(self.snapshot, chosen, turned, self._segment_of)
        return best_of(self.snapshot.flat.rows[chosen], scores, k), len(pool), len(chosen)

    def _pool(self, query: np.ndarray, k: int, effort: Effort, allowed: np.ndarray | None) -> np.ndarray:
        """Flat positions that get a first look."""
        everything = np.arange(len(self.snapshot.flat)) if allowed is None else allowed
        if self.lists is None or len(everything) <= effort.shortlist:
            return everything
        assert self._codec is not None
        keep, uncovered = self.coverage.alive, self.coverage.uncovered
        if allowed is not None:
            kept = np.zeros(len(self.snapshot.flat), dtype=bool)
            kept[allowed] = True
            keep = kept[self.coverage.positions] if keep is None else keep & kept[self.coverage.positions]
            uncovered = uncovered[kept[uncovered]]
        listed = self.lists.shortlist(self._codec.turn(query), effort, keep)
        pool = np.concatenate([self.coverage.positions[listed], uncovered])
        # A filter whose passages lie far from the query: the lists that were walked hold too few of them.
        return pool if len(pool) >= min(_SPARE * k, len(everything)) else everything
