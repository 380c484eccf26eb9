"""Half precision: 2 bytes a dimension, the codec of format 1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crisp_rag.index.codecs.base import PlainCodec


class Float16Codec(PlainCodec):
    """Little-endian float16, one plane.  Rounds components by at most 2**-11 of their size."""

    name = "float16"

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.planes = (2 * dim,)

    def encode(self, vectors: np.ndarray) -> list[np.ndarray]:
        return [np.ascontiguousarray(vectors, dtype="<f2").view(np.uint8)]

    def decode(self, planes: Sequence[np.ndarray]) -> np.ndarray:
        return np.ascontiguousarray(planes[0]).view("<f2").astype(np.float32)
