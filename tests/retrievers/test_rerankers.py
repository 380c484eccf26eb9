"""Both rerankers: MaxSim over what any retriever found."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from crisp_rag.errors import InvalidInputError
from crisp_rag.index import CrispIndex
from crisp_rag.retrievers.reranking import Reranker


def test_a_reranker_gives_the_scores_of_the_index(
    index: CrispIndex, encoder: Any, texts: dict[str, str], query: str
) -> None:
    ranked = Reranker(encoder).rank(query, list(texts.values()))
    names = list(texts)
    hits = {hit.id: hit for hit in index.search(query, k=6)}
    for number, score, relevance in ranked:
        assert score == pytest.approx(hits[names[number]].score, abs=5e-2)  # the index keeps coded vectors
        assert relevance == pytest.approx(hits[names[number]].relevance, abs=5e-2)
    assert [score for _, score, _ in ranked] == sorted((score for _, score, _ in ranked), reverse=True)


def test_equal_texts_keep_their_order_and_blank_ones_come_last(encoder: Any) -> None:
    ranked = Reranker(encoder).rank("watch", [" ", "a watch", "shop", "a watch", ""])
    assert [number for number, *_ in ranked][:2] == [1, 3]
    assert [entry for entry in ranked[3:]] == [(0, 0.0, 0.0), (4, 0.0, 0.0)]
    assert Reranker(encoder).rank("watch", []) == []
    with pytest.raises(InvalidInputError, match="blank"):
        Reranker(encoder).rank(" ", ["a"])


def test_the_default_encoder_is_used_where_none_is_given(default_encoder: Any) -> None:
    ranked = Reranker().rank(
        "When do I get my money back?", ["The shop opens at nine.", "Refunds are paid within five days."]
    )
    assert [number for number, *_ in ranked] == [1, 0]
    assert Reranker(default_encoder).rank("money", ["cash"])[0][1] == pytest.approx(Reranker().rank("money", ["cash"])[0][1])


class TestLangChain:
    @pytest.fixture
    def documents(self, texts: dict[str, str]) -> list[Any]:
        documents = pytest.importorskip("langchain_core.documents")
        return [documents.Document(text, id=id_, metadata={"id": id_}) for id_, text in texts.items()]

    @pytest.fixture
    def make(self) -> Any:
        return pytest.importorskip("crisp_rag.retrievers.langchain", exc_type=ImportError).CrispReranker

    def test_the_best_come_first_as_copies_with_their_relevance(self, documents: list[Any], make: Any, encoder: Any) -> None:
        best = make(encoder=encoder, top_n=2).compress_documents(documents, "repair of a watch")
        assert best[0].id == "repair" and len(best) == 2
        assert best[0].metadata == {"id": "repair", "relevance_score": best[0].metadata["relevance_score"]}
        assert 0 < best[1].metadata["relevance_score"] < best[0].metadata["relevance_score"] <= 1.001
        assert all("relevance_score" not in document.metadata for document in documents)
        assert asyncio.run(make(encoder=encoder, top_n=2).acompress_documents(documents, "repair of a watch")) == best

    def test_all_come_back_without_top_n_and_none_from_none(self, documents: list[Any], make: Any, encoder: Any) -> None:
        reranker = make(encoder=encoder)
        assert {document.id for document in reranker.compress_documents(documents, "x")} == {d.id for d in documents}
        assert reranker.compress_documents([], "x") == []

    def test_bad_input_is_refused(self, documents: list[Any], make: Any, encoder: Any) -> None:
        with pytest.raises(ValueError, match="top_n"):
            make(encoder=encoder, top_n=0)
        with pytest.raises(InvalidInputError, match="blank"):
            make(encoder=encoder).compress_documents(documents, " ")

    def test_it_works_inside_a_compression_retriever_over_another_retriever(
        self, documents: list[Any], make: Any, encoder: Any
    ) -> None:
        retrievers = pytest.importorskip("langchain_classic.retrievers")
        runnables = pytest.importorskip("langchain_core.runnables")
        keyword = runnables.RunnableLambda(
            lambda query: [d for d in documents if set(query.split()) & set(d.page_content.split())]
        )
        retriever = retrievers.ContextualCompressionRetriever(
            base_compressor=make(encoder=encoder, top_n=1), base_retriever=keyword
        )
        assert [document.id for document in retriever.invoke("repair of a watch")] == ["repair"]
        assert [document.id for document in asyncio.run(retriever.ainvoke("parcel abroad"))] == ["abroad"]


class TestLlamaIndex:
    @pytest.fixture
    def nodes(self, texts: dict[str, str]) -> list[Any]:
        schema = pytest.importorskip("llama_index.core.schema")
        return [schema.NodeWithScore(node=schema.TextNode(id_=id_, text=text), score=0.5) for id_, text in texts.items()]

    @pytest.fixture
    def make(self) -> Any:
        return pytest.importorskip("crisp_rag.retrievers.llama_index", exc_type=ImportError).CrispRerank

    def test_the_best_come_first_with_their_maxsim_and_the_given_ones_stay(
        self, nodes: list[Any], make: Any, encoder: Any, texts: dict[str, str]
    ) -> None:
        best = make(encoder=encoder, top_n=2).postprocess_nodes(nodes, query_str="repair of a watch")
        ranked = Reranker(encoder).rank("repair of a watch", list(texts.values()))
        assert [(node.node_id, node.score) for node in best] == [(list(texts)[n], score) for n, score, _ in ranked[:2]]
        assert all(node.score == 0.5 for node in nodes)
        again = asyncio.run(make(encoder=encoder, top_n=2).apostprocess_nodes(nodes, query_str="repair of a watch"))
        assert again == best

    def test_the_retrieval_score_may_be_kept(self, nodes: list[Any], make: Any, encoder: Any) -> None:
        best = make(encoder=encoder, keep_retrieval_score=True).postprocess_nodes(nodes, query_str="watch")
        assert all(node.metadata == {"retrieval_score": 0.5} for node in best)
        assert all(node.metadata == {} for node in nodes)

    def test_no_nodes_give_none_and_no_query_is_an_error(self, nodes: list[Any], make: Any, encoder: Any) -> None:
        assert make(encoder=encoder).postprocess_nodes([], query_str="watch") == []
        with pytest.raises(InvalidInputError, match="query"):
            make(encoder=encoder).postprocess_nodes(nodes)
        with pytest.raises(ValueError, match="top_n"):
            make(encoder=encoder, top_n=0)

    def test_callbacks_and_events_see_the_reranking_with_its_scores(self, nodes: list[Any], make: Any, encoder: Any) -> None:
        callbacks = pytest.importorskip("llama_index.core.callbacks")
        instrumentation = pytest.importorskip("llama_index.core.instrumentation")
        handlers = pytest.importorskip("llama_index.core.instrumentation.event_handlers")
        seen: list[Any] = []

        class Listener(handlers.BaseEventHandler):
            def handle(self, event: Any, **kwargs: Any) -> None:
                seen.append(event)

        debug = callbacks.LlamaDebugHandler(print_trace_on_end=False)
        root, listener = instrumentation.get_dispatcher(), Listener()
        root.add_event_handler(listener)
        try:
            rerank = make(encoder=encoder, top_n=1, callback_manager=callbacks.CallbackManager([debug]))
            rerank.postprocess_nodes(nodes, query_str="repair of a watch")
        finally:
            root.event_handlers.remove(listener)
        start, end = (event for event in seen if "ReRank" in event.class_name())
        assert (start.model_name, start.top_n, len(start.nodes)) == ("fake-words", 1, 6)
        assert [node.node_id for node in end.nodes] == ["repair"] and end.nodes[0].score > 1
        ((begun, done),) = debug.get_event_pairs(callbacks.CBEventType.RERANKING)
        assert begun.payload["query_str"] == "repair of a watch"
        assert [node.node_id for node in done.payload["nodes"]] == ["repair"]
