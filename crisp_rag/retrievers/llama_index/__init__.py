"""LlamaIndex over a :class:`~crisp_rag.index.CrispIndex`: a retriever, a managed index, a vector store, a reranker.

    retriever = CrispRetriever(CrispIndex.open("handbook.crisp"), similarity_top_k=5)
    retriever.narrowed(similarity_top_k=3, filters=filters).retrieve("how do refunds work?")
    index = CrispVectorIndex.from_documents(documents, path="handbook.crisp")
    index.as_query_engine(llm=llm, node_postprocessors=[CrispRerank(top_n=3)])
    IngestionPipeline([splitter, PassThroughEmbedding()], vector_store=CrispVectorStore(index), docstore=docstore)

Needs ``pip install 'crisp-rag[llama-index]'``; imports ``llama_index.core`` and nothing else of LlamaIndex.
"""

from __future__ import annotations

try:
    import llama_index.core  # noqa: F401
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "llama_index":
        raise  # LlamaIndex is there and lacks something itself: its own message says more
    raise ImportError(
        "The LlamaIndex retriever needs llama-index-core: pip install 'crisp-rag[llama-index]'", name=error.name
    ) from error

from crisp_rag.retrievers.llama_index.filters import where_from_filters
from crisp_rag.retrievers.llama_index.managed import CrispVectorIndex
from crisp_rag.retrievers.llama_index.rerank import CrispRerank
from crisp_rag.retrievers.llama_index.retriever import CrispRetriever
from crisp_rag.retrievers.llama_index.vector_store import CrispVectorStore, PassThroughEmbedding

__all__ = [
    "CrispRerank",
    "CrispRetriever",
    "CrispVectorIndex",
    "CrispVectorStore",
    "PassThroughEmbedding",
    "where_from_filters",
]
