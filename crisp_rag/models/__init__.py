"""Encoders: a backbone, a pooling, and the vectors they make of a text."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_LAZY = {
    "CrispEncoder": "encoder",
    "Encoder": "encoder",
    "build_encoder": "encoder",
    "load_encoder": "encoder",
    "ClusterPooling": "pooling",
    "TailPooling": "pooling",
    "SpacingPooling": "pooling",
}
__all__ = sorted(_LAZY)

if TYPE_CHECKING:
    from crisp_rag.models.encoder import CrispEncoder as CrispEncoder
    from crisp_rag.models.encoder import Encoder as Encoder
    from crisp_rag.models.encoder import build_encoder as build_encoder
    from crisp_rag.models.encoder import load_encoder as load_encoder
    from crisp_rag.models.pooling import ClusterPooling as ClusterPooling
    from crisp_rag.models.pooling import SpacingPooling as SpacingPooling
    from crisp_rag.models.pooling import TailPooling as TailPooling


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'crisp_rag.models' has no attribute {name!r}")
    return getattr(import_module(f"crisp_rag.models.{_LAZY[name]}"), name)
