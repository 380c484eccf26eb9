"""One bit a dimension after a random rotation: the sign.  dim / 8 bytes and 4 for the scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crisp_rag.index.codecs.base import SketchPlanes, bytes_of, scales_of
from crisp_rag.index.codecs.rotation import RotatedCodec, fitted_scales, pack_signs, unpack_signs


class OneBitCodec(RotatedCodec):
    """RaBitQ's code with float queries.  Planes: signs, scales."""

    name = "1bit"
    sketch = SketchPlanes(signs=0, scales=1, factor=1.0)

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.planes = (-(-dim // 8), 4)

    def encode(self, vectors: np.ndarray) -> list[np.ndarray]:
        turned = self.turn(vectors)
        signs = pack_signs(turned)
        return [signs, bytes_of(fitted_scales(turned, unpack_signs(signs, self.dim)))]

    def levels(self, planes: Sequence[np.ndarray]) -> np.ndarray:
        return np.ascontiguousarray(unpack_signs(planes[0], self.dim))

    def scales(self, planes: Sequence[np.ndarray]) -> np.ndarray:
        return scales_of(planes[1])
