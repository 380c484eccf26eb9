"""The structure of a Markdown text: headings, paragraphs, tables and blocks of code, as lines.

structure = read_markdown(text)
structure.headings[0].text, structure.atoms
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

_FRONT_MATTER = re.compile(r"\A---[ \t]*\r?\n(?:(?!---[ \t]*\r?\n).*\n)*?(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)")


@dataclass(frozen=True, slots=True)
class Heading:
    """A Markdown heading: lines ``first_line <= line < end_line`` of the text, level 1 to 6."""

    text: str
    level: int
    first_line: int
    end_line: int


@dataclass(frozen=True, slots=True)
class Atom:
    """A table or a block of code, lines ``first_line <= line < end_line``: it stays whole where it fits."""

    kind: str
    first_line: int
    end_line: int


@dataclass(frozen=True, slots=True)
class Structure:
    """What a Markdown text consists of; ranges of lines, in order."""

    headings: list[Heading] = field(default_factory=list)
    paragraphs: list[tuple[int, int]] = field(default_factory=list)
    atoms: list[Atom] = field(default_factory=list)


def find_headings(text: str) -> list[Heading]:
    """The headings of a Markdown text, ``#`` and underlined ones; those in code, quotes and lists are none."""
    return read_markdown(text).headings


def front_matter_end(text: str) -> int:
    """Where the YAML block at the head of a Markdown text ends, 0 without one."""
    match = _FRONT_MATTER.match(text)
    return match.end() if match else 0


def read_markdown(text: str) -> Structure:
    """Parse a Markdown text by CommonMark's rules, with tables.

    Raises:
        ImportError: naming the extra to install.
    """
    try:
        from markdown_it import MarkdownIt
    except ImportError as error:
        raise ImportError("Reading Markdown needs markdown-it-py: pip install 'crisp-rag[ingest]'") from error
    # Inline markup is parsed for headings alone: the rest is only cut, never rendered.
    parser = MarkdownIt("commonmark").enable("table").disable("inline")
    env: dict[str, Any] = {}
    matter = front_matter_end(text)
    # Its closing rule would make the YAML a heading; blank lines in its place keep the line numbers.
    tokens = parser.parse("\n" * text.count("\n", 0, matter) + text[matter:], env)
    inline = MarkdownIt("commonmark")
    found = Structure()
    for position, token in enumerate(tokens):
        if token.map is None:
            continue
        if token.type == "heading_open" and token.level == 0:
            words = " ".join(_plain(inline.parseInline(tokens[position + 1].content, env)).split())
            found.headings.append(Heading(words, int(token.tag[1]), *token.map))
        elif token.type == "paragraph_open":
            found.paragraphs.append((token.map[0], token.map[1]))
        elif token.type in ("table_open", "fence", "code_block"):
            kind = "table" if token.type == "table_open" else token.type
            if not found.atoms or token.map[0] >= found.atoms[-1].end_line:
                found.atoms.append(Atom(kind, token.map[0], token.map[1]))
    return found


def _plain(tokens: Sequence[Any]) -> str:
    """The words of inline tokens, without their markup."""
    words = []
    for token in tokens:
        if token.children:
            words.append(_plain(token.children))
        elif token.type in ("softbreak", "hardbreak"):
            words.append(" ")
        elif token.type != "html_inline":
            words.append(token.content)
    return "".join(words)
