"""LlamaIndex as its users use it: query engines, citations, routers, fusion with BM25, reranking."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("llama_index.core")

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.indices.query.query_transform import HyDEQueryTransform
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import (
    CitationQueryEngine,
    RetrieverQueryEngine,
    RouterQueryEngine,
    TransformQueryEngine,
)
from llama_index.core.retrievers import QueryFusionRetriever, RouterRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.core.selectors import LLMSingleSelector
from llama_index.core.tools import QueryEngineTool, RetrieverTool

from crisp_rag import CrispIndex
from crisp_rag.retrievers.llama_index import CrispRerank, CrispRetriever, CrispVectorIndex

QUESTION = "When are refunds paid?"
ANSWER = "Refunds are paid within five days of the parcel's return."


def openai(local_model: Any) -> Any:
    llms = pytest.importorskip("llama_index.llms.openai")
    return llms.OpenAI(model="gpt-4o-mini", api_base=local_model.url, api_key="local", max_retries=0)


class Scripted(MockLLM):
    """The framework's fake, giving one answer."""

    reply: str = ""

    def __init__(self, reply: str) -> None:
        super().__init__()
        self.reply = reply

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        response = super().complete(prompt, formatted=formatted, **kwargs)
        response.text = self.reply
        return response

    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        return self.complete(prompt, formatted=formatted, **kwargs)


def test_a_query_engine_answers_from_its_source_nodes(shop: CrispIndex, local_model: Any) -> None:
    engine = RetrieverQueryEngine.from_args(CrispRetriever(shop, 2), llm=openai(local_model))
    for response in (engine.query(QUESTION), asyncio.run(engine.aquery(QUESTION))):
        assert str(response) == ANSWER
        assert response.source_nodes[0].node.ref_doc_id == "refunds.md"
        assert response.source_nodes[0].score == shop.search(QUESTION, 2)[0].score
    assert len(local_model.requests) == 2


def test_a_query_engine_streams(shop: CrispIndex, local_model: Any) -> None:
    engine = RetrieverQueryEngine.from_args(CrispRetriever(shop, 2), llm=openai(local_model), streaming=True)
    assert "".join(engine.query(QUESTION).response_gen) == ANSWER


def test_a_citation_engine_numbers_the_sources_that_it_quotes(shop: CrispIndex, local_model: Any) -> None:
    engine = CitationQueryEngine.from_args(
        CrispVectorIndex(shop), retriever=CrispRetriever(shop, 3), llm=openai(local_model)
    )
    response = engine.query(QUESTION)
    text, _, number = str(response).rpartition(" [")
    assert text == ANSWER
    cited = response.source_nodes[int(number.rstrip("]")) - 1]
    assert ANSWER in cited.node.get_content() and cited.node.get_content().startswith("Source ")


def test_a_reranker_in_a_query_engine_keeps_the_best(shop: CrispIndex, local_model: Any) -> None:
    rerank = CrispRerank(encoder=shop.encoder, top_n=1)
    engine = CrispVectorIndex(shop).as_query_engine(
        llm=openai(local_model), similarity_top_k=5, node_postprocessors=[rerank]
    )
    response = engine.query(QUESTION)
    assert [node.node_id for node in response.source_nodes] == ["refunds"] and str(response) == ANSWER


def test_routers_choose_between_parts_of_one_index(shop: CrispIndex) -> None:
    parts = {
        "money": CrispRetriever(shop, 1, where={"source": {"$in": ["refunds.md", "gifts.md"]}}),
        "time": CrispRetriever(shop, 1, where={"source": "hours.md"}),
    }
    choose_second = Scripted(reply='[{"choice": 2, "reason": "it is about time"}]')
    selector = LLMSingleSelector.from_defaults(llm=choose_second)
    tools = [RetrieverTool.from_defaults(part, description=f"about {name}") for name, part in parts.items()]
    router = RouterRetriever(selector=selector, retriever_tools=tools, llm=choose_second)
    assert [node.node_id for node in router.retrieve("When does it open?")] == ["hours"]
    assert [node.node_id for node in asyncio.run(router.aretrieve("When does it open?"))] == ["hours"]
    engines = [
        QueryEngineTool.from_defaults(RetrieverQueryEngine.from_args(part, llm=MockLLM()), description=f"about {name}")
        for name, part in parts.items()
    ]
    engine = RouterQueryEngine(selector=selector, query_engine_tools=engines, llm=MockLLM())
    assert [node.node_id for node in engine.query("When does it open?").source_nodes] == ["hours"]


@pytest.mark.parametrize("use_async", [False, True])
@pytest.mark.parametrize("mode", ["reciprocal_rerank", "relative_score", "dist_based_score", "simple"])
def test_fusion_with_bm25_finds_what_either_finds(
    shop: CrispIndex, bm25: Any, shop_texts: dict[str, str], use_async: bool, mode: str
) -> None:
    class Keywords(BaseRetriever):
        def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
            found = bm25.search(query_bundle.query_str)
            return [NodeWithScore(node=TextNode(id_=id_, text=shop_texts[id_]), score=score) for id_, score in found]

    crisp = CrispRetriever(shop, 2)
    fusion = QueryFusionRetriever(
        [crisp, Keywords()], llm=MockLLM(), similarity_top_k=9, num_queries=1, mode=mode, use_async=use_async
    )
    for query in ("E-4417", "How do I get my money back?"):
        found = {node.node.get_content() for node in fusion.retrieve(query)}
        wanted = {shop_texts[id_] for id_, _ in bm25.search(query)} | {n.text for n in crisp.retrieve(query)}
        assert found == wanted
    if mode == "reciprocal_rerank":
        assert fusion.retrieve("E-4417")[0].node.get_content() == shop_texts["E-4417"]


def test_fusion_searches_for_the_queries_that_a_model_made_up(shop: CrispIndex) -> None:
    llm = Scripted(reply="When does the shop open?\nHow long does repairing a watch take?")
    fusion = QueryFusionRetriever([CrispRetriever(shop, 1)], llm=llm, num_queries=3, similarity_top_k=3, use_async=True)
    assert {node.node_id for node in fusion.retrieve(QUESTION)} == {"refunds", "hours", "watches"}


def test_hyde_searches_for_the_made_up_answer_and_the_question_together(shop: CrispIndex) -> None:
    hyde = HyDEQueryTransform(llm=Scripted(reply="It takes two weeks to repair a watch."), include_original=True)
    engine = TransformQueryEngine(RetrieverQueryEngine.from_args(CrispRetriever(shop, 1), llm=MockLLM()), hyde)
    assert [node.node_id for node in engine.query("How long?").source_nodes] == ["watches"]


def test_an_agent_uses_the_query_engine_as_a_tool(shop: CrispIndex, local_model: Any) -> None:
    from llama_index.core.agent.workflow import FunctionAgent

    tool = RetrieverTool.from_defaults(CrispRetriever(shop, 2), name="shop", description="Search what the shop says.")

    async def ask() -> Any:
        return await FunctionAgent(tools=[tool], llm=openai(local_model), streaming=False).run(QUESTION)

    response = asyncio.run(ask())
    assert "Refunds are paid within five days" in str(response)
    assert [call.tool_name for call in response.tool_calls] == ["shop"]
