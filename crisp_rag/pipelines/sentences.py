"""Sentences with their place in the text: the unit that an answer quotes.

Lines that stand for themselves (list items, table rows, lines of code, records) are units; running text is cut into
sentences by syntok, which knows abbreviations and needs no model.  What counts as a mark depends on the format: ``1806.``
at the head of a wrapped line is a year, and ``> 31 kg`` in plain text no quotation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

LONGEST = 600
"""Code points of a sentence at most; a longer one is cut between its words, and a longer word at that length."""

_BULLET = re.compile(r"[-*+][ \t]+(?=\S)")
_NUMBER = re.compile(r"(\d{1,9})[.)][ \t]+(?=\S)")
_QUOTE = re.compile(r"(?:>[ \t]?)+")
_HEADING = re.compile(r"#{1,6}(?:[ \t]|$)")
_FENCE = re.compile(r"(`{3,}(?!.*`)|~{3,})")
_RULE = re.compile(r"^[\s|:=_*+-]*$")
_PLAIN_BULLET = re.compile(r"[-*+•·‣▪–][ \t]+(?=\S)")
_PLAIN_NUMBER = re.compile(r"(?:\d{1,3}|[a-z])[.)][ \t]+(?=\S)")
_COMMENT = re.compile(r"(?://+|#+|--+|;+|%+|\*+)(?=\s)")
_ROOM = 0.75
"""A line ended on purpose if the next word would have fitted into this share of the paragraph's width."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """``text[start:end]``, offsets in code points, without leading and trailing blanks or list markers."""

    text: str
    start: int
    end: int


def split_sentences(text: str, format: str = "markdown") -> list[Sentence]:
    """The sentences of a text, in order.  Headings and table rules are left out: they say nothing by themselves.

    Args:
        text: The text.
        format: ``markdown``, ``plain``, ``code`` or ``rows``; see :data:`crisp_rag.pipelines.loading.Format`.
    """
    blocks = {"plain": _plain_blocks, "code": _code_blocks, "rows": _line_blocks}.get(format, _markdown_blocks)
    sentences: list[Sentence] = []
    for start, end, running in blocks(text):
        spans = [(start + first, start + last) for first, last in _cut(text[start:end])] if running else [(start, end)]
        sentences.extend(_trimmed(text, *part) for span in spans for part in _short_enough(text, *span))
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


def _lines(text: str) -> Iterator[tuple[int, int, str]]:
    """Start, end and words of each line."""
    position = 0
    for line in text.splitlines(keepends=True):
        start, position = position, position + len(line)
        yield start, position, line.strip()


def _markdown_blocks(text: str) -> list[tuple[int, int, bool]]:
    """Spans of paragraphs and items, by CommonMark's rules, of table rows and of lines of code; whether each is prose."""
    blocks: list[tuple[int, int, bool]] = []
    fence = ""
    code: list[tuple[int, int, str]] = []
    paragraph = in_list = False
    for start, end, line in _lines(text):
        if fence:
            if line.startswith(fence) and not line.strip(fence[0]):
                fence = ""
                blocks += _comments_joined(code)
                code = []
            else:
                code.append((start, end, line))
            continue
        if found := _FENCE.match(line):
            fence, paragraph = found.group(1), False
            continue
        if not line:
            paragraph = False
            continue
        begin = end - len(text[start:end].lstrip())
        body, marked = _body(text, begin, end, paragraph, in_list)
        in_list = (in_list and (marked or paragraph or begin > start)) or (marked and body > begin)
        if _HEADING.match(line) or (_RULE.match(line) and not marked):
            paragraph = False
        elif line.startswith("|"):
            blocks.append((start, end, False))
            paragraph = False
        elif paragraph and not marked:
            blocks[-1] = (blocks[-1][0], end, True)
        else:
            blocks.append((body, end, True))
            paragraph = True
    return blocks + _comments_joined(code)


def _body(text: str, begin: int, end: int, paragraph: bool, in_list: bool) -> tuple[int, bool]:
    """Where a line's words begin behind its marks, and whether it has marks that begin a block.

    A number ends a paragraph only as ``1.``, or where the list goes on; one above 999 stays with the words, for it is a
    year or the like.
    """
    marked = False
    while begin < end:
        if found := _QUOTE.match(text, begin, end):
            marked = True
        elif not (found := _BULLET.match(text, begin, end)):
            found = _NUMBER.match(text, begin, end)
            if found is None or (paragraph and not in_list and not marked and int(found.group(1)) != 1):
                break
            if len(found.group(1)) > 3:
                return begin, marked or not paragraph or in_list
        marked = True
        begin = found.end()
    if text[begin : begin + 1] == "\\" and text[begin + 1 : begin + 2] and not text[begin + 1].isalnum():
        begin += 1  # an escape that only keeps a sign from being a mark
    return begin, marked


def _plain_blocks(text: str) -> list[tuple[int, int, bool]]:
    """Spans of paragraphs, cut where their author ended a line; nothing is markup, but several items are a list."""
    blocks: list[tuple[int, int, bool]] = []
    paragraph: list[tuple[int, int, str]] = []
    for line in [*_lines(text), (len(text), len(text), "")]:
        if line[2]:
            paragraph.append(line)
        elif paragraph:
            blocks += _plain_paragraph(paragraph)
            paragraph = []
    return blocks


def _plain_paragraph(lines: Sequence[tuple[int, int, str]]) -> Iterator[tuple[int, int, bool]]:
    first = lines[0][2]
    mark = next((mark for mark in (_PLAIN_BULLET, _PLAIN_NUMBER) if mark.match(first)), None)
    items = sum(mark.match(line) is not None for _, _, line in lines) if mark else 0
    width = max(len(line) for _, _, line in lines)
    start, end, before = lines[0]
    for next_start, next_end, line in lines[1:]:
        ended = len(before) + 1 + len(line.split(maxsplit=1)[0]) <= _ROOM * width
        if (items > 1 and mark is not None and mark.match(line)) or (ended and not line[0].islower()):
            yield start, end, True
            start = next_start
        end, before = next_end, line
    yield start, end, True


def _code_blocks(text: str) -> list[tuple[int, int, bool]]:
    return _comments_joined(list(_lines(text)))


def _comments_joined(lines: Sequence[tuple[int, int, str]]) -> list[tuple[int, int, bool]]:
    """Lines of code, those of one comment together: its sentences run over them."""
    blocks: list[tuple[int, int, bool]] = []
    last = ""
    for start, end, line in lines:
        found = _COMMENT.match(line)
        mark = found.group() if found else ""
        if not line or _RULE.match(line):
            last = ""
        elif mark and mark == last:
            blocks[-1] = (blocks[-1][0], end, False)
        else:
            blocks.append((start, end, False))
            last = mark
    return blocks


def _line_blocks(text: str) -> list[tuple[int, int, bool]]:
    return [(start, end, False) for start, end, line in _lines(text) if line]


def _short_enough(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """A span in parts of ``LONGEST`` at most, cut at blanks that no figure stands before: its unit may follow."""
    while end - start > LONGEST:
        window = text[start : start + LONGEST]
        cut = max((found.end() for found in re.finditer(r"(?<!\d)\s+", window)), default=0)
        cut = cut if cut > LONGEST // 4 else LONGEST
        yield start, start + cut
        start += cut
    yield start, end


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
