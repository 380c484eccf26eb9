"""CrispVectorStore: an index for the parts of LlamaIndex that want a vector store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)

from crisp_rag.errors import InvalidInputError
from crisp_rag.index import CrispIndex, Hit
from crisp_rag.index.checks import check_query
from crisp_rag.index.types import Where
from crisp_rag.retrievers.gathering import in_thread
from crisp_rag.retrievers.llama_index.filters import where_from_filters
from crisp_rag.retrievers.llama_index.nodes import (
    node_from,
    passages_from_nodes,
    passages_of_sources,
    where_from_sources,
    with_text,
)
from crisp_rag.retrievers.llama_index.searching import afind, find, id_list
from crisp_rag.retrievers.scope import ScopedIndex


class CrispVectorStore(BasePydanticVectorStore):
    """Keeps nodes in an index for ``IngestionPipeline``, ``StorageContext`` and ``VectorStoreIndex``.

    The index encodes by itself, nodes and queries; embeddings that LlamaIndex computes are not used.  Where a part
    of it insists on an embedding model, give it a :class:`PassThroughEmbedding`.  What was added is on disk, so
    ``persist`` has nothing to do.  Nodes without text are passed over with a warning.

    Args:
        index: Where the nodes lie.  The store does not close it.
        where: A bound filter: the store neither shows nor touches anything else.  Nodes that are added get the
            values that it asks for where they have none.

    Raises:
        FilterError: for a malformed ``where``.
    """

    stores_text: bool = True
    is_embedding_query: bool = False

    _scope: ScopedIndex = PrivateAttr()

    def __init__(self, index: CrispIndex, where: Where | None = None) -> None:
        super().__init__(stores_text=True, is_embedding_query=False)
        self._scope = ScopedIndex(index, where)

    @classmethod
    def class_name(cls) -> str:
        """The name that LlamaIndex uses."""
        return "CrispVectorStore"

    @property
    def client(self) -> CrispIndex:
        """The index."""
        return self._scope.index

    @property
    def scope(self) -> ScopedIndex:
        """The index within the bound filter."""
        return self._scope

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Add nodes in one commit, encoded as one batch; a node whose id exists replaces it.

        Returns:
            The ids of the nodes that have text, in order.

        Raises:
            InvalidInputError: naming what cannot be added; nothing was added.
        """
        return self._scope.add(passages_from_nodes(with_text(nodes)))

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """As :meth:`add`."""
        return await in_thread(self.add, nodes, **kwargs)

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Delete the nodes of a source document, and the node of that id where it is a document in one piece."""
        refuse_unknown(delete_kwargs)
        self._scope.delete([passage.id for passage in passages_of_sources(self._scope, [ref_doc_id])])

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """As :meth:`delete`."""
        await in_thread(self.delete, ref_doc_id, **delete_kwargs)

    def delete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """Delete nodes by id, by filter, or those with both.

        Raises:
            InvalidInputError: if neither is given; :meth:`clear` deletes everything.
        """
        refuse_unknown(delete_kwargs)
        if node_ids is None and filters is None:
            raise InvalidInputError("delete_nodes needs node_ids or filters; clear() deletes everything.")
        ids = None if node_ids is None else id_list("node_ids", node_ids)
        self._scope.delete(ids, None if filters is None else where_from_filters(filters))

    async def adelete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """As :meth:`delete_nodes`."""
        await in_thread(self.delete_nodes, node_ids, filters, **delete_kwargs)

    def clear(self) -> None:
        """Delete every node that the store shows."""
        self._scope.delete(where={})

    async def aclear(self) -> None:
        """As :meth:`clear`."""
        await in_thread(self.clear)

    def get_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """Nodes by id, in the order asked for, by filter, or those with both; all of them if neither is given."""
        where = None if filters is None else where_from_filters(filters)
        if node_ids is None:
            return [node_from(passage) for passage in self._scope.passages(where)]
        narrower = ScopedIndex(self._scope.index, self._scope.narrowed(where))
        return [node_from(passage) for passage in narrower.get(id_list("node_ids", node_ids))]

    async def aget_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """As :meth:`get_nodes`."""
        return await in_thread(self.get_nodes, node_ids, filters)

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """The nodes that answer ``query_str`` best, with their MaxSim.

        ``similarity_top_k``, ``filters``, ``node_ids`` and ``doc_ids`` hold; empty id lists mean no restriction, as
        LlamaIndex has it.  ``query_embedding`` is a single vector and is not used.

        Raises:
            InvalidInputError: for a query without words, a mode other than ``default``, or an option.
        """
        refuse_unknown(kwargs)
        return _result(find(self._scope, *_arguments(query)))

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """As :meth:`query`; what is asked at the same time is encoded together."""
        refuse_unknown(kwargs)
        return _result(await afind(self._scope, *_arguments(query)))


def refuse_unknown(options: Mapping[str, Any]) -> None:
    """Refuse options that a caller may take for a restriction of what is found or deleted, and that nobody reads.

    Raises:
        InvalidInputError: naming them.
    """
    if options:
        raise InvalidInputError(f"Unknown options {', '.join(sorted(options))}: filters belong into the query or the store.")


def _arguments(query: VectorStoreQuery) -> tuple[list[str], int, set[str] | None, Where | None, Where | None]:
    if query.mode != VectorStoreQueryMode.DEFAULT:
        raise InvalidInputError(f"The query mode is 'default', got {query.mode.value!r}, which is for single vectors.")
    if query.query_str is None:
        raise InvalidInputError("The index is searched by words: the query needs a query_str.")
    check_query(query.query_str)
    node_ids = set(query.node_ids) if query.node_ids else None
    sources = where_from_sources(query.doc_ids) if query.doc_ids else None
    filters = None if query.filters is None else where_from_filters(query.filters)
    return [query.query_str], query.similarity_top_k, node_ids, sources, filters


def _result(hits: Sequence[Hit]) -> VectorStoreQueryResult:
    return VectorStoreQueryResult(
        nodes=[node_from(hit) for hit in hits],
        similarities=[float(hit.score) for hit in hits],
        ids=[hit.id for hit in hits],
    )


class PassThroughEmbedding(BaseEmbedding):
    """The embedding model for parts of LlamaIndex that insist on one while the index encodes by itself.

    ``IngestionPipeline`` hands its vector store only nodes that have an embedding, and ``VectorStoreIndex`` looks
    for OpenAI's where it is given none.  This one costs nothing, and nothing looks at what it gives.
    """

    model_name: str = "crisp-rag-encodes-by-itself"

    @classmethod
    def class_name(cls) -> str:
        """The name that LlamaIndex uses."""
        return "PassThroughEmbedding"

    def _get_text_embedding(self, text: str) -> list[float]:
        return [0.0]

    def _get_query_embedding(self, query: str) -> list[float]:
        return [0.0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return [0.0]
