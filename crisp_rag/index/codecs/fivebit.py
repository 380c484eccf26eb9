"""Two levels: a sign plane for the first look, and four more bits a dimension that are read for candidates only.

Together they are the 32 levels that are best for a Gaussian (Lloyd 1957, Max 1960).  The levels are symmetric, so
that the first of the five bits is the sign: the sign plane is the code of :mod:`crisp_rag.index.codecs.onebit`, and
the wider code repeats nothing of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from crisp_rag.index.codecs.base import SketchPlanes, bytes_of, scales_of
from crisp_rag.index.codecs.rotation import RotatedCodec, fitted_scales, pack_signs

# The positive half of the 32 levels: each is the mean of the Gaussian between the midpoints to its neighbours.
MAGNITUDES = np.array(
    [0.06589, 0.198052, 0.331378, 0.4667, 0.604934, 0.747136, 0.894565, 1.048783,
     1.211804, 1.38634, 1.576228, 1.787233, 2.028728, 2.317739, 2.69112, 3.260732],
    dtype=np.float32,
)  # fmt: skip
# The nearest magnitude of every 512th of the spread: a look-up is a fifth of the time of a search, and errs only for
# components that lie within 1/1024 of the middle between two levels.
_STEPS = 512
_NEAREST = np.searchsorted((MAGNITUDES[1:] + MAGNITUDES[:-1]) / 2, (np.arange(4 * _STEPS) + 0.5) / _STEPS).astype(np.uint8)
# Both signed levels of a pair of dimensions by two bits of signs and a byte of magnitudes, as one item of eight bytes,
# which NumPy takes faster than two of four.
_SIGNED = np.concatenate([-MAGNITUDES[None], MAGNITUDES[None]])
_PAIRS = np.ascontiguousarray(
    np.stack(np.broadcast_arrays(_SIGNED[:, None, :, None], _SIGNED[None, :, None, :]), axis=-1)
).view(np.float64).ravel()  # fmt: skip
# The four pairs of bits of a byte of signs, each where the index into that table has it.
_TWO_BITS = ((np.arange(256)[:, None] >> np.array([6, 4, 2, 0]) & 3) << 8).astype(np.uint16).view(np.uint64).ravel()


class FiveBitCodec(RotatedCodec):
    """5 bits a dimension and 4 bytes a vector; 26 dB between a vector and its error.  Planes: signs, scales, magnitudes."""

    name = "5bit"
    # The scale is that of a spread of 1; the mean size of a Gaussian of that spread is the root of 2 / pi.
    sketch = SketchPlanes(signs=0, scales=1, factor=math.sqrt(math.pi / 2))

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.planes = (-(-dim // 8), 4, -(-dim // 2))

    def encode(self, vectors: np.ndarray) -> list[np.ndarray]:
        turned, spread = self.spread(vectors)
        codes = _NEAREST[np.minimum(np.abs(spread) * _STEPS, len(_NEAREST) - 1).astype(np.uint16)]
        if self.dim % 2:
            codes = np.pad(codes, ((0, 0), (0, 1)))
        planes = [pack_signs(turned), np.empty((0, 4), np.uint8), codes[:, 0::2] << 4 | codes[:, 1::2]]
        planes[1] = bytes_of(fitted_scales(turned, self.levels(planes)))
        return planes

    def levels(self, planes: Sequence[np.ndarray]) -> np.ndarray:
        pairs = np.take(_TWO_BITS, planes[0]).view(np.uint16)[:, : planes[2].shape[1]] | planes[2]
        return np.take(_PAIRS, pairs).view(np.float32)[:, : self.dim]

    def scales(self, planes: Sequence[np.ndarray]) -> np.ndarray:
        return scales_of(planes[1])
