"""Whether a search scores everything or looks at candidates: a choice by size, and what it was goes with the result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from crisp_rag.errors import InvalidInputError

DEFAULT_RECALL = 0.99
EXACT_VECTORS = 65_536
"""Vectors up to which everything is scored, 2,048 passages of 32, and kept decoded: 100 MB of float32 at 384 dims."""
_FEW_OF = 4
"""Where more than one passage in that many is wanted, looking for candidates saves nothing."""

Method = Literal["exact", "approximate"]


@dataclass(frozen=True, slots=True)
class SearchInfo:
    """How a result was found.

    Args:
        method: ``exact`` where every passage that the filter keeps was scored, else ``approximate``.
        passages: How many passages there were to choose from, after the filter.
        looked_at: How many of them got a first look; all of them for an exact search.
        scored: How many were scored in full.
        target_recall: The share of the true best ten that was asked for; None for an exact search.
        measured_recall: What that effort reached on queries made from passages when the index was calibrated; None
            where it was not measured.
    """

    method: Method
    passages: int
    looked_at: int
    scored: int
    target_recall: float | None = None
    measured_recall: float | None = None


def check_recall(target_recall: float | None) -> float:
    """The recall to aim for.

    Raises:
        InvalidInputError: if it is not above 0 and at most 1.
    """
    if target_recall is None:
        return DEFAULT_RECALL
    if isinstance(target_recall, bool) or not isinstance(target_recall, (int, float)) or not 0 < target_recall <= 1:
        raise InvalidInputError(f"target_recall is above 0 and at most 1, such as 0.95, got {target_recall!r}.")
    return float(target_recall)


def method_for(vectors: int, passages: int, k: int, *, exact: bool = False, target_recall: float = DEFAULT_RECALL) -> Method:
    """Exact where it is asked for, where it is fast, and where most passages would be candidates anyway.

    Args:
        vectors: Live vectors of the index.
        passages: Passages to choose from, after the filter.
        k: How many are wanted.
        exact: The user's word.
        target_recall: 1 asks for everything, and only an exact search gives that.
    """
    if exact or target_recall >= 1 or vectors <= EXACT_VECTORS or k * _FEW_OF >= passages:
        return "exact"
    return "approximate"
