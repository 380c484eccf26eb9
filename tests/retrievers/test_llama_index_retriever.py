"""The LlamaIndex retriever: what retrieve returns, how restrictions add up, what from_nodes keeps."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("llama_index.core")

from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import (
    Document,
    MetadataMode,
    NodeRelationship,
    NodeWithScore,
    QueryBundle,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.vector_stores.types import FilterOperator, MetadataFilter, MetadataFilters

from crisp_rag.errors import FilterError, IndexExistsError, InvalidInputError
from crisp_rag.index import CrispIndex
from crisp_rag.retrievers.llama_index import CrispRetriever


def ids(nodes: list[NodeWithScore]) -> list[str]:
    return [node.node_id for node in nodes]


def equals(key: str, value: Any) -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key=key, value=value)])


def test_nodes_carry_the_ids_texts_scores_and_metadata_of_a_search(index: CrispIndex, query: str) -> None:
    nodes = CrispRetriever(index, similarity_top_k=4).retrieve(query)
    hits = index.search(query, k=4)
    assert [(node.node_id, node.score, node.text, node.metadata) for node in nodes] == [
        (hit.id, hit.score, hit.text, hit.metadata) for hit in hits
    ]
    assert all(isinstance(node.node, TextNode) for node in nodes)


def test_async_gives_what_sync_gives(index: CrispIndex, query: str) -> None:
    retriever = CrispRetriever(index, filters=equals("team", "logistics"))
    assert asyncio.run(retriever.aretrieve(query)) == retriever.retrieve(query)
    assert asyncio.run(retriever.aretrieve(QueryBundle(query))) == retriever.retrieve(QueryBundle(query))


def test_filters_and_where_apply_before_the_cut_and_both_narrow(index: CrispIndex) -> None:
    shop = CrispRetriever(index, similarity_top_k=2, filters=equals("team", "shop"))
    assert set(ids(shop.retrieve("parcel shipping"))) == {"hours", "repair"}
    for where in ({"year": {"$gt": 2023}}, lambda metadata: metadata.get("year", 0) > 2023):
        both = CrispRetriever(index, filters=equals("team", "shop"), where=where)
        assert ids(both.retrieve("parcel shipping")) == ["hours"]


@pytest.mark.parametrize("top_k", [1, 2, 10])
def test_node_ids_restrict_before_the_cut(index: CrispIndex, query: str, top_k: int) -> None:
    chosen = ["repair", "hours", "gone", "gift"]
    found = CrispRetriever(index, top_k, node_ids=chosen).retrieve(query)
    best = [hit for hit in index.search(query, k=len(index)) if hit.id in chosen][:top_k]
    assert [(node.node_id, node.score) for node in found] == [(hit.id, hit.score) for hit in best]
    assert len(found) == min(top_k, 3)


def test_node_ids_are_found_however_deep_they_lie(tmp_path: Path, encoder: Any) -> None:
    with CrispIndex.create(tmp_path / "deep", encoder) as index:
        index.add_texts([f"common word number{n}" for n in range(300)], ids=[str(n) for n in range(300)])
        index.add_texts(["something else entirely"], ids=["far"], metadatas=[{"far": True}])
        assert index.search("common word", k=301)[-1].id == "far"
        assert ids(CrispRetriever(index, 2, node_ids=["far"]).retrieve("common word")) == ["far"]
        assert ids(CrispRetriever(index, 2, node_ids=["far"], where={"far": False}).retrieve("common word")) == []


def test_doc_ids_restrict_to_source_documents(index: CrispIndex) -> None:
    retriever = CrispRetriever(index, doc_ids=["policy.md", "unknown.md"])
    nodes = retriever.retrieve("days")
    assert set(ids(nodes)) == {"refund", "ship"}
    assert {node.node.ref_doc_id for node in nodes} == {"policy.md"}


def test_empty_restrictions_leave_nothing(index: CrispIndex) -> None:
    assert CrispRetriever(index, node_ids=[]).retrieve("parcel") == []
    assert CrispRetriever(index, doc_ids=[]).retrieve("parcel") == []


def test_all_restrictions_together(index: CrispIndex) -> None:
    retriever = CrispRetriever(
        index,
        filters=equals("team", "logistics"),
        where={"year": {"$exists": True}},
        node_ids=["ship", "abroad", "refund"],
        doc_ids=["policy.md"],
    )
    assert ids(retriever.retrieve("parcel")) == ["ship"]


@pytest.mark.parametrize(
    ("metadata", "source"),
    [
        ({"ref_doc_id": "doc", "source": "file"}, "doc"),
        ({"source": "file"}, "file"),
        ({"ref_doc_id": "", "source": "file"}, "file"),
        ({"ref_doc_id": None, "source": "file"}, "file"),
        ({"ref_doc_id": 7, "source": "file"}, "file"),
        ({"source": 7}, None),
        ({}, None),
    ],
)
def test_the_source_document_is_ref_doc_id_or_else_source(
    tmp_path: Path, encoder: Any, metadata: dict[str, Any], source: str | None
) -> None:
    with CrispIndex.create(tmp_path / "i", encoder) as index:
        index.add_texts(["alpha"], ids=["a"], metadatas=[metadata])
        (node,) = CrispRetriever(index).retrieve("alpha")
        assert node.node.ref_doc_id == source
        assert node.metadata == metadata
        for wanted in ("doc", "file"):
            assert len(CrispRetriever(index, doc_ids=[wanted]).retrieve("alpha")) == (wanted == source)


def test_ref_doc_id_stays_out_of_what_a_model_reads(tmp_path: Path, encoder: Any) -> None:
    with CrispIndex.create(tmp_path / "i", encoder) as index:
        index.add_texts(["alpha"], metadatas=[{"ref_doc_id": "0b5c", "title": "Greek"}])
        (node,) = CrispRetriever(index).retrieve("alpha")
    for mode in (MetadataMode.LLM, MetadataMode.EMBED):
        assert "0b5c" not in node.get_content(mode)
        assert "Greek" in node.get_content(mode)


def test_from_nodes_keeps_ids_texts_metadata_and_sources(tmp_path: Path, encoder: Any) -> None:
    nodes = [
        TextNode(
            id_="n1",
            text="alpha beta",
            metadata={"page": 1, "tags": ["x"]},
            relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id="doc-1")},
        ),
        TextNode(id_="n2", text="gamma", metadata={"page": 2}),
    ]
    before = [node.model_dump() for node in nodes]
    retriever = CrispRetriever.from_nodes(nodes, tmp_path / "i", encoder, similarity_top_k=2)
    first, second = retriever.retrieve("alpha beta")
    assert (first.node_id, first.text, first.node.ref_doc_id) == ("n1", "alpha beta", "doc-1")
    assert [first.node, second.node] == nodes
    assert (second.node_id, second.metadata, second.node.ref_doc_id) == ("n2", {"page": 2}, None)
    assert [node.model_dump() for node in nodes] == before
    again = CrispRetriever.from_nodes([first.node, second.node], tmp_path / "copy", encoder)
    assert again.retrieve("alpha beta") == [first, second]


def test_nodes_of_a_parser_find_their_document(tmp_path: Path, encoder: Any, texts: dict[str, str]) -> None:
    documents = [Document(id_=id_, text=text) for id_, text in texts.items()]
    nodes = SentenceSplitter().get_nodes_from_documents(documents)
    retriever = CrispRetriever.from_nodes(nodes, tmp_path / "i", encoder)
    assert retriever.retrieve("repair of a watch")[0].node.ref_doc_id == "repair"


def test_metadata_that_contradicts_a_nodes_source_is_refused(tmp_path: Path, encoder: Any) -> None:
    source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id="doc-1")}
    node = TextNode(id_="n1", text="alpha", metadata={"ref_doc_id": "mine"}, relationships=source)
    with pytest.raises(InvalidInputError, match=r"n1.*mine.*doc-1"):
        CrispRetriever.from_nodes([node], tmp_path / "i", encoder)
    assert not (tmp_path / "i").exists()


def test_a_node_without_text_is_refused_by_id(tmp_path: Path, encoder: Any) -> None:
    with pytest.raises(InvalidInputError, match="n2"):
        CrispRetriever.from_nodes([TextNode(id_="n1", text="alpha"), TextNode(id_="n2", text=" ")], tmp_path / "i", encoder)


def test_from_defaults_takes_an_index_or_its_path(index: CrispIndex, encoder: Any) -> None:
    held = CrispRetriever.from_defaults(index=index, similarity_top_k=3)
    opened = CrispRetriever.from_defaults(index.path, encoder=encoder, similarity_top_k=3)
    assert held.index is index
    assert held.retrieve("parcel") == opened.retrieve("parcel")
    assert len(held.retrieve("parcel")) == 3
    opened.index.close()
    with pytest.raises(InvalidInputError, match="encoder"):
        CrispRetriever.from_defaults(index, encoder=encoder)
    with pytest.raises(IndexExistsError):
        CrispRetriever.from_nodes([], index.path, encoder)


@pytest.mark.parametrize("bad", [0, -1, 2.5, True, None])
def test_a_top_k_below_one_is_refused_when_set(index: CrispIndex, bad: Any) -> None:
    with pytest.raises(InvalidInputError, match="similarity_top_k"):
        CrispRetriever(index, bad)
    retriever = CrispRetriever(index)
    with pytest.raises(InvalidInputError, match="similarity_top_k"):
        retriever.similarity_top_k = bad
    retriever.similarity_top_k = 1
    assert len(retriever.retrieve("parcel")) == 1


def test_bad_filters_and_ids_are_refused_when_the_retriever_is_made(index: CrispIndex) -> None:
    wrong = MetadataFilters(filters=[MetadataFilter(key="year", value="abc", operator=FilterOperator.IN)])
    with pytest.raises(FilterError, match=r"'in' on 'year' takes a list"):
        CrispRetriever(index, filters=wrong)
    with pytest.raises(FilterError, match=r"\$near"):
        CrispRetriever(index, filters=equals("team", "shop"), where={"a": {"$near": 1}})
    with pytest.raises(InvalidInputError, match="node_ids"):
        CrispRetriever(index, node_ids="abc")
    with pytest.raises(InvalidInputError, match="doc_ids"):
        CrispRetriever(index, doc_ids="abc")


@pytest.mark.parametrize("restriction", [{}, {"node_ids": ["ship"]}, {"node_ids": []}])
def test_a_blank_query_is_refused(index: CrispIndex, restriction: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="blank"):
        CrispRetriever(index, **restriction).retrieve("  ")
    with pytest.raises(ValueError, match="blank"):
        CrispRetriever(index).retrieve(QueryBundle("fine", custom_embedding_strs=["fine", " "]))


def test_an_empty_index_answers_with_nothing(tmp_path: Path, encoder: Any) -> None:
    retriever = CrispRetriever.from_nodes([], tmp_path / "i", encoder)
    assert retriever.retrieve("parcel") == []
    assert retriever.retrieve(QueryBundle("a", custom_embedding_strs=["a", "b"])) == []
    assert CrispRetriever(retriever.index, node_ids=["x"]).retrieve("parcel") == []


def test_several_embedding_strings_add_up_their_scores(index: CrispIndex) -> None:
    bundle = QueryBundle("ignored", custom_embedding_strs=["repair of a watch", "parcel abroad"])
    found = {node.node_id: node.score for node in CrispRetriever(index).retrieve(bundle)}
    first = {hit.id: hit.score for hit in index.search("repair of a watch")}
    second = {hit.id: hit.score for hit in index.search("parcel abroad")}
    assert found.keys() == first.keys()
    np.testing.assert_allclose(list(found.values()), [first[id_] + second[id_] for id_ in found], rtol=1e-5)
    one = QueryBundle("ignored", custom_embedding_strs=["repair of a watch"])
    assert ids(CrispRetriever(index).retrieve(one)) == list(first)


def test_callbacks_see_one_retrieval_with_its_nodes(index: CrispIndex) -> None:
    handler = LlamaDebugHandler(print_trace_on_end=False)
    CrispRetriever(index, 2, callback_manager=CallbackManager([handler])).retrieve("parcel")
    ((start, end),) = handler.get_event_pairs(CBEventType.RETRIEVE)
    assert start.payload["query_str"] == "parcel"
    assert len(end.payload["nodes"]) == 2


def test_a_narrowed_retriever_has_its_own_k_and_filters_and_leaves_the_first_as_it_was(index: CrispIndex) -> None:
    retriever = CrispRetriever(index, 5, where={"year": {"$gte": 2023}})
    narrowed = retriever.narrowed(similarity_top_k=1, filters=equals("team", "logistics"))
    assert ids(narrowed.retrieve("parcel shipping")) == ["ship"]
    assert ids(narrowed.narrowed(where={"year": 2025}).retrieve("parcel shipping")) == ["abroad"]
    assert ids(retriever.narrowed(node_ids=["hours", "gift"]).narrowed(node_ids=["gift", "hours"]).retrieve("a")) == [
        "hours"
    ]
    assert len(retriever.retrieve("parcel shipping")) == 4
    assert ids(asyncio.run(narrowed.aretrieve("parcel shipping"))) == ["ship"]


def test_events_show_the_retrieval_with_its_scores(index: CrispIndex) -> None:
    from llama_index.core.instrumentation import get_dispatcher
    from llama_index.core.instrumentation.event_handlers import BaseEventHandler

    seen: list[Any] = []

    class Listener(BaseEventHandler):
        def handle(self, event: Any, **kwargs: Any) -> None:
            seen.append(event)

    listener = Listener()
    get_dispatcher().add_event_handler(listener)
    try:
        CrispRetriever(index, 2).retrieve("parcel shipping")
        asyncio.run(CrispRetriever(index, 2).aretrieve("parcel shipping"))
    finally:
        get_dispatcher().event_handlers.remove(listener)
    ends = [event for event in seen if event.class_name() == "RetrievalEndEvent"]
    scores = [hit.score for hit in index.search("parcel shipping", 2)]
    assert [[node.score for node in event.nodes] for event in ends] == [scores, scores]
