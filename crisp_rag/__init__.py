"""crisp-rag: CRISP-trained multi-vector retrieval for LLM applications.

    from crisp_rag import CrispIndex

    index = CrispIndex.create("handbook.crisp")
    index.add_texts(["Refunds take five days."], metadatas=[{"year": 2026}])
    for hit in index.search("how long do refunds take?", k=5, where={"year": {"$gte": 2024}}):
        print(hit.score, hit.id, hit.text)

Importing this package loads neither torch nor a framework: names are resolved when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_LAZY = {
    "CrispIndex": "crisp_rag.index.crisp_index",
    "Passage": "crisp_rag.index.types",
    "Hit": "crisp_rag.index.types",
    "CrispEncoder": "crisp_rag.models.encoder",
    "build_encoder": "crisp_rag.models.encoder",
    "load_encoder": "crisp_rag.models.encoder",
    "CrispError": "crisp_rag.errors",
}
__all__ = sorted([*_LAZY, "__version__"])

if TYPE_CHECKING:
    from crisp_rag.errors import CrispError as CrispError
    from crisp_rag.index.crisp_index import CrispIndex as CrispIndex
    from crisp_rag.index.types import Hit as Hit
    from crisp_rag.index.types import Passage as Passage
    from crisp_rag.models.encoder import CrispEncoder as CrispEncoder
    from crisp_rag.models.encoder import build_encoder as build_encoder
    from crisp_rag.models.encoder import load_encoder as load_encoder


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'crisp_rag' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return __all__
