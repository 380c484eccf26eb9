"""CrispRetriever: an index as a LangChain retriever."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.utils import AnyConfigurableField
from pydantic import Field, PrivateAttr, field_validator

from crisp_rag.errors import InvalidInputError
from crisp_rag.index import CrispIndex
from crisp_rag.index.checks import passages_from_texts
from crisp_rag.index.filters import check_filter
from crisp_rag.index.types import Where
from crisp_rag.retrievers.langchain.documents import passages_from_documents, scored_document
from crisp_rag.retrievers.scope import ScopedIndex
from crisp_rag.retrievers.shared import build_index, over

if TYPE_CHECKING:
    from crisp_rag.models.encoder import Encoder

# `invoke` reads "verbose" for its callbacks and passes it on; it means nothing to a search.
_CALL_OPTIONS = ("k", "where", "filter", "verbose")


class CrispRetriever(BaseRetriever):
    """Finds documents by MaxSim; safe to use from several threads and event loops.

    A document has the passage's id, text and metadata, and in the metadata two floats more: ``score`` (MaxSim) and
    ``relevance`` (the score over the largest one this query could get).  Where the passage's own metadata has such
    a key, the passage's value stays and ours is under ``crisp_score`` or ``crisp_relevance``; nothing of the
    passage's is ever overwritten.

    ``batch`` encodes its queries together; so do ``ainvoke`` and ``abatch`` for what is asked at the same time.

    Args:
        index: Where to search.  The retriever does not close it.
        k: How many documents at most, at least 1.  ``invoke(query, k=3)`` changes it for one call.
        where: A filter for every call, in the language of :mod:`crisp_rag.index.filters` or a function of the
            metadata.  ``invoke(query, where=...)`` (or ``filter=...``) narrows it further and cannot widen it; a
            retriever that has one refuses to make it a configurable field.

    Raises:
        pydantic.ValidationError: (a ValueError) for k below 1 or a malformed ``where``.
    """

    index: CrispIndex = Field(frozen=True)
    k: int = Field(default=10, ge=1)
    where: dict[str, Any] | Callable[[dict[str, Any]], bool] | None = Field(default=None, frozen=True)

    _scope: ScopedIndex = PrivateAttr()

    @field_validator("where")
    @classmethod
    def _check_where(cls, where: Any) -> Any:
        check_filter(where)
        return where if callable(where) else copy.deepcopy(where)  # changing the caller's dict changes nothing here

    def model_post_init(self, context: Any, /) -> None:
        """Bind the filter."""
        super().model_post_init(context)
        self._scope = ScopedIndex(self.index, self.where)

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
        index = build_index(path, passages, encoder, exist_ok=exist_ok)
        return over(index, lambda made: cls(index=made, **options))

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
        passages = passages_from_documents(documents)
        index = build_index(path, passages, encoder, exist_ok=exist_ok)
        return over(index, lambda made: cls(index=made, **options))

    def configurable_fields(self, **kwargs: AnyConfigurableField) -> Any:
        """As every runnable has it, except that a bound filter is not for a caller's config to replace.

        Raises:
            InvalidInputError: for ``where`` or ``index`` of a retriever that has a filter.
        """
        if self.where is not None and not {"where", "index"}.isdisjoint(kwargs):
            raise InvalidInputError("The filter of a retriever is bound: narrow it with invoke(query, where=...).")
        return super().configurable_fields(**kwargs)

    def batch(
        self,
        inputs: list[str],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[list[Document]]:
        """As :meth:`invoke` for several queries, which are encoded and searched for together."""
        try:
            k, filters = self._options(kwargs)
        except InvalidInputError:  # invoke raises it, and tells the callbacks
            return super().batch(inputs, config, return_exceptions=return_exceptions, **kwargs)
        with self._scope.searched_ahead(inputs, k, *filters):
            return super().batch(inputs, config, return_exceptions=return_exceptions, **kwargs)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        k, filters = self._options(kwargs)
        return [scored_document(hit) for hit in self._scope.search(query, k, *filters)]

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        k, filters = self._options(kwargs)
        return [scored_document(hit) for hit in await self._scope.asearch(query, k, *filters)]

    def _options(self, options: Mapping[str, Any]) -> tuple[int, tuple[Where | None, Where | None]]:
        """The k and the filters of one call."""
        unknown = sorted(set(options) - set(_CALL_OPTIONS))
        if unknown:
            raise InvalidInputError(f"Unknown options {', '.join(unknown)}. Allowed: k, where (or filter).")
        k = options.get("k")
        return self.k if k is None else k, (options.get("where"), options.get("filter"))
