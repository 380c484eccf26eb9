"""Between passages of the index and LangChain's documents."""

from __future__ import annotations

import uuid
from collections.abc import Iterable

from langchain_core.documents import Document

from crisp_rag.index import Hit, Passage


def passages_from_documents(documents: Iterable[Document]) -> list[Passage]:
    """A passage for each document: its id, or a new random one, its text and its metadata."""
    return [Passage(document.id or uuid.uuid4().hex, document.page_content, document.metadata) for document in documents]


def document_from(passage: Passage | Hit) -> Document:
    """The document that a passage or a hit is: id, text and metadata, nothing added."""
    return Document(id=passage.id, page_content=passage.text, metadata=dict(passage.metadata))


def scored_document(hit: Hit) -> Document:
    """A hit's document, with its score and relevance in the metadata beside what the passage has there."""
    document = document_from(hit)
    for key, value in (("score", hit.score), ("relevance", hit.relevance)):
        document.metadata.setdefault(f"crisp_{key}" if key in hit.metadata else key, float(value))
    return document
