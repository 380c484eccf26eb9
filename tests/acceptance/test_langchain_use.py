"""LangChain as its users use it: chains with sources, agents with the retriever as a tool, ensembles, tracing."""

from __future__ import annotations

import asyncio
from operator import itemgetter
from typing import Any

import pytest

pytest.importorskip("langchain_core")

from langchain_core.callbacks import BaseCallbackHandler, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda, RunnableParallel, RunnablePassthrough
from langchain_core.tools import create_retriever_tool

from crisp_rag import CrispIndex
from crisp_rag.retrievers.langchain import CrispReranker, CrispRetriever, CrispVectorStore

QUESTION = "When are refunds paid?"
PROMPT = ChatPromptTemplate.from_template("Answer from this:\n{context}\n\nQuestion: {question}")


def joined(documents: list[Document]) -> str:
    return "\n".join(document.page_content for document in documents)


def with_sources(retriever: Any, model: Any) -> Any:
    """The chain of LangChain's own guide: the answer, and the documents that it was made from."""
    answer = (
        RunnablePassthrough.assign(context=itemgetter("documents") | RunnableLambda(joined))
        | PROMPT
        | model
        | StrOutputParser()
    )
    return RunnableParallel(documents=retriever, question=RunnablePassthrough()).assign(answer=answer)


def openai(local_model: Any) -> Any:
    chat = pytest.importorskip("langchain_openai")
    return chat.ChatOpenAI(base_url=local_model.url, api_key="local", model="gpt-4o-mini", max_retries=0)


def test_a_chain_answers_with_its_sources(shop: CrispIndex, local_model: Any) -> None:
    chain = with_sources(CrispRetriever(index=shop, k=2), openai(local_model))
    result = chain.invoke(QUESTION)
    assert result["answer"] == "Refunds are paid within five days of the parcel's return."
    assert result["documents"][0].metadata["source"] == "refunds.md"
    assert result["documents"][0].metadata["score"] == shop.search(QUESTION, 2)[0].score
    (request,) = local_model.requests
    assert "Refunds are paid" in request["messages"][0]["content"]


def test_a_chain_runs_async_in_batches_and_streams(shop: CrispIndex) -> None:
    chain = with_sources(CrispRetriever(index=shop, k=1), FakeListChatModel(responses=["an answer"]))
    questions = [QUESTION, "When does the shop open?", "How long does a watch take?"]
    expected = ["refunds", "hours", "watches"]
    assert [result["documents"][0].id for result in chain.batch(questions)] == expected
    assert [result["documents"][0].id for result in asyncio.run(chain.abatch(questions))] == expected
    streamed: dict[str, Any] = {}
    for chunk in chain.stream(QUESTION):
        for key, value in chunk.items():
            streamed[key] = streamed[key] + value if key in streamed else value
    assert streamed["answer"] == "an answer" and [document.id for document in streamed["documents"]] == ["refunds"]


def test_events_and_callbacks_show_the_retrieval_with_its_scores(shop: CrispIndex) -> None:
    chain = with_sources(CrispRetriever(index=shop, k=2, tags=["shop"]), FakeListChatModel(responses=["yes"]))
    scores = [hit.score for hit in shop.search(QUESTION, 2)]

    async def events() -> list[Any]:
        return [event async for event in chain.astream_events(QUESTION, version="v2")]

    seen = asyncio.run(events())
    (start,) = (event for event in seen if event["event"] == "on_retriever_start")
    (end,) = (event for event in seen if event["event"] == "on_retriever_end")
    assert start["data"]["input"]["query"] == QUESTION and "shop" in start["tags"]
    assert [document.metadata["score"] for document in end["data"]["output"]] == scores

    class Tracer(BaseCallbackHandler):
        found: list[float] = []

        def on_retriever_end(self, documents: Any, **kwargs: Any) -> None:
            self.found = [document.metadata["score"] for document in documents]

    tracer = Tracer()
    chain.invoke(QUESTION, config={"callbacks": [tracer]})
    assert tracer.found == scores


def test_an_agent_uses_the_retriever_as_a_tool(shop: CrispIndex, local_model: Any) -> None:
    agents = pytest.importorskip("langchain.agents")
    tool = create_retriever_tool(CrispRetriever(index=shop, k=2), "shop", "Search what the shop says.")
    agent = agents.create_agent(openai(local_model), [tool])
    for result in (
        agent.invoke({"messages": [HumanMessage(QUESTION)]}),
        asyncio.run(agent.ainvoke({"messages": [HumanMessage(QUESTION)]})),
    ):
        kinds = [type(message) for message in result["messages"]]
        assert kinds == [HumanMessage, AIMessage, ToolMessage, AIMessage]
        assert "Refunds are paid within five days" in result["messages"][2].content
        assert result["messages"][3].content == "Refunds are paid within five days of the parcel's return."


def test_a_langgraph_tool_gives_the_documents_as_artifact_and_keeps_to_its_tenant(shop: CrispIndex) -> None:
    pytest.importorskip("langgraph")
    from langgraph.graph import START, MessagesState, StateGraph
    from langgraph.prebuilt import ToolNode

    retriever = CrispRetriever(index=shop, k=9, where={"source": {"$in": ["hours.md", "gifts.md"]}})
    tool = create_retriever_tool(retriever, "shop", "Search.", response_format="content_and_artifact")
    call = {"name": "shop", "args": {"query": QUESTION, "where": {}, "filter": {}}, "id": "1", "type": "tool_call"}
    model = GenericFakeChatModel(messages=iter([AIMessage("", tool_calls=[call])] * 2))
    graph = StateGraph(MessagesState)
    graph.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_node("tools", ToolNode([tool]))
    graph.add_edge(START, "model")
    graph.add_edge("model", "tools")
    app = graph.compile()
    for result in (app.invoke({"messages": QUESTION}), asyncio.run(app.ainvoke({"messages": QUESTION}))):
        assert {document.id for document in result["messages"][-1].artifact} == {"hours", "gifts"}


def test_an_ensemble_with_bm25_finds_what_either_finds(shop: CrispIndex, bm25: Any, shop_texts: dict[str, str]) -> None:
    retrievers = pytest.importorskip("langchain_classic.retrievers")

    class Keywords(BaseRetriever):
        def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
            return [Document(shop_texts[id_], id=id_) for id_, _ in bm25.search(query)]

    crisp = CrispRetriever(index=shop, k=2)
    ensemble = retrievers.EnsembleRetriever(retrievers=[Keywords(), crisp], weights=[0.5, 0.5], id_key=None)
    for query in ("E-4417", "How do I get my money back?"):
        found = [document.page_content for document in ensemble.invoke(query)]
        assert found == [document.page_content for document in asyncio.run(ensemble.ainvoke(query))]
        assert {shop_texts[id_] for id_, _ in bm25.search(query)} | {d.page_content for d in crisp.invoke(query)} == set(
            found
        )
    assert ensemble.invoke("E-4417")[0].page_content == shop_texts["E-4417"]


def test_a_reranker_sorts_what_bm25_found(shop: CrispIndex, bm25: Any, shop_texts: dict[str, str]) -> None:
    retrievers = pytest.importorskip("langchain_classic.retrievers")
    keywords = RunnableLambda(lambda query: [Document(shop_texts[id_], id=id_) for id_, _ in bm25.search(query, 5)])
    retriever = retrievers.ContextualCompressionRetriever(
        base_compressor=CrispReranker(encoder=shop.encoder, top_n=1), base_retriever=keywords
    )
    assert retriever.invoke("How much do parcels abroad cost?")[0].id == "abroad"


def test_a_vector_store_serves_as_example_selector_and_memory_of_a_chain(shop: CrispIndex) -> None:
    from langchain_core.example_selectors import SemanticSimilarityExampleSelector

    store = CrispVectorStore(index=shop)
    selector = SemanticSimilarityExampleSelector(vectorstore=store, k=1, input_keys=["question"])
    selector.add_example({"question": "May I bring my dog?", "answer": "Yes, on a lead."})
    assert selector.select_examples({"question": "Are dogs allowed?"}) == [
        {"question": "May I bring my dog?", "answer": "Yes, on a lead."}
    ]
