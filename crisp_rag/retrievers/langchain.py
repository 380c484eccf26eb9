"""A LangChain retriever over a :class:`~crisp_rag.index.CrispIndex`.

    retriever = CrispRetriever(index=CrispIndex.open("handbook.crisp"), k=5, where={"team": "sales"})
    retriever.invoke("how do refunds work?")
    retriever.invoke("how do refunds work?", k=3, where={"year": {"$gte": 2024}})     # narrows, never widens
    chain = retriever | format_documents | prompt | model

Needs ``pip install 'crisp-rag[langchain]'``; imports ``langchain_core`` and nothing else of LangChain.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

try:
    from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
    from langchain_core.documents import Document
    from langchain_core.retrievers import BaseRetriever
    from pydantic import Field, field_validator
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in ("langchain_core", "pydantic"):
        raise  # LangChain is there and lacks something itself: its own message says more
    raise ImportError(
        "The LangChain retriever needs langchain-core: pip install 'crisp-rag[langchain]'", name=error.name
    ) from error

from crisp_rag.errors import InvalidInputError
from crisp_rag.index import CrispIndex, Hit, Passage
from crisp_rag.index.checks import passages_from_texts
from crisp_rag.index.filters import check_filter
from crisp_rag.retrievers.shared import build_index, narrow

if TYPE_CHECKING:
    from crisp_rag.models.encoder import Encoder

__all__ = ["CrispRetriever"]

# `invoke` reads "verbose" for its callbacks and passes it on; it means nothing to a search.
_CALL_OPTIONS = ("k", "where", "filter", "verbose")


class CrispRetriever(BaseRetriever):
    """Finds documents by MaxSim; safe to use from several threads and event loops.

    A document has the passage's id, text and metadata, and in the metadata two floats more: ``score`` (MaxSim) and
    ``relevance`` (the score over the largest one this query could get).  Where the passage's own metadata has such
    a key, the passage's value stays and ours is under ``crisp_score`` or ``crisp_relevance``; nothing of the
    passage's is ever overwritten.

    Args:
        index: Where to search.  The retriever does not close it.
        k: How many documents at most, at least 1.  ``invoke(query, k=3)`` changes it for one call.
        where: A filter for every call, in the language of :mod:`crisp_rag.index.filters` or a function of the
            metadata.  ``invoke(query, where=...)`` (or ``filter=...``) narrows it further and cannot widen it.

    Raises:
        pydantic.ValidationError: (a ValueError) for k below 1 or a malformed ``where``.
    """

    index: CrispIndex
    k: int = Field(default=10, ge=1)
    where: dict[str, Any] | Callable[[dict[str, Any]], bool] | None = None

    @field_validator("where")
    @classmethod
    def _check_where(cls, where: Any) -> Any:
        check_filter(where)
        return where

    @classmethod
    def from_texts(
        cls,
        texts: Sequence[str],
        metadatas: Sequence[Mapping[str, Any]] | None = None,
        ids: Sequence[str] | None = None,
        *,
        path: str | Path,
        encoder: Encoder | None = None,
        exist_ok: bool = False,
        **options: Any,
    ) -> CrispRetriever:
        """Index texts and return a retriever over them.

        Args:
            texts: What to index.
            metadatas: Their metadata, JSON-serialisable; empty by default.
            ids: Their ids, new random ones by default.
            path: The index folder to make.
            encoder: What turns texts into vectors; None for the default one.
            exist_ok: Add to the index that is there already instead of raising.
            options: Fields of the retriever, such as ``k`` and ``where``.

        Raises:
            IndexExistsError: if there is something at the path.
            InvalidInputError: for blank texts, an id given twice, or lists of different lengths.
        """
        passages = passages_from_texts(texts, ids, metadatas)
        return cls(index=build_index(path, passages, encoder, exist_ok=exist_ok), **options)

    @classmethod
    def from_documents(
        cls,
        documents: Iterable[Document],
        *,
        path: str | Path,
        encoder: Encoder | None = None,
        exist_ok: bool = False,
        **options: Any,
    ) -> CrispRetriever:
        """As :meth:`from_texts` for documents: their ids, texts and metadata; a document without id gets one."""
        passages = [
            Passage(document.id or uuid.uuid4().hex, document.page_content, document.metadata) for document in documents
        ]
        return cls(index=build_index(path, passages, encoder, exist_ok=exist_ok), **options)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        unknown = sorted(set(kwargs) - set(_CALL_OPTIONS))
        if unknown:
            raise InvalidInputError(f"Unknown options {', '.join(unknown)}. Allowed: k, where (or filter).")
        k = kwargs.get("k")
        where = narrow(self.where, kwargs.get("where"), kwargs.get("filter"))
        hits = self.index.search(query, k=self.k if k is None else k, where=where)
        return [_document(hit) for hit in hits]

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        return await asyncio.to_thread(self._get_relevant_documents, query, run_manager=run_manager.get_sync(), **kwargs)


def _document(hit: Hit) -> Document:
    metadata = dict(hit.metadata)
    for key, value in (("score", hit.score), ("relevance", hit.relevance)):
        metadata.setdefault(f"crisp_{key}" if key in hit.metadata else key, float(value))
    return Document(id=hit.id, page_content=hit.text, metadata=metadata)
