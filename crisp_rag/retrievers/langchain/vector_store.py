"""CrispVectorStore: an index as a LangChain vector store."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from langchain_core.documents import Document
from langchain_core.indexing import UpsertResponse
from langchain_core.runnables import RunnableConfig, run_in_executor
from langchain_core.vectorstores import VectorStore, VectorStoreRetriever

from crisp_rag.errors import InvalidInputError
from crisp_rag.index import CrispIndex, Hit
from crisp_rag.index.checks import passages_from_texts
from crisp_rag.index.types import Where
from crisp_rag.retrievers.langchain.documents import document_from, passages_from_documents
from crisp_rag.retrievers.scope import ScopedIndex
from crisp_rag.retrievers.shared import build_index, over

if TYPE_CHECKING:
    from crisp_rag.models.encoder import Encoder


class CrispVectorStore(VectorStore):
    """Keeps documents in an index and finds them by MaxSim; safe to use from several threads and event loops.

    Documents come back as they were added.  Scores are MaxSim, relevance scores MaxSim over the largest score that
    the query could get, cut to [0, 1].  The index encodes by itself, so there are no ``embeddings``.

    Searches and ``delete`` take ``filter`` or ``where``, or both: a ``$``-operator dict or a function of the metadata.

    Args:
        index: Where the documents lie.  The store does not close it.
        where: A bound filter: the store neither shows nor touches anything else.  What a call gives narrows it.
            Documents that are added get the values that it asks for where they have none.

    Raises:
        FilterError: for a malformed ``where``.
    """

    def __init__(self, index: CrispIndex, where: Where | None = None) -> None:
        if not isinstance(index, CrispIndex):
            raise InvalidInputError(f"index is a CrispIndex, got {type(index).__name__}: use load_local for a folder.")
        self._scope = ScopedIndex(index, where)

    @property
    def index(self) -> CrispIndex:
        """The index it keeps documents in."""
        return self._scope.index

    @property
    def embeddings(self) -> None:
        """None: the index has an encoder of its own, which gives several vectors a text."""

    # -- making one ---------------------------------------------------------------------------------------------

    @classmethod
    def from_texts(  # type: ignore[override]
        cls,
        texts: Sequence[str],
        embedding: Encoder | None = None,
        metadatas: Sequence[Mapping[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        path: str | Path,
        exist_ok: bool = False,
        where: Where | None = None,
    ) -> CrispVectorStore:
        """Make an index of texts, and a store over it.

        Args:
            texts: What to add.
            embedding: A crisp-rag encoder; None for the default one.
            metadatas: Their metadata, empty by default.
            ids: Their ids, new random ones by default.
            path: The index folder to make.
            exist_ok: Add to the index that is there already instead of raising.
            where: As for the class.

        Raises:
            IndexExistsError: if there is something at the path.
            InvalidInputError: for an embedding that is no encoder, blank texts or an id given twice.
        """
        if embedding is not None and not hasattr(embedding, "encode_query"):
            raise InvalidInputError(
                f"embedding is a crisp-rag encoder or None, got {type(embedding).__name__}, which gives one vector a text."
            )
        passages = passages_from_texts(texts, _complete(ids), metadatas)
        store = over(build_index(path, [], embedding, exist_ok=exist_ok), lambda index: cls(index, where))
        over(store.index, lambda index: store._scope.add(passages))
        return store

    @classmethod
    def from_documents(  # type: ignore[override]
        cls, documents: Iterable[Document], embedding: Encoder | None = None, **options: Any
    ) -> CrispVectorStore:
        """As :meth:`from_texts` for documents: their ids, texts and metadata; a document without id gets one."""
        return super().from_documents(list(documents), embedding, **options)  # type: ignore[arg-type]

    @classmethod
    async def afrom_documents(  # type: ignore[override]
        cls, documents: Iterable[Document], embedding: Encoder | None = None, **options: Any
    ) -> CrispVectorStore:
        """As :meth:`from_documents`."""
        return await run_in_executor(None, cls.from_documents, documents, embedding, **options)

    @classmethod
    async def afrom_texts(  # type: ignore[override]
        cls,
        texts: Sequence[str],
        embedding: Encoder | None = None,
        metadatas: Sequence[Mapping[str, Any]] | None = None,
        **options: Any,
    ) -> CrispVectorStore:
        """As :meth:`from_texts`."""
        return await run_in_executor(None, cls.from_texts, texts, embedding, metadatas, **options)

    def save_local(self, folder_path: str | Path) -> None:
        """Copy the index to a folder, without pickle.  What was added is on disk already; this is for moving it.

        Raises:
            IndexExistsError: if there is anything but an older copy of this index, which nobody has written to.
            InvalidInputError: for a store with a bound filter, because a copy has the whole index.
        """
        self._scope.copy_to(folder_path)

    @classmethod
    def load_local(
        cls, folder_path: str | Path, encoder: Encoder | None = None, *, where: Where | None = None, wait: float = 0.0
    ) -> CrispVectorStore:
        """A store over the index in a folder; arguments as :meth:`CrispIndex.open`."""
        return over(CrispIndex.open(folder_path, encoder, wait=wait), lambda index: cls(index, where))

    # -- writing ------------------------------------------------------------------------------------------------

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: Sequence[Mapping[str, Any]] | None = None,  # type: ignore[override]
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Add texts in one commit, encoded as one batch; a text whose id exists replaces it.

        Args:
            texts: What to add.
            metadatas: Their metadata, empty by default.
            ids: Their ids; new random ones where there is none.
            kwargs: ``batch_size``, which LangChain's ``index()`` gives; the encoder makes batches of its own.

        Returns:
            The ids, in order.  When this returns, the texts are on disk.

        Raises:
            InvalidInputError: naming what cannot be added; nothing was added.
        """
        _refuse_unknown(kwargs, ("batch_size",))
        texts = texts if isinstance(texts, str) else list(texts)  # one string is refused by name further down
        return self._scope.add(passages_from_texts(texts, _complete(ids), metadatas))

    def upsert(self, items: Sequence[Document], /, **kwargs: Any) -> UpsertResponse:
        """Add documents, or replace those whose ids exist; all or nothing, so that none is ever in ``failed``."""
        _refuse_unknown(kwargs, ("batch_size",))
        return UpsertResponse(succeeded=self._scope.add(passages_from_documents(items)), failed=[])

    async def aupsert(self, items: Sequence[Document], /, **kwargs: Any) -> UpsertResponse:
        """As :meth:`upsert`."""
        return await run_in_executor(None, lambda: self.upsert(items, **kwargs))

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:
        """Delete by id, by ``filter`` (or ``where``), or those with both.

        Returns:
            True; ids that do not exist are passed over.

        Raises:
            InvalidInputError: if none is given; ``delete(where={})`` deletes everything that the store shows.
        """
        _refuse_unknown(kwargs, ("filter", "where"))
        given = [where for where in (kwargs.get("filter"), kwargs.get("where")) if where is not None]
        if len(given) == 2:
            raise InvalidInputError("delete takes filter or where, not both.")
        self._scope.delete(ids, given[0] if given else None)
        return True

    # -- reading ------------------------------------------------------------------------------------------------

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """The documents with these ids, in the order asked for; missing ones are left out."""
        return [document_from(passage) for passage in self._scope.get(ids)]

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """The documents that answer a query best.

        Args:
            query: Plain words.
            k: How many at most; k matching documents give k.
            kwargs: ``filter`` or ``where``, or both.

        Raises:
            InvalidInputError: for a blank query, k below 1 or an unknown option.
        """
        return [document_from(hit) for hit in self._hits(query, k, kwargs)]

    async def asimilarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """As :meth:`similarity_search`; what is asked at the same time is encoded together."""
        return [document_from(hit) for hit in await self._ahits(query, k, kwargs)]

    def similarity_search_with_score(self, query: str, k: int = 4, **kwargs: Any) -> list[tuple[Document, float]]:  # type: ignore[override]
        """As :meth:`similarity_search`, each document with its MaxSim; larger is better."""
        return [(document_from(hit), hit.score) for hit in self._hits(query, k, kwargs)]

    async def asimilarity_search_with_score(self, query: str, k: int = 4, **kwargs: Any) -> list[tuple[Document, float]]:  # type: ignore[override]
        """As :meth:`similarity_search_with_score`."""
        return [(document_from(hit), hit.score) for hit in await self._ahits(query, k, kwargs)]

    def _similarity_search_with_relevance_scores(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        return [(document_from(hit), _relevance(hit)) for hit in self._hits(query, k, kwargs)]

    async def _asimilarity_search_with_relevance_scores(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        return [(document_from(hit), _relevance(hit)) for hit in await self._ahits(query, k, kwargs)]

    def similarity_search_by_vector(self, embedding: list[float], k: int = 4, **kwargs: Any) -> NoReturn:
        """Not possible: a query has several vectors.  Use :meth:`CrispIndex.search_vectors`."""
        raise InvalidInputError("A search by one vector is not possible here: CrispIndex.search_vectors takes several.")

    def max_marginal_relevance_search(self, query: str, *args: Any, **kwargs: Any) -> NoReturn:
        """Not possible: there is no single vector a document to compare."""
        raise InvalidInputError("MMR compares one vector a document, and here each has several: use similarity.")

    def max_marginal_relevance_search_by_vector(self, embedding: list[float], *args: Any, **kwargs: Any) -> NoReturn:
        """Not possible: see :meth:`max_marginal_relevance_search`."""
        self.max_marginal_relevance_search("")

    def as_retriever(self, **kwargs: Any) -> VectorStoreRetriever:
        """LangChain's retriever over the store; ``search_kwargs`` may have ``k``, ``filter`` and ``where``.

        They are defaults, as LangChain has it: what a call gives takes their place.  What must hold for every call
        is the store's own ``where``.

        For documents with their scores in the metadata use :class:`CrispRetriever`.
        """
        tags = [*(kwargs.pop("tags", None) or []), type(self).__name__]
        return _StoreRetriever(vectorstore=self, tags=tags, **kwargs)

    def _hits(self, query: str, k: int, options: Mapping[str, Any]) -> list[Hit]:
        return self._scope.search(query, k, *_filters(options))

    async def _ahits(self, query: str, k: int, options: Mapping[str, Any]) -> list[Hit]:
        return await self._scope.asearch(query, k, *_filters(options))


class _StoreRetriever(VectorStoreRetriever):
    """LangChain's own, except that a batch of queries is encoded and searched for together."""

    def batch(
        self,
        inputs: list[str],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[list[Document]]:
        store = self.vectorstore
        options = {**self.search_kwargs, **kwargs}
        assert isinstance(store, CrispVectorStore)
        filters = (options.get("filter"), options.get("where"))
        with store._scope.searched_ahead(inputs, options.get("k", 4), *filters):
            return super().batch(inputs, config, return_exceptions=return_exceptions, **kwargs)


def _filters(options: Mapping[str, Any]) -> tuple[Where | None, Where | None]:
    _refuse_unknown(options, ("filter", "where"))
    return options.get("filter"), options.get("where")


def _refuse_unknown(options: Mapping[str, Any], allowed: Sequence[str]) -> None:
    if unknown := sorted(set(options) - set(allowed)):
        raise InvalidInputError(f"Unknown options {', '.join(unknown)}. Allowed: {', '.join(allowed)}.")


def _complete(ids: Sequence[str | None] | None) -> list[str] | None:
    """The ids, with new ones for those that are missing."""
    return None if ids is None else [uuid.uuid4().hex if id_ is None else id_ for id_ in ids]


def _relevance(hit: Hit) -> float:
    return min(max(float(hit.relevance), 0.0), 1.0)
