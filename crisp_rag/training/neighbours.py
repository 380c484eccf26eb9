"""Groups of examples whose documents are alike, for steps whose other documents are hard to tell from the right one.

    examples = group_neighbours(examples, encoder, size=16)
    train(encoder, examples, "my-encoder", TrainingOptions(per_group=16))

A step scores each of its documents against each of its queries.  Where its documents lie close together, that is a list
of hard candidates for every query, at the price of one document a query.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from crisp_rag.errors import InvalidInputError
from crisp_rag.training.data import Example


def group_neighbours(examples: Sequence[Example], vectors: np.ndarray, *, size: int = 16, seed: int = 0) -> list[Example]:
    """Examples in order, each with the name of its neighbourhood as its group.

    A random example that has no group yet takes the ``size - 1`` others of its source without one whose positives are
    nearest to its own, until all are taken: neighbourhoods of equal size (the last of a source may be smaller).

    Args:
        examples: What to group; groups that they have are forgotten.
        vectors: (len(examples), dim), one vector for each example's positive, such as the mean of its token vectors;
            compared by inner product.
        size: Examples a neighbourhood.
        seed: Which examples come first.

    Raises:
        InvalidInputError: if there is not one vector an example, or ``size`` is below 1.
    """
    if len(vectors) != len(examples) or size < 1:
        raise InvalidInputError(f"Need one vector an example and size >= 1; got {len(vectors)}, {len(examples)}, {size}.")
    of_source: dict[str, list[int]] = defaultdict(list)
    for position, example in enumerate(examples):
        of_source[example.source].append(position)
    names = [""] * len(examples)
    for source, positions in of_source.items():
        rows = np.array(positions)
        free = np.ones(len(rows), dtype=bool)
        order = list(range(len(rows)))
        random.Random(f"{seed}-{source}").shuffle(order)
        for first in order:
            if not free[first]:
                continue
            nearness = np.where(free, vectors[rows] @ vectors[rows[first]], -np.inf)
            nearness[first] = np.inf
            taken = np.argsort(-nearness, kind="stable")[: min(size, int(free.sum()))]
            free[taken] = False
            for row in taken:
                names[rows[row]] = f"{source}-{first}"
    return [replace(example, group=name) for example, name in zip(examples, names)]
