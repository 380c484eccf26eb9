"""Several systems as one, their rankings fused by reciprocal ranks.

    FusedSystem("hybrid", [create_system("bm25"), create_system("crisp")])

Reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009) needs no scores that can be compared: a document
gets 1 / (60 + rank) from every system that found it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from crisp_rag.errors import InvalidInputError
from crisp_rag.eval.encodings import EncodingCache
from crisp_rag.eval.systems import IndexCost, Progress, System

RANK_OFFSET = 60
FEWEST_HITS = 100
"""Hits that each part is asked for, at least: fusing lists of ten loses what one part has at rank eleven."""


class FusedSystem:
    """A system made of others.

    Args:
        name: How the results call it.
        parts: The systems; at least two.
    """

    def __init__(self, name: str, parts: Sequence[System]) -> None:
        if len(parts) < 2:
            raise InvalidInputError(f"Fusing needs at least two systems, got {len(parts)}.")
        self.name = name
        self.parts = list(parts)

    @property
    def cache(self) -> EncodingCache:
        return next((part.cache for part in self.parts if hasattr(part, "cache")), EncodingCache(None))

    @cache.setter
    def cache(self, cache: EncodingCache) -> None:
        for part in self.parts:
            if hasattr(part, "cache"):
                part.cache = cache

    def fingerprint(self) -> str:
        own = [part.fingerprint() if hasattr(part, "fingerprint") else part.name for part in self.parts]
        return " + ".join(own) + f", reciprocal ranks from {RANK_OFFSET}"

    def encoder(self) -> Any:
        """That of the first part that has one; None if none has."""
        return next((part.encoder() for part in self.parts if hasattr(part, "encoder")), None)

    def index(self, ids: Sequence[str], texts: Sequence[str], on_progress: Progress | None = None) -> IndexCost:
        costs = []
        for number, part in enumerate(self.parts):

            def tell(done: int, of: int, before: int = number) -> None:
                if on_progress:
                    on_progress((before * of + done) // len(self.parts), of)

            costs.append(part.index(ids, texts, tell))
        vectors = [cost.vectors for cost in costs if cost.vectors is not None]
        sizes = [cost.bytes for cost in costs if cost.bytes is not None]
        return IndexCost(
            vectors=sum(vectors) if len(vectors) == len(costs) else None,
            bytes=sum(sizes) if len(sizes) == len(costs) else None,
            encode_seconds=sum(cost.encode_seconds for cost in costs),
            build_seconds=sum(cost.build_seconds for cost in costs),
        )

    def search(self, queries: Sequence[str], k: int) -> list[list[tuple[str, float]]]:
        found = [part.search(queries, max(k, FEWEST_HITS)) for part in self.parts]
        return [fuse(rankings)[:k] for rankings in zip(*found, strict=True)]

    def close(self) -> None:
        for part in self.parts:
            part.close()


def fuse(rankings: Sequence[Sequence[tuple[str, float]]]) -> list[tuple[str, float]]:
    """One ranking of several: (id, sum of reciprocal ranks) pairs, best first, equal ones as the first ranking has them."""
    scores: dict[str, float] = {}
    for ranking in rankings:
        for rank, (id_, _) in enumerate(ranking, start=1):
            scores[id_] = scores.get(id_, 0.0) + 1 / (RANK_OFFSET + rank)
    return sorted(scores.items(), key=lambda pair: -pair[1])
