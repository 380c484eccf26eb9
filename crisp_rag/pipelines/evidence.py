"""How well each sentence of a passage matches a question, from the token vectors of the whole passage.

    vectors = PassageVectors(encoder)
    question = vectors.question("how long do refunds take?")
    (passage,) = vectors.passages(hits[:1])
    match = passage.match(question)             # (question tokens, passage tokens) cosines
    passage.sentence_scores(match, question)    # (sentences,) in [-1, 1]

A passage is encoded once, and a sentence is the vectors of its own tokens there (late chunking, arXiv 2409.04701): "it"
in the third sentence still knows what the first was about.  What was encoded is kept, so that many questions on the same
passages cost one encoding.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crisp_rag.forking import Lock
from crisp_rag.index.types import Hit
from crisp_rag.pipelines.sentences import Sentence, split_sentences

CAPACITY = 2048
"""Passages whose vectors are kept: about 0.12 MB each for 384 dims."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question's token vectors.

    Args:
        text: The question.
        vectors: (tokens, dim) float32, as long as the token counts.
        weights: (tokens,) their lengths.
        offsets: Where each token stands in the text; None for an encoder that does not say.
    """

    text: str
    vectors: np.ndarray
    weights: np.ndarray
    offsets: list[tuple[int, int]] | None

    @property
    def bound(self) -> float:
        """The largest MaxSim that it can get."""
        return float(self.weights.sum()) or 1.0


@dataclass(frozen=True, slots=True)
class ReadPassage:
    """A passage's sentences and vectors.

    Args:
        sentences: In order.
        vectors: (tokens, dim) float16 unit vectors, of the passage's tokens.
        bounds: (sentences, 2): a sentence's first row in ``vectors``, and the one behind its last.
    """

    sentences: list[Sentence]
    vectors: np.ndarray
    bounds: np.ndarray

    def match(self, question: Question) -> np.ndarray:
        """(question tokens, passage tokens) inner products; float32."""
        return question.vectors @ self.vectors.astype(np.float32).T

    def token_scores(self, match: np.ndarray) -> np.ndarray:
        """(sentences, question tokens): the best inner product of each question token in each sentence."""
        return np.array([match[:, first:end].max(axis=1) for first, end in self.bounds]).reshape(-1, len(match))

    def sentence_scores(self, match: np.ndarray, question: Question) -> np.ndarray:
        """(sentences,) MaxSim over the largest that the question could get, in [-1, 1]."""
        return self.token_scores(match).sum(axis=1) / question.bound


class PassageVectors:
    """Encodes questions and passages for reading.

    Args:
        encoder: An encoder.  One that pools is asked for its token vectors where it has ``with_pooling``; of one that has
            not, sentences are encoded by themselves.
        capacity: Passages to remember, the least recently read are forgotten first.
    """

    def __init__(self, encoder: Any, capacity: int = CAPACITY) -> None:
        self.tokens = encoder.with_pooling("none") if hasattr(encoder, "with_pooling") else encoder
        self.capacity = capacity
        self._counter = _counting_tokenizer(self.tokens)
        self._known: OrderedDict[tuple[str, str, str], ReadPassage] = OrderedDict()
        self._guard = Lock()

    def question(self, text: str) -> Question:
        """One question's vectors."""
        return self.questions([text])[0]

    def questions(self, texts: Sequence[str]) -> list[Question]:
        """Several questions' vectors, encoded together."""
        found = self.tokens.encode_query(list(texts))
        questions = []
        for text, vectors in zip(texts, found, strict=True):
            offsets = self._offsets(text, "query")
            fits = offsets is not None and len(offsets) == len(vectors)
            questions.append(Question(text, vectors, np.linalg.norm(vectors, axis=1), offsets if fits else None))
        return questions

    def passages(self, hits: Sequence[Hit]) -> list[ReadPassage]:
        """The passages of hits, in order; those not yet known are encoded together."""
        keys = [(hit.context, hit.text, str(hit.metadata.get("format") or "")) for hit in hits]
        with self._guard:
            found = {key: self._known[key] for key in keys if key in self._known}
        missing = list(dict.fromkeys(key for key in keys if key not in found))
        if missing:
            found.update(zip(missing, self._encode(missing), strict=True))
        with self._guard:
            for key in keys:
                self._known[key] = found[key]
                self._known.move_to_end(key)
            while len(self._known) > self.capacity:
                self._known.popitem(last=False)
        return [found[key] for key in keys]

    def count(self, text: str) -> int:
        """Tokens of a text without special ones, uncut; words, for an encoder without a tokenizer."""
        return len(text.split()) if self._counter is None else len(self._counter.encode(text, add_special_tokens=False))

    def _encode(self, keys: Sequence[tuple[str, str, str]]) -> list[ReadPassage]:
        sentences = [split_sentences(text, format) for _, text, format in keys]
        if self._counter is None:
            return self._alone(sentences)
        texts = [f"{context}\n{text}" if context else text for context, text, _ in keys]
        vectors = self.tokens.encode_document(texts)
        passages = []
        for number, (context, _, _) in enumerate(keys):
            offsets = self._offsets(texts[number], "document")
            if offsets is None or len(offsets) != len(vectors[number]):
                passages += self._alone([sentences[number]])
                continue
            shift = len(context) + 1 if context else 0
            starts = np.array([start for start, _ in offsets])
            ends = np.array([end for _, end in offsets])
            bounds = np.array(
                [_rows(starts, ends, sentence.start + shift, sentence.end + shift) for sentence in sentences[number]],
                dtype=np.int64,
            ).reshape(-1, 2)
            passages.append(self._with_cut_off(sentences[number], vectors[number], bounds))
        return passages

    def _with_cut_off(self, sentences: list[Sentence], vectors: np.ndarray, bounds: np.ndarray) -> ReadPassage:
        """Sentences that the encoder's limit cut off are encoded by themselves, behind the others."""
        blocks = [vectors.astype(np.float16)]
        lacking = [number for number, (first, end) in enumerate(bounds) if first == end]
        if lacking:
            row = len(vectors)
            alone = self.tokens.encode_document([sentences[number].text for number in lacking])
            for number, block in zip(lacking, alone, strict=True):
                bounds[number] = row, row + len(block)
                blocks.append(block.astype(np.float16))
                row += len(block)
        return ReadPassage(sentences, np.concatenate(blocks), bounds)

    def _alone(self, groups: Sequence[list[Sentence]]) -> list[ReadPassage]:
        texts = [sentence.text for sentences in groups for sentence in sentences]
        blocks = iter(self.tokens.encode_document(texts) if texts else [])
        passages = []
        for sentences in groups:
            own = [next(blocks).astype(np.float16) for _ in sentences]
            ends = np.cumsum([len(block) for block in own], dtype=np.int64)
            bounds = np.stack([np.concatenate([[0], ends[:-1]]), ends], axis=1) if own else np.zeros((0, 2), dtype=np.int64)
            passages.append(ReadPassage(sentences, np.concatenate(own) if own else np.zeros((0, 1), np.float16), bounds))
        return passages

    def _offsets(self, text: str, task: str) -> list[tuple[int, int]] | None:
        """Where the token of each vector stands; None if the encoder does not say."""
        spans = self.tokens.token_spans([text], task) if hasattr(self.tokens, "token_spans") else None
        return None if spans is None else spans[0]


def _counting_tokenizer(encoder: Any) -> Any:
    """A copy that never cuts: that is a setting of the tokenizer, which its owner relies on."""
    backend = getattr(getattr(encoder, "tokenizer", None), "backend_tokenizer", None)
    if backend is None:
        return None
    own = type(backend).from_str(backend.to_str())
    own.no_padding()
    own.no_truncation()
    return own


def _rows(starts: np.ndarray, ends: np.ndarray, start: int, end: int) -> tuple[int, int]:
    """The rows of the tokens that overlap ``start`` to ``end``; special tokens, which have no width, do not."""
    rows = np.flatnonzero((ends > starts) & (starts < end) & (ends > start))
    return (int(rows[0]), int(rows[-1]) + 1) if len(rows) else (0, 0)
