"""How much work which recall takes, measured when the lists are made.

Queries are made from passages that are held out of their own answer: some vectors of a passage, moved away from where
they lie, because a question is near what answers it and not on it.  Their true best passages come from scoring
everything; each effort is then tried on them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from crisp_rag.index.candidates.lists import EFFORTS, Effort

QUERIES = 64
AT = 10
_VECTORS = 8
_MOVED = 0.6
"""The length of what is added to a vector, in lengths of it: so far off, made queries are about as hard as real ones
(88,499 passages, two efforts: recall .972 and .995 on made ones, .977 and .992 on real ones)."""
_SEED = 20240612

Answer = Callable[[np.ndarray, int, Effort], Sequence[int]]
Truth = Callable[[Sequence[np.ndarray], int], Sequence[Sequence[int]]]


def made_queries(vectors_of: Callable[[int], np.ndarray], passages: int, queries: int) -> list[tuple[int, np.ndarray]]:
    """(passage, (vectors, dim) float32) pairs.

    Args:
        vectors_of: Gives the (vectors, dim) of a passage by its number.
        passages: How many there are.
        queries: How many to make.
    """
    random = np.random.default_rng(_SEED)
    made = []
    for passage in random.choice(passages, size=min(queries, passages), replace=False).tolist():
        own = vectors_of(passage)
        chosen = own[random.choice(len(own), size=min(_VECTORS, len(own)), replace=False)]
        moved = random.normal(size=chosen.shape) / np.sqrt(chosen.shape[1])
        made.append((passage, (chosen + _MOVED * np.linalg.norm(chosen, axis=1, keepdims=True) * moved).astype(np.float32)))
    return made


def measure(queries: Sequence[tuple[int, np.ndarray]], truth: Truth, answer: Answer) -> tuple[float, ...]:
    """The recall@10 of each of :data:`EFFORTS`, never falling.

    Args:
        queries: Pairs from :func:`made_queries`.
        truth: The k best passages of each query, exactly.
        answer: The k best passages that an effort finds.
    """
    right = truth([query for _, query in queries], AT + 1)
    recalls: list[float] = []
    for effort in EFFORTS:
        shares = []
        for (own, query), best in zip(queries, right, strict=True):
            wanted = [passage for passage in best if passage != own][:AT]
            found = set(answer(query, AT + 1, effort))
            shares.append(sum(passage in found for passage in wanted) / max(1, len(wanted)))
        recalls.append(max([float(np.mean(shares)), *recalls]))
    return tuple(recalls)
