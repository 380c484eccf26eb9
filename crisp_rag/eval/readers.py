"""Answers out of what a system found: the readers that an evaluation knows, and the hits that they are given.

    READERS["mine"] = lambda encoder: MyReader()

Systems differ in what they find alone: within a run one encoder gives the relevance of all hits, which a reader may
lean on, and one reader of each name reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from crisp_rag.errors import InvalidInputError
from crisp_rag.eval.datasets import Dataset
from crisp_rag.eval.encodings import EncodingCache
from crisp_rag.eval.records import Record, Run

READ_DEPTH = 5
"""Hits that a reader gets, as many as ``crisp-rag ask`` reads."""
COMPARED = ("exact_match", "token_f1", "containment", "citation_recall")
"""Figures of single questions that are tested against the baseline."""
Found = dict[str, list[tuple[str, float, float]]]


def _extractive(encoder: Any) -> Any:
    from crisp_rag.pipelines.answer import ExtractiveReader

    return ExtractiveReader(encoder)


READERS: dict[str, Callable[[Any], Any]] = {"extractive": _extractive}


def check_readers(names: Sequence[str]) -> None:
    """Raises InvalidInputError if there is no reader of such a name."""
    for name in names:
        if name not in READERS:
            raise InvalidInputError(f"Unknown reader {name!r}: use {', '.join(READERS)}.")


class Reading:
    """The readers of a run.

    Args:
        load: Makes the encoder, for the relevance of hits and for the readers; called when it is first needed.
        cache: Where vectors of documents may lie.
    """

    def __init__(self, load: Callable[[], Any], cache: EncodingCache) -> None:
        self._load = load
        self._cache = cache
        self._encoder: Any = None
        self._readers: dict[str, Any] = {}

    @property
    def encoder(self) -> Any:
        """The encoder, which encodes a query once."""
        if self._encoder is None:
            self._encoder = _EncodesQueriesOnce(self._load())
        return self._encoder

    def read(
        self, name: str, dataset: Dataset, found: Record, on_progress: Callable[[int, int], None] | None = None
    ) -> Record:
        """What a reader makes of what a system found.

        Args:
            name: Of :data:`READERS`.
            dataset: With answers, and perhaps unanswerable queries.
            found: The record of the system.
            on_progress: Gets (questions read, of how many).
        """
        if name not in self._readers:
            self._readers[name] = READERS[name](self.encoder)
        return _read(self._readers[name], self.encoder, dataset, found, self._cache, on_progress)


class _EncodesQueriesOnce:
    """An encoder that remembers the vectors of every query, also with another pooling."""

    def __init__(self, encoder: Any) -> None:
        self._own = encoder
        self._known: dict[str, np.ndarray] = {}

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._own, name)
        return (lambda *given, **options: _EncodesQueriesOnce(value(*given, **options))) if name == "with_pooling" else value

    def encode_query(self, texts: Any, **options: Any) -> Any:
        asked = [texts] if isinstance(texts, str) else list(texts)
        missing = [text for text in dict.fromkeys(asked) if text not in self._known]
        if missing:
            self._known.update(zip(missing, self._own.encode_query(missing, **options), strict=True))
        found = [self._known[text] for text in asked]
        return found[0] if isinstance(texts, str) else found


def _read(
    reader: Any,
    encoder: Any,
    dataset: Dataset,
    found: Record,
    cache: EncodingCache,
    on_progress: Callable[[int, int], None] | None,
) -> Record:
    from crisp_rag.eval.answers import evaluate_reader

    answerable = {query: text for query, text in dataset.queries.items() if query in dataset.answers}
    asked = replace(dataset, queries={**answerable, **dataset.unanswerable})
    run = {query: hits[:READ_DEPTH] for query, hits in {**found.run, **found.unanswerable}.items() if query in asked.queries}
    hits = with_relevance(encoder, asked, run, cache)
    texts = {id_: dataset.corpus[id_].encoded_text for each in hits.values() for id_, _, _ in each}
    scores = evaluate_reader(reader, asked, hits, texts, set(dataset.unanswerable), on_progress)
    figures = {key: value for key, value in scores.to_dict().items() if value is not None}
    return Record(figures, scores.per_query)


def with_relevance(encoder: Any, dataset: Dataset, run: Run, cache: EncodingCache) -> Found:
    """(id, score, relevance) of every hit: its MaxSim over the largest that the query could get, in [-1, 1]."""
    documents = _document_vectors(encoder, dataset, {id_ for hits in run.values() for id_, _ in hits}, cache)
    queries = [query for query in dataset.queries if run.get(query)]
    vectors = encoder.encode_query([dataset.queries[query] for query in queries]) if queries else []
    found: Found = {}
    for query, vector in zip(queries, vectors):
        bound = float(np.linalg.norm(vector, axis=1).sum()) or 1.0
        found[query] = [
            (id_, score, float((vector @ documents[id_].astype(np.float32).T).max(axis=1).sum()) / bound)
            for id_, score in run[query]
        ]
    return found


def _document_vectors(
    encoder: Any, dataset: Dataset, wanted: Collection[str], cache: EncodingCache
) -> Mapping[str, np.ndarray]:
    """The batches are those that a system indexes, so that its vectors are found; without a cache only what is wanted
    is encoded."""
    from crisp_rag.eval.systems import BATCH, encoder_fingerprint

    ids, texts = dataset.texts()
    if cache.folder is None:
        pairs = [(id_, text) for id_, text in zip(ids, texts) if id_ in wanted]
        ids, texts = [id_ for id_, _ in pairs], [text for _, text in pairs]
    fingerprint = encoder_fingerprint(encoder)
    documents: dict[str, np.ndarray] = {}
    for first in range(0, len(ids), BATCH):
        part = ids[first : first + BATCH]
        if any(id_ in wanted for id_ in part):
            encoded = cache.encode(fingerprint, texts[first : first + BATCH], encoder.encode_document)
            documents.update({id_: vectors for id_, vectors in zip(part, encoded.vectors) if id_ in wanted})
    return documents
