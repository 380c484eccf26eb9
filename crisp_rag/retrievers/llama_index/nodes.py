"""Between passages of the index and LlamaIndex's nodes.

A node is kept whole.  Its id and text are the passage's, its metadata is the passage's metadata, and beside that
metadata lie two keys: ``ref_doc_id``, the id of its source document, so that filters and other frameworks see it, and
``_node``, a dict of whatever else the node has: relationships, offsets, excluded keys, templates, its class.  Reading
takes both off again.  What another framework wrote has no ``_node``; its source document is then the metadata's
``ref_doc_id``, or else ``source``, where that is a non-empty string.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from llama_index.core.schema import (
    BaseNode,
    Document,
    ImageNode,
    IndexNode,
    MetadataMode,
    Node,
    NodeRelationship,
    RelatedNodeInfo,
    TextNode,
)

from crisp_rag.errors import InvalidInputError
from crisp_rag.index import Hit, Passage
from crisp_rag.index.checks import check_ids
from crisp_rag.retrievers.scope import ScopedIndex

REF_DOC_ID = "ref_doc_id"
NODE = "_node"
_OWN_REF_DOC_ID = "has_own_ref_doc_id"
_CLASSES: dict[str, type[BaseNode]] = {cls.class_name(): cls for cls in (TextNode, IndexNode, ImageNode, Node, Document)}
_SOURCES_AT_ONCE = 1000
"""Documents named in one filter: SQLite takes 32 766 values at most, and each is in it twice."""

_log = logging.getLogger(__name__)


def passages_from_nodes(nodes: Iterable[BaseNode]) -> list[Passage]:
    """A passage for each node.  The text alone will be encoded, not the metadata.

    Raises:
        InvalidInputError: for a node of a class that could not be read back, or with metadata that contradicts its
            source document or has the key that we use.
    """
    return [_passage(node) for node in nodes]


def with_text(nodes: Iterable[BaseNode]) -> list[BaseNode]:
    """The nodes that have text; the others are passed over with a warning, as LlamaIndex's own index does."""
    kept: list[BaseNode] = []
    blank: list[BaseNode] = []
    for node in nodes:
        (kept if node.get_content(MetadataMode.NONE).strip() else blank).append(node)
    if blank:
        _log.warning("%d nodes without text are not indexed, such as %r.", len(blank), blank[0].node_id)
    return kept


def _passage(node: BaseNode) -> Passage:
    if type(node) not in _CLASSES.values():
        allowed = ", ".join(_CLASSES)
        raise InvalidInputError(f"Node {node.node_id!r} is a {type(node).__name__}; the index keeps {allowed}.")
    metadata = dict(node.metadata)
    if NODE in metadata:
        raise InvalidInputError(f"Node {node.node_id!r} has metadata {NODE!r}, which the index uses: rename that key.")
    fields = _fields(node)
    source = node.ref_doc_id
    if REF_DOC_ID in metadata:
        fields[_OWN_REF_DOC_ID] = True
    if source is not None and metadata.setdefault(REF_DOC_ID, source) != source:
        raise InvalidInputError(
            f"Node {node.node_id!r} has metadata {REF_DOC_ID}={metadata[REF_DOC_ID]!r} and the source document "
            f"{source!r}: rename that key of the metadata."
        )
    return Passage(node.node_id, node.get_content(MetadataMode.NONE), {**metadata, NODE: fields})


def _fields(node: BaseNode) -> dict[str, Any]:
    """What a node has beyond id, text and metadata, as JSON values; defaults are left out."""
    if isinstance(node, IndexNode):
        node = node.model_copy(update={"obj": None})  # an object in memory; retrievers find it in their object_map
    left_out = {"id_", "metadata", "embedding", "text", "obj"}
    fields = node.model_dump(mode="json", exclude_defaults=True, exclude=left_out)
    fields.pop("obj", None)
    if fields.get("class_name") == TextNode.class_name():
        del fields["class_name"]
    if isinstance(fields.get("text_resource"), dict):
        fields["text_resource"].pop("text", None)
    return fields


def node_from(passage: Passage | Hit) -> BaseNode:
    """The node that a passage or a hit is: as it was written, or a ``TextNode`` of what another framework wrote."""
    metadata = dict(passage.metadata)
    fields = metadata.get(NODE)
    if isinstance(fields, Mapping) and (node := _restored(passage, metadata, dict(fields))):
        return node
    source = source_of(passage)
    hidden = [REF_DOC_ID] if REF_DOC_ID in metadata else []  # of no use to a model
    return TextNode(
        id_=passage.id,
        text=passage.text,
        metadata=metadata,
        excluded_embed_metadata_keys=hidden,
        excluded_llm_metadata_keys=list(hidden),
        relationships={} if source is None else {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=source)},
    )


def _restored(passage: Passage | Hit, metadata: Mapping[str, Any], fields: dict[str, Any]) -> BaseNode | None:
    """The node that was written, None where the fields are no node's: then they are somebody's metadata."""
    cls = _CLASSES.get(fields.pop("class_name", TextNode.class_name()))
    if cls is None:
        return None
    taken_off = {NODE} if fields.pop(_OWN_REF_DOC_ID, False) else {NODE, REF_DOC_ID}
    fields["metadata"] = {key: value for key, value in metadata.items() if key not in taken_off}
    try:
        if issubclass(cls, Node):
            fields["text_resource"] = {**fields.get("text_resource", {}), "text": passage.text}
        else:
            fields["text"] = passage.text
        return cls(**{**fields, "id_": passage.id})
    except (TypeError, ValueError):
        return None


def source_of(passage: Passage | Hit) -> str | None:
    """The id of a passage's source document."""
    written_here = NODE in passage.metadata
    for key in (REF_DOC_ID,) if written_here else (REF_DOC_ID, "source"):
        value = passage.metadata.get(key)
        if isinstance(value, str) and value:
            return value
    return None


def where_from_sources(ids: Sequence[str]) -> dict[str, Any]:
    """A filter that keeps the passages for which :func:`source_of` gives one of the ids.

    Raises:
        InvalidInputError: for an id that is no string: None would keep all that have no source document.
    """
    ids = check_ids(ids)
    non_empty_string = {REF_DOC_ID: {"$text_match": "", "$ne": ""}}
    elsewhere = {"$not": non_empty_string, NODE: {"$exists": False}, "source": {"$in": ids}}
    return {"$or": [{REF_DOC_ID: {"$in": ids}}, elsewhere]}


def passages_of_sources(scope: ScopedIndex, sources: Iterable[str]) -> Iterator[Passage]:
    """The passages of documents: those cut from them, and the documents themselves where they are kept in one piece.

    Raises:
        InvalidInputError: for an id that is no string.
    """
    ids = check_ids(sources)
    for first in range(0, len(ids), _SOURCES_AT_ONCE):
        part = ids[first : first + _SOURCES_AT_ONCE]
        yield from scope.passages(where_from_sources(part))
        yield from (passage for passage in scope.get(part) if source_of(passage) is None)
