"""The queries on which a system and the baseline differ most, with the texts and the vectors that met.

for difference in differences(outcome):
    print(difference.system, difference.won, difference.lost)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from crisp_rag.eval.datasets import Dataset
from crisp_rag.eval.explain import TextVector, explain
from crisp_rag.eval.records import Record

if TYPE_CHECKING:
    from crisp_rag.eval.runner import Outcome

METRIC = "nDCG@10"
SHOWN = 3
"""Wins, and losses, of a system that are shown."""
EXCERPT = 700
_WORDS_SHOWN = 8


@dataclass(frozen=True, slots=True)
class ShownDocument:
    """A document of an example; ranks are None where it is not among the hits, the grade where nobody judged it."""

    id: str
    title: str
    text: str
    grade: int | None
    relevant: bool
    rank: int | None
    baseline_rank: int | None


@dataclass(frozen=True, slots=True)
class MatchRow:
    """A query vector, and what it met in each of the documents shown: the words, and its part of the document's score."""

    query: str
    met: list[tuple[str, float]]


@dataclass(frozen=True, slots=True)
class Example:
    """A query on which the two differ.

    Args:
        query_id, query: Which.
        value, baseline_value: nDCG@10 of the system and of the baseline.
        documents: The first hit of the system and that of the baseline; where they are the same, the relevant document
            whose ranks differ most beside it.
        rows: By query vector, of the system's encoder or else the baseline's; empty if neither has one.
        explained_by: Whose encoder that is.
    """

    query_id: str
    query: str
    value: float
    baseline_value: float
    documents: list[ShownDocument]
    rows: list[MatchRow] = field(default_factory=list)
    explained_by: str = ""

    @property
    def totals(self) -> list[float]:
        """The score of each document: what its column of the rows adds up to."""
        return [sum(row.met[column][1] for row in self.rows) for column in range(len(self.documents))]

    @property
    def highest(self) -> float:
        """The highest score in the rows."""
        return max((score for row in self.rows for _, score in row.met), default=0.0)


@dataclass(frozen=True, slots=True)
class Difference:
    """How often a system is ahead of the baseline on single queries, and where most."""

    dataset: str
    system: str
    baseline: str
    won: int
    tied: int
    lost: int
    wins: list[Example]
    losses: list[Example]


def differences(outcome: Outcome, shown: int = SHOWN) -> list[Difference]:
    """Each retriever against the baseline, on each data set that both were measured on."""
    baseline = outcome.suite.baseline_name
    found = []
    for name, dataset in outcome.datasets.items():
        for system in outcome.systems:
            own, other = outcome.cells.get((name, system)), outcome.cells.get((name, baseline))
            if system != baseline and own is not None and other is not None:
                found.append(_difference(outcome, dataset, system, own, other, shown))
    return found


def _difference(outcome: Outcome, dataset: Dataset, system: str, own: Record, other: Record, shown: int) -> Difference:
    baseline = outcome.suite.baseline_name
    change = {query: own.per_query[query][METRIC] - other.per_query[query][METRIC] for query in dataset.queries}
    ordered = sorted(change, key=lambda query: (-change[query], query))
    wins = [query for query in ordered if change[query] > 0]
    losses = [query for query in reversed(ordered) if change[query] < 0]
    owner, encoder = _explaining(outcome, (system, baseline))

    def examples(queries: Sequence[str]) -> list[Example]:
        return [_example(dataset, query, own, other, owner, encoder) for query in queries[:shown]]

    return Difference(
        dataset.name, system, baseline, len(wins), len(change) - len(wins) - len(losses), len(losses),
        examples(wins), examples(losses),
    )  # fmt: skip


def _explaining(outcome: Outcome, names: Sequence[str]) -> tuple[str, Any]:
    """The first of the systems that has a multi-vector encoder which shows its tokens, and the encoder."""
    for name in names:
        system: Any = outcome.systems[name]
        encoder = system.encoder() if hasattr(system, "encoder") else None
        if hasattr(encoder, "encode_tokens"):
            return name, encoder
    return "", None


def _example(dataset: Dataset, query: str, own: Record, other: Record, owner: str, encoder: Any) -> Example:
    ranks, baseline_ranks = _ranks(own, query), _ranks(other, query)
    ids = list(dict.fromkeys([*list(ranks)[:1], *list(baseline_ranks)[:1]]))
    if len(ids) < 2:
        ids += _most_moved(dataset, query, ranks, baseline_ranks, ids)
    documents = [_shown(dataset, query, id_, ranks, baseline_ranks) for id_ in ids]
    rows = []
    if encoder is not None:
        told = [explain(encoder, dataset.queries[query], dataset.corpus[id_].encoded_text) for id_ in ids]
        rows = [MatchRow(_words(met[0].query), [(_words(each.document), each.score) for each in met]) for met in zip(*told)]
        rows.sort(key=lambda row: -max(score for _, score in row.met))
    return Example(
        query, dataset.queries[query], own.per_query[query][METRIC], other.per_query[query][METRIC],
        documents, rows, owner,
    )  # fmt: skip


def _ranks(record: Record, query: str) -> dict[str, int]:
    return {id_: rank for rank, (id_, _) in enumerate(record.run.get(query, ()), start=1)}


def _most_moved(
    dataset: Dataset, query: str, ranks: Mapping[str, int], baseline_ranks: Mapping[str, int], but: Sequence[str]
) -> list[str]:
    """The relevant document, if there is one, whose two ranks differ most."""
    behind = 1 + max(len(ranks), len(baseline_ranks))
    judged = {id_: grade for id_, grade in dataset.qrels[query].items() if id_ in dataset.corpus and id_ not in but}
    relevant = [id_ for id_, grade in judged.items() if grade >= dataset.binary_threshold]
    relevant.sort(key=lambda id_: -abs(1 / ranks.get(id_, behind) - 1 / baseline_ranks.get(id_, behind)))
    return relevant[:1]


def _shown(
    dataset: Dataset, query: str, id_: str, ranks: Mapping[str, int], baseline_ranks: Mapping[str, int]
) -> ShownDocument:
    document, grade = dataset.corpus[id_], dataset.qrels[query].get(id_)
    text = " ".join(document.text.split())
    return ShownDocument(
        id_, document.title, text if len(text) <= EXCERPT else text[:EXCERPT].rsplit(" ", 1)[0] + " …", grade,
        grade is not None and grade >= dataset.binary_threshold, ranks.get(id_), baseline_ranks.get(id_),
    )  # fmt: skip


def _words(vector: TextVector) -> str:
    if vector.whole:
        return "the whole text"
    if not vector.words:
        return "special tokens"
    more = len(vector.words) - _WORDS_SHOWN
    return " · ".join(vector.words[:_WORDS_SHOWN]) + (f" · and {more} more" if more > 0 else "")
