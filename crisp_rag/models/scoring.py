"""MaxSim of one query against many documents that lie in memory; an index is for those that do not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch


class StackedVectors:
    """Documents' vectors end to end.

    Args:
        documents: A (vectors, dim) array each, at least one vector.
    """

    def __init__(self, documents: Sequence[np.ndarray]) -> None:
        lengths = np.array([len(vectors) for vectors in documents])
        self._starts = np.concatenate([[0], lengths.cumsum()[:-1]])
        self._vectors = torch.from_numpy(np.concatenate(documents).astype(np.float32, copy=False))

    def scores(self, query: np.ndarray) -> np.ndarray:
        """(n,) float32 MaxSim of a (vectors, dim) query with every document."""
        similarity = (self._vectors @ torch.from_numpy(np.ascontiguousarray(query, dtype=np.float32)).T).numpy()
        return np.maximum.reduceat(similarity, self._starts, axis=0).sum(axis=1)


def ranking(scores: np.ndarray) -> list[tuple[int, float]]:
    """(row, score) pairs of (n,) scores, best first, equal ones in order of their rows."""
    order = np.argsort(-scores, kind="stable")
    return [(int(row), float(scores[row])) for row in order]
