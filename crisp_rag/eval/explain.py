"""Why a document got its score: which query vector met which document vector, and the words behind both.

    for match in explain(encoder, "how long does a refund take", "Refunds take five days."):
        print(match.score, match.query.words, "-", match.document.words)

The scores of the matches add up to the MaxSim of the two texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class TextVector:
    """A vector of a text.

    Args:
        words: The pieces of the text whose tokens it stands for, each once, in order; an ellipsis where a word goes on.
            Empty for special tokens alone, and where they are not known.
        whole: Whether it stands for the whole text.
    """

    words: tuple[str, ...]
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Match:
    """A query vector and the document vector that it found most similar; ``score`` is its part of MaxSim."""

    query: TextVector
    document: TextVector
    score: float


def explain(encoder: Any, query: str, document: str) -> list[Match]:
    """The matches of two texts, in the order of the query's vectors.

    Args:
        encoder: A :class:`crisp_rag.models.encoder.CrispEncoder`.
        query: Encoded as a query.
        document: Encoded as a document.
    """
    asked, asked_vectors = _described(encoder, query, "query")
    told, told_vectors = _described(encoder, document, "document")
    similarity = asked_vectors @ told_vectors.T
    best = similarity.argmax(axis=1)
    return [Match(asked[row], told[int(column)], float(similarity[row, column])) for row, column in enumerate(best)]


def _described(encoder: Any, text: str, task: str) -> tuple[list[TextVector], np.ndarray]:
    """What each vector of a text stands for, and the (vectors, dim) vectors."""
    import torch

    from crisp_rag.models.pooling import ClusterPooling

    tokens = encoder.encode_tokens([text], task)[0]
    pooling = encoder.pooling_module
    vectors = tokens
    if pooling is not None:
        vectors = pooling.pool_one(torch.from_numpy(tokens), task=task).numpy()
    whole = isinstance(pooling, ClusterPooling) and len(vectors) > 1
    whole = whole and bool(pooling.query_text_vector if task == "query" else pooling.document_text_vector)
    parts = vectors[:-1] if whole else vectors
    spans = (encoder.token_spans([text], task) or [[]])[0]
    spans = spans if len(spans) == len(tokens) else []  # of other tokens than those that have vectors
    # A token belongs to the vector that is nearest; where nothing is pooled, to its own, also among equal ones.
    owners = np.arange(len(tokens)) if pooling is None else (_unit(tokens) @ _unit(parts).T).argmax(axis=1)
    described = [
        TextVector(_pieces(text, [spans[at] for at in np.flatnonzero(owners == number)] if spans else []))
        for number in range(len(parts))
    ]
    return described + ([TextVector((), whole=True)] if whole else []), vectors


def _pieces(text: str, spans: Sequence[tuple[int, int]]) -> tuple[str, ...]:
    """The stretches of the text that spans cover, those that touch each other as one."""
    joined: list[tuple[int, int]] = []
    for start, end in spans:
        if end <= start:  # a special token stands for no word
            continue
        if joined and not text[joined[-1][1] : start].strip():
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return tuple(dict.fromkeys(_piece(text, start, end) for start, end in joined))


def _piece(text: str, start: int, end: int) -> str:
    before = "…" if start and text[start].isalnum() and text[start - 1].isalnum() else ""
    after = "…" if end < len(text) and text[end - 1].isalnum() and text[end].isalnum() else ""
    return before + " ".join(text[start:end].split()) + after


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
