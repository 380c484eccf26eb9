"""MaxSim between a query and texts that lie in memory: what both rerankers do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from crisp_rag.forking import Lock
from crisp_rag.index.checks import check_query

if TYPE_CHECKING:
    from crisp_rag.models.encoder import Encoder


class Reranker:
    """Ranks texts by MaxSim.

    Args:
        encoder: What turns texts into vectors; None for the default one, loaded when it is first needed.
    """

    def __init__(self, encoder: Encoder | None = None) -> None:
        self._encoder = encoder
        self._guard = Lock()

    @property
    def encoder(self) -> Encoder:
        """The encoder, loaded when first needed."""
        with self._guard:
            if self._encoder is None:
                from crisp_rag.models.encoder import load_encoder

                self._encoder = load_encoder()
            return self._encoder

    def rank(self, query: str, texts: Sequence[str]) -> list[tuple[int, float, float]]:
        """(number, MaxSim, relevance) of every text, best first, ties in the order given.

        Relevance is the score over the largest one that the query could get.  Blank texts come last, with 0.

        Raises:
            InvalidInputError: for a blank query.
        """
        check_query(query)
        numbers = [number for number, text in enumerate(texts) if text.strip()]
        blank = [number for number, text in enumerate(texts) if not text.strip()]
        ranked: list[tuple[int, float, float]] = []
        if numbers:
            vectors = self.encoder.encode_query(query)
            documents = self.encoder.encode_document([texts[number] for number in numbers])
            scores = [float((vectors @ document.T).max(axis=1).sum()) for document in documents]
            bound = float(np.linalg.norm(vectors, axis=1).sum()) or 1.0
            order = np.argsort(-np.asarray(scores), kind="stable")
            ranked = [(numbers[i], scores[i], scores[i] / bound) for i in order]
        return ranked + [(number, 0.0, 0.0) for number in blank]
