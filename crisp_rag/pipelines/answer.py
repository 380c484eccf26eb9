"""From a question to an answer with its sources.

    answer = ask(index, "how long do refunds take?")
    print(answer.text if answer.answered else "The documents do not say.")
    for source in answer.sources:
        print(source.path, source.start, source.end, source.quote)

The extractive reader needs no LLM: it scores the sentences of the best passages with the encoder that found the
passages, and quotes the best ones word for word.  It answers only where its evidence clears a threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from crisp_rag.index.types import Hit, Where
from crisp_rag.pipelines.sentences import Sentence, split_sentences

if TYPE_CHECKING:
    from crisp_rag.index.crisp_index import CrispIndex

NOT_FOUND = "The documents do not hold an answer to that."
DEFAULT_K = 5
DEFAULT_THRESHOLD = 0.53
PASSAGE_WEIGHT = 0.5


@dataclass(frozen=True, slots=True)
class Source:
    """A quote and where it stands: ``start`` and ``end`` are code points in the extracted text of the file ``path``."""

    id: str
    path: str
    start: int
    end: int
    quote: str
    score: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What a reader says.  ``evidence`` in [-1, 1] is what the threshold is applied to."""

    question: str
    text: str
    answered: bool
    evidence: float
    sources: list[Source] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """``{answer, sources, answered, evidence}``, ready for JSON."""
        return {
            "answer": self.text,
            "sources": [asdict(source) for source in self.sources],
            "answered": self.answered,
            "evidence": self.evidence,
        }


class Reader(Protocol):
    """Turns a question and the passages found for it into an answer."""

    def read(self, question: str, hits: Sequence[Hit]) -> Answer:
        """An answer whose sources are among the hits."""


class ExtractiveReader:
    """Quotes the sentences that answer best.

    A sentence scores its own relevance to the question (MaxSim over the largest possible MaxSim, in [-1, 1]) plus
    ``passage_weight`` times that of its passage, over 1 + ``passage_weight``.

    Args:
        encoder: The encoder of the index.
        max_sentences: Sentences to quote at most.
        threshold: Evidence below it means that the documents do not hold the answer.
        keep: A further sentence is quoted if it scores at least this share of the best one.
        passage_weight: How much the passage counts beside the sentence.
    """

    def __init__(
        self,
        encoder: Any,
        *,
        max_sentences: int = 2,
        threshold: float = DEFAULT_THRESHOLD,
        keep: float = 0.9,
        passage_weight: float = PASSAGE_WEIGHT,
    ) -> None:
        self.encoder = encoder
        self.max_sentences = max_sentences
        self.threshold = threshold
        self.keep = keep
        self.passage_weight = passage_weight

    def read(self, question: str, hits: Sequence[Hit]) -> Answer:
        candidates = [(hit, sentence) for hit in hits for sentence in split_sentences(hit.text)]
        if not candidates:
            return Answer(question, NOT_FOUND, False, 0.0)
        scores = self._scores(question, candidates)
        order = np.argsort(-scores, kind="stable")
        evidence = float(scores[order[0]])
        if evidence < self.threshold:
            return Answer(question, NOT_FOUND, False, evidence)
        sources: list[Source] = []
        for position in order:
            hit, sentence = candidates[position]
            if len(sources) == self.max_sentences or scores[position] < self.keep * evidence:
                break
            if all(source.quote != sentence.text for source in sources):
                sources.append(_source(hit, sentence, float(scores[position])))
        return Answer(question, " ".join(source.quote for source in sources), True, evidence, sources)

    def _scores(self, question: str, candidates: Sequence[tuple[Hit, Sentence]]) -> np.ndarray:
        """(candidates,) sentence scores in [-1, 1]."""
        query = self.encoder.encode_query(question)
        bound = float(np.linalg.norm(query, axis=1).sum()) or 1.0
        vectors = self.encoder.encode_document([sentence.text for _, sentence in candidates])
        own = np.array([float((query @ document.T).max(axis=1).sum()) / bound for document in vectors])
        passage = np.array([hit.relevance for hit, _ in candidates])
        return (own + self.passage_weight * passage) / (1 + self.passage_weight)


def ask(
    index: CrispIndex,
    question: str,
    *,
    k: int = DEFAULT_K,
    where: Where | None = None,
    reader: Reader | None = None,
) -> Answer:
    """Search the index and read the answer out of what it finds.

    Args:
        index: Where to look.
        question: Plain words; blank ones raise InvalidInputError.
        k: Passages to read.
        where: A filter on their metadata.
        reader: Extractive by default.
    """
    hits = index.search(question, k, where)
    return (reader or ExtractiveReader(index.encoder)).read(question, hits)


def _source(hit: Hit, sentence: Sentence, score: float) -> Source:
    origin = int(hit.metadata.get("start", 0) or 0)
    path = str(hit.metadata.get("source", "") or "")
    return Source(hit.id, path, origin + sentence.start, origin + sentence.end, sentence.text, score)
