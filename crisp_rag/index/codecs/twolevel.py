"""Two levels: a sign plane for the first look, and three or four more bits a dimension that are read for candidates only.

Together they are the 16 or 32 levels that are best for a Gaussian (Lloyd 1957, Max 1960).  The levels are symmetric,
so that the first of the bits is the sign: the sign plane is the code of :mod:`crisp_rag.index.codecs.onebit`, and the
wider code repeats nothing of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from crisp_rag.index.codecs.base import SketchPlanes, bytes_of, scales_of
from crisp_rag.index.codecs.rotation import RotatedCodec, fitted_scales, pack_signs

# The positive half of the levels: each is the mean of the Gaussian between the midpoints to its neighbours.
MAGNITUDES = {
    "4bit": np.array([0.128395, 0.388048, 0.656759, 0.942341, 1.256231, 1.618047, 2.069017, 2.732589], dtype=np.float32),
    "5bit": np.array(
        [0.06589, 0.198052, 0.331378, 0.4667, 0.604934, 0.747136, 0.894565, 1.048783,
         1.211804, 1.38634, 1.576228, 1.787233, 2.028728, 2.317739, 2.69112, 3.260732],
        dtype=np.float32,
    ),
}  # fmt: skip
ERRORS = {"4bit": 0.0095, "5bit": 0.0025}
"""What is left of the energy of a Gaussian at these levels."""
# The nearest magnitude of every 512th of the spread: a look-up is a fifth of the time of a search, and errs only for
# components that lie within 1/1024 of the middle between two levels.
_STEPS = 512
# The four pairs of bits of a byte of signs, each eight bits up, where the index into the table of pairs has it.
_TWO_BITS = ((np.arange(256)[:, None] >> np.array([6, 4, 2, 0]) & 3) << 8).astype(np.uint16).view(np.uint64).ravel()


class TwoLevelCodec(RotatedCodec):
    """Signs, and magnitudes of pairs of dimensions, each pair in one number.  Planes: signs, scales, magnitudes."""

    name: str

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        magnitudes = MAGNITUDES[self.name]
        # The mean size of a Gaussian of spread 1 is the root of 2 / pi; the scale is greater than the spread by as much
        # as the levels fall short of the vector.
        self.sketch = SketchPlanes(signs=0, scales=1, factor=math.sqrt(math.pi / 2) * (1 - ERRORS[self.name]))
        self._bits = len(magnitudes).bit_length() - 1
        middles = (magnitudes[1:] + magnitudes[:-1]) / 2
        self._nearest = np.searchsorted(middles, (np.arange(4 * _STEPS) + 0.5) / _STEPS).astype(np.uint8)
        # Both signed levels of a pair by two bits of signs and eight for two magnitudes, as one item of eight bytes,
        # which NumPy takes faster than two of four.
        first, second = np.divmod(np.arange(256), 1 << self._bits)
        pair = magnitudes[np.stack([np.minimum(first, len(magnitudes) - 1), second], axis=1)]
        signs = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]], dtype=np.float32)
        self._pairs = np.ascontiguousarray(signs[:, None] * pair).view(np.float64).ravel()

    def encode(self, vectors: np.ndarray) -> list[np.ndarray]:
        turned, spread = self.spread(vectors)
        codes = self._nearest[np.minimum(np.abs(spread) * _STEPS, len(self._nearest) - 1).astype(np.uint16)]
        codes = np.pad(codes, ((0, 0), (0, self.dim % 2)))
        planes = [
            pack_signs(turned),
            np.empty((0, 4), np.uint8),
            self._packed(codes[:, 0::2] << self._bits | codes[:, 1::2]),
        ]
        planes[1] = bytes_of(fitted_scales(turned, self.levels(planes)))
        return planes

    def levels(self, planes: Sequence[np.ndarray]) -> np.ndarray:
        pairs = self._unpacked(planes[2])
        pairs = np.take(_TWO_BITS, planes[0]).view(np.uint16)[:, : pairs.shape[1]] | pairs
        return np.take(self._pairs, pairs).view(np.float32)[:, : self.dim]

    def scales(self, planes: Sequence[np.ndarray]) -> np.ndarray:
        return scales_of(planes[1])

    def _packed(self, pairs: np.ndarray) -> np.ndarray:
        """(n, bytes) uint8 from (n, pairs) uint8 magnitudes of pairs."""
        return pairs

    def _unpacked(self, plane: np.ndarray) -> np.ndarray:
        """The inverse of :meth:`_packed`; there may be more of them, of what the plane was filled up with."""
        return plane


class FiveBitCodec(TwoLevelCodec):
    """5 bits a dimension and 4 bytes a vector; 26 dB between a vector and its error."""

    name = "5bit"

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.planes = (-(-dim // 8), 4, -(-dim // 2))


class FourBitCodec(TwoLevelCodec):
    """4 bits a dimension and 4 bytes a vector; 20 dB.  Four pairs of six bits lie in three bytes."""

    name = "4bit"

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.planes = (-(-dim // 8), 4, 3 * -(-dim // 8))

    def _packed(self, pairs: np.ndarray) -> np.ndarray:
        fours = np.pad(pairs, ((0, 0), (0, -pairs.shape[1] % 4))).reshape(len(pairs), -1, 4)
        # The upper two bits of the first three bytes take the six bits of the fourth pair.
        upper = (fours[:, :, 3:] << np.array([2, 4, 6], dtype=np.uint8)) & 0xC0
        return (fours[:, :, :3] | upper).reshape(len(pairs), -1)

    def _unpacked(self, plane: np.ndarray) -> np.ndarray:
        threes = plane.reshape(len(plane), -1, 3)
        fours = np.empty((*threes.shape[:2], 4), dtype=np.uint8)
        np.bitwise_and(threes, 0x3F, out=fours[:, :, :3])
        fourth = threes[:, :, 0] >> 6 << 4 | threes[:, :, 1] >> 6 << 2 | threes[:, :, 2] >> 6
        fours[:, :, 3] = fourth
        return fours.reshape(len(plane), -1)
