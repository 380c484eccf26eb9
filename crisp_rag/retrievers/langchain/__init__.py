"""LangChain over a :class:`~crisp_rag.index.CrispIndex`: a retriever, a vector store and a reranker.

    retriever = CrispRetriever(index=CrispIndex.open("handbook.crisp"), k=5, where={"team": "sales"})
    retriever.invoke("how do refunds work?", k=3, where={"year": {"$gte": 2024}})     # narrows, never widens
    store = CrispVectorStore(index=index)
    store.add_documents(documents)
    ContextualCompressionRetriever(base_compressor=CrispReranker(top_n=3), base_retriever=any_retriever)

Needs ``pip install 'crisp-rag[langchain]'``; imports ``langchain_core`` and nothing else of LangChain.
"""

from __future__ import annotations

try:
    import langchain_core  # noqa: F401
    import pydantic  # noqa: F401
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in ("langchain_core", "pydantic"):
        raise  # LangChain is there and lacks something itself: its own message says more
    raise ImportError(
        "The LangChain retriever needs langchain-core: pip install 'crisp-rag[langchain]'", name=error.name
    ) from error

from crisp_rag.retrievers.langchain.reranker import CrispReranker
from crisp_rag.retrievers.langchain.retriever import CrispRetriever
from crisp_rag.retrievers.langchain.vector_store import CrispVectorStore

__all__ = ["CrispReranker", "CrispRetriever", "CrispVectorStore"]
