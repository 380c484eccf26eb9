"""CrispReranker: MaxSim over what any retriever found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import Callbacks
from langchain_core.documents import Document
from langchain_core.documents.compressor import BaseDocumentCompressor
from pydantic import ConfigDict, Field, PrivateAttr

from crisp_rag.retrievers.reranking import Reranker


class CrispReranker(BaseDocumentCompressor):
    """Sorts documents by MaxSim with the query and keeps the best.

    The documents that come back are copies; their metadata has ``relevance_score``: MaxSim over the largest score
    that this query could get, comparable across queries.  A document without text comes last, with 0.

    Args:
        encoder: What turns texts into vectors, such as ``index.encoder``; None for the default one, loaded when it
            is first needed.
        top_n: How many documents at most, at least 1; None for all.

    Raises:
        pydantic.ValidationError: (a ValueError) for ``top_n`` below 1.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    encoder: Any = None
    top_n: int | None = Field(default=None, ge=1)

    _reranker: Reranker = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Make what ranks."""
        super().model_post_init(context)
        self._reranker = Reranker(self.encoder)

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """The best documents, best first, ties in the order given.

        Args:
            documents: What was found; empty gives empty.
            query: Plain words.
            callbacks: Not used: nothing inside has events of its own.

        Raises:
            InvalidInputError: for a blank query.
        """
        ranked = self._reranker.rank(query, [document.page_content for document in documents])
        return [
            documents[number].model_copy(update={"metadata": {**documents[number].metadata, "relevance_score": relevance}})
            for number, _, relevance in ranked[: self.top_n]
        ]
