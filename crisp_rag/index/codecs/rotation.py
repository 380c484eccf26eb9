"""A random rotation, always the same for a width, and levels for what comes out of it.

The components of a rotated vector are near Gaussian whatever the vector was, so that levels which are best for a
Gaussian are near best for all.  The idea is RaBitQ's (Gao and Long, SIGMOD 2024, arXiv 2405.12497; several bits:
arXiv 2409.09913).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from crisp_rag.index.codecs.base import SketchPlanes, inner


@lru_cache(maxsize=8)
def rotation(dim: int) -> np.ndarray:
    """(dim, dim) float32, orthogonal.  The generator is one whose numbers NumPy promises never to change."""
    drawn = np.random.RandomState(20240612).standard_normal((dim, dim))
    q, r = np.linalg.qr(drawn)
    return np.ascontiguousarray(q * np.sign(np.diag(r)), dtype=np.float32)


@lru_cache(maxsize=8)
def _turned_back(dim: int) -> np.ndarray:
    """The inverse of :func:`rotation`."""
    return np.ascontiguousarray(rotation(dim).T)


class RotatedCodec:
    """What codecs of rotated vectors have in common: levels in units of a component's spread, one scale a vector.

    The scale makes the inner product of a vector with its own code its squared norm: estimates of inner products are
    then right on average, and a query that is equal to a stored vector gets the score that it should.
    """

    sketch: SketchPlanes | None = None

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def turn(self, vectors: np.ndarray) -> np.ndarray:
        return inner(np.ascontiguousarray(vectors, dtype=np.float32), _turned_back(self.dim))

    def turn_back(self, vectors: np.ndarray) -> np.ndarray:
        return inner(np.ascontiguousarray(vectors, dtype=np.float32), rotation(self.dim))

    def spread(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Turned (n, dim) vectors, and the same in units of their components' spread."""
        turned = self.turn(vectors)
        norms = np.linalg.norm(turned, axis=1, keepdims=True)
        return turned, turned * (math.sqrt(self.dim) / np.where(norms > 0, norms, 1))

    def levels(self, planes: Sequence[np.ndarray]) -> np.ndarray:
        """(n, dim) float32 levels, not scaled."""
        raise NotImplementedError

    def scales(self, planes: Sequence[np.ndarray]) -> np.ndarray:
        """(n,) float32."""
        raise NotImplementedError

    def decode(self, planes: Sequence[np.ndarray]) -> np.ndarray:
        return self.levels(planes) * self.scales(planes)[:, None]

    def similarity(self, queries: np.ndarray, planes: Sequence[np.ndarray]) -> np.ndarray:
        similarity = inner(queries, self.levels(planes))
        similarity *= self.scales(planes)
        return similarity


def fitted_scales(vectors: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """(n,) scales that give each vector its squared norm against its own levels; 0 for a vector of zeros."""
    with_own = np.einsum("nd,nd->n", vectors, levels)
    norms = np.einsum("nd,nd->n", vectors, vectors)
    return np.where(norms > 0, norms / np.where(with_own > 0, with_own, 1), 0).astype(np.float32)


@lru_cache(maxsize=1)
def _sign_table() -> np.ndarray:
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
    return np.where(bits > 0, np.float32(1), np.float32(-1))


def pack_signs(vectors: np.ndarray) -> np.ndarray:
    """(n, ceil(dim / 8)) bytes: a bit a dimension, set where the component is not negative."""
    return np.packbits(vectors >= 0, axis=1)


def unpack_signs(plane: np.ndarray, dim: int) -> np.ndarray:
    """(n, dim) float32 of 1 and -1."""
    return np.take(_sign_table(), plane, axis=0).reshape(len(plane), -1)[:, :dim]
