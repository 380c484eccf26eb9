"""Plain text and Markdown: decoded, otherwise as they stand."""

from __future__ import annotations

import re

from crisp_rag.pipelines.loading.cleaning import clean
from crisp_rag.pipelines.loading.document import Extracted
from crisp_rag.pipelines.loading.encodings import decode
from crisp_rag.pipelines.markdown import front_matter_end


def load_plain(path: object, data: bytes) -> Extracted:
    """Running text."""
    decoded = decode(path, data)
    return Extracted(decoded.text, "plain", notes=decoded.notes)


def load_markdown(path: object, data: bytes) -> Extracted:
    """Markdown; front matter may name it."""
    decoded = decode(path, data)
    text = clean(decoded.text)
    found = re.search(r"^title:[ \t]*(\S.*?)\s*$", text[: front_matter_end(text)], re.MULTILINE)
    title = found.group(1).strip().strip("\"'") if found else ""
    return Extracted(text, "markdown", title, notes=decoded.notes)
