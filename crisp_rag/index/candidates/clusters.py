"""Clusters of very many vectors in two steps: a few hundred cells, and clusters within each cell.

A vector is compared with all cells and then with the clusters of the nearest cells only, so that training and
assigning cost the square root of what plain k-means would.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from crisp_rag.index.codecs.base import inner

TRAINED_ON = 40
"""Vectors a cluster that training looks at."""
TRAINED_ON_AT_MOST = 2**20
"""Vectors that it looks at in all: 1.6 GB of float32 at 384 dims."""
_ITERATIONS = 6
_CELLS_SEEN = 6
_SEED = 20240612


def cluster_count(vectors: int) -> int:
    """How many clusters for that many vectors: a power of two near 16 square roots, as in PLAID (arXiv 2205.09707)."""
    return int(2 ** min(16, max(4, round(math.log2(16 * math.sqrt(max(vectors, 1)))))))


@dataclass(frozen=True)
class Clusters:
    """Centroids, those of a cell one behind the other.

    Args:
        cells: (cells, dim) float32.
        centroids: (clusters, dim) float32.
        borders: (cells + 1,) int64: where the centroids of each cell begin and end.
    """

    cells: np.ndarray
    centroids: np.ndarray
    borders: np.ndarray

    def assign(self, vectors: np.ndarray) -> np.ndarray:
        """(n,) int32: the nearest centroid of each (n, dim) float32 vector, among those of its nearest cells."""
        seen = min(_CELLS_SEEN, len(self.cells))
        nearness = _nearness(vectors, self.cells)
        near = np.argpartition(nearness, len(self.cells) - seen, axis=1)[:, len(self.cells) - seen :].ravel()
        order = np.argsort(near, kind="stable")
        owners = order // seen
        ends = np.searchsorted(near[order], np.arange(len(self.cells) + 1))
        best = np.full(len(vectors), -np.inf, dtype=np.float32)
        codes = np.zeros(len(vectors), dtype=np.int32)
        for cell in range(len(self.cells)):
            who = owners[ends[cell] : ends[cell + 1]]
            first, last = self.borders[cell : cell + 2]
            if not len(who) or first == last:
                continue
            nearness = _nearness(vectors[who], self.centroids[first:last])
            chosen = nearness.argmax(axis=1)
            reached = nearness[np.arange(len(who)), chosen]
            better = reached > best[who]
            best[who[better]] = reached[better]
            codes[who[better]] = first + chosen[better]
        return codes


def train(sample: np.ndarray, clusters: int, stop: Callable[[], bool] = lambda: False) -> Clusters:
    """Find about that many clusters of a (n, dim) float32 sample.

    Args:
        sample: :data:`TRAINED_ON` vectors a cluster are enough.
        clusters: How many.
        stop: Asked between cells; training ends with what it has.
    """
    cells = _kmeans(sample, max(1, 2 ** (int(math.log2(clusters)) // 2)))
    own = np.concatenate([_nearness(sample[i : i + 8192], cells).argmax(axis=1) for i in range(0, len(sample), 8192)])
    found, sizes = [], []
    for cell in range(len(cells)):
        members = sample[own == cell]
        wanted = max(1, round(clusters * len(members) / len(sample)))
        centroids = _kmeans(members, wanted) if len(members) and not stop() else cells[cell : cell + 1]
        found.append(centroids)
        sizes.append(len(centroids))
    return Clusters(cells, np.concatenate(found), np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))


def _nearness(vectors: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """(n, centroids) float32: larger where the Euclidean distance is smaller."""
    nearness = inner(vectors, centroids)
    nearness -= np.einsum("nd,nd->n", centroids, centroids) / 2
    return nearness


def _kmeans(vectors: np.ndarray, clusters: int) -> np.ndarray:
    """(clusters, dim) float32 centroids, or the vectors themselves where there are no more."""
    if len(vectors) <= clusters:
        return vectors
    import faiss

    kmeans = faiss.Kmeans(
        vectors.shape[1], clusters, niter=_ITERATIONS, seed=_SEED, min_points_per_centroid=1,
        max_points_per_centroid=len(vectors),
    )  # fmt: skip
    kmeans.train(vectors)
    return np.asarray(kmeans.centroids, dtype=np.float32)
