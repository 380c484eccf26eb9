"""The adapters: same ids and scores as the index, filters, k per call, async that does not block."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters
from llama_index.core.vector_stores.utils import build_metadata_filter_fn

from crisp_rag import CrispError
from crisp_rag.index.filters import matches, parse_filter
from crisp_rag.retrievers.langchain import CrispRetriever as LangChainRetriever
from crisp_rag.retrievers.llama_index import CrispRetriever as LlamaRetriever
from crisp_rag.retrievers.llama_index import where_from_filters as to_where

QUERY = "red fox"


def test_both_return_the_ids_and_scores_of_the_index(index):
    expected = [(hit.id, hit.score) for hit in index.search(QUERY, 4)]
    documents = LangChainRetriever(index=index, k=4).invoke(QUERY)
    nodes = LlamaRetriever(index, similarity_top_k=4).retrieve(QUERY)
    assert [(doc.id, doc.metadata["score"]) for doc in documents] == expected
    assert [(node.node.node_id, node.score) for node in nodes] == expected


async def test_async_gives_the_same(index):
    documents = await LangChainRetriever(index=index, k=4).ainvoke(QUERY)
    nodes = await LlamaRetriever(index, similarity_top_k=4).aretrieve(QUERY)
    assert [doc.id for doc in documents] == [n.node.node_id for n in nodes] == [h.id for h in index.search(QUERY, 4)]


@pytest.mark.parametrize("kind", ["langchain", "llama_index"])
async def test_async_does_not_block_the_loop(slow_index, kind):
    if kind == "langchain":
        call = LangChainRetriever(index=slow_index).ainvoke
    else:
        call = LlamaRetriever(slow_index).aretrieve
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticker = asyncio.create_task(tick())
    began = time.perf_counter()
    await asyncio.gather(*(call(QUERY) for _ in range(4)))
    elapsed = time.perf_counter() - began
    ticker.cancel()
    assert ticks >= 5, "the event loop stood still"
    assert elapsed < 4 * 0.2, "the searches ran one after another"


def test_k_and_filter_per_call(index):
    retriever = LangChainRetriever(index=index, k=4)
    assert len(retriever.invoke(QUERY, k=1)) == 1
    assert {doc.id for doc in retriever.invoke(QUERY, where={"n": {"$gte": 2}})} == {"c", "d"}
    assert {doc.id for doc in retriever.invoke(QUERY, filter=lambda metadata: metadata["n"] == 1)} == {"b"}


def test_an_unknown_option_is_an_error_that_lists_the_allowed_ones(index):
    with pytest.raises(CrispError, match="k, where"):
        LangChainRetriever(index=index).invoke(QUERY, top_k=3)


def test_k_below_one_is_refused(index):
    with pytest.raises(ValueError):
        LangChainRetriever(index=index, k=0)
    with pytest.raises(ValueError):
        LlamaRetriever(index, similarity_top_k=0)


@pytest.mark.parametrize("wider", [{"n": {"$gte": 0}}, {"$or": [{"source": "doc0"}, {"source": "doc1"}]}, lambda m: True])
def test_a_bound_filter_cannot_be_widened_by_a_call(index, wider):
    retriever = LangChainRetriever(index=index, where={"source": "doc0"})
    assert {doc.id for doc in retriever.invoke(QUERY, where=wider)} == {"a", "c"}


def test_scores_do_not_overwrite_the_users_own_metadata(tmp_path, index):
    index.add_texts(["red fox twice"], ids=["e"], metadatas=[{"score": "mine"}])
    document = next(doc for doc in LangChainRetriever(index=index).invoke(QUERY) if doc.id == "e")
    assert document.metadata["score"] == "mine"
    assert document.metadata["crisp_score"] > 0


def test_from_documents_keeps_ids_and_metadata(tmp_path, index):
    documents = [Document(id="x", page_content="red fox", metadata={"a": True}), Document(page_content="blue")]
    retriever = LangChainRetriever.from_documents(documents, path=tmp_path / "new.crisp", encoder=index.encoder)
    found = retriever.invoke("red")[0]
    assert (found.id, found.metadata["a"]) == ("x", True)


def test_nodes_keep_id_metadata_and_source_document(tmp_path, index):
    node = TextNode(id_="n1", text="red fox", metadata={"a": 1})
    node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id="document-7")
    retriever = LlamaRetriever.from_nodes([node], path=tmp_path / "new.crisp", encoder=index.encoder)
    found = retriever.retrieve("red")[0].node
    assert (found.node_id, found.metadata["a"], found.ref_doc_id) == ("n1", 1, "document-7")


def test_node_ids_and_doc_ids_narrow_before_the_cut(index):
    assert [n.node.node_id for n in LlamaRetriever(index, 1, node_ids=["b"]).retrieve(QUERY)] == ["b"]
    assert {n.node.node_id for n in LlamaRetriever(index, 4, doc_ids=["doc1"]).retrieve(QUERY)} == {"b", "d"}


def test_llama_filters_reach_the_index(index):
    filters = MetadataFilters(filters=[MetadataFilter(key="tags", value="t3", operator=FilterOperator.CONTAINS)])
    assert [n.node.node_id for n in LlamaRetriever(index, filters=filters).retrieve(QUERY)] == ["d"]


KEYS = ("num", "word", "list", "absent")
METADATA = st.fixed_dictionaries(
    {},
    optional={
        "num": st.integers(-3, 3) | st.sampled_from([0.5, 2.0]),
        "word": st.sampled_from(["", "a", "Ab", "bc", "É"]),
        "list": st.lists(st.sampled_from(["a", "bc", 1]), max_size=3),
    },
)


def conditions():
    number, word = st.integers(-3, 3), st.sampled_from(["", "a", "ab", "bc", "É"])
    op = FilterOperator
    order = st.sampled_from([op.GT, op.GTE, op.LT, op.LTE])
    same = st.sampled_from([op.EQ, op.NE])
    member = st.sampled_from([op.IN, op.NIN])
    several = st.sampled_from([op.ANY, op.ALL])
    text = st.sampled_from([op.TEXT_MATCH, op.TEXT_MATCH_INSENSITIVE])

    def make(key, operators, values):
        return st.builds(lambda o, v: MetadataFilter(key=key, operator=o, value=v), operators, values)

    return st.one_of(
        make("num", order | same, number),
        make("word", order | same, word),
        make("num", member, st.lists(number, max_size=3)),
        make("word", member, st.lists(word, max_size=3)),
        make("word", text, word),
        make("word", several, st.lists(word, max_size=3)),
        make("list", several, st.lists(word, max_size=3)),
        make("list", st.just(op.CONTAINS), word),
        make("word", st.just(op.CONTAINS), word),
        make("absent", same, word),
        st.builds(lambda key: MetadataFilter(key=key, operator=op.IS_EMPTY, value=None), st.sampled_from(KEYS)),
    )


@settings(max_examples=400, deadline=None)
@given(METADATA, st.lists(conditions(), min_size=1, max_size=3), st.sampled_from(list(FilterCondition)))
def test_filters_mean_what_the_simple_vector_store_means(metadata, parts, condition):
    filters = MetadataFilters(filters=parts, condition=condition)
    expected = build_metadata_filter_fn(lambda _: metadata, filters)("node")
    assert matches(parse_filter(to_where(filters)), metadata) == expected


def test_nested_filters():
    inner = MetadataFilters(filters=[MetadataFilter(key="num", value=1), MetadataFilter(key="num", value=2)], condition="or")
    outer = MetadataFilters(filters=[inner, MetadataFilter(key="word", value="a")], condition="and")
    expression = parse_filter(to_where(outer))
    assert matches(expression, {"num": 2, "word": "a"})
    assert not matches(expression, {"num": 3, "word": "a"})


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_the_package_loads_no_framework_and_no_torch():
    code = (
        "import sys, crisp_rag, crisp_rag.index, crisp_rag.retrievers;"
        "print([n for n in ('torch', 'langchain_core', 'llama_index', 'sentence_transformers') if n in sys.modules])"
    )
    assert run(code).strip() == "[]"


@pytest.mark.parametrize(
    ("module", "framework", "extra"),
    [("langchain", "langchain_core", "langchain"), ("llama_index", "llama_index", "llama-index")],
)
def test_a_missing_framework_names_what_to_install(module, framework, extra):
    code = (
        f"import sys; sys.modules['{framework}'] = None\n"
        f"try:\n    import crisp_rag.retrievers.{module}\nexcept ImportError as error:\n    print(error)"
    )
    assert f"crisp-rag[{extra}]" in run(code)
