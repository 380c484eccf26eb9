"""Find source files and turn each into text.

    files, skipped = find_files(["handbook/", "faq.docx"])
    document = load_file(files[0])          # document.text, document.title

    with SafeReader(Limits(seconds=10)) as reader:      # in a process that can be stopped
        document = reader.load("from-a-stranger.pdf")

HTML and Word files become Markdown, so that their headings and tables survive; PDF files become plain text.  Each
library is imported when a file first needs it.  ``docs/reading-files.md`` tells what is read, how, and by what.
"""

from __future__ import annotations

from crisp_rag.pipelines.loading.document import (
    Extracted,
    Format,
    LoadedDocument,
    Note,
    Place,
    Skipped,
    bytes_digest,
)
from crisp_rag.pipelines.loading.finding import Found, find_files, search_files
from crisp_rag.pipelines.loading.reading import load_file, parse_file, read_bytes
from crisp_rag.pipelines.loading.registry import extensions
from crisp_rag.pipelines.loading.safe import Limits, SafeReader

LOADER_VERSION = 2
"""Raised when the same bytes would give another text, so that files are indexed anew."""

__all__ = [
    "LOADER_VERSION",
    "Extracted",
    "Format",
    "Found",
    "Limits",
    "LoadedDocument",
    "Note",
    "Place",
    "SafeReader",
    "Skipped",
    "bytes_digest",
    "extensions",
    "find_files",
    "load_file",
    "parse_file",
    "read_bytes",
    "search_files",
]
