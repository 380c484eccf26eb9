"""The LlamaIndex vector store and managed index: writing, reading, updating, persisting."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llama_index.core")

from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import Document, IndexNode, TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores.types import (
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

from crisp_rag.errors import IndexClosedError, IndexExistsError, IndexNotFoundError, InvalidInputError
from crisp_rag.index import CrispIndex
from crisp_rag.retrievers.llama_index import CrispRetriever, CrispVectorIndex, CrispVectorStore, PassThroughEmbedding

SPLITTER = SentenceSplitter(chunk_size=60, chunk_overlap=0)
LONG = "The first parcel is red and it weighs two kilos and a half. The second parcel is blue and it weighs far more. " * 5
WRONG = MetadataFilters(filters=[MetadataFilter(key="a", value="x", operator=FilterOperator.IN)])


@pytest.fixture
def empty(tmp_path: Path, counting_encoder: Any) -> Iterator[CrispIndex]:
    with CrispIndex.create(tmp_path / "empty", counting_encoder) as index:
        yield index


def texts(index: CrispIndex) -> list[str]:
    return sorted(passage.text for passage in index.passages())


def equals(key: str, value: Any) -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key=key, value=value)])


class TestVectorStore:
    def test_a_query_gives_nodes_ids_and_maxsim(self, index: CrispIndex, query: str) -> None:
        store = CrispVectorStore(index)
        result = store.query(VectorStoreQuery(query_str=query, similarity_top_k=4))
        hits = index.search(query, 4)
        assert result.ids == [hit.id for hit in hits]
        assert result.similarities == [hit.score for hit in hits]
        assert [(node.node_id, node.get_content()) for node in result.nodes] == [(hit.id, hit.text) for hit in hits]
        assert asyncio.run(store.aquery(VectorStoreQuery(query_str=query, similarity_top_k=4))) == result
        assert store.client is index and store.stores_text and not store.is_embedding_query

    def test_filters_and_ids_of_a_query_apply_before_the_cut(self, index: CrispIndex) -> None:
        store = CrispVectorStore(index)

        def ids(**options: Any) -> set[str]:
            return set(store.query(VectorStoreQuery(query_str="parcel", similarity_top_k=2, **options)).ids)

        assert ids(filters=equals("team", "shop")) == {"hours", "repair"}
        assert ids(node_ids=["gift", "repair", "gone"]) == {"gift", "repair"}
        assert ids(doc_ids=["abroad.md"]) == {"abroad"}
        assert len(ids(node_ids=[], doc_ids=[])) == 2

    def test_nodes_are_added_as_one_batch_and_blank_ones_passed_over(
        self, empty: CrispIndex, caplog: pytest.LogCaptureFixture
    ) -> None:
        store = CrispVectorStore(empty)
        with caplog.at_level(logging.WARNING):
            added = store.add([TextNode(id_=str(n), text=f"word {n}" if n else " ") for n in range(40)])
        assert added == [str(n) for n in range(1, 40)]
        assert "1 nodes without text" in caplog.text
        assert empty.encoder.documents == [39]

    def test_nodes_are_deleted_by_id_by_filter_and_by_source(self, index: CrispIndex) -> None:
        store = CrispVectorStore(index)
        store.delete_nodes(["repair", "gone"])
        store.delete_nodes(filters=equals("year", 2022))
        store.delete_nodes(["ship", "hours"], equals("team", "shop"))
        assert {passage.id for passage in index.passages()} == {"refund", "ship", "abroad"}
        asyncio.run(store.adelete("policy.md"))
        assert {passage.id for passage in index.passages()} == {"abroad"}
        with pytest.raises(InvalidInputError, match="clear"):
            store.delete_nodes()
        asyncio.run(store.aclear())
        assert store.get_nodes() == [] and len(index) == 0

    @pytest.mark.parametrize(
        "query",
        [
            VectorStoreQuery(query_embedding=[0.1]),
            VectorStoreQuery(query_str=" "),
            VectorStoreQuery(query_str="a", similarity_top_k=0),
            VectorStoreQuery(query_str="a", mode=VectorStoreQueryMode.MMR),
            VectorStoreQuery(query_str="a", filters=WRONG),
        ],
    )
    def test_a_query_that_cannot_be_answered_is_refused(self, index: CrispIndex, query: VectorStoreQuery) -> None:
        store = CrispVectorStore(index)
        with pytest.raises(InvalidInputError):
            store.query(query)
        with pytest.raises(InvalidInputError):
            asyncio.run(store.aquery(query))

    def test_a_vector_store_index_over_it_writes_and_retrieves(self, empty: CrispIndex, tmp_path: Path) -> None:
        context = StorageContext.from_defaults(vector_store=CrispVectorStore(empty))
        index = VectorStoreIndex.from_documents(
            [Document(text=LONG, id_="long"), Document(text="gift cards", id_="gift")],
            storage_context=context,
            embed_model=PassThroughEmbedding(),
            transformations=[SPLITTER],
        )
        retriever = index.as_retriever(similarity_top_k=1)
        assert [node.text for node in retriever.retrieve("gift cards")] == ["gift cards"]
        assert [node.text for node in asyncio.run(retriever.aretrieve("gift cards"))] == ["gift cards"]
        assert index.as_retriever(similarity_top_k=1).retrieve("blue parcel")[0].score > 1
        index.delete_ref_doc("long")
        assert texts(empty) == ["gift cards"]
        context.persist(tmp_path / "context")
        again = VectorStoreIndex.from_vector_store(CrispVectorStore(empty), embed_model=PassThroughEmbedding())
        assert [node.text for node in again.as_retriever().retrieve("gift")] == ["gift cards"]


class TestIngestionPipeline:
    def pipeline(self, index: CrispIndex, strategy: DocstoreStrategy = DocstoreStrategy.UPSERTS) -> IngestionPipeline:
        return IngestionPipeline(
            transformations=[SPLITTER, PassThroughEmbedding()],
            vector_store=CrispVectorStore(index),
            docstore=SimpleDocumentStore(),
            docstore_strategy=strategy,
        )

    @pytest.mark.parametrize("run", ["run", "arun"])
    def test_it_writes_skips_updates_and_deletes(self, empty: CrispIndex, run: str) -> None:
        pipeline = self.pipeline(empty, DocstoreStrategy.UPSERTS_AND_DELETE)

        def ingest(*documents: Document) -> list[Any]:
            done = getattr(pipeline, run)(documents=list(documents))
            return asyncio.run(done) if run == "arun" else done

        long, gift = Document(text=LONG, id_="long"), Document(text="gift cards", id_="gift", metadata={"year": 2024})
        assert len(ingest(long, gift)) == len(empty) > 2
        assert ingest(long, gift) == [] and len(empty.encoder.documents) == 1
        ingest(long, Document(text="gift cards never expire", id_="gift", metadata={"year": 2025}))
        (node,) = CrispRetriever(empty, doc_ids=["gift"]).retrieve("gift")
        assert (node.text, node.metadata, node.node.ref_doc_id) == ("gift cards never expire", {"year": 2025}, "gift")
        ingest(Document(text="gift cards never expire", id_="gift", metadata={"year": 2025}))
        assert texts(empty) == ["gift cards never expire"]

    def test_whole_documents_are_updated_too(self, empty: CrispIndex) -> None:
        pipeline = self.pipeline(empty, DocstoreStrategy.UPSERTS_AND_DELETE)
        pipeline.transformations = [PassThroughEmbedding()]
        pipeline.run(documents=[Document(text="alpha", id_="a"), Document(text="beta", id_="b")])
        pipeline.run(documents=[Document(text="gamma", id_="a")])
        assert texts(empty) == ["gamma"]


class TestManagedIndex:
    @pytest.fixture
    def managed(self, empty: CrispIndex) -> CrispVectorIndex:
        documents = [Document(text=LONG, id_="long"), Document(text="gift cards", id_="gift", metadata={"year": 2024})]
        return CrispVectorIndex.from_documents(documents, index=empty, transformations=[SPLITTER])

    def test_documents_go_in_as_one_batch_and_come_out_as_nodes(self, managed: CrispVectorIndex) -> None:
        assert managed.index.encoder.documents == [len(managed.index)]
        (node,) = managed.as_retriever(similarity_top_k=1).retrieve("gift cards")
        assert (node.text, node.metadata, node.node.ref_doc_id) == ("gift cards", {"year": 2024}, "gift")
        info = managed.ref_doc_info
        assert set(info) == {"long", "gift"} and info["gift"].metadata == {"year": 2024}
        assert len(info["long"].node_ids) == len(managed.index) - 1 > 1

    @pytest.mark.parametrize("is_async", [False, True])
    def test_documents_are_inserted_deleted_and_updated(self, managed: CrispVectorIndex, is_async: bool) -> None:
        def do(name: str, *arguments: Any) -> Any:
            return asyncio.run(getattr(managed, f"a{name}")(*arguments)) if is_async else getattr(managed, name)(*arguments)

        do("insert", Document(text="opening hours", id_="hours"))
        do("insert_nodes", [TextNode(id_="n", text="a single node")])
        do("delete_ref_doc", "long")
        do("delete_ref_doc", "gone")
        assert texts(managed.index) == ["a single node", "gift cards", "opening hours"]
        do("update_ref_doc", Document(text="gift cards never expire", id_="gift"))
        do("delete_nodes", ["n", "gone"])
        assert texts(managed.index) == ["gift cards never expire", "opening hours"]
        do("update_ref_doc", Document(text=" ", id_="gift"))
        assert texts(managed.index) == ["opening hours"]

    @pytest.mark.parametrize("is_async", [False, True])
    def test_refresh_writes_what_is_new_or_changed_and_nothing_else(self, managed: CrispVectorIndex, is_async: bool) -> None:
        def refresh(*documents: Document) -> list[bool]:
            if is_async:
                return asyncio.run(managed.arefresh_ref_docs(list(documents)))
            return managed.refresh_ref_docs(list(documents))

        long, gift = Document(text=LONG, id_="long"), Document(text="gift cards", id_="gift", metadata={"year": 2024})
        before = [passage.id for passage in managed.index.passages()]
        assert refresh(long, gift) == [False, False]
        assert [passage.id for passage in managed.index.passages()] == before
        changed = Document(text="gift cards", id_="gift", metadata={"year": 2025})
        assert refresh(long, changed, Document(text="new", id_="new")) == [False, True, True]
        assert managed.index.encoder.documents == [len(before), 2]
        assert managed.as_retriever(doc_ids=["gift"]).retrieve("gift")[0].metadata == {"year": 2025}
        assert refresh(long, changed, Document(text="new", id_="new")) == [False, False, False]
        assert managed.refresh([changed]) == [False]

    def test_documents_in_one_piece_are_refreshed_too(self, empty: CrispIndex) -> None:
        keep_whole = SentenceSplitter(chunk_size=512)
        managed = CrispVectorIndex(empty, nodes=[Document(text="alpha", id_="a")], transformations=[keep_whole])
        assert managed.refresh_ref_docs([Document(text="alpha", id_="a")]) == [False]
        assert managed.refresh_ref_docs([Document(text="beta", id_="a")]) == [True]
        assert texts(empty) == ["beta"]

    def test_it_is_made_at_a_path_over_an_index_or_in_a_storage_context(self, tmp_path: Path, encoder: Any) -> None:
        documents = [Document(text="alpha", id_="a")]
        made = CrispVectorIndex.from_documents(documents, path=tmp_path / "i", encoder=encoder, where={"tenant": "x"})
        assert made.index.path == tmp_path / "i"
        context = StorageContext.from_defaults(vector_store=CrispVectorStore(made.index, {"tenant": "y"}))
        other = CrispVectorIndex.from_documents([Document(text="beta", id_="a")], context)
        assert [node.text for node in other.as_retriever().retrieve("a")] == ["beta"]
        assert [node.text for node in made.as_retriever().retrieve("a")] == ["alpha"]
        with pytest.raises(IndexExistsError):
            CrispVectorIndex.from_documents(documents, path=tmp_path / "i", encoder=encoder)
        for places in (
            {},
            {"path": tmp_path / "j", "index": made.index},
            {"storage_context": StorageContext.from_defaults()},
        ):
            with pytest.raises(InvalidInputError):
                CrispVectorIndex.from_documents(documents, **places)

    def test_it_persists_elsewhere_loads_again_and_needs_no_persisting_where_it_is(
        self, managed: CrispVectorIndex, tmp_path: Path, encoder: Any, counting_encoder: Any
    ) -> None:
        managed.persist(managed.index.path)
        managed.persist(tmp_path / "copy")
        for load in (CrispVectorIndex.load, CrispVectorIndex.from_persist_dir):
            loaded = load(tmp_path / "copy", encoder, transformations=[SPLITTER])
            assert texts(loaded.index) == texts(managed.index)
            assert loaded.refresh_ref_docs([Document(text=LONG, id_="long")]) == [False]
            loaded.index.close()
        retriever = CrispRetriever.from_persist_dir(tmp_path / "copy", encoder, similarity_top_k=1)
        retriever.persist(tmp_path / "again")
        assert retriever.retrieve("gift cards")[0].text == "gift cards"
        with pytest.raises(IndexNotFoundError):
            CrispVectorIndex.load(tmp_path / "nothing")

    def test_a_retriever_takes_its_options_and_refuses_others(self, managed: CrispVectorIndex) -> None:
        assert len(managed.as_retriever(similarity_top_k=1).retrieve("parcel")) == 1
        assert [n.text for n in managed.as_retriever(filters=equals("year", 2024)).retrieve("parcel")] == ["gift cards"]
        assert [n.text for n in managed.as_retriever(where={"year": 2024}).retrieve("parcel")] == ["gift cards"]
        assert managed.as_retriever(streaming=True, response_mode="compact", system_prompt="x").similarity_top_k == 10
        with pytest.raises(InvalidInputError, match=r"similarity_topk.*similarity_top_k"):
            managed.as_retriever(similarity_topk=3)
        with pytest.raises(InvalidInputError, match="similarity_topk"):
            managed.as_query_engine(llm=MockLLM(), similarity_topk=3)

    def test_query_and_chat_engines_answer_from_what_it_retrieves(self, managed: CrispVectorIndex) -> None:
        engine = managed.as_query_engine(llm=MockLLM(), similarity_top_k=1, response_mode="compact")
        response = engine.query("gift cards")
        assert "gift cards" in str(response) and [node.text for node in response.source_nodes] == ["gift cards"]
        chat = managed.as_chat_engine(llm=MockLLM(), chat_mode="context", similarity_top_k=1, system_prompt="Be brief.")
        assert [node.text for node in chat.chat("gift cards").source_nodes] == ["gift cards"]

    def test_an_index_node_leads_to_its_object(self, empty: CrispIndex) -> None:
        inner = CrispVectorIndex(empty, {"part": "inner"}, nodes=[TextNode(id_="deep", text="parcel shipping table")])
        node = IndexNode(id_="pointer", text="parcel tables", index_id="tables", obj=inner.as_retriever())
        outer = CrispVectorIndex(empty, {"part": "outer"}, objects=[node])
        assert node.obj is not None, "what the caller passed stays as it was"
        assert [found.node_id for found in outer.as_retriever().retrieve("parcel")] == ["deep"]
        assert [found.node_id for found in asyncio.run(outer.as_retriever().aretrieve("parcel"))] == ["deep"]

    def test_callbacks_see_the_writing_and_the_retrieval_with_its_scores(self, empty: CrispIndex) -> None:
        handler = LlamaDebugHandler(print_trace_on_end=False)
        managed = CrispVectorIndex(empty, callback_manager=CallbackManager([handler]), transformations=[SPLITTER])
        managed.insert(Document(text="gift cards", id_="gift"))
        managed.as_retriever().retrieve("gift cards")
        ((start, end),) = handler.get_event_pairs(CBEventType.RETRIEVE)
        assert start.payload["query_str"] == "gift cards"
        assert [node.score for node in end.payload["nodes"]] == [empty.search("gift cards")[0].score]


def test_no_source_document_is_not_every_node_that_has_none(index: CrispIndex) -> None:
    before = len(index)
    store, managed = CrispVectorStore(index), CrispVectorIndex(index)
    for call in (
        lambda: store.delete(None),  # type: ignore[arg-type]
        lambda: managed.delete_ref_doc(None),  # type: ignore[arg-type]
        lambda: CrispRetriever(index, doc_ids=[None]),  # type: ignore[list-item]
        lambda: store.query(VectorStoreQuery(query_str="parcel", similarity_top_k=2, doc_ids=[None])),  # type: ignore[list-item]
    ):
        with pytest.raises(InvalidInputError, match="id is a string"):
            call()
    assert len(index) == before


def test_an_option_that_nobody_reads_is_refused_where_it_could_restrict(index: CrispIndex) -> None:
    store, managed = CrispVectorStore(index), CrispVectorIndex(index)
    query = VectorStoreQuery(query_str="parcel", similarity_top_k=2)
    where = {"team": "sales"}
    for call in (
        lambda: store.query(query, where=where),
        lambda: asyncio.run(store.aquery(query, where=where)),
        lambda: store.delete("policy.md", where=where),
        lambda: asyncio.run(store.adelete("policy.md", where=where)),
        lambda: store.delete_nodes(["ship"], where=where),
        lambda: asyncio.run(store.adelete_nodes(["ship"], where=where)),
        lambda: managed.delete_nodes(["ship"], where=where),
        lambda: asyncio.run(managed.adelete_ref_doc("policy.md", where=where)),
    ):
        with pytest.raises(InvalidInputError, match="Unknown options where"):
            call()
    assert len(index) == 6


def test_refreshing_a_document_given_twice_keeps_the_last(empty: CrispIndex) -> None:
    managed = CrispVectorIndex(empty)
    one, other = Document(text="one", id_="d"), Document(text="other", id_="d")
    assert managed.refresh_ref_docs([one, one]) == [True, False]
    assert texts(empty) == ["one"]
    assert managed.refresh_ref_docs([one, other, one, other]) == [False, True, True, True]
    assert texts(empty) == ["other"]


def test_updates_of_one_document_at_the_same_time_leave_one(empty: CrispIndex) -> None:
    managed = CrispVectorIndex(empty)
    documents = [Document(text=f"version {number}", id_="d") for number in range(8)]

    async def update() -> None:
        await asyncio.gather(*(managed.aupdate_ref_doc(document) for document in documents[:4]))
        await asyncio.gather(*(managed.arefresh_ref_docs([document]) for document in documents[4:]))

    asyncio.run(update())
    assert len(empty) == 1


def test_a_document_in_one_piece_within_a_bound_filter_is_unchanged_at_the_next_refresh(empty: CrispIndex) -> None:
    managed = CrispVectorIndex(empty, {"tenant": "a"}, transformations=[PassThroughEmbedding()])
    document = Document(text="whole", id_="d", metadata={"year": 2026})
    assert managed.refresh_ref_docs([document]) == [True]
    assert [passage.id for passage in empty.passages({"tenant": "a"})] == ["d"]
    assert managed.refresh_ref_docs([document]) == [False]


def test_more_documents_than_sqlite_takes_values_can_be_refreshed(empty: CrispIndex) -> None:
    managed = CrispVectorIndex(empty)
    documents = [Document(text="red", id_=f"d{number}") for number in (1, 2)]
    managed.refresh_ref_docs(documents)
    assert len(managed._hashes([f"d{number}" for number in range(40_000)])) == 2


def test_a_place_that_was_opened_for_nothing_is_closed_again(index: CrispIndex, encoder: Any) -> None:
    opened: list[CrispIndex] = []

    class Watched(CrispRetriever):
        def __init__(self, index: CrispIndex, *args: Any, **options: Any) -> None:
            opened.append(index)
            super().__init__(index, *args, **options)

    with pytest.raises(InvalidInputError, match="similarity_top_k"):
        Watched.from_persist_dir(index.path, encoder, similarity_top_k=0)
    with pytest.raises(IndexClosedError):
        len(opened[0])
