"""Sentences with their place in the text: the unit that an answer quotes.

Lines that stand for themselves (headings, list items, table rows) are units; running text is cut into sentences by
syntok, which knows abbreviations and needs no model.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_MARKUP = re.compile(r"^(?:#{1,6}\s+|[-*+]\s+|\d+[.)]\s+|>\s?)+")
_RULE = re.compile(r"^[\s|:=_*+-]*$")
_STANDALONE = re.compile(r"^\s*(?:#{1,6}\s|[-*+]\s|\d+[.)]\s|\||>)")


@dataclass(frozen=True, slots=True)
class Sentence:
    """``text[start:end]``, offsets in code points, without leading and trailing blanks or list markers."""

    text: str
    start: int
    end: int


def split_sentences(text: str) -> list[Sentence]:
    """The sentences of a text, in order.  Headings and table rules are left out: they say nothing by themselves."""
    sentences: list[Sentence] = []
    for start, end in _blocks(text):
        block = text[start:end]
        if re.match(r"^\s*#{1,6}\s", block) or _RULE.match(block):
            continue
        if block.lstrip().startswith("|"):
            sentences.append(_trimmed(text, start, end))
            continue
        offset = start + _marker_length(block)
        sentences.extend(_trimmed(text, offset + first, offset + last) for first, last in _cut(text[offset:end]))
    return [sentence for sentence in sentences if re.search(r"\w", sentence.text)]


def around(sentences: Sequence[Sentence], number: int, words: int = 48) -> tuple[int, int]:
    """The span of a sentence and its neighbours, before and behind in turn, as long as they have so many words."""
    first = last = number
    total, before = len(sentences[number].text.split()), False
    while True:
        before = not before
        for side in (before, not before):
            other = first - 1 if side else last + 1
            if 0 <= other < len(sentences) and total + (count := len(sentences[other].text.split())) <= words:
                total += count
                first, last = min(first, other), max(last, other)
                break
        else:
            return sentences[first].start, sentences[last].end


def _marker_length(block: str) -> int:
    blanks = len(block) - len(block.lstrip())
    match = _MARKUP.match(block[blanks:])
    return blanks + (match.end() if match else 0)


def _blocks(text: str) -> list[tuple[int, int]]:
    """Spans of paragraphs, and of lines that stand for themselves."""
    blocks: list[tuple[int, int]] = []
    open_block = False
    position = 0
    for line in text.splitlines(keepends=True):
        start, position = position, position + len(line)
        if not line.strip():
            open_block = False
        elif _STANDALONE.match(line):
            blocks.append((start, position))
            # A list item may go on in the next line; a heading or a table row may not.
            open_block = not re.match(r"^\s*(?:#{1,6}\s|\|)", line)
        elif open_block:
            blocks[-1] = (blocks[-1][0], position)
        else:
            blocks.append((start, position))
            open_block = True
    return blocks


def _cut(text: str) -> list[tuple[int, int]]:
    try:
        from syntok import segmenter
    except ImportError as error:
        raise ImportError("Quoting sentences needs syntok: pip install 'crisp-rag[ingest]'") from error
    spans = []
    for paragraph in segmenter.analyze(text):
        for tokens in paragraph:
            words = list(tokens)
            if words:
                spans.append((words[0].offset, words[-1].offset + len(words[-1].value)))
    # syntok may normalise a token's value; the next sentence's start bounds the span.
    return [
        (start, min(max(end, start + 1), spans[i + 1][0] if i + 1 < len(spans) else len(text)))
        for i, (start, end) in enumerate(spans)
    ]


def _trimmed(text: str, start: int, end: int) -> Sentence:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return Sentence(text[start:end], start, end)
