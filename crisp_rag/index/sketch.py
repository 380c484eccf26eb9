"""A first look at coded vectors: one bit a dimension against queries of eight bits, in whole numbers.

The sign plane of a codec holds, for a rotated vector, the signs of its components; the inner product of a query with
the signs, times the vector's scale, orders passages well enough to say which few deserve a closer look.  Queries are
rounded to eight bits as in RaBitQ (arXiv 2405.12497), so that the product is one of small whole numbers.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np


class Sketch:
    """Queries made ready to be compared with sign planes.

    Args:
        queries: (n, dim) float32, turned as the codec turns them.
    """

    def __init__(self, queries: np.ndarray) -> None:
        padded = np.pad(queries, ((0, 0), (0, -queries.shape[1] % 8)))
        self._queries, self._steps = eight_bits(padded)
        self._half_sums = (self._queries.sum(axis=1, dtype=np.int32) / 2).astype(np.float32)

    def similarity(self, signs: np.ndarray, scales: np.ndarray) -> np.ndarray:
        """(queries, n) float32 estimates of inner products.

        Args:
            signs: (n, bytes) uint8.
            scales: (n,) float32, those that make the estimates right on average.
        """
        # With bits b in {0, 1} the signs are 2b - 1, hence q . signs / 2 = q . b - sum(q) / 2.
        similarity = whole_product(self._queries, np.unpackbits(signs, axis=1).view(np.int8)).astype(np.float32)
        similarity -= self._half_sums[:, None]
        similarity *= 2 * scales
        similarity *= self._steps[:, None]
        return similarity


def eight_bits(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, dim) int8 and (n,) float32 steps: a float32 vector is near its whole numbers times its step."""
    largest = np.abs(vectors).max(axis=1)
    steps = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    return np.rint(vectors / steps[:, None]).astype(np.int8), steps


def whole_product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(n, m) int32: int8 (n, dim) times int8 (m, dim), exactly."""
    import torch

    first, second = torch.from_numpy(left), torch.from_numpy(right)
    if _has_whole_product():
        return torch._int_mm(first, second.T).numpy()
    # Slower, and the same but for sums beyond 2**24, which float32 rounds.
    return (first.float() @ second.float().T).int().numpy()


@lru_cache(maxsize=1)
def _has_whole_product() -> bool:
    """Whether this torch multiplies whole numbers on this processor, and does it right."""
    import torch

    try:
        left = torch.arange(-64, 64, dtype=torch.int8).view(8, 16)
        right = torch.arange(-48, 80, dtype=torch.int8).view(16, 8)
        return torch.equal(torch._int_mm(left, right), left.int() @ right.int())
    except (AttributeError, RuntimeError, NotImplementedError):
        return False
