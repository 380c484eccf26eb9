"""Hard negatives: documents that an encoder ranks high for a query and that do not answer it.

examples = mine_hard_negatives(examples, corpus, load_encoder())
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from crisp_rag.errors import InvalidInputError
from crisp_rag.models.scoring import StackedVectors
from crisp_rag.training.data import Example

if TYPE_CHECKING:
    from crisp_rag.models.encoder import Encoder


def mine_hard_negatives(
    examples: Sequence[Example],
    corpus: Sequence[str],
    encoder: Encoder,
    *,
    negatives: int = 1,
    depth: int = 30,
    margin: float = 0.95,
    seed: int = 0,
    show_progress: bool = False,
) -> list[Example]:
    """Give each example negatives from the corpus.

    Candidates are a query's ``depth`` best documents by MaxSim.  One that scores above ``margin`` x the positive's
    score is likely to be an answer that nobody judged (a false negative), and is left out: the positive-aware
    filter of NV-Retriever (arXiv 2407.15831).  So are all positives of the same query, and equal texts.

    Args:
        examples: What to find negatives for; negatives they have already stay, in front.
        corpus: Texts to choose from; the examples' positives are added.
        encoder: Ranks; its budget is its own.
        negatives: How many an example shall have.
        depth: Candidates a query.
        margin: Highest score of a negative as a share of the positive's, in (0, 1].
        seed: Which of the candidates that are left.
        show_progress: Draw the encoder's progress bars.

    Returns:
        The examples in order; one with too few candidates has fewer negatives.

    Raises:
        InvalidInputError: if ``margin``, ``depth`` or ``negatives`` is out of range.
    """
    if not 0 < margin <= 1 or depth < 1 or negatives < 1:
        raise InvalidInputError(f"Need 0 < margin <= 1, depth and negatives >= 1; got {margin}, {depth}, {negatives}.")
    if not examples:
        return []
    texts = list(dict.fromkeys([*corpus, *(example.positive for example in examples)]))
    position = {text: row for row, text in enumerate(texts)}
    documents = StackedVectors(encoder.encode_document(texts, show_progress=show_progress))
    queries = list(dict.fromkeys(example.query for example in examples))
    row_of = {query: row for row, query in enumerate(queries)}
    vectors = encoder.encode_query(queries, show_progress=show_progress)
    answers = defaultdict(set)
    for example in examples:
        answers[example.query].add(position[example.positive])

    mined = []
    scores_of: dict[str, np.ndarray] = {}
    for example in examples:
        if example.query not in scores_of:
            scores_of = {example.query: documents.scores(vectors[row_of[example.query]])}
        scores = scores_of[example.query]
        limit = margin * scores[position[example.positive]]
        ranked = np.argsort(-scores, kind="stable")[: depth + len(answers[example.query])]
        fit = [row for row in ranked.tolist() if row not in answers[example.query] and scores[row] <= limit][:depth]
        chooser = random.Random(f"{seed}-{example.query}")
        chosen = chooser.sample(fit, min(max(0, negatives - len(example.negatives)), len(fit)))
        mined.append(replace(example, negatives=(*example.negatives, *(texts[row] for row in chosen))))
    return mined
