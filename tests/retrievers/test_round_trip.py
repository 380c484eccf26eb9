"""What one framework writes the other reads, and what goes back and forth comes back as it was."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("langchain_core")
pytest.importorskip("llama_index.core")
pytest.importorskip("hypothesis")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document
from llama_index.core.node_parser import HierarchicalNodeParser, SentenceSplitter
from llama_index.core.schema import BaseNode, ImageNode, IndexNode, Node, NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.schema import Document as LlamaDocument

from crisp_rag.errors import InvalidInputError
from crisp_rag.index import CrispIndex, Passage
from crisp_rag.retrievers import langchain, llama_index

words = st.text("abcdefgé ", min_size=1, max_size=20).filter(str.strip)
keys = st.text("abcxyz_", min_size=1, max_size=5).filter(lambda key: key not in ("_node", "ref_doc_id", "source"))
scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | words
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3))
metadatas = st.dictionaries(keys, values, max_size=4)
infos = st.builds(
    RelatedNodeInfo, node_id=words, hash=st.none() | words, metadata=st.dictionaries(keys, scalars, max_size=2)
)
relationships = st.fixed_dictionaries(
    {},
    optional={
        NodeRelationship.SOURCE: infos,
        NodeRelationship.PREVIOUS: infos,
        NodeRelationship.NEXT: infos,
        NodeRelationship.PARENT: infos,
        NodeRelationship.CHILD: st.lists(infos, max_size=2),
    },
)
nodes = st.builds(
    TextNode,
    text=words,
    metadata=metadatas,
    relationships=relationships,
    start_char_idx=st.none() | st.integers(0, 99),
    end_char_idx=st.none() | st.integers(0, 99),
    excluded_llm_metadata_keys=st.lists(keys, max_size=2),
    excluded_embed_metadata_keys=st.lists(keys, max_size=2),
    mimetype=st.sampled_from(["text/plain", "text/html"]),
)
many = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, encoder: Any) -> Iterator[CrispIndex]:
    with CrispIndex.create(tmp_path_factory.mktemp("shared") / "i", encoder) as index:
        yield index


def same(value: Any, other: Any) -> bool:
    """Equal and of the same types all the way down: 1, 1.0 and true are three things."""
    if type(value) is not type(other):
        return False
    if isinstance(value, dict):
        return value.keys() == other.keys() and all(same(value[key], other[key]) for key in value)
    if isinstance(value, list):
        return len(value) == len(other) and all(map(same, value, other))
    return value == other


@given(st.lists(nodes, min_size=1, max_size=3, unique_by=lambda node: node.node_id))
@many
def test_nodes_come_back_whole_after_a_trip_through_langchain(shared: CrispIndex, written: list[TextNode]) -> None:
    before = [node.model_copy(deep=True) for node in written]
    ours, theirs = llama_index.CrispVectorStore(shared), langchain.CrispVectorStore(shared)
    ids = ours.add(written)
    assert written == before, "what the caller passed stays as it was"
    assert ours.get_nodes(ids) == written
    documents = theirs.get_by_ids(ids)
    for node, document in zip(written, documents, strict=True):
        assert (document.id, document.page_content) == (node.node_id, node.text)
        assert same({key: document.metadata[key] for key in node.metadata}, node.metadata)
        assert document.metadata.get("ref_doc_id") == node.ref_doc_id
        related = document.metadata["_node"].get("relationships", {})
        assert set(related) == {kind.value for kind in node.relationships}
    ours.delete_nodes(ids)
    theirs.add_documents(documents)
    back = ours.get_nodes(ids)
    assert back == written
    assert all(same(node.metadata, was.metadata) for node, was in zip(back, written, strict=True))
    ours.clear()


@given(st.lists(st.tuples(words, metadatas), min_size=1, max_size=3))
@many
def test_documents_come_back_whole_after_a_trip_through_llama_index(shared: CrispIndex, written: list[Any]) -> None:
    documents = [Document(text, id=f"d{n}", metadata=metadata) for n, (text, metadata) in enumerate(written)]
    ours, theirs = langchain.CrispVectorStore(shared), llama_index.CrispVectorStore(shared)
    ids = ours.add_documents(documents)
    read = theirs.get_nodes(ids)
    for node, document in zip(read, documents, strict=True):
        assert (node.node_id, node.get_content()) == (document.id, document.page_content)
        assert same(node.metadata, document.metadata)
        assert type(node) is TextNode and node.relationships == {}
    ours.delete(ids)
    theirs.add(read)
    for document, was in zip(ours.get_by_ids(ids), documents, strict=True):
        assert (document.id, document.page_content) == (was.id, was.page_content)
        assert same({key: value for key, value in document.metadata.items() if key != "_node"}, was.metadata)
    assert theirs.get_nodes(ids) == read
    ours.delete(where={})


@pytest.mark.parametrize(
    "node",
    [
        TextNode(
            id_="n", text="alpha", metadata_template="{key}={value}", text_template="{content}", metadata_separator=";"
        ),
        IndexNode(id_="n", text="alpha", index_id="table-7"),
        ImageNode(id_="n", text="alpha", image_path="a.png", image="aGVsbG8="),
        Node(id_="n", text_resource={"text": "alpha", "mimetype": "text/markdown"}),
        LlamaDocument(id_="n", text="alpha", metadata={"file": "a.md"}, excluded_llm_metadata_keys=["file"]),
    ],
    ids=lambda node: type(node).__name__,
)
def test_every_kind_of_node_comes_back_as_its_kind(shared: CrispIndex, node: BaseNode) -> None:
    store = llama_index.CrispVectorStore(shared)
    store.add([node])
    (found,) = store.get_nodes(["n"])
    assert type(found) is type(node) and found == node
    (retrieved,) = llama_index.CrispRetriever(shared, node_ids=["n"]).retrieve("alpha")
    assert retrieved.node == node
    store.clear()


def test_the_nodes_of_parsers_keep_their_neighbours_and_parents(shared: CrispIndex, texts: dict[str, str]) -> None:
    document = LlamaDocument(id_="doc", text=". ".join(texts.values()) + ".", metadata={"title": "Shop"})
    flat = SentenceSplitter(chunk_size=16, chunk_overlap=0, include_metadata=False)
    deep = HierarchicalNodeParser.from_defaults(chunk_sizes=[64, 32], chunk_overlap=0)
    for parser in (flat, deep):
        parsed = parser.get_nodes_from_documents([document])
        store = llama_index.CrispVectorStore(shared)
        assert len(parsed) > 2 and store.get_nodes(store.add(parsed)) == parsed
        assert all(node.ref_doc_id for node in parsed)
        by_source = llama_index.CrispRetriever(shared, 99, doc_ids=["doc"]).retrieve("watch")
        assert {node.node_id for node in by_source} == {node.node_id for node in parsed if node.ref_doc_id == "doc"}
        store.clear()


def test_a_source_document_written_by_either_is_found_and_deleted_by_the_other(shared: CrispIndex) -> None:
    lang, llama = langchain.CrispVectorStore(shared), llama_index.CrispVectorStore(shared)
    source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id="doc-1")}
    llama.add([TextNode(id_="n", text="alpha", relationships=source)])
    lang.add_documents([Document("beta", id="d", metadata={"source": "doc-2"})])
    assert [d.id for d in lang.similarity_search("x", filter={"ref_doc_id": "doc-1"})] == ["n"]
    assert llama.get_nodes(["d"])[0].ref_doc_id == "doc-2"
    llama.delete("doc-2")
    assert lang.get_by_ids(["d"]) == []
    lang.delete(filter={"ref_doc_id": "doc-1"})
    assert llama.get_nodes() == []


def test_a_source_key_of_a_node_without_source_document_does_not_become_one(shared: CrispIndex) -> None:
    store = llama_index.CrispVectorStore(shared)
    store.add([TextNode(id_="n", text="alpha", metadata={"source": "file.md"})])
    (node,) = store.get_nodes(["n"])
    assert node.ref_doc_id is None and node.metadata == {"source": "file.md"}
    assert llama_index.CrispRetriever(shared, doc_ids=["file.md"]).retrieve("alpha") == []
    store.delete("file.md")
    assert len(store.get_nodes()) == 1
    store.clear()


@pytest.mark.parametrize("value", ["text", 7, {"class_name": "Nobody"}, {"relationships": 3}, {"mimetype": []}, None])
def test_a_node_key_that_is_somebodys_own_metadata_stays_metadata(shared: CrispIndex, value: Any) -> None:
    shared.add([Passage("p", "alpha", {"_node": value})])
    (node,) = llama_index.CrispRetriever(shared).retrieve("alpha")
    assert node.metadata == {"_node": value} and node.text == "alpha"
    shared.delete(["p"])


def test_what_could_not_be_read_back_is_refused(shared: CrispIndex) -> None:
    class Special(TextNode):
        pass

    store = llama_index.CrispVectorStore(shared)
    with pytest.raises(InvalidInputError, match="Special"):
        store.add([Special(id_="s", text="alpha")])
    with pytest.raises(InvalidInputError, match="_node"):
        store.add([TextNode(id_="n", text="alpha", metadata={"_node": {}})])
    assert store.get_nodes() == []


@pytest.mark.parametrize("source", [None, "x"])
def test_metadata_of_our_key_comes_back_with_and_without_a_source_document(shared: CrispIndex, source: str | None) -> None:
    given = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=source)} if source else {}
    node = TextNode(id_="own", text="hello", metadata={"ref_doc_id": "x", "a": 1}, relationships=given)
    store = llama_index.CrispVectorStore(shared)
    store.add([node])
    assert store.get_nodes(["own"]) == [node]
