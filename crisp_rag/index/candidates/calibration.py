"""How much work which recall takes, measured when the lists are made.

Queries are made from passages: some vectors of a passage, moved away from where they lie, because a question is near
what answers it and not on it.  The passage is held out of the answer, and what repeats it too: to find copies of where
a query was made is no task.  The true best of the other passages come from scoring everything; each effort is then
tried on them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from crisp_rag.index.candidates.lists import EFFORTS, Effort

QUERIES = 64
AT = 10
_MOVED = 0.6
"""The length of what is added to a vector, in lengths of it."""
_REPEATS = 0.8
"""A passage repeats another one where it has so much of the score that the other one has itself."""
_DEPTH = 64
"""Of how many of the best passages those that are held out are taken."""
_SEED = 20240612

VectorsOf = Callable[[int], np.ndarray]
"""The (vectors, dim) float32 of a passage by its position."""
Answer = Callable[[np.ndarray, int, Effort, np.ndarray], np.ndarray]
"""The positions of the k best passages that an effort finds among those at some positions."""
Truth = Callable[[Sequence[np.ndarray], int], Sequence[np.ndarray]]
"""The positions of the k best passages of each query, best first."""


class Made(NamedTuple):
    """A query: (vectors, dim) float32, and the vectors that it was made of."""

    query: np.ndarray
    source: np.ndarray


def made_queries(vectors_of: VectorsOf, passages: int, queries: int) -> list[Made]:
    """Some queries.

    Args:
        vectors_of: Gives the vectors of a passage.
        passages: How many there are.
        queries: How many to make.
    """
    random = np.random.default_rng(_SEED)
    made = []
    for passage in random.choice(passages, size=min(queries, passages), replace=False).tolist():
        own = vectors_of(passage)
        # As many as a query has: 8 of a passage's 32, 4 of its 8, the paper's pairs of budgets.
        chosen = own[random.choice(len(own), size=min(len(own), round(math.sqrt(2 * len(own)))), replace=False)]
        moved = random.normal(size=chosen.shape) / np.sqrt(chosen.shape[1])
        query = (chosen + _MOVED * np.linalg.norm(chosen, axis=1, keepdims=True) * moved).astype(np.float32)
        made.append(Made(query, chosen))
    return made


def measure(
    queries: Sequence[Made], passages: int, vectors_of: VectorsOf, truth: Truth, answer: Answer
) -> tuple[float, ...]:
    """The recall@10 of each of :data:`EFFORTS`, never falling.

    Args:
        queries: What :func:`made_queries` gives.
        passages: How many passages there are.
        vectors_of: Gives the vectors of a passage.
        truth: Gives the right answers.
        answer: Searches.
    """
    shares = []
    for made, best in zip(queries, truth([made.query for made in queries], _DEPTH), strict=True):
        repeats = np.array([_score(made.source, vectors_of(int(passage))) for passage in best])
        repeating = repeats >= _REPEATS * _score(made.source, made.source)
        wanted = best[~repeating][:AT]
        if len(wanted):
            others = np.delete(np.arange(passages), best[repeating])
            shares.append([np.isin(wanted, answer(made.query, AT, effort, others)).mean() for effort in EFFORTS])
    if not shares:
        return ()
    return tuple(np.maximum.accumulate(np.mean(shares, axis=0)).tolist())


def _score(query: np.ndarray, passage: np.ndarray) -> float:
    return float((query @ passage.T).max(axis=1).sum())
