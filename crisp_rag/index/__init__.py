"""The shared index: passages, metadata and vectors, durable and searchable."""

from __future__ import annotations

from crisp_rag.index.crisp_index import CrispIndex
from crisp_rag.index.planner import SearchInfo
from crisp_rag.index.types import Compaction, Hit, Hits, IndexStats, Passage
from crisp_rag.index.verifying import Damage, Verification, verify_index

__all__ = [
    "Compaction",
    "CrispIndex",
    "Damage",
    "Hit",
    "Hits",
    "IndexStats",
    "Passage",
    "SearchInfo",
    "Verification",
    "verify_index",
]
