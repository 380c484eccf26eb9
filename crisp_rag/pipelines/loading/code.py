"""Source code: decoded, tabs and all; :mod:`crisp_rag.pipelines.definitions` finds what it defines."""

from __future__ import annotations

from crisp_rag.pipelines.loading.document import Extracted
from crisp_rag.pipelines.loading.encodings import decode


def load_code(path: object, data: bytes) -> Extracted:
    """A program's source, or a configuration."""
    decoded = decode(path, data)
    return Extracted(decoded.text, "code", notes=decoded.notes)
