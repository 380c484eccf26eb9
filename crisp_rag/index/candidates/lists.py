"""Inverted lists: for each cluster the passages with a vector in it; a query walks the lists of its nearest clusters.

A passage's score is estimated as in XTR (Lee et al., NeurIPS 2023, arXiv 2304.01982) and WARP (Scheerer et al., SIGIR
2025, arXiv 2501.17788): for each query vector the inner product with the best centroid whose list holds the passage;
where no list that was walked does, the least that was walked, which is the most that it can be.  In real collections
this orders passages as well as looking up the centroids of all their vectors, as PLAID does, and needs no such codes.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import numpy as np

from crisp_rag.index.sketch import eight_bits, whole_product
from crisp_rag.index.snapshots import starts_of

_SEEN = np.float32(1e-6)


@dataclass(frozen=True)
class Effort:
    """How hard a search looks.

    Args:
        probes: Lists walked for each query vector.
        shortlist: Passages that get a first look by one bit a dimension.
        rescored: Passages that are scored with all bits.
    """

    probes: int
    shortlist: int
    rescored: int


EFFORTS = (
    Effort(8, 256, 24), Effort(16, 512, 32), Effort(32, 1024, 40), Effort(64, 2048, 48), Effort(96, 4096, 64),
    Effort(128, 8192, 96), Effort(256, 16384, 128),
)  # fmt: skip


@dataclass(frozen=True)
class CandidateLists:
    """The lists of an index at some moment.

    Args:
        rows: (passages,) int64 rows that are covered, rising.
        centroids: (clusters, dim) int8, turned as the codec ``codec`` turns vectors; in whole numbers they take a
            quarter of the memory, and of the time of the product with a query.
        steps: (clusters,) float32: what the whole numbers of each centroid are multiples of.
        borders: (clusters + 1,) int64: where the list of each cluster begins and ends.
        entries: int32 positions in ``rows``, list after list.
        codec: The name of that codec.
        recalls: The measured recall@10 of each of :data:`EFFORTS`; empty where it was not measured.
    """

    rows: np.ndarray
    centroids: np.ndarray
    steps: np.ndarray
    borders: np.ndarray
    entries: np.ndarray
    codec: str
    recalls: tuple[float, ...] = ()
    _scratch: threading.local = field(default_factory=threading.local, repr=False, compare=False)

    def effort(self, target_recall: float) -> tuple[Effort, float | None]:
        """The least effort that reached a recall when it was measured, or the largest; and what it reached."""
        for effort, recall in zip(EFFORTS, self.recalls):
            if recall >= target_recall:
                return effort, recall
        return EFFORTS[-1], self.recalls[-1] if self.recalls else None

    def shortlist(self, query: np.ndarray, effort: Effort, keep: np.ndarray | None = None) -> np.ndarray:
        """Positions in ``rows`` of the passages that look best, in no order.

        Args:
            query: (vectors, dim) float32, turned.
            effort: How many lists to walk, and how many passages at most to return.
            keep: (passages,) bool, True for those to choose from; all by default.
        """
        try:
            return self._walk(query, effort, keep)
        except BaseException:  # interrupted half way: the line of zeros is none any more
            self._scratch.__dict__.clear()
            raise

    def _walk(self, query: np.ndarray, effort: Effort, keep: np.ndarray | None) -> np.ndarray:
        totals = self._totals()
        walked = []
        for clusters, similarity in zip(*self._nearest(query, effort.probes), strict=True):
            firsts = self.borders[clusters]
            sizes = self.borders[clusters + 1] - firsts
            entries = self.entries[np.repeat(firsts - starts_of(sizes), sizes) + np.arange(sizes.sum())]
            gains = np.repeat(similarity - similarity[0], sizes)
            if keep is not None:
                kept = keep[entries]
                entries, gains = entries[kept], gains[kept]
            self._add_best(totals, entries, gains)
            walked.append(entries)
        found = np.flatnonzero(totals)
        scores = totals[found]
        for entries in walked:
            totals[entries] = 0
        if len(found) > effort.shortlist:
            found = found[np.argpartition(scores, len(scores) - effort.shortlist)[len(scores) - effort.shortlist :]]
        return found

    def _nearest(self, query: np.ndarray, probes: int) -> tuple[np.ndarray, np.ndarray]:
        """For each query vector its nearest clusters and their inner products with it, (vectors, probes) each.

        They rise: what is assigned later then wins over what was before.
        """
        import torch

        whole, steps = eight_bits(query)
        similarity = whole_product(self.centroids, whole) * self.steps[:, None] * steps
        found = torch.from_numpy(similarity.T).topk(min(probes, len(self.centroids)), dim=1)
        return found.indices.flip(1).numpy(), found.values.flip(1).numpy()

    def _add_best(self, totals: np.ndarray, entries: np.ndarray, gains: np.ndarray) -> None:
        """Add to each passage's total the largest of its gains, which comes last in ``gains``."""
        best = self._scratch.best
        best[entries] = gains
        # A passage that occurs twice gets the same sum written twice: both sides were read before.  The small number
        # tells a passage in the last list alone, which gains nothing, from one in none.
        totals[entries] = totals[entries] + best[entries] + _SEEN

    def _totals(self) -> np.ndarray:
        """A line of zeros for this thread, and another for scratch: fresh ones would cost more than the walk."""
        if not hasattr(self._scratch, "totals"):
            self._scratch.totals = np.zeros(len(self.rows), dtype=np.float32)
            self._scratch.best = np.zeros(len(self.rows), dtype=np.float32)
        return self._scratch.totals


def invert(codes: np.ndarray, passages: np.ndarray, clusters: int) -> tuple[np.ndarray, np.ndarray]:
    """Borders and entries of the lists.

    Args:
        codes: (vectors,) int32 clusters.
        passages: (vectors,) int32, rising: the passage of each vector.
        clusters: How many there are.
    """
    order = np.argsort(codes, kind="stable")  # within a list passages still rise
    codes, passages = codes[order], passages[order]
    first = np.ones(len(codes), dtype=bool)
    first[1:] = (codes[1:] != codes[:-1]) | (passages[1:] != passages[:-1])
    codes, passages = codes[first], passages[first]
    return np.searchsorted(codes, np.arange(clusters + 1)).astype(np.int64), passages
