"""The LangChain retriever: what invoke returns, what it accepts for one call, what it refuses."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langchain_core")

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.runnables import ConfigurableField, RunnableLambda
from pydantic import ValidationError

from crisp_rag.errors import FilterError, IndexExistsError, InvalidInputError
from crisp_rag.index import CrispIndex
from crisp_rag.retrievers.langchain import CrispRetriever


def pairs(documents: list[Document]) -> list[tuple[str | None, float]]:
    return [(document.id, document.metadata.get("crisp_score", document.metadata["score"])) for document in documents]


def test_documents_carry_the_ids_texts_scores_and_metadata_of_a_search(index: CrispIndex, query: str) -> None:
    documents = CrispRetriever(index=index, k=4).invoke(query)
    hits = index.search(query, k=4)
    assert len(documents) == 4
    assert pairs(documents) == [(hit.id, hit.score) for hit in hits]
    for document, hit in zip(documents, hits, strict=True):
        assert document.page_content == hit.text
        assert {key: document.metadata[key] for key in hit.metadata} == hit.metadata
        assert document.metadata["relevance"] == hit.relevance


def test_async_gives_what_sync_gives(index: CrispIndex, query: str) -> None:
    retriever = CrispRetriever(index=index, k=3, where={"year": {"$gte": 2022}})
    assert asyncio.run(retriever.ainvoke(query, k=2)) == retriever.invoke(query, k=2)


def test_batches_streams_and_chains_give_what_single_calls_give(index: CrispIndex) -> None:
    retriever = CrispRetriever(index=index, k=2)
    single = [retriever.invoke("parcel"), retriever.invoke("watch")]
    alike = [[(id_, pytest.approx(score, rel=1e-5)) for id_, score in pairs(documents)] for documents in single]
    assert [pairs(documents) for documents in retriever.batch(["parcel", "watch"])] == alike
    assert [pairs(documents) for documents in asyncio.run(retriever.abatch(["parcel", "watch"]))] == alike
    assert next(iter(retriever.stream("parcel"))) == single[0]
    chain = retriever | RunnableLambda(lambda documents: [document.id for document in documents])
    assert chain.invoke("parcel") == [document.id for document in single[0]]
    assert chain.batch(["parcel", "watch"]) == [[document.id for document in documents] for documents in single]


def test_a_users_score_stays_and_ours_gets_another_key(index: CrispIndex) -> None:
    (document,) = CrispRetriever(index=index, k=1).invoke("gift cards never expire")
    (hit,) = index.search("gift cards never expire", k=1)
    assert document.id == "gift"
    assert document.metadata["score"] == "user's own"
    assert document.metadata["crisp_score"] == hit.score
    assert document.metadata["relevance"] == hit.relevance
    assert "crisp_relevance" not in document.metadata


def test_metadata_that_holds_all_four_keys_comes_back_as_it_was(tmp_path: Path, encoder: Any) -> None:
    own = {"score": 1, "relevance": 2, "crisp_score": 3, "crisp_relevance": None}
    retriever = CrispRetriever.from_texts(["one"], [own], path=tmp_path / "i", encoder=encoder)
    assert retriever.invoke("one")[0].metadata == own


def test_changing_a_returned_document_changes_no_later_one(index: CrispIndex) -> None:
    retriever = CrispRetriever(index=index, k=1)
    first = retriever.invoke("repair of a watch")[0]
    first.metadata["nested"]["deep"].clear()
    first.metadata["team"] = "changed"
    assert retriever.invoke("repair of a watch")[0].metadata["nested"] == {"deep": [1, {"x": None}]}
    assert retriever.invoke("repair of a watch")[0].metadata["team"] == "shop"


def test_k_of_a_call_wins_for_that_call_only(index: CrispIndex) -> None:
    retriever = CrispRetriever(index=index, k=2)
    assert len(retriever.invoke("parcel", k=5)) == 5
    assert len(retriever.invoke("parcel", k=None)) == 2
    assert len(retriever.invoke("parcel")) == 2
    assert len(CrispRetriever(index=index).invoke("parcel", k=100)) == len(index)


@pytest.mark.parametrize("name", ["where", "filter"])
def test_a_filter_of_a_call_applies_before_the_cut(index: CrispIndex, name: str) -> None:
    documents = CrispRetriever(index=index, k=2).invoke("parcel shipping", **{name: {"team": "shop"}})
    assert {document.id for document in documents} == {"hours", "repair"}


def test_where_and_filter_together_both_narrow(index: CrispIndex) -> None:
    found = CrispRetriever(index=index).invoke("days", where={"team": "sales"}, filter={"year": {"$lt": 2024}})
    assert [document.id for document in found] == ["gift"]


def test_filters_may_be_functions_and_mix_with_dicts(index: CrispIndex) -> None:
    def recent(metadata: dict[str, Any]) -> bool:
        return metadata.get("year", 0) >= 2023

    for bound, call in [(recent, {"team": "logistics"}), ({"team": "logistics"}, recent), (recent, recent)]:
        found = {document.id for document in CrispRetriever(index=index, where=bound).invoke("days", where=call)}
        assert found == ({"ship", "abroad"} if bound is not call else {"refund", "ship", "abroad", "hours"})


@pytest.mark.parametrize("bound", [{"team": "sales"}, lambda metadata: metadata["team"] == "sales"])
@pytest.mark.parametrize(
    "call",
    [
        {},
        {"team": "shop"},
        {"$or": [{"team": "shop"}, {"team": "sales"}]},
        {"team": {"$ne": "sales"}},
        {"$not": {"team": "sales"}},
        {"$and": []},
        lambda metadata: True,
        lambda metadata: metadata.update(team="sales") or True,
    ],
)
def test_a_bound_filter_cannot_be_widened_by_a_call(index: CrispIndex, bound: Any, call: Any) -> None:
    retriever = CrispRetriever(index=index, where=bound)
    for name in ("where", "filter"):
        found = {document.id for document in retriever.invoke("days", k=6, **{name: call})}
        assert found <= {"refund", "gift"}
    assert {document.id for document in retriever.invoke("days", k=6)} == {"refund", "gift"}


def test_an_unknown_option_is_refused_and_named(index: CrispIndex) -> None:
    retriever = CrispRetriever(index=index)
    with pytest.raises(InvalidInputError, match=r"top_k.*Allowed: k, where"):
        retriever.invoke("parcel", top_k=3)
    with pytest.raises(InvalidInputError, match="top_k"):
        asyncio.run(retriever.ainvoke("parcel", top_k=3))


def test_the_frameworks_own_verbose_is_accepted(index: CrispIndex) -> None:
    assert len(CrispRetriever(index=index).invoke("parcel", k=1, verbose=True)) == 1


@pytest.mark.parametrize("bad", [{"k": 0}, {"k": -1}, {"k": "many"}, {"where": {"a": {"$near": 1}}}, {"where": 3}])
def test_bad_fields_are_refused_when_the_retriever_is_made(index: CrispIndex, bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CrispRetriever(index=index, **bad)


def test_an_index_is_required() -> None:
    with pytest.raises(ValidationError, match="index"):
        CrispRetriever(index="some/path")  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [{"k": 0}, {"k": 1.5}, {"where": {"$nor": []}}])
def test_bad_options_of_a_call_are_refused(index: CrispIndex, bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        CrispRetriever(index=index).invoke("parcel", **bad)


@pytest.mark.parametrize("bound", [None, {"team": "shop"}])
@pytest.mark.parametrize("call", [None, lambda metadata: True])
def test_an_unknown_operator_is_refused_whatever_else_filters(index: CrispIndex, bound: Any, call: Any) -> None:
    with pytest.raises(FilterError, match=r"\$near"):
        CrispRetriever(index=index, where=bound).invoke("parcel", where=call, filter={"a": {"$near": 1}})


@pytest.mark.parametrize("blank", ["", "  \n"])
def test_a_blank_query_is_refused(index: CrispIndex, blank: str) -> None:
    with pytest.raises(ValueError, match="blank"):
        CrispRetriever(index=index).invoke(blank)


def test_an_empty_index_answers_with_nothing(tmp_path: Path, encoder: Any) -> None:
    retriever = CrispRetriever.from_texts([], path=tmp_path / "empty", encoder=encoder)
    assert retriever.invoke("parcel") == []
    assert asyncio.run(retriever.ainvoke("parcel")) == []


def test_k_and_where_can_be_configured_per_run_and_the_bound_filter_stays(index: CrispIndex) -> None:
    retriever = CrispRetriever(index=index, where={"team": "logistics"}).configurable_fields(k=ConfigurableField(id="k"))
    found = retriever.invoke("days", config={"configurable": {"k": 1}})
    assert [document.metadata["team"] for document in found] == ["logistics"]


def test_callbacks_see_the_query_the_documents_and_the_error(index: CrispIndex) -> None:
    seen: list[Any] = []

    class Handler(BaseCallbackHandler):
        def on_retriever_start(self, serialized: Any, query: str, **kwargs: Any) -> None:
            seen.append(query)

        def on_retriever_end(self, documents: Any, **kwargs: Any) -> None:
            seen.append([document.id for document in documents])

        def on_retriever_error(self, error: BaseException, **kwargs: Any) -> None:
            seen.append(type(error))

    retriever = CrispRetriever(index=index, k=1)
    retriever.invoke("repair of a watch", config={"callbacks": [Handler()]})
    with pytest.raises(InvalidInputError):
        retriever.invoke(" ", config={"callbacks": [Handler()]})
    assert seen == ["repair of a watch", ["repair"], " ", InvalidInputError]


def test_from_texts_keeps_ids_and_metadata_on_disk(
    tmp_path: Path, encoder: Any, texts: dict[str, str], metadatas: dict[str, Any]
) -> None:
    path = tmp_path / "made.crisp"
    given = [dict(metadata) for metadata in metadatas.values()]
    retriever = CrispRetriever.from_texts(
        texts.values(), given, list(texts), path=path, encoder=encoder, k=2, where={"team": "shop"}
    )
    assert given == list(metadatas.values())
    assert (retriever.k, retriever.where) == (2, {"team": "shop"})
    retriever.index.close()
    with CrispIndex.open(path, encoder) as again:
        assert {passage.id: (passage.text, dict(passage.metadata)) for passage in again.passages()} == {
            id_: (texts[id_], metadatas[id_]) for id_ in texts
        }


def test_from_documents_keeps_ids_and_makes_missing_ones(tmp_path: Path, encoder: Any) -> None:
    documents = [Document("alpha beta", id="a", metadata={"n": 1}), Document("gamma")]
    retriever = CrispRetriever.from_documents(documents, path=tmp_path / "d", encoder=encoder)
    first, second = retriever.invoke("alpha beta")
    assert (first.id, first.page_content, first.metadata["n"]) == ("a", "alpha beta", 1)
    assert second.id and second.page_content == "gamma"
    assert documents == [Document("alpha beta", id="a", metadata={"n": 1}), Document("gamma")]


def test_a_path_in_use_is_refused_unless_it_may_exist(tmp_path: Path, encoder: Any) -> None:
    path = tmp_path / "i"
    CrispRetriever.from_texts(["alpha"], ids=["a"], path=path, encoder=encoder)
    with pytest.raises(IndexExistsError):
        CrispRetriever.from_texts(["beta"], ids=["b"], path=path, encoder=encoder)
    more = CrispRetriever.from_texts(["beta"], ids=["b"], path=path, encoder=encoder, exist_ok=True)
    assert [document.id for document in more.invoke("beta")] == ["b", "a"]


@pytest.mark.parametrize(
    "bad",
    [
        {"texts": "one string"},
        {"texts": ["a"], "ids": ["1", "2"]},
        {"texts": ["a", "b"], "metadatas": [{}]},
        {"texts": ["a", "b"], "ids": ["1", "1"]},
        {"texts": ["a", " "], "ids": ["1", "2"]},
        {"texts": ["a"], "metadatas": [{"when": object()}]},
    ],
)
def test_bad_texts_add_nothing(tmp_path: Path, encoder: Any, bad: dict[str, Any]) -> None:
    path = tmp_path / "i"
    with pytest.raises(InvalidInputError):
        CrispRetriever.from_texts(**bad, path=path, encoder=encoder)
    with CrispIndex.create(path, encoder, exist_ok=True) as index:
        assert len(index) == 0
