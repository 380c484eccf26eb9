"""A search that looks at candidates: ever fewer passages, ever more closely.

Lists give vectors to look at by one bit a dimension; of the passages that look best all vectors are looked at, and of
the best of those all bits are read: of some at first, and then of all that may still be better than the k-th of them.

Passages that the lists do not cover yet are looked at one and all, so that nothing new is missed; passages that are
gone, or that a filter drops, are taken out before anything is cut.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from crisp_rag.index.candidates.lists import CandidateLists, Effort, Keep
from crisp_rag.index.codecs import codec_for
from crisp_rag.index.planner import SearchInfo
from crisp_rag.index.scoring import (
    SegmentOf,
    Turned,
    best_of,
    has_sketch,
    largest,
    look_at,
    score_chosen,
    sketch_chosen,
    sums_of_best,
)
from crisp_rag.index.snapshots import Snapshot

_SPARE = 4
"""Passages looked at for each one wanted, at least."""
_ALL_OF = 4
"""Up to so many times the passages that get a second look, looking at all there are takes no longer than a walk."""
_SURE = 3.0
"""A look may err by so many standard deviations."""
_WIDER = 4
"""How many times as many lists are walked at most where a filter keeps few."""


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
        self._has_sketch = has_sketch(snapshot, segment_of)

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
        effort = effort or Effort(0, 0, 0, 128)
        least = _SPARE * k
        cuts = (max(cut, least) for cut in (effort.shortlist, effort.refined, effort.rescored))
        effort = Effort(effort.probes, *cuts)
        turned = Turned(query)
        choice = len(self.snapshot.flat) if allowed is None else len(allowed)
        found = None
        if self.lists is not None and choice > _ALL_OF * effort.refined:
            found = self._walked(self.lists, turned, effort, allowed)
        # A filter whose passages lie far from the query: the lists that were walked hold too few of them.
        if found is None or found[1] < least:
            found = np.arange(choice) if allowed is None else allowed, choice
        candidates, looked_at = found
        if self._has_sketch and len(candidates) > effort.rescored:
            chosen, scores = self._scored(candidates, k, turned, effort.rescored // 2)
        else:
            chosen, scores = candidates, self._scores(candidates, turned)
        return best_of(self.snapshot.flat.rows[chosen], scores, k), looked_at, len(chosen)

    def _walked(
        self, lists: CandidateLists, turned: Turned, effort: Effort, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, int]:
        """Flat positions that deserve a look at all vectors, and of how many passages a vector was looked at."""
        assert self._codec is not None
        uncovered, kept = self.coverage.uncovered, None
        if allowed is not None:
            kept = np.zeros(len(self.snapshot.flat), dtype=bool)
            kept[allowed] = True
            uncovered = uncovered[kept[uncovered]]
            # The lists hold fewer of what is wanted: more of them are walked.
            effort = replace(effort, probes=effort.probes * min(_WIDER, len(kept) // len(allowed)))
        met = lists.walk(turned.by(self._codec), effort, self._keep(kept))
        looked_at = 0
        best = np.empty(0, dtype=np.int64)
        if len(met.passages):
            positions = self.coverage.positions[met.passages]
            firsts = np.flatnonzero(np.append(True, met.passages[1:] != met.passages[:-1]))
            similarity = look_at(self.snapshot, positions, met.numbers, turned, self._segment_of)
            looks = sums_of_best(similarity, np.diff(firsts, append=len(positions)), met.floors)
            wanted = effort.refined if self._has_sketch else effort.rescored
            looked_at, best = len(firsts), positions[firsts[largest(looks, wanted)]]
        return np.concatenate([best, uncovered]), looked_at + len(uncovered)

    def _keep(self, kept: np.ndarray | None) -> Keep | None:
        """Which of the lists' passages to choose from, given which of the flat line; None where it is all of them."""
        alive = self.coverage.alive
        if kept is None:
            return None if alive is None else alive.take
        listed = kept[self.coverage.positions]
        return (listed if alive is None else listed & alive).take

    def _scored(self, positions: np.ndarray, k: int, turned: Turned, first: int) -> tuple[np.ndarray, np.ndarray]:
        """Those of some passages that may be among the k best, and their scores.

        All of their vectors get a look; the ``first`` that look best are scored, and tell how well looks tell scores.
        """
        looks = sketch_chosen(self.snapshot, positions, turned, self._segment_of)
        order = np.argsort(-looks)
        positions, looks = positions[order], looks[order]
        scores = self._scores(positions[:first], turned)
        errors = scores - looks[:first]
        kth = np.partition(scores, first - k)[first - k]
        # The best looks err upwards more than others do, hence a mean that asks a little more of the others.
        rest = positions[first:][looks[first:] + errors.mean() + _SURE * errors.std() > kth]
        if not len(rest):
            return positions[:first], scores
        return np.append(positions[:first], rest), np.append(scores, self._scores(rest, turned))

    def _scores(self, positions: np.ndarray, turned: Turned) -> np.ndarray:
        return score_chosen(self.snapshot, positions, turned, self._segment_of)
