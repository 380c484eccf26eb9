"""Three levels a dimension after a random rotation: five of them in a byte, 1.6 bits each, and 4 bytes a vector."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crisp_rag.index.codecs.base import bytes_of, scales_of
from crisp_rag.index.codecs.rotation import RotatedCodec, fitted_scales

# Below this share of the spread a component is nearer to 0 than to the outer level, for the three levels that are
# best for a Gaussian.
_MIDDLE = 0.612
_POWERS = np.array([1, 3, 9, 27, 81], dtype=np.uint8)
_TRITS = ((np.arange(256)[:, None] // _POWERS) % 3 - 1).astype(np.float32)


class TernaryCodec(RotatedCodec):
    """-1, 0 or 1 a dimension.  Planes: levels, scales."""

    name = "ternary"

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.planes = (-(-dim // 5), 4)

    def encode(self, vectors: np.ndarray) -> list[np.ndarray]:
        turned, spread = self.spread(vectors)
        trits = np.sign(spread) * (np.abs(spread) > _MIDDLE)
        digits = np.pad(trits + 1, ((0, 0), (0, -self.dim % 5))).astype(np.uint8)
        packed = (digits.reshape(len(digits), -1, 5) * _POWERS).sum(axis=2, dtype=np.uint8)
        return [packed, bytes_of(fitted_scales(turned, trits.astype(np.float32)))]

    def levels(self, planes: Sequence[np.ndarray]) -> np.ndarray:
        return np.ascontiguousarray(np.take(_TRITS, planes[0], axis=0).reshape(len(planes[0]), -1)[:, : self.dim])

    def scales(self, planes: Sequence[np.ndarray]) -> np.ndarray:
        return scales_of(planes[1])
