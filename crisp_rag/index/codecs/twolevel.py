"""Two levels: a sign plane for the first look, and three to six more bits a dimension that are read for candidates only.

Together they are the 16, 32 or 128 levels that are best for a Gaussian (Lloyd 1957, Max 1960).  The levels are symmetric,
so that the first of the bits is the sign: the sign plane is the code of :mod:`crisp_rag.index.codecs.onebit`, and the
wider code repeats nothing of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from crisp_rag.index.codecs.base import SketchPlanes, bytes_of, scales_of
from crisp_rag.index.codecs.rotation import RotatedCodec, fitted_scales, pack_signs

# The nearest magnitude of every 512th of the spread: a look-up is a fifth of the time of a search, and errs only for
# components that lie within 1/1024 of the middle between two levels.
_STEPS = 512
_SPREAD = 5  # in which there are all middles


class TwoLevelCodec(RotatedCodec):
    """Signs, and magnitudes of pairs of dimensions.  Planes: signs, scales, magnitudes.

    Attributes:
        magnitudes: The positive half of the levels: each is the mean of the Gaussian between the midpoints to its
            neighbours.
        error: What is left of the energy of a Gaussian at these levels.
    """

    name: str
    magnitudes: np.ndarray
    error: float

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        magnitudes = self.magnitudes
        # The mean size of a Gaussian of spread 1 is the root of 2 / pi; the scale is greater than the spread by as much
        # as the levels fall short of the vector.
        self.sketch = SketchPlanes(signs=0, scales=1, factor=math.sqrt(math.pi / 2) * (1 - self.error))
        self._bits = len(magnitudes).bit_length() - 1
        middles = (magnitudes[1:] + magnitudes[:-1]) / 2
        self._nearest = np.searchsorted(middles, (np.arange(_SPREAD * _STEPS) + 0.5) / _STEPS).astype(np.uint8)
        # Both signed levels of a pair, by two bits of signs and those of two magnitudes, as one item of eight bytes,
        # which NumPy takes faster than two of four.
        first, second = np.divmod(np.arange(len(magnitudes) ** 2), len(magnitudes))
        pair = magnitudes[np.stack([first, second], axis=1)]
        signs = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]], dtype=np.float32)
        self._pairs = np.ascontiguousarray(signs[:, None] * pair).view(np.float64).ravel()
        # The four pairs of bits of a byte of signs, each where the index into that table has it.
        two_bits = np.arange(256)[:, None] >> np.array([6, 4, 2, 0]) & 3
        self._signs = (two_bits << 2 * self._bits).astype(np.uint16).view(np.uint64).ravel()
        none = np.zeros((1, dim), dtype=np.float32)
        self.planes = (pack_signs(none).shape[1], 4, self._packed(self._codes(none)).shape[1])

    def encode(self, vectors: np.ndarray) -> list[np.ndarray]:
        turned, spread = self.spread(vectors)
        planes = [pack_signs(turned), np.empty((0, 4), np.uint8), self._packed(self._codes(spread))]
        planes[1] = bytes_of(fitted_scales(turned, self.levels(planes)))
        return planes

    def levels(self, planes: Sequence[np.ndarray]) -> np.ndarray:
        pairs = self._unpacked(planes[2])
        pairs = np.take(self._signs, planes[0]).view(np.uint16)[:, : pairs.shape[1]] | pairs
        return np.take(self._pairs, pairs).view(np.float32)[:, : self.dim]

    def scales(self, planes: Sequence[np.ndarray]) -> np.ndarray:
        return scales_of(planes[1])

    def _codes(self, spread: np.ndarray) -> np.ndarray:
        """(n, even) uint8 numbers of the nearest magnitudes, from (n, dim) in units of the spread."""
        codes = self._nearest[np.minimum(np.abs(spread) * _STEPS, len(self._nearest) - 1).astype(np.uint16)]
        return np.pad(codes, ((0, 0), (0, self.dim % 2)))

    def _paired(self, codes: np.ndarray) -> np.ndarray:
        """(n, pairs) numbers of pairs, the first in the upper bits, in the type of the (n, even) numbers of magnitudes."""
        return codes[:, 0::2] << self._bits | codes[:, 1::2]

    def _packed(self, codes: np.ndarray) -> np.ndarray:
        """(n, bytes) uint8 from the (n, even) uint8 numbers of magnitudes."""
        raise NotImplementedError

    def _unpacked(self, plane: np.ndarray) -> np.ndarray:
        """(n, pairs) as :meth:`_paired` gives them; there may be more, of what the plane was filled up with."""
        raise NotImplementedError


class FourBitCodec(TwoLevelCodec):
    """4 bits a dimension and 4 bytes a vector; 20 dB between a vector and its error.  A pair takes six bits."""

    name = "4bit"
    magnitudes = np.array(
        [0.128395, 0.388048, 0.656759, 0.942341, 1.256231, 1.618047, 2.069017, 2.732589], dtype=np.float32
    )  # fmt: skip
    error = 0.0095

    def _packed(self, codes: np.ndarray) -> np.ndarray:
        return _pack_sixes(self._paired(codes))

    def _unpacked(self, plane: np.ndarray) -> np.ndarray:
        return _unpack_sixes(plane)


class FiveBitCodec(TwoLevelCodec):
    """5 bits a dimension and 4 bytes a vector; 26 dB.  A pair takes a byte."""

    name = "5bit"
    magnitudes = np.array(
        [0.06589, 0.198052, 0.331378, 0.4667, 0.604934, 0.747136, 0.894565, 1.048783,
         1.211804, 1.38634, 1.576228, 1.787233, 2.028728, 2.317739, 2.69112, 3.260732],
        dtype=np.float32,
    )  # fmt: skip
    error = 0.0025

    def _packed(self, codes: np.ndarray) -> np.ndarray:
        return self._paired(codes)

    def _unpacked(self, plane: np.ndarray) -> np.ndarray:
        return plane


class SevenBitCodec(TwoLevelCodec):
    """7 bits a dimension and 4 bytes a vector; 38 dB.  A magnitude takes six bits."""

    name = "7bit"
    magnitudes = np.array(
        [0.016828, 0.050491, 0.084173, 0.117886, 0.151645, 0.185461, 0.219348, 0.253319,
         0.287388, 0.321568, 0.355874, 0.39032, 0.424922, 0.459693, 0.494651, 0.529812,
         0.565193, 0.600811, 0.636684, 0.672833, 0.709278, 0.746039, 0.78314, 0.820603,
         0.858454, 0.89672, 0.935428, 0.97461, 1.014297, 1.054523, 1.095327, 1.136747,
         1.178829, 1.221617, 1.265165, 1.309528, 1.354766, 1.400949, 1.448149, 1.49645,
         1.545944, 1.596733, 1.648934, 1.702677, 1.758111, 1.815408, 1.874763, 1.936405,
         2.000602, 2.067671, 2.137993, 2.212028, 2.290339, 2.373634, 2.462811, 2.559041,
         2.663887, 2.779514, 2.909047, 3.057246, 3.231933, 3.44743, 3.734937, 4.189694],
        dtype=np.float32,
    )  # fmt: skip
    error = 0.000163

    def _packed(self, codes: np.ndarray) -> np.ndarray:
        return _pack_sixes(codes)

    def _unpacked(self, plane: np.ndarray) -> np.ndarray:
        return _unpack_pairs_of_sixes(plane)


def _pack_sixes(numbers: np.ndarray) -> np.ndarray:
    """(n, bytes) from (n, m) uint8 below 64: four of them in three bytes."""
    fours = np.pad(numbers, ((0, 0), (0, -numbers.shape[1] % 4))).reshape(len(numbers), -1, 4)
    # The upper two bits of the first three bytes take the six bits of the fourth.
    upper = (fours[:, :, 3:] << np.array([2, 4, 6], dtype=np.uint8)) & 0xC0
    return (fours[:, :, :3] | upper).reshape(len(numbers), -1)


def _unpack_sixes(plane: np.ndarray) -> np.ndarray:
    """The inverse of :func:`_pack_sixes`, with the zeros that filled the last four up."""
    threes = plane.reshape(len(plane), -1, 3)
    fours = np.empty((*threes.shape[:2], 4), dtype=np.uint8)
    np.bitwise_and(threes, 0x3F, out=fours[:, :, :3])
    fourth = threes[:, :, 0] >> 6 << 4 | threes[:, :, 1] >> 6 << 2 | threes[:, :, 2] >> 6
    fours[:, :, 3] = fourth
    return fours.reshape(len(plane), -1)


def _unpack_pairs_of_sixes(plane: np.ndarray) -> np.ndarray:
    """(n, pairs) uint16, the first number of a pair above the second: as :func:`_unpack_sixes`, of four numbers at once
    and in a third of the time."""
    threes = np.append(plane.ravel(), np.uint8(0))  # so that four bytes can be read at the last three
    words = np.lib.stride_tricks.as_strided(threes[:4].view("<u4"), (len(threes) // 3,), (3,)).astype(np.uint32)
    # Two pairs in a word, the first in its lower half.
    pairs = words << 6 & 0xFC0
    for shift, bits in ((-8, 0x3F), (6, 0xFC00000), (14, 0x300000), (4, 0xC0000), (-6, 0x30000)):
        pairs |= (words << shift if shift > 0 else words >> -shift) & np.uint32(bits)
    return pairs.astype("<u4", copy=False).view("<u2").reshape(len(plane), -1)
