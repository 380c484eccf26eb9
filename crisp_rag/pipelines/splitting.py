"""Cut a document into passages that an encoder reads whole.

    passages = split_document(load_file("handbook.md"), encoder.tokenizer, max_tokens=200)
    passages[0].text == document.text[passages[0].metadata["start"] : passages[0].metadata["end"]]

Markdown is cut at its headings first, and each passage knows its heading path.  What is still too long is cut at the
widest border that fits: blank lines, then lines that stand for themselves (list items, table rows, code), then
sentences, then words.  Lines that are only wrapped do not count as borders, so that a sentence stays whole.  A table row
and a block of code are never cut where they fit; a part of a table that lacks its headings has them in its context.
Source code is cut at its definitions, and a record is a passage by itself.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from crisp_rag.errors import InvalidInputError
from crisp_rag.index.types import Passage
from crisp_rag.pipelines.definitions import find_definitions
from crisp_rag.pipelines.markdown import Atom, find_headings, read_markdown

if TYPE_CHECKING:
    from crisp_rag.pipelines.loading import LoadedDocument

__all__ = ["DEFAULT_MAX_TOKENS", "SPLITTER_VERSION", "PassageSplitter", "find_headings", "split_document"]

DEFAULT_MAX_TOKENS = 200
MIN_MAX_TOKENS = 16
SPLITTER_VERSION = 2
"""Raised when the same text and settings would give other passages, so that files are indexed anew."""

_NEWLINE = re.compile(r"\r\n?|\n")
_BLANK_LINES = re.compile(r"\n[ \t]*\n\s*")
_STARTS_ITEM = re.compile(r"\s|[-*+•·–|]\s|\d{1,3}[.)]\s|[A-Za-z][.)]\s|$")
# A line this long was wrapped by an editor or a page, not ended by its author.
_WRAPPED = 40


@dataclass(frozen=True, slots=True)
class _Section:
    """``text[start:end]``; what lies before ``body`` is headings only.  Offsets in code points.

    ``atoms`` are its tables and blocks of code.
    """

    start: int
    body: int
    end: int
    path: tuple[str, ...]
    atoms: tuple[_Span, ...] = ()


@dataclass(frozen=True, slots=True)
class _Span:
    """A table or a block of code, by where its lines begin, the last number being its end; its headings, if it has any."""

    lines: tuple[int, ...]
    is_table: bool
    headings: str = ""

    @property
    def start(self) -> int:
        return self.lines[0]

    @property
    def end(self) -> int:
        return self.lines[-1]


class PassageSplitter:
    """Splits documents by one tokenizer; worth keeping where there are many documents.

    Args:
        tokenizer: A Hugging Face tokenizer, of the encoder that will read the passages.
        max_tokens: The most tokens of a passage's ``encoded_text``: context and special tokens are counted.

    Raises:
        InvalidInputError: if ``max_tokens`` is below 16.
        ImportError: naming the extra to install.
    """

    def __init__(self, tokenizer: Any, max_tokens: int = DEFAULT_MAX_TOKENS) -> None:
        if isinstance(max_tokens, bool) or not isinstance(max_tokens, int) or max_tokens < MIN_MAX_TOKENS:
            raise InvalidInputError(f"max_tokens is a whole number of at least {MIN_MAX_TOKENS}, got {max_tokens!r}.")
        try:
            from semantic_text_splitter import TextSplitter
        except ImportError as error:
            raise ImportError("Splitting needs semantic-text-splitter: pip install 'crisp-rag[ingest]'") from error
        self._text_splitter = TextSplitter
        self._count = _token_counter(tokenizer)
        self.max_tokens = max_tokens

    def split(self, document: LoadedDocument) -> list[Passage]:
        """The passages of a document, in order; none for a blank one.  See :func:`split_document`."""
        text = document.text
        if document.format == "rows":
            return self._records(document)
        if document.format == "markdown":
            sections, soft = _markdown_sections(text)
        elif document.format == "code":
            sections, soft = _code_sections(text, document.path), text
        else:
            sections, soft = [_Section(0, 0, len(text), ())], _join_wrapped_lines(text)
        passages = []
        for section in sections:
            context = self._context(document.title, section.path)
            for start, end in self._pieces(text, soft, section, context):
                inside = next((atom for atom in section.atoms if atom.start <= start and end <= atom.end), None)
                own = context
                if inside is not None and inside.headings and start > inside.start:
                    own = self._context(document.title, (*section.path, inside.headings), text[start:end])
                passage = _passage(document, start, end, section.path, own)
                if inside is not None and not inside.is_table and not text[start:end].startswith(("`", "~")):
                    # Its fence lies in another passage.
                    passage = replace(passage, metadata={**passage.metadata, "format": "code"})
                passages.append(passage)
        return passages

    def _records(self, document: LoadedDocument) -> list[Passage]:
        """Each line a passage, in parts where it is too long."""
        passages = []
        position = 0
        for line in document.text.splitlines(keepends=True):
            sheet = str(document.place_of(position).get("sheet", ""))
            path = (sheet,) if sheet else ()
            context = self._context(document.title, (document.title, *path) if path else ())
            prefix = f"{context}\n" if context else ""
            for start, end in self._fitting(document.text, position, position + len(line), prefix):
                passages.append(_passage(document, start, end, path, context))
            position += len(line)
        return passages

    def _context(self, title: str, path: Sequence[str], text: str = "") -> str:
        """Title and heading path, shortened from the middle where they would take more than half of the room.

        With ``text``, what is shortened also leaves room for that.
        """
        parts = list(path) if path and _same(path[0], title) else [title, *path]
        parts = [flat for part in parts if (flat := " ".join(part.split()))]
        for candidate in (parts, [*parts[:1], *parts[-1:]] if len(parts) > 2 else [], parts[-1:], parts[:1]):
            context = " > ".join(candidate)
            if context and self._count(context) <= self.max_tokens // 2:
                if text and self._count(f"{context}\n{text}") > self.max_tokens:
                    continue
                return context
        return ""

    def _pieces(self, text: str, soft: str, section: _Section, context: str) -> list[tuple[int, int]]:
        """Spans of the section's passages, trimmed, in order, none of them blank."""
        prefix = f"{context}\n" if context else ""
        start, end = section.start, section.end
        spans: list[tuple[int, int]] = []
        if section.atoms:
            spans = self._packed(text, soft, section, prefix)
            return [fitting for span in spans for fitting in self._fitting(text, *span, prefix)]
        if section.body > start:
            opening = self._opening(text, soft, section, prefix)
            if opening is not None:
                spans.append(opening)
                start = opening[1]
        spans.extend(self._cut(soft, start, end, prefix, self.max_tokens))
        return [fitting for span in spans for fitting in self._fitting(text, *span, prefix)]

    def _packed(self, text: str, soft: str, section: _Section, prefix: str) -> list[tuple[int, int]]:
        """A section with tables or code: as many of its blocks to a passage as fit, those that fit whole."""
        packed: list[tuple[int, int]] = []
        for start, end in self._blocks(text, soft, section, prefix):
            fits = bool(packed) and self._count(prefix + text[packed[-1][0] : end].strip()) <= self.max_tokens
            # What begins inside a table has its headings in the context, and nothing else in it.
            parted = bool(packed) and any(
                atom.start < packed[-1][0] < atom.end <= start
                or (atom.start < start < atom.end and packed[-1][0] < atom.start)
                for atom in section.atoms
                if atom.is_table and not self._fits(text, atom, prefix)
            )
            if fits and not parted:
                packed[-1] = packed[-1][0], end
            else:
                packed.append((start, end))
        return packed

    def _fits(self, text: str, atom: _Span, prefix: str) -> bool:
        return self._count(prefix + text[atom.start : atom.end].strip()) <= self.max_tokens

    def _blocks(self, text: str, soft: str, section: _Section, prefix: str) -> Iterator[tuple[int, int]]:
        """A section's headings and paragraphs, its tables and code whole or line by line."""
        position = section.start
        for atom in (*section.atoms, None):
            until = atom.start if atom else section.end
            yield from self._paragraphs(text, soft, position, until, prefix)
            if atom is None:
                return
            if self._fits(text, atom, prefix):
                yield atom.start, atom.end
            else:
                # A table's headings, the rule below them and its first row say something together only.
                first = min(3, len(atom.lines) - 1) if atom.is_table else 1
                for start, end in zip(atom.lines[:1] + atom.lines[first:-1], atom.lines[first:]):
                    if text[start:end].strip():
                        yield start, end
            position = atom.end

    def _paragraphs(self, text: str, soft: str, start: int, end: int, prefix: str) -> Iterator[tuple[int, int]]:
        position = start
        for found in _BLANK_LINES.finditer(text, start, end):
            yield from self._paragraph(text, soft, position, found.start(), prefix)
            position = found.end()
        yield from self._paragraph(text, soft, position, end, prefix)

    def _paragraph(self, text: str, soft: str, start: int, end: int, prefix: str) -> Iterator[tuple[int, int]]:
        start, end = _trim(text, start, end)
        if start == end:
            return
        if self._count(prefix + text[start:end]) <= self.max_tokens:
            yield start, end
        else:
            yield from self._cut(soft, start, end, prefix, self.max_tokens)

    def _fitting(self, text: str, start: int, end: int, prefix: str) -> Iterator[tuple[int, int]]:
        """The span, trimmed; in parts if it is too long after all.

        The splitter can exceed its capacity by a token, and in tokenizers that see line breaks, text with its lines
        joined counts differently.
        """
        start, end = _trim(text, start, end)
        if start == end:
            return
        excess = self._count(prefix + text[start:end]) - self.max_tokens
        if excess <= 0 or end - start == 1:
            yield start, end
            return
        room = self.max_tokens - self._count(prefix)
        parts = self._cut(text, start, end, prefix, self.max_tokens - max(1, min(room // 2, room - 1)))
        if len(parts) < 2:
            middle = (start + end) // 2
            parts = [(start, middle), (middle, end)]
        for part in parts:
            yield from self._fitting(text, *part, prefix)

    def _opening(self, text: str, soft: str, section: _Section, prefix: str) -> tuple[int, int] | None:
        """A first piece that keeps the headings together with text below them; None if they leave no room for it."""
        head = prefix + text[section.start : section.body]
        if self._count(head) > self.max_tokens * 3 // 4 or not text[section.body : section.end].strip():
            return None
        splitter = self._text_splitter.from_callback(lambda piece: self._count(head + piece), self.max_tokens)
        # Only the first piece is wanted: a window saves measuring the rest, unless it is all one piece.
        window = section.body + 20 * self.max_tokens
        pieces = splitter.chunk_indices(soft[section.body : min(window, section.end)])
        if len(pieces) == 1 and window < section.end:
            pieces = splitter.chunk_indices(soft[section.body : section.end])
        offset, piece = pieces[0]
        span = (section.start, section.body + offset + len(piece))
        return span if self._count(prefix + text[slice(*span)]) <= self.max_tokens else None

    def _cut(self, text: str, start: int, end: int, prefix: str, capacity: int) -> list[tuple[int, int]]:
        splitter = self._text_splitter.from_callback(lambda piece: self._count(prefix + piece), capacity)
        return [(start + offset, start + offset + len(piece)) for offset, piece in splitter.chunk_indices(text[start:end])]


def split_document(doc: LoadedDocument, tokenizer: Any, max_tokens: int = DEFAULT_MAX_TOKENS) -> list[Passage]:
    """Cut a document into passages.

    Args:
        doc: The document.
        tokenizer: A Hugging Face tokenizer, of the encoder that will read the passages.
        max_tokens: The most tokens of a passage's ``encoded_text``: context and special tokens are counted.

    Returns:
        Passages in order; none for a blank document.  Each ``text`` is ``doc.text[start:end]`` without blanks around
        it, every other character lies in exactly one passage.  ``context`` is title and heading path joined by
        ``" > "``; ``metadata`` has ``source``, ``title``, ``heading``, ``start``, ``end`` (code points), ``digest``,
        and what is known of the place (``page``, ``sheet``, ``slide``); ``format`` where it is not Markdown.  ``id`` is a
        digest of source, start and text.

    Raises:
        InvalidInputError: if ``max_tokens`` is below 16.
        ImportError: naming the extra to install.
    """
    return PassageSplitter(tokenizer, max_tokens).split(doc)


def _markdown_sections(text: str) -> tuple[list[_Section], str]:
    """The sections, and the text with the line breaks inside paragraphs as spaces."""
    structure = read_markdown(text)
    headings, paragraphs = structure.headings, structure.paragraphs
    breaks = list(_NEWLINE.finditer(text))
    lines = [0, *(found.end() for found in breaks)]

    def offset(line: int) -> int:
        return lines[line] if line < len(lines) else len(text)

    soft = list(text)
    for first, last in paragraphs:
        for line in range(first, min(last - 1, len(breaks))):
            found = breaks[line]
            if not text[lines[line] : found.start()].endswith(("  ", "\\")):
                soft[found.start() : found.end()] = " " * (found.end() - found.start())

    atoms = [_span(text, lines, atom, len(text)) for atom in structure.atoms]

    def within(start: int, end: int) -> tuple[_Span, ...]:
        return tuple(atom for atom in atoms if start <= atom.start and atom.end <= end)

    sections: list[_Section] = []
    start, path = 0, []  # type: tuple[int, list[tuple[int, str]]]
    body = 0
    for heading in headings:
        here = offset(heading.first_line)
        if text[body:here].strip():
            sections.append(_Section(start, body, here, tuple(words for _, words in path), within(body, here)))
            start = here
        path = [(level, words) for level, words in path if level < heading.level]
        if heading.text:
            path.append((heading.level, heading.text))
        body = offset(heading.end_line)
    sections.append(_Section(start, body, len(text), tuple(words for _, words in path), within(body, len(text))))
    return sections, "".join(soft)


def _span(text: str, lines: Sequence[int], atom: Atom, end: int) -> _Span:
    """A table or a block of code by where its lines begin."""
    starts = [lines[line] if line < len(lines) else end for line in range(atom.first_line, atom.end_line + 1)]
    starts = sorted({min(start, end) for start in starts})
    if len(starts) < 2:
        starts = [starts[0], end]
    headings = ""
    if atom.kind == "table":
        cells = text[starts[0] : starts[1]].strip().strip("|").split("|")
        headings = " | ".join(cell.strip() for cell in cells if cell.strip())
    return _Span(tuple(starts), atom.kind == "table", headings)


def _code_sections(text: str, path: str) -> list[_Section]:
    """A program's definitions, each with the names of those that it lies in."""
    lines = [0]
    for line in text.splitlines(keepends=True):
        lines.append(lines[-1] + len(line))
    sections: list[_Section] = []
    start = 0
    names: list[str] = []
    for definition in find_definitions(text, path):
        here = lines[min(definition.line, len(lines) - 1)]
        if text[start:here].strip():
            sections.append(_Section(start, start, here, tuple(names)))
            start = here
        names = [*names[: definition.level - 1], definition.text]
    sections.append(_Section(start, start, len(text), tuple(names)))
    return sections


def _join_wrapped_lines(text: str) -> str:
    """Plain text of the same length where the line breaks inside wrapped paragraphs are spaces."""
    soft = list(text)
    start = 0
    for found in _NEWLINE.finditer(text):
        wrapped = found.start() - start >= _WRAPPED
        if wrapped and not _STARTS_ITEM.match(text, found.end()):
            soft[found.start() : found.end()] = " " * (found.end() - found.start())
        start = found.end()
    return "".join(soft)


def _passage(document: LoadedDocument, start: int, end: int, path: Sequence[str], context: str) -> Passage:
    text = document.text[start:end]
    metadata = {
        "source": document.path,
        "title": document.title,
        "heading": " > ".join(path),
        "start": start,
        "end": end,
        "digest": document.digest,
        **document.place_of(start),
    }
    if "page" in metadata and (last := document.place_of(end - 1)["page"]) != metadata["page"]:
        metadata["last_page"] = last
    if document.format != "markdown":
        metadata["format"] = document.format
    identity = f"{document.path}\0{start}\0{text}".encode("utf-8", "surrogatepass")
    return Passage(hashlib.blake2b(identity, digest_size=16).hexdigest(), text, metadata, context)


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    piece = text[start:end]
    stripped = piece.lstrip()
    start += len(piece) - len(stripped)
    return start, start + len(stripped.rstrip())


def _same(one: str, other: str) -> bool:
    return " ".join(one.split()).casefold() == " ".join(other.split()).casefold()


def _token_counter(tokenizer: Any) -> Callable[[str], int]:
    """Counts tokens, special ones included, never cut."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return lambda text: len(tokenizer(text, add_special_tokens=True, truncation=False, verbose=False)["input_ids"])
    # A copy, because truncation and padding are settings of the tokenizer that its owner may rely on.
    own = type(backend).from_str(backend.to_str())
    own.no_truncation()
    own.no_padding()
    return lambda text: len(own.encode(text))
