"""Fitting passages into a prompt: the sentences that the question's vectors match, as many as the budget allows.

    packed = pack(examined, budget=1200, count=count_tokens)
    packed.use.saved                    # share of the passages' tokens that were left out

Each token of the question has a best match somewhere in a passage.  A sentence is worth what it adds to the matches that
the sentences kept so far give: sentences are taken greedily, the most per token first, until the kept ones reach the
share ``coverage`` of the whole passage's MaxSim.  What only repeats, and what the question does not touch, is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from crisp_rag.errors import InvalidInputError
from crisp_rag.index.types import Hit
from crisp_rag.pipelines.evidence import ReadPassage
from crisp_rag.pipelines.extractive import Examined
from crisp_rag.pipelines.reading import ContextUse

DEFAULT_BUDGET = 1200
COVERAGE = 0.97
GAP = " … "


@dataclass(frozen=True, slots=True)
class Block:
    """What the prompt holds of one passage.

    Args:
        hit: The passage.
        number: Its number among the hits that were read, from 0.
        sentences: Numbers of the sentences kept, in order.
        text: What stands in the prompt: these sentences, an ellipsis where some were left out between them.
    """

    hit: Hit
    number: int
    sentences: tuple[int, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Packed:
    """The blocks of a prompt, best passage first, and what they take."""

    blocks: list[Block]
    use: ContextUse


def pack(
    examined: Examined, *, budget: int = DEFAULT_BUDGET, count: Callable[[str], int], coverage: float | None = COVERAGE
) -> Packed:
    """Choose what of the passages a prompt holds.

    Args:
        examined: The question and its passages, as the extractive reader sees them.
        budget: Tokens at most.  The best sentence is kept in any case.
        count: Counts the tokens of a text.
        coverage: Share of a passage's MaxSim, in (0, 1], at which enough of its sentences are kept; None keeps all
            sentences that fit.

    Raises:
        InvalidInputError: for a budget below 1 or a coverage outside (0, 1].
    """
    if budget < 1:
        raise InvalidInputError(f"The budget is a number of tokens from 1 on, got {budget}.")
    if coverage is not None and not 0 < coverage <= 1:
        raise InvalidInputError(f"coverage is a share above 0, at most 1, got {coverage}.")
    chosen: dict[int, list[int]] = {}
    lengths = [[count(sentence.text) for sentence in passage.sentences] for passage in examined.passages]
    left = budget
    for number, sentence in _in_order(examined, lengths, coverage):
        cost = lengths[number][sentence]
        if cost <= left or not chosen:
            chosen.setdefault(number, []).append(sentence)
            left -= cost
    blocks = [_block(examined, number, sorted(kept)) for number, kept in sorted(chosen.items())]
    return Packed(
        blocks,
        ContextUse(
            tokens=sum(count(block.text) for block in blocks),
            full_tokens=sum(count(hit.text) for hit in examined.hits),
            passages=len(blocks),
            sentences=sum(len(block.sentences) for block in blocks),
            full_sentences=sum(len(passage.sentences) for passage in examined.passages),
        ),
    )


def _in_order(examined: Examined, lengths: Sequence[Sequence[int]], coverage: float | None) -> list[tuple[int, int]]:
    """(passage, sentence), what should be in the prompt first: the best sentence, then passage after passage."""
    order: list[tuple[int, int]] = []
    if examined.candidates:
        order.append((examined.candidates[0].hit, examined.candidates[0].sentence))
    for number, passage in enumerate(examined.passages):
        if not passage.sentences:
            continue
        if coverage is None:
            kept = list(range(len(passage.sentences)))
        else:
            kept = covering(passage, examined.matches[number], lengths[number], coverage)
        order += [(number, sentence) for sentence in kept if (number, sentence) not in order[:1]]
    return order


def covering(passage: ReadPassage, match: np.ndarray, lengths: Sequence[int], coverage: float) -> list[int]:
    """The sentences that together reach a share of the passage's MaxSim, in the order in which they were taken.

    The first is the one with the highest MaxSim of its own; each further one adds the most per token.

    Args:
        passage: The passage.
        match: Its (question tokens, passage tokens) inner products.
        lengths: Tokens of each sentence.
        coverage: In (0, 1].
    """
    scores = np.maximum(passage.token_scores(match), 0.0)
    wanted = coverage * float(scores.max(axis=0).sum())
    first = int(scores.sum(axis=1).argmax())
    taken, reached = [first], scores[first].copy()
    cost = np.maximum(np.asarray(lengths, dtype=float), 1.0)
    while reached.sum() < wanted and len(taken) < len(scores):
        gain = np.maximum(scores - reached, 0.0).sum(axis=1) / cost
        gain[taken] = -1.0
        best = int(gain.argmax())
        if gain[best] <= 0:
            break
        taken.append(best)
        reached = np.maximum(reached, scores[best])
    return taken


def _block(examined: Examined, number: int, kept: list[int]) -> Block:
    passage, hit = examined.passages[number], examined.hits[number]
    parts: list[str] = []
    for position, sentence in enumerate(kept):
        span = passage.sentences[sentence]
        if position and sentence == kept[position - 1] + 1:
            parts.append(hit.text[passage.sentences[sentence - 1].end : span.start])
        elif position:
            parts.append(GAP)
        parts.append(span.text)
    return Block(hit, number, tuple(kept), "".join(parts))
