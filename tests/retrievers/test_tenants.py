"""Tenants share an index by a bound filter, and nothing that a caller gives or calls gets past it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langchain_core")
pytest.importorskip("llama_index.core")

from langchain_core.documents import Document
from langchain_core.runnables import ConfigurableField
from llama_index.core.schema import Document as LlamaDocument
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
)
from pydantic import ValidationError

from crisp_rag.errors import InvalidInputError
from crisp_rag.index import CrispIndex, Passage
from crisp_rag.retrievers import langchain, llama_index
from crisp_rag.retrievers.scope import ScopedIndex

BOUND: list[Any] = [{"tenant": "a"}, lambda metadata: metadata.get("tenant") == "a"]
WIDER: list[Any] = [
    {},
    {"$and": []},
    {"tenant": "b"},
    {"tenant": {"$ne": "a"}},
    {"$or": [{"tenant": "a"}, {"tenant": "b"}]},
    {"$not": {"tenant": "a"}},
    {"tenant": {"$exists": True}},
    lambda metadata: True,
    lambda metadata: metadata.update(tenant="a") or True,
]
LLAMA_WIDER = [
    MetadataFilters(filters=[]),
    MetadataFilters(filters=[MetadataFilter(key="tenant", value="b")]),
    MetadataFilters(filters=[MetadataFilter(key="tenant", value="a", operator=FilterOperator.NE)]),
    MetadataFilters(
        filters=[MetadataFilter(key="tenant", value="a"), MetadataFilter(key="tenant", value="b")],
        condition=FilterCondition.OR,
    ),
    MetadataFilters(filters=[MetadataFilter(key="tenant", value="a")], condition=FilterCondition.NOT),
]
A, B = {"a1", "a2"}, {"b1", "b2"}


@pytest.fixture
def shared(tmp_path: Path, encoder: Any) -> Iterator[CrispIndex]:
    """Two tenants, each with a document of two passages; both documents have the id "doc"."""
    with CrispIndex.create(tmp_path / "shared", encoder) as index:
        for tenant in "ab":
            index.add(Passage(f"{tenant}{n}", f"secret plan {n}", {"tenant": tenant, "ref_doc_id": "doc"}) for n in (1, 2))
        yield index


def everything(index: CrispIndex) -> dict[str, str]:
    return {passage.id: passage.text for passage in index.passages()}


@pytest.fixture(params=BOUND, ids=["dict", "function"])
def bound(request: pytest.FixtureRequest) -> Any:
    return request.param


def langchain_searches(index: CrispIndex, bound: Any, wider: Any) -> dict[str, Callable[[], set[str | None]]]:
    retriever = langchain.CrispRetriever(index=index, where=bound)
    store = langchain.CrispVectorStore(index=index, where=bound)
    by_store = store.as_retriever(search_kwargs={"k": 9, "filter": wider})

    def ids(documents: Any) -> set[str | None]:
        return {(found[0] if isinstance(found, tuple) else found).id for found in documents}

    return {
        "invoke where": lambda: ids(retriever.invoke("secret", where=wider)),
        "invoke filter": lambda: ids(retriever.invoke("secret", k=99, filter=wider)),
        "ainvoke": lambda: ids(asyncio.run(retriever.ainvoke("secret", where=wider))),
        "batch": lambda: ids(retriever.batch(["secret", "secret plan"], where=wider)[0]),
        "bind": lambda: ids(retriever.bind(where=wider).invoke("secret")),
        "bind over bind": lambda: ids(retriever.bind(where={"tenant": "a"}).bind(where=wider).invoke("secret")),
        "config": lambda: ids(retriever.invoke("secret", config={"configurable": {"where": wider, "index": None}})),
        "with_config": lambda: ids(retriever.with_config(configurable={"where": wider}).invoke("secret")),
        "configured k": lambda: ids(
            retriever.configurable_fields(k=ConfigurableField(id="k")).invoke(
                "secret", config={"configurable": {"k": 99, "where": wider}}
            )
        ),
        "store": lambda: ids(store.similarity_search("secret", k=9, filter=wider)),
        "store async": lambda: ids(asyncio.run(store.asimilarity_search_with_score("secret", k=9, where=wider))),
        "store relevance": lambda: ids(store.similarity_search_with_relevance_scores("secret", k=9, filter=wider)),
        "store search": lambda: ids(store.search("secret", "similarity", k=9, filter=wider)),
        "as_retriever": lambda: ids(by_store.invoke("secret")),
        "as_retriever call": lambda: ids(by_store.invoke("secret", where=wider)),
        "as_retriever batch": lambda: ids(by_store.batch(["secret"], filter=wider)[0]),
        "as_retriever configured": lambda: ids(
            by_store.configurable_fields(search_kwargs=ConfigurableField(id="s")).invoke(
                "secret", config={"configurable": {"s": {"k": 9, "where": wider}}}
            )
        ),
    }


@pytest.mark.parametrize("number", range(len(WIDER)))
def test_no_filter_of_a_langchain_call_widens_the_bound_one(shared: CrispIndex, bound: Any, number: int) -> None:
    for name, search in langchain_searches(shared, bound, WIDER[number]).items():
        assert search() <= A, name
    assert langchain_searches(shared, bound, None)["invoke where"]() == A


def llama_searches(index: CrispIndex, bound: Any, filters: Any, where: Any) -> dict[str, Callable[[], set[str]]]:
    retriever = llama_index.CrispRetriever(index, where=bound)
    managed = llama_index.CrispVectorIndex(index, bound)
    store = llama_index.CrispVectorStore(index, bound)

    def ids(nodes: Any) -> set[str]:
        return {node.node_id for node in nodes}

    def query(**options: Any) -> VectorStoreQuery:
        return VectorStoreQuery(query_str="secret", similarity_top_k=9, **options)

    return {
        "narrowed": lambda: ids(retriever.narrowed(99, filters, where).retrieve("secret")),
        "narrowed twice": lambda: ids(retriever.narrowed(where=where).narrowed(filters=filters).retrieve("secret")),
        "node_ids": lambda: ids(retriever.narrowed(node_ids=["a1", "b1", "b2"]).retrieve("secret")),
        "doc_ids": lambda: ids(retriever.narrowed(doc_ids=["doc"]).retrieve("secret")),
        "aretrieve": lambda: ids(asyncio.run(retriever.narrowed(filters=filters).aretrieve("secret"))),
        "as_retriever": lambda: ids(managed.as_retriever(filters=filters, where=where).retrieve("secret")),
        "as_retriever ids": lambda: ids(managed.as_retriever(node_ids=["b1"], doc_ids=["doc"]).retrieve("secret")),
        "query": lambda: set(store.query(query(filters=filters)).ids),
        "query ids": lambda: set(store.query(query(node_ids=["b1", "a1"], doc_ids=["doc"])).ids),
        "query without ids": lambda: set(store.query(query(node_ids=[], doc_ids=[])).ids),
        "aquery": lambda: set(asyncio.run(store.aquery(query(filters=filters))).ids),
        "get_nodes": lambda: ids(store.get_nodes(["a1", "b1"])),
        "get_nodes filters": lambda: ids(store.get_nodes(filters=filters)),
        "get_nodes both": lambda: ids(asyncio.run(store.aget_nodes(["a1", "b1"], filters))),
        "get_nodes all": lambda: ids(store.get_nodes()),
        "ref_doc_info": lambda: {id_ for info in managed.ref_doc_info.values() for id_ in info.node_ids},
    }


@pytest.mark.parametrize("number", range(max(len(WIDER), len(LLAMA_WIDER))))
def test_no_restriction_of_a_llama_index_call_widens_the_bound_one(shared: CrispIndex, bound: Any, number: int) -> None:
    filters = LLAMA_WIDER[number % len(LLAMA_WIDER)]
    for name, search in llama_searches(shared, bound, filters, WIDER[number % len(WIDER)]).items():
        assert search() <= A, name
    assert llama_searches(shared, bound, None, None)["narrowed"]() == A


def deletions(index: CrispIndex, bound: Any) -> dict[str, Callable[[], Any]]:
    lang, llama = langchain.CrispVectorStore(index, bound), llama_index.CrispVectorStore(index, bound)
    managed = llama_index.CrispVectorIndex(index, bound)
    document = LlamaDocument(text="a new plan", id_="doc")
    return {
        "ids": lambda: lang.delete(["a1", "a2", "b1", "b2"]),
        "filter": lambda: lang.delete(filter={}),
        "wider": lambda: lang.delete(filter={"tenant": "b"}),
        "or": lambda: lang.delete(where={"$or": [{"tenant": "b"}, {}]}),
        "function": lambda: lang.delete(where=lambda metadata: True),
        "adelete": lambda: asyncio.run(lang.adelete(["b1"])),
        "source": lambda: llama.delete("doc"),
        "nodes": lambda: llama.delete_nodes(["b1", "a1"]),
        "node filters": lambda: llama.delete_nodes(filters=LLAMA_WIDER[1]),
        "clear": lambda: llama.clear(),
        "managed source": lambda: managed.delete_ref_doc("doc"),
        "managed nodes": lambda: asyncio.run(managed.adelete_nodes(["b1"])),
        "managed update": lambda: managed.update_ref_doc(document),
        "managed refresh": lambda: managed.refresh_ref_docs([document]),
    }


DELETIONS = [
    *("ids", "filter", "wider", "or", "function", "adelete", "source", "nodes", "node filters", "clear"),
    *("managed source", "managed nodes", "managed update", "managed refresh"),
]


@pytest.mark.parametrize("name", DELETIONS)
def test_nothing_of_another_tenant_is_ever_deleted(shared: CrispIndex, bound: Any, name: str) -> None:
    before = {id_: text for id_, text in everything(shared).items() if id_ in B}
    if name in ("managed update", "managed refresh") and callable(bound):
        with pytest.raises(InvalidInputError, match="bound filter"):  # nothing says which tenant to write down
            deletions(shared, bound)[name]()
        assert everything(shared).keys() == A | B
    else:
        assert deletions(shared, bound).keys() == set(DELETIONS)
        deletions(shared, bound)[name]()
        if name in ("managed update", "managed refresh"):
            assert A.isdisjoint(everything(shared)), "the tenant's own document was replaced"
    assert {id_: text for id_, text in everything(shared).items() if id_ in B} == before


def writes(index: CrispIndex, bound: Any, id_: str, metadata: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    lang = langchain.CrispVectorStore(index, bound)
    llama = llama_index.CrispVectorStore(index, bound)
    managed = llama_index.CrispVectorIndex(index, bound)
    document = Document("mine now", id=id_, metadata=metadata)
    node = TextNode(id_=id_, text="mine now", metadata=metadata)
    return {
        "add_texts": lambda: lang.add_texts(["mine now"], [metadata], ids=[id_]),
        "add_documents": lambda: lang.add_documents([document]),
        "upsert": lambda: lang.upsert([document]),
        "aadd": lambda: asyncio.run(lang.aadd_documents([document])),
        "add": lambda: llama.add([node]),
        "async_add": lambda: asyncio.run(llama.async_add([node])),
        "insert_nodes": lambda: managed.insert_nodes([node]),
    }


WRITES = ["add_texts", "add_documents", "upsert", "aadd", "add", "async_add", "insert_nodes"]


@pytest.mark.parametrize("name", WRITES)
def test_no_write_takes_the_id_of_another_tenants_passage(shared: CrispIndex, bound: Any, name: str) -> None:
    before = everything(shared)
    with pytest.raises(InvalidInputError, match=r"taken.*'b1'"):
        writes(shared, bound, "b1", {"tenant": "a"})[name]()
    assert everything(shared) == before


@pytest.mark.parametrize("name", WRITES)
def test_no_write_lands_in_another_tenant(shared: CrispIndex, bound: Any, name: str) -> None:
    before = everything(shared)
    with pytest.raises(InvalidInputError, match=r"bound filter.*'new'"):
        writes(shared, bound, "new", {"tenant": "b"})[name]()
    assert everything(shared) == before


@pytest.mark.parametrize("name", WRITES)
def test_a_write_without_the_tenant_gets_it_from_the_bound_filter(shared: CrispIndex, name: str) -> None:
    given: dict[str, Any] = {"n": 1}
    writes(shared, {"tenant": "a", "$and": [{"year": {"$eq": 2026}}]}, "new", given)[name]()
    (passage,) = shared.get(["new"])
    assert {key: passage.metadata[key] for key in ("tenant", "year", "n")} == {"tenant": "a", "year": 2026, "n": 1}
    assert given == {"n": 1}, "what the caller passed stays as it was"
    own = langchain.CrispRetriever(index=shared, where={"tenant": "a"})
    assert "new" in {document.id for document in own.invoke("mine now")}


def test_get_by_ids_shows_the_own_passages_only(shared: CrispIndex, bound: Any) -> None:
    store = langchain.CrispVectorStore(shared, bound)
    assert {document.id for document in store.get_by_ids(["a1", "b1", "b2"])} == {"a1"}
    assert {document.id for document in asyncio.run(store.aget_by_ids(["b1", "a2"]))} == {"a2"}


def test_no_copy_of_the_whole_index_leaves_a_bound_view(shared: CrispIndex, bound: Any, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    for leave in (
        lambda: langchain.CrispVectorStore(shared, bound).save_local(target),
        lambda: llama_index.CrispRetriever(shared, where=bound).persist(target),
        lambda: llama_index.CrispRetriever(shared, node_ids=["a1"]).persist(target),
        lambda: llama_index.CrispVectorIndex(shared, bound).persist(target),
    ):
        with pytest.raises(InvalidInputError):
            leave()
    assert not target.exists()


def test_the_bound_filter_is_no_configurable_field_and_no_attribute_to_set(shared: CrispIndex) -> None:
    retriever = langchain.CrispRetriever(index=shared, where={"tenant": "a"})
    for name in ("where", "index"):
        with pytest.raises(InvalidInputError, match="bound"):
            retriever.configurable_fields(**{name: ConfigurableField(id=name)})
    for name in ("where", "index"):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(retriever, name, None)


def test_a_retriever_without_a_filter_may_get_its_tenant_from_the_servers_config(shared: CrispIndex) -> None:
    retriever = langchain.CrispRetriever(index=shared).configurable_fields(where=ConfigurableField(id="where"))
    for tenant, own in (("a", A), ("b", B)):
        config: Any = {"configurable": {"where": {"tenant": tenant}}}
        assert {document.id for document in retriever.invoke("secret", config=config)} == own
        assert {document.id for document in asyncio.run(retriever.ainvoke("secret", config=config))} == own


def test_changing_the_dict_that_was_bound_changes_nothing(shared: CrispIndex) -> None:
    bound: dict[str, Any] = {"tenant": {"$in": ["a"]}}
    configured = langchain.CrispRetriever(index=shared, where=bound).configurable_fields(k=ConfigurableField(id="k"))
    views = [
        langchain.CrispRetriever(index=shared, where=bound),
        langchain.CrispVectorStore(shared, bound),
        llama_index.CrispRetriever(shared, where=bound),
        llama_index.CrispVectorStore(shared, bound),
        ScopedIndex(shared, bound),
    ]
    bound["tenant"]["$in"].append("b")
    bound.clear()
    for view in views:
        scope = view if isinstance(view, ScopedIndex) else view._scope
        assert {hit.id for hit in scope.search("secret", 9)} == A
    found = configured.invoke("secret", config={"configurable": {"k": 9}})
    assert {document.id for document in found} == A


def test_a_batch_of_one_tenant_never_answers_another(shared: CrispIndex) -> None:
    one, two = ScopedIndex(shared, {"tenant": "a"}), ScopedIndex(shared, {"tenant": "b"})
    with one.searched_ahead(["secret"], 9):
        assert {hit.id for hit in one.search("secret", 9)} == A
        assert {hit.id for hit in two.search("secret", 9)} == B
        assert {hit.id for hit in one.search("secret", 9, {"tenant": "b"})} == set()

    async def both() -> list[set[str]]:
        found = await asyncio.gather(one.asearch("secret", 9), two.asearch("secret", 9))
        return [{hit.id for hit in hits} for hits in found]

    assert asyncio.run(both()) == [A, B]


def test_a_source_document_of_the_same_id_is_each_tenants_own(shared: CrispIndex) -> None:
    source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id="doc", hash="h")}
    store = llama_index.CrispVectorStore(shared, {"tenant": "a"})
    store.add([TextNode(id_="a3", text="secret plan 3", relationships=source)])
    store.delete("doc")
    assert everything(shared).keys() == B
