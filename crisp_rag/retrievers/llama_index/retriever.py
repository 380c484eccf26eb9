"""CrispRetriever: an index as a LlamaIndex retriever."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CallbackManager
from llama_index.core.schema import BaseNode, IndexNode, NodeWithScore, QueryBundle
from llama_index.core.settings import Settings
from llama_index.core.vector_stores.types import MetadataFilters

from crisp_rag.errors import InvalidInputError
from crisp_rag.index import CrispIndex, Hit
from crisp_rag.index.types import Where
from crisp_rag.retrievers.llama_index.filters import where_from_filters
from crisp_rag.retrievers.llama_index.nodes import node_from, passages_from_nodes, where_from_sources
from crisp_rag.retrievers.llama_index.searching import afind, find, id_list
from crisp_rag.retrievers.scope import ScopedIndex
from crisp_rag.retrievers.shared import build_index, narrow, over

if TYPE_CHECKING:
    from crisp_rag.models.encoder import Encoder


class CrispRetriever(BaseRetriever):
    """Finds nodes by MaxSim; safe to use from several threads and event loops.

    A node is what was written, whichever framework wrote it (:mod:`crisp_rag.retrievers.llama_index.nodes`); its
    score is MaxSim.  ``aretrieve`` calls that run at the same time are encoded together.

    A query bundle's ``custom_embedding_strs``, as HyDE sets them, are searched for together: a node's score is then
    the sum of its scores for each.  A bundle's ``embedding`` is a single vector and is not used.

    Args:
        index: Where to search.  The retriever does not close it.
        similarity_top_k: How many nodes at most, at least 1.
        filters: LlamaIndex filters; see :func:`where_from_filters`.
        where: A filter in the language of :mod:`crisp_rag.index.filters`, or a function of the metadata.
        node_ids: Only these nodes; none if empty.
        doc_ids: Only nodes of these source documents; none if empty.
        callback_manager: Gets the retrieval events; by default the one of LlamaIndex's ``Settings``.
        object_map: What index nodes stand for, by their index id.
        objects: The same as index nodes that hold their objects.
        verbose: Print which objects are entered.

    Restrictions add up, and all apply before the cut: k nodes that satisfy them give k results.

    Raises:
        InvalidInputError: for a ``similarity_top_k`` below 1.
        FilterError: for a malformed filter.
    """

    def __init__(
        self,
        index: CrispIndex,
        similarity_top_k: int = 10,
        filters: MetadataFilters | None = None,
        where: Where | None = None,
        node_ids: Sequence[str] | None = None,
        doc_ids: Sequence[str] | None = None,
        callback_manager: CallbackManager | None = None,
        object_map: dict[str, Any] | None = None,
        objects: list[IndexNode] | None = None,
        verbose: bool = False,
    ) -> None:
        self.similarity_top_k = similarity_top_k
        self._node_ids: set[str] | None = None
        self._scope = ScopedIndex(index)
        self._restrict(filters, where, node_ids, doc_ids)
        super().__init__(
            callback_manager=callback_manager or Settings.callback_manager,
            object_map=object_map,
            objects=objects,
            verbose=verbose,
        )

    @classmethod
    def from_defaults(cls, index: CrispIndex | str | Path, encoder: Encoder | None = None, **options: Any) -> CrispRetriever:
        """A retriever over an index, or over the one at a path, which it opens.

        Args:
            index: The index or its folder.
            encoder: The encoder to open the folder with; None for the one it was built with.
            options: Arguments of the retriever, such as ``similarity_top_k`` and ``filters``.
        """
        if not isinstance(index, CrispIndex):
            return over(CrispIndex.open(index, encoder), lambda opened: cls(opened, **options))
        if encoder is not None:
            raise InvalidInputError("encoder is for opening a path; an index that is open has its own.")
        return cls(index, **options)

    @classmethod
    def from_nodes(
        cls,
        nodes: Iterable[BaseNode],
        path: str | Path,
        encoder: Encoder | None = None,
        *,
        exist_ok: bool = False,
        **options: Any,
    ) -> CrispRetriever:
        """Index nodes and return a retriever over them.  The text alone is encoded, not the metadata.

        Args:
            nodes: What to index.
            path: The index folder to make.
            encoder: What turns texts into vectors; None for the default one.
            exist_ok: Add to the index that is there already instead of raising.
            options: Arguments of the retriever, such as ``similarity_top_k`` and ``filters``.

        Raises:
            IndexExistsError: if there is something at the path.
            InvalidInputError: for nodes without text, an id given twice, or metadata that JSON cannot hold.
        """
        passages = passages_from_nodes(nodes)
        return over(build_index(path, passages, encoder, exist_ok=exist_ok), lambda index: cls(index, **options))

    def persist(self, persist_dir: str | Path) -> None:
        """Copy the index to a folder for :meth:`from_persist_dir`; nothing to do where the index lies there.

        Raises:
            IndexExistsError: if there is anything but an older copy of this index.
            InvalidInputError: for a retriever with restrictions, because a copy has the whole index.
        """
        if self._node_ids is not None:
            raise InvalidInputError("A retriever that is limited to node_ids cannot be persisted: open one without.")
        self._scope.copy_to(persist_dir)

    @classmethod
    def from_persist_dir(cls, persist_dir: str | Path, encoder: Encoder | None = None, **options: Any) -> CrispRetriever:
        """A retriever over the index in a folder; arguments as :meth:`from_defaults`."""
        return cls.from_defaults(persist_dir, encoder, **options)

    @property
    def index(self) -> CrispIndex:
        """The index it searches."""
        return self._scope.index

    @property
    def similarity_top_k(self) -> int:
        """How many nodes at most."""
        return self._similarity_top_k

    @similarity_top_k.setter
    def similarity_top_k(self, value: int) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InvalidInputError(f"similarity_top_k is a whole number of at least 1, got {value!r}.")
        self._similarity_top_k = value

    def narrowed(
        self,
        similarity_top_k: int | None = None,
        filters: MetadataFilters | None = None,
        where: Where | None = None,
        node_ids: Sequence[str] | None = None,
        doc_ids: Sequence[str] | None = None,
    ) -> CrispRetriever:
        """The same retriever for one call or one user: with another k, and restricted further, never less.

        Args:
            similarity_top_k: How many nodes at most; as it is by default.
            filters, where, node_ids, doc_ids: As for the class; they add to the restrictions that are there.
        """
        other = copy.copy(self)
        if similarity_top_k is not None:
            other.similarity_top_k = similarity_top_k
        other._restrict(filters, where, node_ids, doc_ids)
        return other

    def _restrict(
        self,
        filters: MetadataFilters | None,
        where: Where | None,
        node_ids: Sequence[str] | None,
        doc_ids: Sequence[str] | None,
    ) -> None:
        if node_ids is not None:
            chosen = set(id_list("node_ids", node_ids))
            self._node_ids = chosen if self._node_ids is None else self._node_ids & chosen
        translated = None if filters is None else where_from_filters(filters)
        sources = None if doc_ids is None else where_from_sources(id_list("doc_ids", doc_ids))
        self._scope = ScopedIndex(self.index, narrow(self._scope.where, translated, sources, where))

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return _scored(find(self._scope, _texts(query_bundle), self._similarity_top_k, self._node_ids))

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return _scored(await afind(self._scope, _texts(query_bundle), self._similarity_top_k, self._node_ids))


def _texts(query_bundle: QueryBundle) -> list[str]:
    return query_bundle.custom_embedding_strs or [query_bundle.query_str]


def _scored(hits: Iterable[Hit]) -> list[NodeWithScore]:
    return [NodeWithScore(node=node_from(hit), score=float(hit.score)) for hit in hits]
