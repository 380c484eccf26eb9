"""The shared index: passages, metadata and vectors, durable and searchable."""

from __future__ import annotations

from crisp_rag.index.crisp_index import CrispIndex
from crisp_rag.index.types import Compaction, Hit, IndexStats, Passage
from crisp_rag.index.verifying import Damage, Verification, verify_index

__all__ = ["Compaction", "CrispIndex", "Damage", "Hit", "IndexStats", "Passage", "Verification", "verify_index"]
