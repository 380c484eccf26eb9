"""Token vectors of a pipeline before its pooling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from crisp_rag.models.pooling import BatchedPooling

if TYPE_CHECKING:
    from sentence_transformers import MultiVectorEncoder


def token_vectors(model: MultiVectorEncoder, features: dict[str, Any], task: str) -> tuple[Tensor, Tensor]:
    """(B, T, D) token vectors before pooling and their (B, T) mask."""
    kept = dict(features)
    for module in model:
        if isinstance(module, BatchedPooling):
            break
        kept = module(kept, task=task) if "task" in getattr(module, "forward_kwargs", ()) else module(kept)
    return kept["token_embeddings"], kept["attention_mask"].bool()
