"""A LlamaIndex retriever over a :class:`~crisp_rag.index.CrispIndex`.

    retriever = CrispRetriever(CrispIndex.open("handbook.crisp"), similarity_top_k=5)
    retriever.retrieve("how do refunds work?")
    engine = RetrieverQueryEngine.from_args(retriever, llm=llm)

Needs ``pip install 'crisp-rag[llama-index]'``; imports ``llama_index.core`` and nothing else of LlamaIndex.
"""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

try:
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.callbacks import CallbackManager
    from llama_index.core.schema import (
        BaseNode,
        MetadataMode,
        NodeRelationship,
        NodeWithScore,
        QueryBundle,
        RelatedNodeInfo,
        TextNode,
    )
    from llama_index.core.settings import Settings
    from llama_index.core.vector_stores.types import (
        FilterCondition,
        FilterOperator,
        MetadataFilter,
        MetadataFilters,
    )
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "llama_index":
        raise  # LlamaIndex is there and lacks something itself: its own message says more
    raise ImportError(
        "The LlamaIndex retriever needs llama-index-core: pip install 'crisp-rag[llama-index]'", name=error.name
    ) from error

from crisp_rag.errors import FilterError, InvalidInputError
from crisp_rag.index import CrispIndex, Hit, Passage
from crisp_rag.index.types import Where
from crisp_rag.retrievers.shared import build_index, narrow

if TYPE_CHECKING:
    from crisp_rag.models.encoder import Encoder

__all__ = ["CrispRetriever", "where_from_filters"]

REF_DOC_ID = "ref_doc_id"
_EVERYTHING: dict[str, Any] = {"$and": []}
_NOTHING: dict[str, Any] = {"$or": []}


class CrispRetriever(BaseRetriever):
    """Finds nodes by MaxSim; safe to use from several threads and event loops.

    A node has the passage's id, text and metadata; its score is MaxSim.  Its source document (``ref_doc_id``) is
    the passage's metadata ``ref_doc_id``, or else ``source``, where that is a non-empty string.  ``ref_doc_id``
    stays out of the texts that a model gets to see.

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
    ) -> None:
        self._index = index
        self.similarity_top_k = similarity_top_k
        self._node_ids = None if node_ids is None else set(_id_list("node_ids", node_ids))
        translated = None if filters is None else where_from_filters(filters)
        restricted = None if doc_ids is None else _where_from_doc_ids(_id_list("doc_ids", doc_ids))
        self._where = narrow(translated, restricted, where)
        super().__init__(callback_manager=callback_manager or Settings.callback_manager)

    @classmethod
    def from_defaults(cls, index: CrispIndex | str | Path, encoder: Encoder | None = None, **options: Any) -> CrispRetriever:
        """A retriever over an index, or over the one at a path, which it opens.

        Args:
            index: The index or its folder.
            encoder: The encoder to open the folder with; None for the one it was built with.
            options: Arguments of the retriever, such as ``similarity_top_k`` and ``filters``.
        """
        if not isinstance(index, CrispIndex):
            index = CrispIndex.open(index, encoder)
        elif encoder is not None:
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
        """Index nodes and return a retriever over them.

        Kept are a node's id, its text, its metadata and its source document, the last as metadata ``ref_doc_id``.
        The text alone is encoded, not the metadata.

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
        passages = [_passage(node) for node in nodes]
        return cls(build_index(path, passages, encoder, exist_ok=exist_ok), **options)

    @property
    def index(self) -> CrispIndex:
        """The index it searches."""
        return self._index

    @property
    def similarity_top_k(self) -> int:
        """How many nodes at most."""
        return self._similarity_top_k

    @similarity_top_k.setter
    def similarity_top_k(self, value: int) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InvalidInputError(f"similarity_top_k is a whole number of at least 1, got {value!r}.")
        self._similarity_top_k = value

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        search = self._searcher(query_bundle)
        hits = search(self._similarity_top_k) if self._node_ids is None else self._among(search, self._node_ids)
        return [NodeWithScore(node=_node(hit), score=float(hit.score)) for hit in hits]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)

    def _searcher(self, query_bundle: QueryBundle) -> Callable[[int], list[Hit]]:
        """The search for a bundle, as a function of k."""
        texts = query_bundle.custom_embedding_strs or [query_bundle.query_str]
        if len(texts) == 1:
            return lambda k: self._index.search(texts[0], k, self._where)
        if not all(isinstance(text, str) and text.strip() for text in texts):
            raise InvalidInputError("A query needs words: one of custom_embedding_strs is empty or blank.")
        # MaxSim adds up over query vectors, so the texts' vectors together give the sum of their scores.
        vectors = np.concatenate(self._index.encoder.encode_query(list(texts)))
        return lambda k: self._index.search_vectors([vectors], k, self._where)[0]

    def _among(self, search: Callable[[int], list[Hit]], ids: set[str]) -> list[Hit]:
        """The best hits whose id is in the set: looks deeper until there are enough or there is no more."""
        wanted = min(self._similarity_top_k, len(self._index.get(sorted(ids))))
        depth = self._similarity_top_k
        while True:
            hits = search(depth)
            kept = [hit for hit in hits if hit.id in ids]
            if len(kept) >= wanted or len(hits) < depth:
                return kept[: self._similarity_top_k]
            depth *= 8


def _id_list(name: str, ids: Sequence[str]) -> list[str]:
    if isinstance(ids, str):
        raise InvalidInputError(f"{name} is a list of strings, got one string.")
    return list(ids)


def _passage(node: BaseNode) -> Passage:
    metadata = dict(node.metadata)
    source = node.ref_doc_id
    if source is not None and metadata.setdefault(REF_DOC_ID, source) != source:
        raise InvalidInputError(
            f"Node {node.node_id!r} has metadata {REF_DOC_ID}={metadata[REF_DOC_ID]!r} and the source document "
            f"{source!r}: rename that key of the metadata."
        )
    return Passage(node.node_id, node.get_content(metadata_mode=MetadataMode.NONE), metadata)


def _node(hit: Hit) -> TextNode:
    relationships: dict[NodeRelationship, Any] = {}
    for key in (REF_DOC_ID, "source"):
        value = hit.metadata.get(key)
        if isinstance(value, str) and value:
            relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=value)
            break
    hidden = [REF_DOC_ID] if REF_DOC_ID in hit.metadata else []
    return TextNode(
        id_=hit.id,
        text=hit.text,
        metadata=hit.metadata,
        excluded_embed_metadata_keys=hidden,
        excluded_llm_metadata_keys=list(hidden),
        relationships=relationships,
    )


def _where_from_doc_ids(doc_ids: Sequence[str]) -> dict[str, Any]:
    """The same choice of source document as :func:`_node` makes: ``source`` counts where there is no ref_doc_id."""
    non_empty_string = {REF_DOC_ID: {"$text_match": "", "$ne": ""}}
    return {
        "$or": [
            {REF_DOC_ID: {"$in": list(doc_ids)}},
            {"$not": non_empty_string, "source": {"$in": list(doc_ids)}},
        ]
    }


def where_from_filters(filters: MetadataFilters) -> dict[str, Any]:
    """Translate LlamaIndex filters to the language of :mod:`crisp_rag.index.filters`.

    The result keeps what ``SimpleVectorStore`` keeps, and groups may be nested, which it does not allow.  As there:

    * A missing or null field satisfies ``!=``, ``nin`` and ``is_empty`` only.
    * ``contains``, ``any`` and ``all`` look into a list for members and into a string for substrings.
    * True equals 1 and False equals 0.  A filter cannot name a boolean, so that is how to ask for one.
    * NOT keeps what satisfies none of its filters.  No filters at all keep everything.

    Unlike there, a field whose type does not suit the operator does not match, where ``SimpleVectorStore`` raises
    TypeError for the whole query; and an operand that does not suit it is refused whatever the data.

    Raises:
        FilterError: for an operand of a wrong type; the message says what the operator takes.
    """
    if not filters.filters:
        return _EVERYTHING
    parts = [where_from_filters(part) if isinstance(part, MetadataFilters) else _translate(part) for part in filters.filters]
    condition = filters.condition or FilterCondition.AND
    if condition == FilterCondition.AND:
        return {"$and": parts}
    if condition == FilterCondition.OR:
        return {"$or": parts}
    return {"$not": {"$or": parts}}


_ORDERINGS: dict[FilterOperator, tuple[str, Callable[[Any, Any], bool]]] = {
    FilterOperator.GT: ("$gt", operator.gt),
    FilterOperator.GTE: ("$gte", operator.ge),
    FilterOperator.LT: ("$lt", operator.lt),
    FilterOperator.LTE: ("$lte", operator.le),
}
_TEXT_MATCHES = {
    FilterOperator.TEXT_MATCH: "$text_match",
    FilterOperator.TEXT_MATCH_INSENSITIVE: "$text_match_insensitive",
}


def _translate(part: MetadataFilter) -> dict[str, Any]:
    kind, key, value = part.operator, part.key, part.value
    if kind == FilterOperator.IS_EMPTY:
        return {key: {"$is_empty": True}}
    if kind in (FilterOperator.EQ, FilterOperator.NE):
        negated = kind == FilterOperator.NE
        if isinstance(value, list):
            raise _refused(part, "a string or a number; for lists use in, any, all or contains")
        if value is None:  # nothing equals null, not even null
            return _EVERYTHING if negated else _NOTHING
        return {key: {"$nin" if negated else "$in": _with_booleans([value])}}
    if kind in _ORDERINGS:
        if value is None or isinstance(value, list):
            raise _refused(part, "a string or a number")
        name, compare = _ORDERINGS[kind]
        booleans = [] if isinstance(value, str) else [flag for flag in (False, True) if compare(flag, value)]
        return {"$or": [{key: {name: value}}, {key: {"$in": booleans}}]} if booleans else {key: {name: value}}
    if kind in _TEXT_MATCHES:
        if not isinstance(value, str):
            raise _refused(part, "a string")
        return {key: {_TEXT_MATCHES[kind]: value}}
    if kind == FilterOperator.CONTAINS:
        if isinstance(value, list):
            raise _refused(part, "a string or a number; for lists use any or all")
        return _holds(key, value)
    if not isinstance(value, list):
        raise _refused(part, "a list")
    if kind in (FilterOperator.IN, FilterOperator.NIN):
        return {key: {"$in" if kind == FilterOperator.IN else "$nin": _with_booleans(value)}}
    if kind == FilterOperator.ANY:
        return {"$or": [_holds(key, item) for item in value]}
    if kind == FilterOperator.ALL:
        if not value:
            return {key: {"$ne": None}}  # any value at all holds all of nothing
        return {"$and": [_holds(key, item) for item in value]}
    raise FilterError(f"Unknown filter operator {kind!r}.")


def _holds(key: str, value: Any) -> dict[str, Any]:
    """The field is a list with the value in it, or a string with the string in it."""
    member = {key: {"$any": _with_booleans([value])}}
    return {"$or": [member, {key: {"$text_match": value}}]} if isinstance(value, str) else member


def _with_booleans(values: Sequence[Any]) -> list[Any]:
    """The values, and with a 1 or a 0 among them the boolean that Python holds for equal."""
    return [*values, *(flag for flag in (False, True) if flag in values)]


def _refused(part: MetadataFilter, takes: str) -> FilterError:
    return FilterError(f"The filter {part.operator.value!r} on {part.key!r} takes {takes}, got {part.value!r}.")
