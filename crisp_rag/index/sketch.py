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
        largest = np.abs(padded).max(axis=1, keepdims=True)
        self._steps = np.where(largest > 0, largest / 127, 1).astype(np.float32)
        self._queries = np.rint(padded / self._steps).astype(np.int8)
        self._sums = self._queries.sum(axis=1, dtype=np.int32)

    def similarity(self, signs: np.ndarray, scales: np.ndarray) -> np.ndarray:
        """(n, queries) float32 estimates of inner products, up to a factor that is the same for all.

        Args:
            signs: (n, bytes) uint8.
            scales: (n,) float32.
        """
        # With bits b in {0, 1} the signs are 2b - 1, hence q . signs = 2 q . b - sum(q).
        products = whole_product(np.unpackbits(signs, axis=1), self._queries)
        similarity = (2 * products - self._sums).astype(np.float32)
        similarity *= self._steps.ravel()
        similarity *= scales[:, None]
        return similarity


def whole_product(bits: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """(n, queries) int32: uint8 bits (n, dim) times int8 queries (queries, dim), exactly."""
    import torch

    if _has_whole_product():
        return torch._int_mm(torch.from_numpy(bits).view(torch.int8), torch.from_numpy(queries).T.contiguous()).numpy()
    # Sums of fewer than 2**24 whole numbers are exact in float32, too.
    return (torch.from_numpy(bits).float() @ torch.from_numpy(queries).float().T).int().numpy()


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
