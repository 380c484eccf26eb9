"""What a codec is: vectors in, bytes in planes out, and scores of float queries against those bytes.

A *plane* is a run of the same number of bytes for each vector.  The planes of a segment lie one behind the other in
its file, so that reading one of them touches no page of another: the sign plane of a two-level codec stays in memory
while the wider plane is read for candidates only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np


class SketchPlanes(NamedTuple):
    """Where a codec keeps one bit a dimension for a first look: see :mod:`crisp_rag.index.sketch`.

    Args:
        signs: The number of the plane of signs.
        scales: The number of the plane of scales.
        factor: What the scales are multiplied with for estimates that are right on average.
    """

    signs: int
    scales: int
    factor: float


class Codec(Protocol):
    """How vectors of one width are stored."""

    @property
    def name(self) -> str:
        """What users ask for and what the index writes down."""

    @property
    def dim(self) -> int:
        """The width of a vector."""

    @property
    def planes(self) -> tuple[int, ...]:
        """Bytes a vector of each plane, in the order of the file."""

    @property
    def sketch(self) -> SketchPlanes | None:
        """Where there is one bit a dimension for a first look; None where there is none."""

    def turn(self, vectors: np.ndarray) -> np.ndarray:
        """(n, dim) float32 vectors in the space in which the codec's vectors are scored.  Keeps inner products."""

    def turn_back(self, vectors: np.ndarray) -> np.ndarray:
        """The inverse of :meth:`turn`."""

    def encode(self, vectors: np.ndarray) -> list[np.ndarray]:
        """(n, dim) vectors as uint8 arrays (n, bytes), one a plane."""

    def decode(self, planes: Sequence[np.ndarray]) -> np.ndarray:
        """(n, dim) float32 vectors, turned, from uint8 arrays (n, bytes)."""

    def similarity(self, queries: np.ndarray, planes: Sequence[np.ndarray]) -> np.ndarray:
        """(queries, n) float32 inner products of turned (queries, dim) float32 with coded vectors."""


class PlainCodec:
    """What codecs that store vectors as they are, not turned, have in common."""

    sketch: SketchPlanes | None = None

    def turn(self, vectors: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(vectors, dtype=np.float32)

    turn_back = turn

    def decode(self, planes: Sequence[np.ndarray]) -> np.ndarray:
        raise NotImplementedError

    def similarity(self, queries: np.ndarray, planes: Sequence[np.ndarray]) -> np.ndarray:
        return inner(queries, self.decode(planes))


def inner(queries: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """(queries, n) inner products of float32 arrays (queries, dim) and (n, dim), by torch: three times numpy's speed."""
    import torch

    queries, vectors = (np.require(each, requirements="W") for each in (queries, vectors))  # torch warns of others
    return (torch.from_numpy(queries) @ torch.from_numpy(vectors).T).numpy()


def scales_of(plane: np.ndarray) -> np.ndarray:
    """(n,) float32 from the (n, 4) bytes of a plane of scales."""
    return np.ascontiguousarray(plane).view("<f4").reshape(len(plane)).astype(np.float32, copy=False)


def bytes_of(scales: np.ndarray) -> np.ndarray:
    """The inverse of :func:`scales_of`."""
    return np.ascontiguousarray(scales, dtype="<f4").reshape(-1, 1).view(np.uint8)
