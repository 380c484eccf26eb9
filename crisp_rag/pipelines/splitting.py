"""Documents to passages: cut at headings, then at paragraph and sentence borders, measured in the encoder's tokens.

Every passage is a span of its document, ``document.text[start:end]``, and carries its heading path as context that
is encoded with it and never shown.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from crisp_rag.index.types import Passage
from crisp_rag.pipelines.loading import LoadedDocument

MIN_TEXT_TOKENS = 16
SPECIAL_TOKENS = 4


@dataclass(frozen=True, slots=True)
class Section:
    """``text[start:end]``, from a heading to the next; ``headings`` lead to it, outermost first."""

    start: int
    end: int
    headings: tuple[str, ...]


def split_document(
    document: LoadedDocument, count_tokens: Callable[[str], int], max_tokens: int = 200
) -> list[Passage]:
    """Split a document into passages.

    Args:
        document: What to split.
        count_tokens: Tokens of a text as the encoder counts them, without special ones.
        max_tokens: Tokens that context and text of a passage may have together, special ones included.

    Returns:
        Passages in order; their ids depend on path, place and text alone.  Metadata: ``source``, ``title``,
        ``heading``, ``start``, ``end`` (code points), ``digest``.

    Raises:
        ValueError: if ``max_tokens`` leaves no room for text.
    """
    if max_tokens < 2 * MIN_TEXT_TOKENS:
        raise ValueError(f"max_tokens is at least {2 * MIN_TEXT_TOKENS}, got {max_tokens}.")
    passages = []
    for section in _sections(document):
        context = _context(document.title, section.headings, count_tokens, max_tokens // 2)
        room = max_tokens - SPECIAL_TOKENS - (count_tokens(context) if context else 0)
        for start, end in _pieces(document, section, count_tokens, room):
            passages.append(_passage(document, section, context, start, end))
    return passages


def _passage(document: LoadedDocument, section: Section, context: str, start: int, end: int) -> Passage:
    text = document.text[start:end]
    said = f"{document.path}\x00{start}\x00{text}".encode("utf-8", "surrogatepass")
    metadata: dict[str, Any] = {
        "source": document.path,
        "title": document.title,
        "heading": " > ".join(section.headings),
        "start": start,
        "end": end,
        "digest": document.digest,
    }
    return Passage(hashlib.blake2b(said, digest_size=16).hexdigest(), text, metadata, context)


def _context(title: str, headings: tuple[str, ...], count_tokens: Callable[[str], int], limit: int) -> str:
    """Title and headings, shortened from the left until they fit."""
    parts = list(headings if headings and headings[0] == title else (title, *headings))
    while parts and count_tokens(" > ".join(parts)) > limit:
        parts.pop(0)
    return " > ".join(parts)


def _sections(document: LoadedDocument) -> list[Section]:
    """The parts between headings; a heading with nothing below it goes with the section that follows."""
    text = document.text
    borders = _headings(text) if document.format == "markdown" else []
    sections: list[Section] = []
    path: list[tuple[int, str]] = []
    position, pending = 0, 0
    for start, end, level, heading in [*borders, (len(text), len(text), 0, "")]:
        if text[position:start].strip():
            sections.append(Section(pending, start, tuple(name for _, name in path)))
            pending = start
        path = [(other, name) for other, name in path if other < level] + [(level, heading)]
        position = end
    if text[pending:].strip():  # headings at the very end, with nothing below
        path.pop()
        if sections:
            last = sections.pop()
            sections.append(Section(last.start, len(text), last.headings))
        else:
            sections.append(Section(pending, len(text), tuple(name for _, name in path)))
    return sections


def _headings(text: str) -> list[tuple[int, int, int, str]]:
    """(start, end, level, words) of every Markdown heading that is none of a list, a quote or a code block."""
    try:
        from markdown_it import MarkdownIt
    except ImportError as error:
        raise ImportError("Splitting Markdown needs markdown-it-py: pip install 'crisp-rag[ingest]'") from error
    # markdown-it counts \n, \r\n and \r as line ends, and nothing else.
    starts = [0]
    for i, character in enumerate(text):
        if character == "\n" or (character == "\r" and text[i + 1 : i + 2] != "\n"):
            starts.append(i + 1)
    starts.append(len(text))
    found = []
    tokens = MarkdownIt().parse(text)
    for token, inline in zip(tokens, tokens[1:]):
        if token.type == "heading_open" and token.level == 0 and token.map:
            first, last = token.map
            end = starts[min(last, len(starts) - 1)]
            found.append((starts[first], end, int(token.tag[1:]), _words(inline)))
    return found


def _words(inline: Any) -> str:
    parts = [child.content for child in inline.children or [] if child.type in ("text", "code_inline")]
    return " ".join("".join(parts).split())


def _pieces(
    document: LoadedDocument, section: Section, count_tokens: Callable[[str], int], room: int
) -> list[tuple[int, int]]:
    """Spans of at most ``room`` tokens, trimmed, that cover everything but blanks."""
    try:
        from semantic_text_splitter import MarkdownSplitter, TextSplitter
    except ImportError as error:
        raise ImportError("Splitting needs semantic-text-splitter: pip install 'crisp-rag[ingest]'") from error
    text = document.text[section.start : section.end]
    kind = MarkdownSplitter if document.format == "markdown" else TextSplitter
    splitter = kind.from_callback(count_tokens, room)
    spans = []
    for offset, piece in splitter.chunk_indices(text):
        blanks = len(piece) - len(piece.lstrip())
        start = section.start + offset + blanks
        end = start + len(piece.strip())
        if end > start:
            spans.append((start, end))
    return spans
