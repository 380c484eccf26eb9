"""How good answers are: against reference answers, against the judged passages, and in knowing what is not there.

    scores = evaluate_reader(reader, dataset, hits_by_query, texts, unanswerable_ids)
    scores.token_f1, scores.containment, scores.abstention_auroc

Reading and declining are measured apart.  Exact match, token F1, containment and the citations of an answerable
question take what the reader would have said, whether or not it dared to (:attr:`Answer.nearest`); the abstention
figures take its evidence and its decision over all questions; ``squad_exact`` and ``squad_f1`` put both together, as
SQuAD 2.0 does.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from crisp_rag.errors import InvalidInputError
from crisp_rag.index.types import Hit

if TYPE_CHECKING:
    from crisp_rag.eval.datasets import Dataset
    from crisp_rag.eval.judges import Judge
    from crisp_rag.pipelines.reading import Answer, Reader

BATCH = 256
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True, slots=True)
class AnswerScores:
    """Figures of one reader on one collection; shares in [0, 1], None where there was nothing to measure.

    Args:
        questions: Questions that were read.
        unanswerable: How many of them have no answer in the collection.
        exact_match: Share of answerable questions whose best span is a reference answer, after SQuAD's normalisation.
        token_f1: SQuAD's token F1 of the best span, over answerable questions.
        containment: Share of answerable questions with a reference answer in one of the quotes.
        citation_precision: Share of cited passages that are judged relevant, over answerable questions with citations.
        citation_recall: Share of relevant passages that are cited, over answerable questions.
        answered_containment: As containment, but a declined question counts as a miss: what a user sees.
        squad_exact: SQuAD 2.0's exact match over all questions, declining being right where there is no answer.
        squad_f1: SQuAD 2.0's F1, likewise.
        abstention_accuracy: Share of questions that were answered or declined rightly.
        abstention_auroc: Area under the ROC curve of the evidence, answerable against unanswerable.
        faithfulness: Mean share of an answer's statements that are supported, over answered questions.
        judged_faithfulness: Mean of what a judge says of the answers given; None without a judge.
        context_tokens: Mean tokens of the prompt's passages, over the answers that had a prompt.
        context_saved: Mean share of tokens that compression left out of them.
        failures: What went wrong, by query id, in one sentence each; these questions count as declined.
        per_query: The figures of each question, by query id.
    """

    questions: int
    unanswerable: int
    exact_match: float | None
    token_f1: float | None
    containment: float | None
    citation_precision: float | None
    citation_recall: float | None
    answered_containment: float | None
    squad_exact: float | None
    squad_f1: float | None
    abstention_accuracy: float | None
    abstention_auroc: float | None
    faithfulness: float | None
    judged_faithfulness: float | None
    context_tokens: float | None
    context_saved: float | None
    failures: dict[str, str] = field(default_factory=dict)
    per_query: dict[str, dict[str, Any]] = field(default_factory=dict)

    def to_dict(self, per_query: bool = False) -> dict[str, Any]:
        """The figures, ready for JSON; question by question only if asked for."""
        names = [name for name in self.__dataclass_fields__ if per_query or name != "per_query"]
        return {name: getattr(self, name) for name in names}


def evaluate_reader(
    reader: Reader,
    dataset: Dataset,
    hits_by_query: Mapping[str, Sequence[tuple[str, float, float]]],
    texts: Mapping[str, str],
    unanswerable_ids: Collection[str] = (),
    on_progress: Callable[[int, int], None] | None = None,
    *,
    judge: Judge | None = None,
) -> AnswerScores:
    """Let a reader answer every question of a collection and score what it says.

    Args:
        reader: Anything with ``read``; ``read_batch`` is used where it is there.
        dataset: The questions, answerable and not, their reference answers and the judged passages.
        hits_by_query: (document id, score, relevance) by query id, best first; a query that is not there has none.
        texts: The text of every document that is among the hits.  A title in front of it, on a line of its own, is
            taken off and becomes the hit's context.
        unanswerable_ids: The questions that the collection holds no answer to.
        on_progress: Gets (questions read, of how many).
        judge: Says of each answer given how faithful it is, see :mod:`crisp_rag.eval.judges`; its failures are recorded
            like the reader's.

    Raises:
        InvalidInputError: if an unanswerable id is no query, an answerable query has no reference answer, or a hit
            has no text.

    A call of the reader that fails is recorded in :attr:`AnswerScores.failures` and counts as a declined question.
    """
    unanswerable = frozenset(unanswerable_ids)
    _check(dataset, hits_by_query, texts, unanswerable)
    ids = list(dataset.queries)
    hits = {id_: _hits(hits_by_query.get(id_, ()), dataset, texts) for id_ in ids}
    failures: dict[str, str] = {}
    rows: dict[str, dict[str, Any]] = {}
    for first in range(0, len(ids), BATCH):
        part = ids[first : first + BATCH]
        answers = _read(reader, [(id_, dataset.queries[id_], hits[id_]) for id_ in part], failures)
        for id_ in part:
            gold = None if id_ in unanswerable else dataset.answers[id_]
            relevant = {document for document, grade in dataset.qrels.get(id_, {}).items() if grade > 0}
            rows[id_] = score_answer(answers.get(id_), gold, relevant)
            if judge is not None and rows[id_]["answered"]:
                _judge(judge, answers[id_], hits[id_], rows[id_], id_, failures)
        if on_progress:
            on_progress(first + len(part), len(ids))
    return summarise(rows, failures)


def score_answer(answer: Answer | None, gold: Sequence[str] | None, relevant: Collection[str]) -> dict[str, Any]:
    """The figures of one question.

    Args:
        answer: What the reader said; None if it failed.
        gold: Reference answers; None if the collection holds no answer.
        relevant: Ids of the passages that hold it.
    """
    answered = answer is not None and answer.answered
    row: dict[str, Any] = {"answerable": gold is not None, "answered": answered}
    row["evidence"] = answer.evidence if answer is not None else None
    if answer is not None and answered and answer.statements:
        row["faithfulness"] = sum(statement.supported for statement in answer.statements) / len(answer.statements)
    if answer is not None and answer.context is not None:
        row["context_tokens"], row["context_saved"] = answer.context.tokens, answer.context.saved
    if gold is None:
        row["squad_exact"] = row["squad_f1"] = float(not answered)
        return row
    quotes = (answer.sources or answer.nearest) if answer is not None else []
    text = _best_text(answer)
    row["exact_match"], row["token_f1"] = exact_match(text, gold), token_f1(text, gold)
    row["containment"] = contains(" \n ".join(source.quote for source in quotes), gold)
    row["answered_containment"] = row["containment"] if answered else 0.0
    row["squad_exact"], row["squad_f1"] = (row["exact_match"], row["token_f1"]) if answered else (0.0, 0.0)
    cited = {source.id for source in quotes}
    if cited:
        row["citation_precision"] = len(cited & set(relevant)) / len(cited)
    if relevant:
        row["citation_recall"] = len(cited & set(relevant)) / len(set(relevant))
    return row


def summarise(rows: Mapping[str, Mapping[str, Any]], failures: Mapping[str, str] | None = None) -> AnswerScores:
    """The means of what :func:`score_answer` gave, by query id."""

    def mean(name: str) -> float | None:
        values = [row[name] for row in rows.values() if name in row]
        return float(np.mean(values)) if values else None

    answerable = np.array([row["answerable"] for row in rows.values()], dtype=bool)
    lowest = min((row["evidence"] for row in rows.values() if row["evidence"] is not None), default=0.0) - 1.0
    evidence = np.array([lowest if row["evidence"] is None else row["evidence"] for row in rows.values()])
    right = [row["answerable"] == row["answered"] for row in rows.values()]
    return AnswerScores(
        questions=len(rows),
        unanswerable=int((~answerable).sum()),
        abstention_accuracy=float(np.mean(right)) if rows else None,
        abstention_auroc=auroc(answerable, evidence),
        failures=dict(failures or {}),
        per_query={id_: dict(row) for id_, row in rows.items()},
        **{
            name: mean(name)
            for name in (
                "exact_match", "token_f1", "containment", "citation_precision", "citation_recall", "answered_containment",
                "squad_exact", "squad_f1", "faithfulness", "judged_faithfulness", "context_tokens", "context_saved",
            )
        },
    )  # fmt: skip


def normalise_answer(text: str) -> str:
    """SQuAD's normalisation: lower case, without punctuation, articles and superfluous blanks (arXiv 1606.05250)."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def exact_match(prediction: str, gold: Sequence[str]) -> float:
    """1 if the prediction is one of the reference answers after :func:`normalise_answer`, else 0."""
    wanted = normalise_answer(prediction)
    return float(any(wanted == normalise_answer(answer) for answer in gold))


def token_f1(prediction: str, gold: Sequence[str]) -> float:
    """The best F1 of the prediction's words with a reference answer's, each word as often as both have it."""
    return max((_f1(normalise_answer(prediction).split(), normalise_answer(answer).split()) for answer in gold), default=0.0)


def contains(text: str, gold: Sequence[str]) -> float:
    """1 if the words of a reference answer stand in the text one behind the other, after normalisation, else 0."""
    padded = f" {normalise_answer(text)} "
    return float(any(f" {words} " in padded for answer in gold if (words := normalise_answer(answer))))


def auroc(positive: np.ndarray, values: np.ndarray) -> float | None:
    """The chance that a positive has a higher value than a negative, ties counting half; None if a kind is missing.

    Args:
        positive: (n,) bool.
        values: (n,) finite numbers.
    """
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        return None
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (counts.cumsum() - (counts - 1) / 2)[inverse]  # mean ranks of ties, from 1
    return float((ranks[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def _f1(predicted: list[str], wanted: list[str]) -> float:
    if not predicted or not wanted:
        return float(predicted == wanted)
    common = sum((Counter(predicted) & Counter(wanted)).values())
    return 2 * common / (len(predicted) + len(wanted))


def _best_text(answer: Answer | None) -> str:
    """What an answer comes to in the fewest words."""
    if answer is None:
        return ""
    span = answer.span or answer.nearest_span
    if span is not None:
        return span.quote
    return answer.text if answer.answered else " ".join(source.quote for source in answer.nearest)


def _read(reader: Reader, questions: Sequence[tuple[str, str, list[Hit]]], failures: dict[str, str]) -> dict[str, Answer]:
    """Answers by query id; a batch that fails is read question by question, to find which one it was."""
    batch = getattr(reader, "read_batch", None)
    if batch is not None:
        try:
            answers = batch([text for _, text, _ in questions], [found for _, _, found in questions])
            return {id_: answer for (id_, _, _), answer in zip(questions, answers, strict=True)}
        except Exception:
            pass
    answers_by_id = {}
    for id_, text, found in questions:
        try:
            answers_by_id[id_] = reader.read(text, found)
        except Exception as error:  # whatever a user's reader raises: the other questions are still worth measuring
            failures[id_] = f"{type(error).__name__}: {error}"
    return answers_by_id


def _judge(
    judge: Judge, answer: Answer, hits: Sequence[Hit], row: dict[str, Any], id_: str, failures: dict[str, str]
) -> None:
    try:
        row["judged_faithfulness"] = float(judge(answer, hits))
    except Exception as error:
        failures[id_] = f"judge: {type(error).__name__}: {error}"


def _hits(found: Sequence[tuple[str, float, float]], dataset: Dataset, texts: Mapping[str, str]) -> list[Hit]:
    hits = []
    for id_, score, relevance in found:
        title = dataset.corpus[id_].title if id_ in dataset.corpus else ""
        text = texts[id_]
        if title and text.startswith(f"{title}\n"):
            text = text[len(title) + 1 :]
        hits.append(Hit(id_, score, text, {}, relevance, title))
    return hits


def _check(
    dataset: Dataset,
    hits_by_query: Mapping[str, Sequence[tuple[str, float, float]]],
    texts: Mapping[str, str],
    unanswerable: frozenset[str],
) -> None:
    if strange := next((id_ for id_ in unanswerable if id_ not in dataset.queries), None):
        raise InvalidInputError(f"{strange!r} is among the unanswerable ids and no query of {dataset.name}.")
    lacking = next((id_ for id_ in dataset.queries if id_ not in unanswerable and not dataset.answers.get(id_)), None)
    if lacking is not None:
        raise InvalidInputError(
            f"The query {lacking!r} of {dataset.name} has no reference answer: name it unanswerable, or leave it out."
        )
    missing = next((id_ for found in hits_by_query.values() for id_, _, _ in found if id_ not in texts), None)
    if missing is not None:
        raise InvalidInputError(f"The document {missing!r} is among the hits and has no text.")
