"""A stream of passages, cut into batches of one commit each, whose vectors come block by block.

Nothing of a stream is held beyond the passages of one batch and the vectors of one block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from crisp_rag.errors import InvalidInputError
from crisp_rag.index.checks import check_passages, check_vectors, check_within
from crisp_rag.index.types import Passage, Where

ENCODED_AT_ONCE = 256
"""Passages a block: 256 of 32 vectors and 384 dims are 12 MB of float32."""

Encode = Callable[[list[str]], Sequence[np.ndarray]]


@dataclass
class Batch:
    """What one commit takes of a stream.

    Args:
        taken: The passages as they came.
        blocks: A checked (vectors, dim) array for each of ``passages``, to be read once.
        counts: How many vectors each has, filled while ``blocks`` is read.
    """

    taken: list[Passage]
    blocks: Iterator[np.ndarray] = field(default_factory=lambda: iter(()))
    counts: list[int] = field(default_factory=list)

    @property
    def passages(self) -> list[Passage]:
        """What is added: of passages with the same id the last one."""
        return [self.taken[number] for number in self.kept]

    @property
    def kept(self) -> list[int]:
        """The positions of what is added among what was taken, in order."""
        return sorted({passage.id: number for number, passage in enumerate(self.taken)}.values())


class Stream:
    """Cuts a stream into batches.

    Args:
        passages: What to add.
        vectors: A (vectors, dim) array a passage; None to encode the passages.
        encode: The encoder, used where there are no vectors.
        dim: The width of a vector.
        where: The filter that every passage has to satisfy.
    """

    def __init__(
        self,
        passages: Iterable[Passage],
        vectors: Iterable[np.ndarray] | None,
        encode: Encode,
        dim: int,
        where: Where | None,
    ) -> None:
        self._passages = iter(passages)
        self._vectors = None if vectors is None else iter(vectors)
        self._encode = encode
        self._dim = dim
        self._where = where

    def batches(self, size: int) -> Iterator[Batch]:
        """Batches of so many passages, the last one of fewer.

        Raises:
            InvalidInputError: naming the passages that cannot be added, before their batch is given.
        """
        while taken := list(islice(self._passages, size)):
            check_passages(taken, repeats=True)
            check_within(taken, self._where)
            batch = Batch(taken)
            batch.blocks = self._blocks(batch)
            yield batch
        if self._vectors is not None and next(self._vectors, None) is not None:
            raise InvalidInputError("There are more vectors than passages.")

    def _blocks(self, batch: Batch) -> Iterator[np.ndarray]:
        kept = set(batch.kept)
        for first in range(0, len(batch.taken), ENCODED_AT_ONCE):
            part = batch.taken[first : first + ENCODED_AT_ONCE]
            chosen = [number for number in range(len(part)) if first + number in kept]
            if self._vectors is None:
                arrays = self._encode([part[number].encoded_text for number in chosen]) if chosen else []
            else:
                given = list(islice(self._vectors, len(part)))
                if len(given) < len(part):
                    raise InvalidInputError(f"There are no vectors for passage {part[len(given)].id!r} and those behind it.")
                arrays = [given[number] for number in chosen]
            for block in check_vectors([part[number] for number in chosen], arrays, self._dim):
                batch.counts.append(len(block))
                yield block
