"""Finding the passages to read: the index alone, with BM25 beside it, and ranked again.

    hits = retrieve(index, "how long do refunds take?", k=5, hybrid=True, rerank=True)

Hybrid search joins the ranking of the index with BM25's by reciprocal rank fusion (Cormack, Clarke and Buettcher, SIGIR
2009): a passage gets 1 / (60 + rank) from each ranking that has it.  Reranking scores the first ``pool`` passages anew.
"""

from __future__ import annotations

import weakref
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from crisp_rag.errors import InvalidInputError
from crisp_rag.forking import Lock
from crisp_rag.index.types import Hit, Passage, Where, copied
from crisp_rag.pipelines.evidence import PassageVectors

if TYPE_CHECKING:
    from crisp_rag.index.crisp_index import CrispIndex

POOL = 50
RRF_CONSTANT = 60


class Ranker(Protocol):
    """Ranks texts anew: :class:`crisp_rag.retrievers.reranking.Reranker`, or anything else of that shape."""

    def rank(self, query: str, texts: Sequence[str]) -> list[tuple[int, float, float]]:
        """(number, score, relevance in [-1, 1]) of every text, best first."""


def retrieve(
    index: CrispIndex,
    question: str,
    k: int,
    where: Where | None = None,
    *,
    hybrid: bool = False,
    rerank: bool | Ranker | Any = False,
    pool: int = POOL,
    vectors: PassageVectors | None = None,
) -> list[Hit]:
    """The passages to answer a question from.

    Args:
        index: Where to look.
        question: Plain words; blank ones raise InvalidInputError.
        k: Passages at most.
        where: A filter on their metadata; it narrows before any cut.
        hybrid: Join the ranking with BM25's; needs the ``eval`` extra.
        rerank: True ranks the pool again by MaxSim over all token vectors instead of their clusters; or a
            :class:`Ranker`, or a sentence-transformers ``CrossEncoder``.
        pool: Passages of each ranking that are joined or ranked again.
        vectors: Where ``rerank=True`` keeps the token vectors, a reader's for instance; its own for this call by default.

    Returns:
        Hits, best first.  ``relevance`` is always the index encoder's, so that thresholds keep their meaning; ``score``
        is what they were ranked by last.
    """
    if not hybrid and not rerank:
        return index.search(question, k, where)
    if pool < k:
        raise InvalidInputError(f"pool must be at least k, got {pool} for k={k}.")
    hits: list[Hit] = index.search(question, pool, where)
    if hybrid:
        allowed = None if where is None else {passage.id for passage in index.passages(where)}
        hits = _fused(index, hits, _lexical(index).search(question, pool, allowed))
    if rerank:
        hits = _reranked(question, hits[:pool], rerank, vectors or PassageVectors(index.encoder))
    return _with_relevance(index, question, hits[:k])


def fuse(rankings: Sequence[Sequence[str]]) -> list[tuple[str, float]]:
    """(id, score) of every id in any ranking, by reciprocal rank fusion, best first, ties by first appearance."""
    scores: dict[str, float] = {}
    for ranking in rankings:
        for rank, id_ in enumerate(ranking, 1):
            scores[id_] = scores.get(id_, 0.0) + 1 / (RRF_CONSTANT + rank)
    return sorted(scores.items(), key=lambda item: -item[1])


class BM25:
    """BM25 over the passages of an index as they are now: k1 0.9 and b 0.4, English stop words, Snowball stems.

    Args:
        index: The index; its passages' encoded texts are read once.
    """

    def __init__(self, index: CrispIndex) -> None:
        try:
            import bm25s
            import Stemmer
        except ImportError as error:
            raise ImportError("Hybrid search needs bm25s and PyStemmer: pip install 'crisp-rag[eval]'") from error
        self._bm25s, self._stemmer = bm25s, Stemmer.Stemmer("english")
        self._ids = []
        texts = []
        for passage in index.passages():
            self._ids.append(passage.id)
            texts.append(passage.encoded_text)
        tokens = self._tokens(texts)
        self._retriever: Any = None
        if any(tokens):  # bm25s cannot index a corpus without a single word
            self._retriever = bm25s.BM25(k1=0.9, b=0.4)
            self._retriever.index(tokens, show_progress=False)

    def search(self, question: str, k: int, allowed: Collection[str] | None = None) -> list[str]:
        """Ids of the passages that share words with the question, best first, ties in insertion order.

        ``allowed`` names the passages that may be found; all may by default.
        """
        if self._retriever is None:
            return []
        words = [word for word in self._tokens([question])[0] if word in self._retriever.vocab_dict]
        if not words:
            return []
        scores = np.asarray(self._retriever.get_scores(words))
        if allowed is not None:
            scores = np.where([id_ in allowed for id_ in self._ids], scores, 0.0)
        order = np.argsort(-scores, kind="stable")[:k]
        return [self._ids[row] for row in order if scores[row] > 0]

    def _tokens(self, texts: Sequence[str]) -> list[list[str]]:
        return self._bm25s.tokenize(
            list(texts), stopwords="en", stemmer=self._stemmer, return_ids=False, show_progress=False
        )


_built: weakref.WeakKeyDictionary[Any, tuple[int, BM25]] = weakref.WeakKeyDictionary()
_building = Lock()


def _lexical(index: CrispIndex) -> BM25:
    """BM25 over the index as it is now; built anew only after the index has changed."""
    with _building:
        generation = index.generation
        known = _built.get(index)
        if known is None or known[0] != generation:
            known = _built[index] = (generation, BM25(index))
        return known[1]


def _fused(index: CrispIndex, hits: Sequence[Hit], lexical: Sequence[str]) -> list[Hit]:
    by_id = {hit.id: hit for hit in hits}
    ranked = fuse([[hit.id for hit in hits], lexical])
    others = {passage.id: passage for passage in index.get([id_ for id_, _ in ranked if id_ not in by_id])}
    found = []
    for id_, score in ranked:
        if id_ in by_id:
            found.append(replace(by_id[id_], score=score))
        elif id_ in others:
            found.append(_unscored(others[id_], score))
    return found


def _reranked(question: str, hits: Sequence[Hit], rerank: Any, vectors: PassageVectors) -> list[Hit]:
    if rerank is True:
        return _by_tokens(question, hits, vectors)
    if not callable(getattr(rerank, "rank", None)):
        raise InvalidInputError(f"rerank is True or an object with rank(query, texts), got {type(rerank).__name__}.")
    if not hits:
        return []
    ranked = [_number_and_score(row) for row in rerank.rank(question, [_encoded(hit) for hit in hits])]
    return [replace(hits[number], score=score) for number, score in ranked]


def _by_tokens(question: str, hits: Sequence[Hit], vectors: PassageVectors) -> list[Hit]:
    """By MaxSim over all token vectors, ties in the order given."""
    asked = vectors.question(question)
    scored = []
    for hit, passage in zip(hits, vectors.passages(hits), strict=True):
        score = float(passage.match(asked).max(axis=1).sum()) if len(passage.vectors) else 0.0
        scored.append(replace(hit, score=score))
    return sorted(scored, key=lambda hit: -hit.score)


def _number_and_score(row: Any) -> tuple[int, float]:
    """Of our rankers' tuples and of sentence-transformers' dicts."""
    if isinstance(row, dict):
        return int(row["corpus_id"]), float(row["score"])
    return int(row[0]), float(row[1])


def _with_relevance(index: CrispIndex, question: str, hits: list[Hit]) -> list[Hit]:
    """The relevance of hits that BM25 alone has found: their texts are encoded for it, k at most."""
    lacking = [number for number, hit in enumerate(hits) if np.isnan(hit.relevance)]
    if lacking:
        query = index.encoder.encode_query(question)
        bound = float(np.linalg.norm(query, axis=1).sum()) or 1.0
        documents = index.encoder.encode_document([_encoded(hits[number]) for number in lacking])
        for number, document in zip(lacking, documents, strict=True):
            hits[number] = replace(hits[number], relevance=float((query @ document.T).max(axis=1).sum()) / bound)
    return hits


def _unscored(passage: Passage, score: float) -> Hit:
    return Hit(passage.id, score, passage.text, copied(passage.metadata), float("nan"), passage.context)


def _encoded(hit: Hit) -> str:
    return f"{hit.context}\n{hit.text}" if hit.context else hit.text
