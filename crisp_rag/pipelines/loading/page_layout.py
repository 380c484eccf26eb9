"""The lines of a page by the places of its words: for forms, and for columns that a file draws line by line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

LEAST_LINES = 4
"""Lines that a column has at least; fewer are chance."""
LEAST_LENGTH = 14
"""Letters of a column's middle line at least: cells of a table are shorter, and are read row by row."""


@dataclass(frozen=True, slots=True)
class Word:
    """A run of text and its box, in points from the page's lower left corner."""

    text: str
    left: float
    bottom: float
    right: float
    top: float

    @property
    def height(self) -> float:
        """In points."""
        return max(self.top - self.bottom, 0.1)

    @property
    def middle(self) -> float:
        """The height of its middle line."""
        return (self.top + self.bottom) / 2


def lines_of(words: Sequence[Word]) -> list[str]:
    """The words line by line from the top, each line from the left; a blank line where the page leaves one."""
    lines: list[str] = []
    last: list[Word] = []
    for row in _rows(words):
        if last and min(word.bottom for word in last) - max(word.top for word in row) > 1.2 * median(w.height for w in row):
            lines.append("")
        lines.append(" ".join(word.text for word in row))
        last = row
    return lines


def _rows(words: Sequence[Word]) -> list[list[Word]]:
    """Words that stand on one line, together; from the top, each from the left."""
    rows: list[list[Word]] = []
    for word in sorted(words, key=lambda word: -word.middle):
        row = rows[-1] if rows else None
        if row is not None and abs(median(w.middle for w in row[-8:]) - word.middle) < 0.5 * min(
            word.height, row[-1].height
        ):
            row.append(word)
        else:
            rows.append([word])
    return [sorted(row, key=lambda word: word.left) for row in rows]


def reading_order(words: Sequence[Word]) -> str | None:
    """The text column by column, for a page that draws its columns line by line; None where the drawn order will do.

    A gutter is a strip that no word of several lines crosses, with running text on both sides.  Lines across the page
    (titles, captions) stay above or below the columns that they part.
    """
    if len(words) < 2 * LEAST_LINES:
        return None
    rows = _rows(words)
    gutter = _gutter(rows)
    if gutter is None or not _drawn_across(words, gutter):
        return None
    parts: list[str] = []
    left: list[Word] = []
    right: list[Word] = []

    def close() -> None:
        for column in (left, right):
            if column:
                parts.append("\n".join(lines_of(column)))
            column.clear()

    for row in rows:
        if any(word.left < gutter < word.right for word in row):
            close()
            parts.append(" ".join(word.text for word in row))
        else:
            left += [word for word in row if word.right <= gutter]
            right += [word for word in row if word.left >= gutter]
    close()
    return "\n\n".join(parts)


def _gutter(rows: Sequence[Sequence[Word]]) -> float | None:
    """Where the page parts into two columns of running text; None where it does not."""
    edges = sorted({round(word.left) for row in rows for word in row})
    page_left, page_right = edges[0], max(word.right for row in rows for word in row)
    best: tuple[int, float] | None = None
    for edge in edges:
        place = edge - 2.0
        if not page_left + 0.2 * (page_right - page_left) < place < page_left + 0.8 * (page_right - page_left):
            continue
        beside = [row for row in rows if row[0].right <= place + 1 and row[-1].left >= place]
        crossed = sum(any(word.left < place < word.right for word in row) for row in rows)
        if len(beside) < LEAST_LINES or crossed > len(beside):
            continue
        lefts = [" ".join(word.text for word in row if word.right <= place + 1) for row in beside]
        rights = [" ".join(word.text for word in row if word.left >= place) for row in beside]
        if min(median(map(len, lefts)), median(map(len, rights))) < LEAST_LENGTH:
            continue
        if best is None or len(beside) > best[0]:
            best = len(beside), place
    return best[1] if best else None


def _drawn_across(words: Sequence[Word], gutter: float) -> bool:
    """Whether the file goes from one column to the other line by line."""
    sides = [word.left >= gutter for word in words if not word.left < gutter < word.right]
    changes = sum(one != other for one, other in pairwise(sides))
    return changes >= 2 * LEAST_LINES - 2
