"""The shared index: passages, metadata and vectors, durable and searchable."""

from __future__ import annotations

from crisp_rag.index.crisp_index import CrispIndex
from crisp_rag.index.types import Hit, IndexStats, Passage

__all__ = ["CrispIndex", "Hit", "IndexStats", "Passage"]
