"""Whole numbers of 8 bits with one scale a vector: 1 byte a dimension and 4 a vector."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crisp_rag.index.codecs.base import PlainCodec, bytes_of, scales_of


class Int8Codec(PlainCodec):
    """The largest component becomes 127; a component is off by at most half a step, 1/254 of the largest."""

    name = "int8"

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.planes = (dim, 4)

    def encode(self, vectors: np.ndarray) -> list[np.ndarray]:
        vectors = self.turn(vectors)
        scales = np.abs(vectors).max(axis=1) / 127
        steps = np.rint(vectors / np.where(scales > 0, scales, 1)[:, None]).astype(np.int8)
        return [steps.view(np.uint8), bytes_of(scales)]

    def decode(self, planes: Sequence[np.ndarray]) -> np.ndarray:
        steps = np.ascontiguousarray(planes[0]).view(np.int8).astype(np.float32)
        return steps * scales_of(planes[1])[:, None]
