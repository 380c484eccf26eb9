"""What a reader is, and what it says: an answer whose every sentence names what supports it.

    class MyReader:
        def read(self, question, hits):
            ...
            return Answer(question, text, True, 0.9, sources)

A reader gets a question and the passages that were found for it.  :class:`crisp_rag.pipelines.extractive.ExtractiveReader`
quotes; :class:`crisp_rag.pipelines.llm.LLMReader` lets a language model write and checks what it wrote.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from crisp_rag.index.types import Hit
from crisp_rag.pipelines.sentences import Sentence

_PLACES = ("sheet", "slide", "chapter", "cell", "row", "record")
NOT_FOUND = "The documents do not hold an answer to that."


@dataclass(frozen=True, slots=True)
class Source:
    """A quote and where it stands: ``start`` and ``end`` are code points in the extracted text of the file ``path``.

    ``id`` is the passage's; ``score`` is the reader's for this quote; ``place`` is where in the file the passage stands, in
    words: ``page 3``, ``sheet Prices, row 4``; empty where that is not known.  ``standing`` is what the passage says of its
    own validity, where that matters: ``2023, superseded``.
    """

    id: str
    path: str
    start: int
    end: int
    quote: str
    score: float
    place: str = ""
    standing: str = ""


@dataclass(frozen=True, slots=True)
class Statement:
    """A sentence of an answer and what supports it.

    Args:
        text: The sentence, without citation marks.
        sources: The quotes that support it, best first; empty for one that nothing supports.
        support: In [-1, 1]: how well the best of the passages holds what the sentence says, by MaxSim; 1 for words
            that are quoted as they stand.
        supported: Whether that is enough.
    """

    text: str
    sources: tuple[Source, ...]
    support: float
    supported: bool

    @property
    def ids(self) -> tuple[str, ...]:
        """The passages that support it."""
        return tuple(dict.fromkeys(source.id for source in self.sources))


@dataclass(frozen=True, slots=True)
class ContextUse:
    """What a prompt's passages took.

    Args:
        tokens: Tokens of what was kept.
        full_tokens: Tokens of the passages whole.
        passages: Passages of which something was kept.
        sentences: Sentences kept.
        full_sentences: Sentences of the passages whole.
    """

    tokens: int
    full_tokens: int
    passages: int
    sentences: int
    full_sentences: int

    @property
    def saved(self) -> float:
        """The share of tokens that was left out, in [0, 1]."""
        return 1 - self.tokens / self.full_tokens if self.full_tokens else 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a reader says.

    Args:
        question: What was asked.
        text: The answer, or a sentence that there is none.
        answered: Whether there is one.
        evidence: What the reader's threshold is applied to; higher is surer.
        sources: The quotes that the answer rests on, best first; empty where there is none.
        statements: The answer sentence by sentence; empty where there is none.
        span: The words of a quote that answer by themselves, where the reader looks for them.
        nearest: Where the reader declined: what it would have quoted.  Nothing to show as an answer.
        nearest_span: Where it declined: the span it would have named.
        context: What the prompt took; None without one.
        note: What else there is to know: that quotes disagree, or that a model's words were not used and why.
    """

    question: str
    text: str
    answered: bool
    evidence: float
    sources: list[Source] = field(default_factory=list)
    statements: list[Statement] = field(default_factory=list)
    span: Source | None = None
    nearest: list[Source] = field(default_factory=list)
    nearest_span: Source | None = None
    context: ContextUse | None = None
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """``{answer, sources, answered, evidence, span, statements, context, note}``, ready for JSON."""
        return {
            "answer": self.text,
            "sources": [asdict(source) for source in self.sources],
            "answered": self.answered,
            "evidence": self.evidence,
            "span": asdict(self.span) if self.span else None,
            "statements": [{**asdict(statement), "ids": list(statement.ids)} for statement in self.statements],
            "context": {**asdict(self.context), "saved": self.context.saved} if self.context else None,
            "note": self.note,
        }


class Reader(Protocol):
    """Turns a question and the passages found for it into an answer.

    A reader that is faster on several questions at once may have ``read_batch(questions, hits) -> list[Answer]`` too.
    """

    def read(self, question: str, hits: Sequence[Hit]) -> Answer:
        """An answer whose sources are among the hits."""


def source_of(hit: Hit, sentence: Sentence, score: float) -> Source:
    """A sentence of a hit as a source."""
    origin = int(hit.metadata.get("start", 0) or 0)
    path = str(hit.metadata.get("source", "") or "")
    start, end = origin + sentence.start, origin + sentence.end
    return Source(hit.id, path, start, end, sentence.text, score, place_in_words(hit.metadata))


def place_in_words(metadata: Mapping[str, Any]) -> str:
    """Where a passage stands in its file, as its metadata knows it: ``pages 3-4``, ``slide 2``."""
    parts = []
    page, last = metadata.get("page"), metadata.get("last_page")
    if page is not None:
        parts.append(f"pages {page}-{last}" if last is not None else f"page {page}")
    parts += [f"{name} {metadata[name]}" for name in _PLACES if metadata.get(name) is not None]
    return ", ".join(parts)
