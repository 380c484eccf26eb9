"""The LangChain vector store beyond LangChain's own tests: scores, filters, bad input, files, batches."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langchain_core")

from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding

from crisp_rag.errors import FilterError, IndexExistsError, InvalidInputError
from crisp_rag.index import CrispIndex
from crisp_rag.retrievers.langchain import CrispVectorStore


@pytest.fixture
def store(index: CrispIndex) -> CrispVectorStore:
    return CrispVectorStore(index=index)


def ids(documents: Any) -> list[str]:
    return [(document[0] if isinstance(document, tuple) else document).id for document in documents]


def test_documents_come_back_as_they_were_added_with_the_scores_of_a_search(store: CrispVectorStore, query: str) -> None:
    hits = store.index.search(query, k=4)
    assert store.similarity_search(query) == [
        Document(id=hit.id, page_content=hit.text, metadata=hit.metadata) for hit in hits
    ]
    scored = store.similarity_search_with_score(query, k=4)
    assert [(document.id, score) for document, score in scored] == [(hit.id, hit.score) for hit in hits]
    assert scored == asyncio.run(store.asimilarity_search_with_score(query, k=4))
    assert store.embeddings is None


def test_relevance_scores_lie_between_zero_and_one_and_keep_the_order(store: CrispVectorStore, query: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = store.similarity_search_with_relevance_scores(query, k=6)
        assert asyncio.run(store.asimilarity_search_with_relevance_scores(query, k=6)) == found
    assert ids(found) == ids(store.similarity_search(query, k=6))
    assert all(0 <= score <= 1 for _, score in found)
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)


def test_a_text_asked_for_word_by_word_has_relevance_one_and_a_threshold_keeps_it(store: CrispVectorStore) -> None:
    ((document, relevance),) = store.similarity_search_with_relevance_scores("repair of a watch takes two weeks", k=1)
    assert document.id == "repair" and relevance == pytest.approx(1, abs=1e-3)
    retriever = store.as_retriever(search_type="similarity_score_threshold", search_kwargs={"score_threshold": 0.9, "k": 6})
    assert ids(retriever.invoke("repair of a watch takes two weeks")) == ["repair"]
    assert ids(asyncio.run(retriever.ainvoke("repair of a watch takes two weeks"))) == ["repair"]
    assert [ids(found) for found in retriever.batch(["repair of a watch takes two weeks"])] == [["repair"]]


@pytest.mark.parametrize("name", ["filter", "where"])
def test_filters_apply_before_the_cut(store: CrispVectorStore, name: str) -> None:
    shop = {name: {"team": "shop"}}
    assert set(ids(store.similarity_search("parcel", k=2, **shop))) == {"hours", "repair"}
    assert set(ids(asyncio.run(store.asimilarity_search("parcel", k=2, **shop)))) == {"hours", "repair"}
    recent = {name: lambda metadata: metadata.get("year", 0) > 2024}
    assert set(ids(store.similarity_search("parcel", k=9, **recent))) == {"abroad", "hours"}
    assert set(ids(store.as_retriever(search_kwargs={"k": 9, **recent}).invoke("parcel"))) == {"abroad", "hours"}
    both = store.similarity_search("parcel", filter={"team": "shop"}, where={"year": 2025})
    assert ids(both) == ["hours"]


def test_a_retriever_takes_k_and_filter_for_one_call(store: CrispVectorStore) -> None:
    retriever = store.as_retriever(search_kwargs={"k": 3})
    assert len(retriever.invoke("parcel")) == 3
    assert len(retriever.invoke("parcel", k=1)) == 1
    assert ids(retriever.invoke("parcel", filter={"team": "shop"}, k=1)) in (["hours"], ["repair"])
    assert retriever.tags and "CrispVectorStore" in retriever.tags


def test_upsert_says_what_succeeded_and_get_by_ids_keeps_the_order(store: CrispVectorStore) -> None:
    response = store.upsert([Document("alpha", id="x"), Document("beta", id="ship", metadata={"n": 1}), Document("gamma")])
    assert response["failed"] == [] and response["succeeded"][:2] == ["x", "ship"]
    made = response["succeeded"][2]
    assert store.get_by_ids([made, "gone", "ship", "x"]) == [
        Document("gamma", id=made),
        Document("beta", id="ship", metadata={"n": 1}),
        Document("alpha", id="x"),
    ]
    again = asyncio.run(store.aupsert([Document("delta", id="x")]))
    assert again == {"succeeded": ["x"], "failed": []}
    assert asyncio.run(store.aget_by_ids(["x"])) == [Document("delta", id="x")]


def test_delete_takes_ids_or_a_filter_and_never_everything_by_mistake(store: CrispVectorStore) -> None:
    assert store.delete(["ship", "gone"]) is True
    assert store.delete(filter={"team": "sales"}) is True
    assert sorted(passage.id for passage in store.index.passages()) == ["abroad", "hours", "repair"]
    assert store.delete(["abroad", "hours"], where={"team": "shop"}) is True
    assert sorted(passage.id for passage in store.index.passages()) == ["abroad", "repair"]
    with pytest.raises(InvalidInputError, match="needs ids or where"):
        store.delete()
    with pytest.raises(InvalidInputError, match="not both"):
        store.delete(filter={}, where={})
    assert asyncio.run(store.adelete(["repair"])) is True
    assert store.delete(where={}) is True
    assert len(store.index) == 0


@pytest.mark.parametrize("way", ["texts", "documents", "atexts", "adocuments"])
def test_a_store_is_made_from_texts_or_documents(way: str, tmp_path: Path, encoder: Any) -> None:
    path, texts, metadatas = tmp_path / "i", ["alpha beta", "gamma"], [{"n": 1}, {"n": 2}]
    documents = [Document(texts[0], id="a", metadata=metadatas[0]), Document(texts[1], metadata=metadatas[1])]
    made: Any = {
        "texts": lambda: CrispVectorStore.from_texts(texts, encoder, metadatas, ids=["a", None], path=path),
        "documents": lambda: CrispVectorStore.from_documents(iter(documents), encoder, path=path),
        "atexts": lambda: asyncio.run(CrispVectorStore.afrom_texts(texts, encoder, metadatas, ids=["a", None], path=path)),
        "adocuments": lambda: asyncio.run(CrispVectorStore.afrom_documents(documents, encoder, path=path)),
    }[way]()
    first, second = made.similarity_search("alpha beta")
    assert first == Document("alpha beta", id="a", metadata={"n": 1})
    assert (second.page_content, second.metadata) == ("gamma", {"n": 2}) and second.id
    with pytest.raises(IndexExistsError):
        CrispVectorStore.from_texts(["more"], encoder, path=path)
    more = CrispVectorStore.from_texts(["more"], encoder, path=path, exist_ok=True)
    assert len(more.index) == 3


def test_an_embedding_model_of_one_vector_a_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="DeterministicFakeEmbedding"):
        CrispVectorStore.from_texts(["a"], DeterministicFakeEmbedding(size=3), path=tmp_path / "i")  # type: ignore[arg-type]
    assert not (tmp_path / "i").exists()
    with pytest.raises(InvalidInputError, match="load_local"):
        CrispVectorStore(index=str(tmp_path))  # type: ignore[arg-type]


def test_a_saved_store_loads_elsewhere_and_holds_no_pickle(store: CrispVectorStore, tmp_path: Path, encoder: Any) -> None:
    store.save_local(tmp_path / "saved")
    assert {path.suffix for path in (tmp_path / "saved").rglob("*") if path.is_file()} == {".sqlite", ".f16"}
    loaded = CrispVectorStore.load_local(tmp_path / "saved", encoder, where={"team": "shop"})
    assert set(ids(loaded.similarity_search("parcel", k=9))) == {"hours", "repair"}
    store.add_texts(["alpha"], ids=["new"])
    store.save_local(tmp_path / "saved")
    loaded.index.close()
    assert len(CrispVectorStore.load_local(tmp_path / "saved", encoder).index) == 7


def test_batches_reach_the_encoder_as_batches(tmp_path: Path, counting_encoder: Any, texts: dict[str, str]) -> None:
    store = CrispVectorStore.from_texts([], counting_encoder, path=tmp_path / "i")
    store.add_documents([Document(text, id=id_) for id_, text in texts.items()])
    assert counting_encoder.documents == [6]
    retriever = store.as_retriever(search_kwargs={"k": 2})
    queries = ["parcel shipping", "watch", "parcel shipping", "refunds"]
    assert [ids(found) for found in retriever.batch(queries)] == [ids(store.similarity_search(q, 2)) for q in queries]
    assert counting_encoder.queries == [3, 1, 1, 1, 1]


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.similarity_search(" "),
        lambda store: store.similarity_search("a", k=0),
        lambda store: store.similarity_search("a", top_k=3),
        lambda store: asyncio.run(store.asimilarity_search("a", fetch_k=3)),
        lambda store: store.similarity_search_by_vector([0.1]),
        lambda store: store.max_marginal_relevance_search("a"),
        lambda store: asyncio.run(store.amax_marginal_relevance_search("a", k=2)),
        lambda store: store.as_retriever(search_type="mmr").invoke("a"),
        lambda store: store.add_texts(["a"], ids=["1", "2"]),
        lambda store: store.add_texts("one string"),
        lambda store: store.add_texts(["a"], namespace="x"),
        lambda store: store.add_texts(["a", "b"], ids=["1", "1"]),
        lambda store: store.upsert([Document("a"), Document(" ")]),
        lambda store: store.delete(["a"], cascade=True),
        lambda store: store.delete("repair"),
        lambda store: store.get_by_ids("repair"),
    ],
)
def test_bad_input_is_refused_and_changes_nothing(store: CrispVectorStore, call: Any) -> None:
    with pytest.raises(InvalidInputError):
        call(store)
    assert len(store.index) == 6


def test_a_malformed_filter_is_refused_when_the_store_is_made(index: CrispIndex) -> None:
    with pytest.raises(FilterError, match=r"\$near"):
        CrispVectorStore(index=index, where={"a": {"$near": 1}})


def test_a_batch_with_a_bad_query_raises_its_error_or_returns_it(store: CrispVectorStore) -> None:
    retriever = store.as_retriever(search_kwargs={"k": 1})
    with pytest.raises(InvalidInputError, match="blank"):
        retriever.batch(["watch", " "])
    good, bad = retriever.batch(["repair of a watch", " "], return_exceptions=True)
    assert ids(good) == ["repair"] and isinstance(bad, InvalidInputError)


@pytest.fixture
def records() -> Iterator[Any]:
    from langchain_core.indexing import InMemoryRecordManager

    manager = InMemoryRecordManager(namespace="crisp")
    manager.create_schema()
    yield manager


def test_langchains_index_adds_skips_updates_and_cleans_up(store: CrispVectorStore, records: Any) -> None:
    from langchain_core.indexing import aindex, index

    store.delete(where={})

    def documents(*pairs: tuple[str, str]) -> list[Document]:
        return [Document(text, metadata={"source": source}) for text, source in pairs]

    def counts(result: Any) -> tuple[int, int, int, int]:
        return result["num_added"], result["num_updated"], result["num_skipped"], result["num_deleted"]

    options: Any = {"source_id_key": "source", "key_encoder": "sha256"}
    first = documents(("alpha", "a"), ("beta", "a"), ("gamma", "b"))
    assert counts(index(first, records, store, cleanup="incremental", **options)) == (3, 0, 0, 0)
    assert counts(index(first, records, store, cleanup="incremental", **options)) == (0, 0, 3, 0)
    changed = documents(("alpha", "a"), ("delta", "a"))
    assert counts(index(changed, records, store, cleanup="incremental", **options)) == (1, 0, 1, 1)
    assert {passage.text for passage in store.index.passages()} == {"alpha", "delta", "gamma"}
    assert counts(index(documents(("gamma", "b")), records, store, cleanup="full", **options)) == (0, 0, 1, 2)
    assert counts(asyncio.run(aindex([], records, store, cleanup="full", **options))) == (0, 0, 0, 1)
    assert len(store.index) == 0
