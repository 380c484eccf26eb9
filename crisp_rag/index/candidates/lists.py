"""Inverted lists: for each cluster the vectors in it; a query walks the lists of its nearest clusters.

A passage's score is estimated as in XTR (Lee et al., NeurIPS 2023, arXiv 2304.01982) and WARP (Scheerer et al., SIGIR
2025, arXiv 2501.17788): for each query vector the inner product with the best centroid whose list holds the passage;
where no list that was walked does, the least that was walked, which is the most that it can be.  In real collections
this orders passages as well as looking up the centroids of all their vectors, as PLAID does, and needs no such codes.
What comes out are the vectors that the walk met, of the passages that it ranks first: only those are looked at next.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from crisp_rag.index.sketch import eight_bits, whole_product
from crisp_rag.index.snapshots import runs, starts_of

_SEEN = np.float32(1e-6)
_SAMPLED = 16  # one in so many numbers of a line
_MARKED = 64  # marks for each number
_LEAST = 8  # one in so many of the lists that a query vector would get by number is its own whatever it weighs

Keep = Callable[[np.ndarray], np.ndarray]
"""(n,) int32 positions -> (n,) bool."""


@dataclass(frozen=True)
class Effort:
    """How hard a search looks.

    Args:
        probes: Lists walked for each query vector on average: more for those that weigh more, see :func:`_shares`.
        shortlist: Passages whose vectors get a first look, as far as the walk met them.
        refined: Passages of which all vectors get a first look, also those that the walk has not met.
        rescored: Passages that are scored with all bits, twice as many as are scored before anything is known: how well
            their first looks have told the scores of those says which others are scored, all refined ones at most.
    """

    probes: int
    shortlist: int
    refined: int
    rescored: int


EFFORTS = (
    Effort(8, 512, 128, 24), Effort(16, 1024, 200, 32), Effort(32, 2048, 300, 48), Effort(48, 5120, 500, 48),
    Effort(64, 6144, 600, 48), Effort(96, 8192, 600, 64), Effort(96, 8192, 1200, 64), Effort(96, 12288, 1600, 80),
    Effort(128, 16384, 2000, 96), Effort(256, 32768, 4000, 128),
)  # fmt: skip


@dataclass(frozen=True)
class Met:
    """The vectors that a walk met, of the passages that it ranks first.

    Args:
        passages: (met,) int64 positions in the lists' rows, rising.
        numbers: (met,) int64: which of its passage's vectors each is, rising within a passage.
        floors: (query vectors,) float32: about the most that a vector can give which the walk has not met.
    """

    passages: np.ndarray
    numbers: np.ndarray
    floors: np.ndarray


@dataclass(frozen=True)
class CandidateLists:
    """The lists of an index at some moment.

    Args:
        rows: (passages,) int64 rows that are covered, rising.
        centroids: (clusters, dim) int8, turned as the codec ``codec`` turns vectors; in whole numbers they take a
            quarter of the memory, and of the time of the product with a query.
        steps: (clusters,) float32: what the whole numbers of each centroid are multiples of.
        borders: (clusters + 1,) int64: where the list of each cluster begins and ends.
        passages: (vectors,) int32 positions in ``rows``, list after list.
        numbers: (vectors,) uint8, or a wider type where it takes one: which of its passage's vectors each is.
        codec: The name of that codec.
        recalls: The measured recall@10 of each of :data:`EFFORTS`; empty where it was not measured.
    """

    rows: np.ndarray
    centroids: np.ndarray
    steps: np.ndarray
    borders: np.ndarray
    passages: np.ndarray
    numbers: np.ndarray
    codec: str
    recalls: tuple[float, ...] = ()
    _scratch: threading.local = field(default_factory=threading.local, repr=False, compare=False)

    def effort(self, target_recall: float) -> tuple[Effort, float | None]:
        """The least effort that reached a recall when it was measured, or the largest; and what it reached."""
        for effort, recall in zip(EFFORTS, self.recalls):
            if recall >= target_recall:
                return effort, recall
        return EFFORTS[-1], self.recalls[-1] if self.recalls else None

    def walk(self, query: np.ndarray, effort: Effort, keep: Keep | None = None) -> Met:
        """What the lists of the nearest clusters hold of the passages that look best.

        Args:
            query: (vectors, dim) float32, turned.
            effort: How many lists to walk, and of how many passages at most to return vectors.
            keep: Tells which of some positions in ``rows`` to choose from; all by default.
        """
        try:
            return self._walk(query, effort, keep)
        except BaseException:  # interrupted half way: the line of zeros is none any more
            self._scratch.__dict__.clear()
            raise

    def _walk(self, query: np.ndarray, effort: Effort, keep: Keep | None) -> Met:
        shares = _shares(query, effort.probes, len(self.centroids))
        clusters, similarity = self._nearest(query, shares)
        floors = similarity[starts_of(shares)]
        firsts = self.borders[clusters]
        sizes = self.borders[clusters + 1] - firsts
        where = runs(firsts, sizes)
        passages = self.passages[where]
        gains = np.repeat(similarity - np.repeat(floors, shares), sizes)
        ends = np.cumsum(sizes)[np.cumsum(shares) - 1]
        if keep is not None:
            kept = np.flatnonzero(keep(passages))
            where, passages, gains, ends = where[kept], passages[kept], gains[kept], np.searchsorted(kept, ends)
        totals, ranks = self._lines()
        best = _best(passages, gains, ends, effort.shortlist, totals)
        ranks[best] = np.arange(1, len(best) + 1)
        ranked = np.take(ranks, passages)
        ranks[best] = 0
        met = np.flatnonzero(ranked != 0)
        # Lists of two query vectors may be the same, and vectors of a passage lie in several: ordered, each once.
        numbers = self.numbers[where[met]]
        width = int(numbers.max(initial=0)) + 1
        keys = _distinct((ranked[met].astype(np.int64) - 1) * width + numbers, len(best) * width)
        chosen, numbers = np.divmod(keys, width)
        return Met(best[chosen], numbers, floors)

    def _nearest(self, query: np.ndarray, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each query vector its nearest clusters and their inner products with it, one query vector's behind the
        other's.

        They rise: what is assigned later then wins over what was before.
        """
        whole, steps = eight_bits(query)
        similarity = whole_product(whole, self.centroids).astype(np.float32)
        similarity *= self.steps
        nearest = [_highest(line, share) for line, share in zip(similarity, shares.tolist(), strict=True)]
        products = [line[own] * step for line, own, step in zip(similarity, nearest, steps, strict=True)]
        return np.concatenate(nearest), np.concatenate(products)

    def _lines(self) -> tuple[np.ndarray, np.ndarray]:
        """For this thread a float32 and an int32 line of zeros: fresh ones would cost more than the walk."""
        if not hasattr(self._scratch, "totals"):
            self._scratch.totals = np.zeros(len(self.rows), dtype=np.float32)
            self._scratch.ranks = np.zeros(len(self.rows), dtype=np.int32)
        return self._scratch.totals, self._scratch.ranks


def _near_highest(line: np.ndarray, wanted: int) -> np.ndarray:
    """Positions of about twice as many of the largest numbers of a line as are wanted, or of more; rising.

    A sample tells about how large they are, and most of the line need not be sorted: for 256 of 65,536 half of the time
    of torch's top-k.
    """
    sample = line[::_SAMPLED]
    above = 2 * wanted // _SAMPLED + _SAMPLED
    if above < len(sample):
        there = np.flatnonzero(line >= np.partition(sample, len(sample) - above)[len(sample) - above])
        if len(there) >= wanted:
            return there
    return np.arange(len(line))


def _highest(line: np.ndarray, wanted: int) -> np.ndarray:
    """(wanted,) positions of the largest numbers of a line, by number, rising."""
    there = _near_highest(line, wanted)
    return there[np.argsort(line[there])[len(there) - wanted :]]


def _shares(query: np.ndarray, probes: int, clusters: int) -> np.ndarray:
    """(vectors,) how many lists each query vector gets of ``probes`` a vector: as many as it has of the query's energy.

    What a passage scores is decided by the vectors that weigh most: for the same recall a quarter of the lists is saved.
    """
    energy = np.square(query).sum(axis=1)
    total = energy.sum()
    fair = probes * len(query) * energy / total if total > 0 else np.full(len(query), probes)
    return np.clip(np.rint(fair).astype(np.int64), min(max(1, probes // _LEAST), clusters), clusters)


def _best(passages: np.ndarray, gains: np.ndarray, ends: np.ndarray, wanted: int, totals: np.ndarray) -> np.ndarray:
    """The positions with the largest sums over query vectors of their largest gain; rising.

    Args:
        passages: Positions, those that belong to one query vector one behind the other.
        gains: What each gains; rising for each query vector.
        ends: Where those of each query vector end.
        wanted: How many to return at most.
        totals: A line of zeros, one a position; of zeros again in the end.
    """
    # The small number tells a passage in the last list alone, which gains nothing, from one in none.
    gains = gains + _SEEN
    first = 0
    for end in ends.tolist():
        own = passages[first:end]
        # Of a passage that occurs twice all sums start from the same number, and the last that is written is the largest.
        totals[own] = np.take(totals, own) + gains[first:end]
        first = end
    found = np.flatnonzero(totals != 0)
    scores = totals[found]
    totals[found] = 0
    near = _near_highest(scores, wanted)
    scores = scores[near]
    if len(near) > wanted:
        least = np.partition(scores, len(near) - wanted)[len(near) - wanted]
        kept = scores > least
        kept[np.flatnonzero(scores == least)[: wanted - np.count_nonzero(kept)]] = True
        near = near[kept]
    return found[near]


def _distinct(keys: np.ndarray, end: int) -> np.ndarray:
    """The distinct of some int64 numbers from 0 to below ``end``, rising: by a line of marks, a tenth of the time that
    sorting takes, as long as that line is no longer than the memory for the numbers."""
    if end > _MARKED * max(1, len(keys)):
        return np.unique(keys)
    marks = np.zeros(end, dtype=bool)
    marks[keys] = True
    return np.flatnonzero(marks)


def invert(
    codes: np.ndarray, passages: np.ndarray, numbers: np.ndarray, clusters: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Borders, passages and numbers of the lists.

    Args:
        codes: (vectors,) int32 clusters.
        passages: (vectors,) int32: the passage of each vector.
        numbers: (vectors,) which of its passage's vectors each is.
        clusters: How many there are.
    """
    order = np.lexsort((passages, codes))
    narrow = np.min_scalar_type(int(numbers.max(initial=0)))
    borders = np.searchsorted(codes[order], np.arange(clusters + 1)).astype(np.int64)
    return borders, passages[order], numbers[order].astype(narrow)
