"""Any LangChain or LlamaIndex retriever as a system to measure.

    RetrieverSystem("mine", lambda ids, texts: build_my_retriever(ids, texts))

Neither framework is imported: what has ``invoke`` is a LangChain retriever, what has ``retrieve`` one of LlamaIndex.
Each knows how many hits it returns; set it to 101 to measure R@100.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from crisp_rag.errors import InvalidInputError
from crisp_rag.eval.systems import IndexCost, Progress


class RetrieverSystem:
    """A retriever of one of the frameworks.

    Args:
        name: How the results call it.
        build: Gets ids and texts of the documents and gives the retriever; one that holds them already may be returned
            as it is.  Its time counts as encoding: what it does inside cannot be told apart.
        id_key: The metadata key of a document's id.  Where it is missing, the id of the document, of the node or of the
            node's source document is taken; of several chunks of one document the first one counts.
    """

    def __init__(self, name: str, build: Callable[[Sequence[str], Sequence[str]], Any], *, id_key: str = "id") -> None:
        self.name = name
        self._build = build
        self._id_key = id_key
        self._retriever: Any = None
        self._known: set[str] = set()

    def index(self, ids: Sequence[str], texts: Sequence[str], on_progress: Progress | None = None) -> IndexCost:
        self.close()
        started = time.perf_counter()
        retriever = self._build(ids, texts)
        if not (callable(getattr(retriever, "invoke", None)) or callable(getattr(retriever, "retrieve", None))):
            raise InvalidInputError(
                f"The system {self.name!r} was built as a {type(retriever).__name__}, which has neither invoke (LangChain) "
                "nor retrieve (LlamaIndex)."
            )
        self._retriever, self._known = retriever, set(ids)
        if on_progress:
            on_progress(len(ids), len(ids))
        return IndexCost(vectors=None, bytes=None, encode_seconds=time.perf_counter() - started)

    def search(self, queries: Sequence[str], k: int) -> list[list[tuple[str, float]]]:
        if self._retriever is None:
            return [[] for _ in queries]
        return [self._search(query, k) for query in queries]

    def close(self) -> None:
        self._retriever, self._known = None, set()

    def _search(self, query: str, k: int) -> list[tuple[str, float]]:
        ask = self._retriever.retrieve if hasattr(self._retriever, "retrieve") else self._retriever.invoke
        ranked: dict[str, float] = {}
        for rank, found in enumerate(ask(query), start=1):
            score = getattr(found, "score", None)
            ranked.setdefault(self._id(found), float(score) if score is not None else 1 / rank)
        return list(ranked.items())[:k]

    def _id(self, found: Any) -> str:
        inner = getattr(found, "node", found)
        candidates = [
            (getattr(inner, "metadata", None) or {}).get(self._id_key),
            *(getattr(inner, name, None) for name in ("id", "node_id", "ref_doc_id")),
        ]
        for candidate in candidates:
            if candidate is not None and str(candidate) in self._known:
                return str(candidate)
        raise InvalidInputError(
            f"The system {self.name!r} found a document that is not in the data set, with the ids {candidates}: "
            f"put its id into the metadata as {self._id_key!r}."
        )
