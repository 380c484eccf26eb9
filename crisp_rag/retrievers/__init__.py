"""Thin adapters that put a :class:`~crisp_rag.index.CrispIndex` behind a framework's retriever interface.

    from crisp_rag.retrievers.langchain import CrispRetriever      # pip install 'crisp-rag[langchain]'
    from crisp_rag.retrievers.llama_index import CrispRetriever    # pip install 'crisp-rag[llama-index]'

Importing this package loads neither framework: each adapter imports its own, and only that one.
"""
