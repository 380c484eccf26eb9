"""How the retriever and the vector store of LlamaIndex search: query texts, node ids, k."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from crisp_rag.errors import InvalidInputError
from crisp_rag.index import Hit
from crisp_rag.index.types import Where
from crisp_rag.retrievers.gathering import in_thread
from crisp_rag.retrievers.scope import ScopedIndex

Search = Callable[[int], list[Hit]]


def find(scope: ScopedIndex, texts: Sequence[str], k: int, node_ids: set[str] | None, *filters: Where | None) -> list[Hit]:
    """The k best hits for a query that is one text or several, among the node ids where they are given.

    Several texts are searched for together: a passage's score is then the sum of its scores for each.
    """
    search = _searcher(scope, texts, filters)
    return search(k) if node_ids is None else _among(scope, search, k, node_ids)


async def afind(
    scope: ScopedIndex, texts: Sequence[str], k: int, node_ids: set[str] | None, *filters: Where | None
) -> list[Hit]:
    """As :func:`find`, without holding up the event loop."""
    if len(texts) == 1 and node_ids is None:
        return await scope.asearch(texts[0], k, *filters)
    return await in_thread(find, scope, texts, k, node_ids, *filters)


def id_list(name: str, ids: Iterable[str]) -> list[str]:
    """The ids as a list.

    Raises:
        InvalidInputError: for one string, which would be taken apart.
    """
    if isinstance(ids, str):
        raise InvalidInputError(f"{name} is a list of strings, got one string.")
    return list(ids)


def _searcher(scope: ScopedIndex, texts: Sequence[str], filters: tuple[Where | None, ...]) -> Search:
    if len(texts) == 1:
        return lambda k: scope.search(texts[0], k, *filters)
    if not all(isinstance(text, str) and text.strip() for text in texts):
        raise InvalidInputError("A query needs words: one of custom_embedding_strs is empty or blank.")
    # MaxSim adds up over query vectors, so the texts' vectors together give the sum of their scores.
    vectors = np.concatenate(scope.index.encoder.encode_query(list(texts)))
    return lambda k: scope.index.search_vectors([vectors], k, scope.narrowed(*filters))[0]


def _among(scope: ScopedIndex, search: Search, k: int, ids: set[str]) -> list[Hit]:
    """The best hits whose id is in the set: looks deeper until there are enough or there is no more."""
    wanted = min(k, len(scope.get(sorted(ids))))
    depth = k
    while True:
        hits = search(depth)
        kept = [hit for hit in hits if hit.id in ids]
        if len(kept) >= wanted or len(hits) < depth:
            return kept[:k]
        depth *= 8
