"""How well a splitter's chunks hold just what answers a question: recall, precision and IoU of spans.

    scores = chunking_scores(references=[(27346, 27425)], retrieved=[(27000, 27800), (100, 900)])

The measures of Smith and Troynikov, "Evaluating Chunking Strategies for Retrieval" (Chroma, 2024), as their published code
computes them: over spans of characters, where the report speaks of tokens.  ``references`` are the excerpts that answer
a question, ``retrieved`` the chunks that a search returned for it, all as (start, end) in one text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from crisp_rag.errors import InvalidInputError

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class ChunkingScores:
    """Figures of one question, or their means.

    Args:
        recall: Share of the excerpts that the chunks hold.
        precision: Share of the chunks that is excerpt; what two chunks both hold counts once above and twice below.
        iou: What both have in common, over the chunks and what they miss of the excerpts.
    """

    recall: float
    precision: float
    iou: float


def chunking_scores(references: Sequence[Span], retrieved: Sequence[Span], elsewhere: int = 0) -> ChunkingScores:
    """The figures of one question.

    Args:
        references: The excerpts that answer it.
        retrieved: The chunks found in the same text.
        elsewhere: Length of the chunks found in other texts: they only cost precision.

    Raises:
        InvalidInputError: if there is no excerpt, or a span ends before it starts.
    """
    if not references:
        raise InvalidInputError("A question needs at least one excerpt that answers it.")
    for start, end in (*references, *retrieved):
        if end < start or start < 0:
            raise InvalidInputError(f"A span starts at 0 or later and ends no earlier than it starts, got ({start}, {end}).")
    wanted = sum(end - start for start, end in references)
    if not wanted:
        raise InvalidInputError("The excerpts have no length.")
    common = _length(
        [
            (max(start, first), min(end, last))
            for start, end in references
            for first, last in retrieved
            if max(start, first) < min(end, last)
        ]
    )
    missed = _length(references) - common
    taken = sum(end - start for start, end in retrieved) + elsewhere
    return ChunkingScores(
        recall=common / wanted,
        precision=common / taken if taken else 0.0,
        iou=common / (taken + missed) if taken + missed else 0.0,
    )


def mean_scores(scores: Sequence[ChunkingScores]) -> ChunkingScores:
    """The mean of each figure; zeros for no questions."""
    count = max(1, len(scores))
    return ChunkingScores(
        sum(each.recall for each in scores) / count,
        sum(each.precision for each in scores) / count,
        sum(each.iou for each in scores) / count,
    )


def _length(spans: Sequence[Span]) -> int:
    """Of the union of spans."""
    total, reached = 0, 0
    for start, end in sorted(spans):
        if end > max(reached, start):
            total += end - max(reached, start)
            reached = end
    return total
