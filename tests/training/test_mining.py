"""Hard negatives, mined with an encoder whose scores are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from crisp_rag.errors import InvalidInputError
from crisp_rag.training import Example, mine_hard_negatives

SCORES = {"answer": 1.0, "unjudged answer": 0.99, "hard": 0.9, "harder": 0.94, "easy": 0.1, "also judged": 0.93}


class KnownScores:
    """Every query is [1, 0]; a document's first component is its score."""

    def encode_query(self, texts: Sequence[str], **options: Any) -> list[np.ndarray]:
        return [np.array([[1.0, 0.0]], dtype=np.float32) for _ in texts]

    def encode_document(self, texts: Sequence[str], **options: Any) -> list[np.ndarray]:
        return [np.array([[SCORES[text], 0.0], [-1.0, 0.0]], dtype=np.float32) for text in texts]


def _mine(examples: list[Example], **options: Any) -> list[Example]:
    return mine_hard_negatives(examples, list(SCORES), KnownScores(), **options)  # type: ignore[arg-type]


def test_negatives_are_the_best_documents_below_the_margin_and_no_answers() -> None:
    pairs = [Example("q", "answer"), Example("q", "also judged")]
    (first, second) = _mine(pairs, negatives=2, depth=3, margin=0.95)
    assert set(first.negatives) == {"hard", "harder"}  # neither the unjudged answer nor the other judged one
    assert set(second.negatives) <= {"easy"}  # .95 x .93 lies below both hard ones


def test_negatives_given_already_stay_in_front() -> None:
    (mined,) = _mine([Example("q", "answer", negatives=("mine",))], negatives=2, depth=2)
    assert mined.negatives == ("mine", "harder")


def test_depth_limits_the_choice_and_the_seed_decides_it() -> None:
    def picks(depth: int) -> set[tuple[str, ...]]:
        return {_mine([Example("q", "answer")], depth=depth, seed=seed)[0].negatives for seed in range(20)}

    assert picks(2) == {("harder",)}  # the better of the two best is likely to be an answer that nobody judged
    assert picks(4) == {("harder",), ("also judged",), ("hard",)}
    assert _mine([Example("q", "answer")], seed=7) == _mine([Example("q", "answer")], seed=7)


@pytest.mark.parametrize("options", [{"margin": 0.0}, {"margin": 1.1}, {"depth": 0}, {"negatives": 0}])
def test_impossible_settings_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="margin"):
        _mine([Example("q", "answer")], **options)
