"""A threshold for one's own documents: how sure a reader must be to answer, found on questions with known outcome.

found = find_threshold(index, read_questions("questions.jsonl"))
ExtractiveReader(index.encoder, threshold=found.threshold)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crisp_rag.errors import DatasetError, InvalidInputError
from crisp_rag.jsonlines import numbered_lines
from crisp_rag.pipelines.abstention import CurvePoint, best_threshold, risk_curve
from crisp_rag.pipelines.extractive import ExtractiveReader

if TYPE_CHECKING:
    from crisp_rag.index.crisp_index import CrispIndex


@dataclass(frozen=True, slots=True)
class Threshold:
    """A threshold and what it gives.

    Args:
        threshold: Evidence below it is declined.
        answered: Share of the answerable questions that are answered with it.
        declined: Share of the unanswerable ones that are declined.
        answerable: Questions that have an answer.
        unanswerable: Questions that have none.
        curve: What other thresholds give.
    """

    threshold: float
    answered: float
    declined: float
    answerable: int
    unanswerable: int
    curve: list[CurvePoint]

    def to_dict(self) -> dict[str, Any]:
        """The same, ready for JSON."""
        return asdict(self)


def find_threshold(
    index: CrispIndex,
    questions: Sequence[tuple[str, bool]],
    *,
    k: int = 5,
    answered: float | None = None,
    reader: ExtractiveReader | None = None,
) -> Threshold:
    """Ask every question and find the threshold that tells best which have an answer.

    Args:
        index: The documents.
        questions: (question, whether the documents answer it); both kinds are needed.
        k: Passages to read.
        answered: Share of the answerable questions that must be answered; by default both kinds count alike.
        reader: Whose evidence; the default extractive one's.

    Raises:
        InvalidInputError: if a kind of question is missing, or ``answered`` is no share.
    """
    if answered is not None and not 0 < answered <= 1:
        raise InvalidInputError(f"answered is a share above 0, at most 1, got {answered}.")
    reader = reader or ExtractiveReader(index.encoder)
    texts = [text for text, _ in questions]
    labels = [label for _, label in questions]
    examined = reader.examine(texts, index.search_batch(texts, k))
    curve = risk_curve([each.evidence for each in examined], labels)
    threshold = best_threshold(curve, answered)
    point = next(point for point in curve if point.threshold == threshold)
    return Threshold(threshold, point.answered, point.declined, sum(labels), len(labels) - sum(labels), curve)


def read_questions(path: str | Path) -> list[tuple[str, bool]]:
    """(question, answerable) of each line of a JSON lines file with these two fields.

    Raises:
        DatasetError: naming the file and the line, if it is missing or malformed.
    """
    questions = []
    for number, line in numbered_lines(path):
        try:
            row = json.loads(line)
            question, answerable = row["question"], row["answerable"]
        except (ValueError, TypeError, KeyError) as error:
            raise DatasetError(f"{path}, line {number}: expected an object with question and answerable.") from error
        if not isinstance(question, str) or not question.strip() or not isinstance(answerable, bool):
            raise DatasetError(f"{path}, line {number}: question must have words, answerable must be true or false.")
        questions.append((question, answerable))
    return questions
