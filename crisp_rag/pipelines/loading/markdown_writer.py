"""Writes Markdown from what a walk over a tree meets: blocks, lists, quotes, tables, marks in a line."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from crisp_rag.pipelines.loading.superscripts import Notes

_LOOKS_LIKE_MARKUP = re.compile(r"(?:#{1,6}|[-+*>])(?=\s)|\||```|~~~|(?:---|\*\*\*|___)\s*$")
_BREAK = "\x00"
MAX_CELLS = 200_000


@dataclass(slots=True)
class _Cell:
    text: str
    rows: int
    columns: int
    heading: bool


@dataclass(slots=True)
class _Table:
    layout: bool
    rows: list[list[_Cell]] = field(default_factory=list)
    heads: list[bool] = field(default_factory=list)
    cell: tuple[int, int, bool] | None = None
    outer: list[str] = field(default_factory=list)
    depth: int = 0


class MarkdownWriter:
    """Takes the events of a walk and gives the Markdown.

    Args:
        notes: What is known of the page's notes.
    """

    def __init__(self, notes: Notes | None = None) -> None:
        self.notes = notes or Notes()
        self._blocks: list[tuple[str, bool]] = []
        self._line: list[str] = []
        self._generation = 0
        self._marks: list[tuple[str, int, int]] = []
        self._heading = 0
        self._lists: list[int | None] = []
        self._prefix: list[str] = []
        self._item: str | None = None
        self._term = ""
        self._tables: list[_Table] = []

    def finish(self) -> str:
        """The text; nothing may come after it."""
        self.end_block()
        while self._tables:
            self.close_table()
        parts: list[str] = []
        for number, (text, tight) in enumerate(self._blocks):
            if number:
                parts.append("\n" if tight and self._blocks[number - 1][1] is not None else "\n\n")
            parts.append(text)
        return re.sub(r"\n{3,}", "\n\n", "".join(parts)).strip() + "\n"

    def text(self, text: str) -> None:
        """Words in the line; blanks are already single."""
        if text:
            self._line.append(self.notes.placed(text))

    def line_break(self) -> None:
        """The line ends here, the paragraph does not."""
        self._line.append(" " if self._in_cell() or self._heading else _BREAK)

    def open_mark(self, mark: str) -> None:
        """Emphasis, code or a raised text begins."""
        self._marks.append((mark, self._generation, len(self._line)))

    def close_mark(self, mark: str) -> None:
        """It ends; what stands between is marked unless a block ended inside, or it is a heading."""
        if (start := self._opened(mark)) is None:
            return
        text = "".join(self._line[start:])
        inner = text.strip(f" {_BREAK}")
        nested = any(open_ == mark for open_, generation, _ in self._marks if generation == self._generation)
        if not inner or self._heading or nested or mark in inner or _BREAK in inner:
            return
        if self._in_cell() and mark == "**" and not "".join(self._line[:start]).strip():
            return  # a bold cell is a heading, or no more than the others
        lead, trail = text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :]
        self._line[start:] = [f"{lead}{mark}{inner}{mark}{trail}"]

    def close_raised(self, written: Callable[[str, str], str]) -> None:
        """A super- or subscript ends: ``written`` says what stands for it behind the line so far."""
        start = self._opened("sup", "sub")
        if start is None:
            return
        raised = "".join(self._line[start:]).replace(_BREAK, " ")
        del self._line[start:]
        before = "".join(self._line[-8:])
        if part := written(before.replace(_BREAK, " ") if before.strip(f" {_BREAK}") else "", raised):
            self._line.append(part)

    def _opened(self, *marks: str) -> int | None:
        """Where the innermost of these marks began in the line; None if a block ended since."""
        for place in range(len(self._marks) - 1, -1, -1):
            if self._marks[place][0] in marks:
                _, generation, start = self._marks.pop(place)
                return start if generation == self._generation and start <= len(self._line) else None
        return None

    def end_block(self) -> None:
        """A paragraph ends, if there is one."""
        if self._in_cell():
            if self._line and self._line[-1] != " ":
                self._line.append(" ")
            return
        text = self._taken()
        if text:
            if self._term:
                text, self._term = f"{self._term} {text}", ""
            if _LOOKS_LIKE_MARKUP.match(text):
                text = f"\\{text}"
            self._emit(text)

    def _taken(self) -> str:
        """The line so far, blanks put right; it is empty then."""
        text = "".join(self._line) + self.notes.taken()
        self._line = []
        self._generation += 1
        lines = (" ".join(part.split(" ")).strip() for part in text.split(_BREAK))
        lines = (re.sub(r" {2,}", " ", line) for line in lines)
        return "  \n".join(line for line in lines if line)

    def _emit(self, text: str) -> None:
        prefix = "".join(self._prefix)
        tight = self._item is not None
        if self._item is not None:
            outer = "".join(self._prefix[:-1]) if self._prefix else ""
            first, self._item = outer + self._item, None
        else:
            first = prefix
        lines = text.split("\n")
        written = [f"{first if not number else prefix}{line}".rstrip(" ") if not line else
                   f"{first if not number else prefix}{line}" for number, line in enumerate(lines)]  # fmt: skip
        self._blocks.append(("\n".join(written), tight and len(self._blocks) > 0 and self._after_item))
        self._after_item = bool(self._lists)

    _after_item = False

    def open_heading(self, level: int) -> None:
        """A heading begins."""
        self.end_block()
        self._heading = 0 if self._in_cell() else level

    def close_heading(self) -> None:
        """It ends."""
        if not self._heading:
            self.end_block()
            return
        level, self._heading = self._heading, 0
        if text := self._taken():
            if self._prefix:
                self._emit(text)
            else:
                self._emit(f"{'#' * level} {text}")

    def open_list(self, first: int | None) -> None:
        """A list begins; ``first`` is the number of an ordered one's first item."""
        self._end_term()
        self.end_block()
        self._lists.append(first)

    def close_list(self) -> None:
        """It ends."""
        self.end_block()
        if self._lists:
            self._lists.pop()
        self._after_item = bool(self._lists)

    def open_item(self) -> None:
        """An item begins."""
        self.end_block()
        if self._in_cell():
            return
        if not self._lists:
            self._lists.append(None)  # an item outside of any list, which browsers show as one
        number = self._lists[-1]
        mark = "- " if number is None else f"{number}. "
        if number is not None:
            self._lists[-1] = number + 1
        self._item = mark
        self._prefix.append(" " * len(mark))

    def close_item(self) -> None:
        """It ends."""
        self.end_block()
        if self._in_cell():
            if self._line and self._line[-1] == " ":
                self._line[-1] = "; "
            return
        self._item = None
        if self._prefix:
            self._prefix.pop()

    def open_quote(self) -> None:
        """A quotation begins."""
        self.end_block()
        if not self._in_cell():
            self._item = None
            self._prefix.append("> ")

    def close_quote(self) -> None:
        """It ends."""
        self.end_block()
        if not self._in_cell() and self._prefix:
            self._prefix.pop()

    def close_term(self) -> None:
        """A term ends, whose definition may follow."""
        self._end_term()
        if self._in_cell():
            self.text(": ")
            return
        if text := self._taken():
            self._term = text if text.endswith((":", "?", "!", ".")) else f"{text}:"

    def open_definition(self) -> None:
        """A definition begins: it stands behind its term."""
        term, self._term = self._term, ""
        self.end_block()
        self._term = term

    def _end_term(self) -> None:
        """A term that no definition followed stands for itself."""
        if self._term:
            term, self._term = self._term, ""
            self._emit(term.removesuffix(":"))

    def code(self, text: str, language: str = "") -> None:
        """A block of code, as it stands."""
        if self._in_cell():
            self.text(" ".join(text.split()))
            return
        self._end_term()
        self.end_block()
        text = text.strip("\n")
        if not text.strip():
            return
        longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
        fence = "`" * max(3, longest + 1)
        self._emit(f"{fence}{language}\n{text.expandtabs(4)}\n{fence}")

    def _in_cell(self) -> bool:
        return bool(self._tables) and self._tables[-1].cell is not None

    def open_table(self, layout: bool) -> None:
        """A table begins; the cells of a layout table are blocks."""
        if self._in_cell():
            layout = True
            self._tables.append(_Table(layout))
            return
        self._end_term()
        self.end_block()
        self._tables.append(_Table(layout))

    def open_row(self, in_head: bool) -> None:
        """A row begins."""
        if self._tables and not self._tables[-1].layout:
            self._tables[-1].rows.append([])
            self._tables[-1].heads.append(in_head)
        else:
            self.end_block()

    def open_cell(self, rows: int, columns: int, heading: bool) -> None:
        """A cell begins, which counts for so many rows and columns."""
        table = self._tables[-1] if self._tables else None
        if table is None or table.layout:
            self.end_block()
            return
        if not table.rows:
            self.open_row(False)
        table.outer, self._line = self._line, []
        self._generation += 1
        table.cell = (rows, columns, heading)

    def close_cell(self) -> None:
        """It ends."""
        table = self._tables[-1] if self._tables else None
        if table is None or table.layout or table.cell is None:
            self.end_block()
            return
        rows, columns, heading = table.cell
        text = self._taken().replace("  \n", " ").strip("; ").replace("|", "\\|")
        table.rows[-1].append(_Cell(text, rows, columns, heading))
        table.cell, self._line = None, table.outer

    def close_table(self) -> None:
        """It ends, and is written."""
        if not self._tables:
            return
        if self._tables[-1].cell is not None:
            self.close_cell()
        self.end_block()
        table = self._tables.pop()
        if not table.layout and (lines := table_lines(*_grid(table))):
            self._emit("\n".join(lines))


def _grid(table: _Table) -> tuple[list[list[str]], int]:
    """The cells row by row, those that span several repeated in each; and how many rows are headings."""
    grid: list[list[str]] = []
    above: dict[int, tuple[int, str]] = {}
    headings = counted = 0
    width = max((sum(cell.columns for cell in row) for row in table.rows), default=0)
    for number, cells in enumerate(table.rows):
        row: list[str] = []
        below: dict[int, tuple[int, str]] = {}
        waiting = list(cells)
        alone = len(cells) == 1 and cells[0].columns >= width > 1 and not above
        while waiting or any(column >= len(row) for column in above):
            if (column := len(row)) in above:
                left, text = above.pop(column)
                row.append(text)
                if left > 1:
                    below[column] = (left - 1, text)
                continue
            if not waiting:
                row.append("")
                continue
            cell = waiting.pop(0)
            for offset in range(cell.columns):
                row.append("" if alone and offset else cell.text)
                if cell.rows > 1:
                    below[column + offset] = (cell.rows - 1, cell.text)
            counted += cell.columns
        if counted > MAX_CELLS:
            break
        above = below
        grid.append(row)
        if headings == number and (table.heads[number] or (cells and all(cell.heading for cell in cells))):
            headings += 1
    return grid, headings


def table_lines(grid: list[list[str]], headings: int = 1) -> list[str]:
    """A Markdown table; several rows of headings become one, and without any the first row is it."""
    filled = [(number, row) for number, row in enumerate(grid) if any(cell.strip() for cell in row)]
    headings = sum(number < headings for number, _ in filled)
    rows = [row for _, row in filled]
    if not rows:
        return []
    width = max(map(len, rows))
    rows = [[*row, *[""] * (width - len(row))] for row in rows]
    used = [column for column in range(width) if any(row[column].strip() for row in rows)]
    rows = [[" ".join(row[column].split()) for column in used] for row in rows]
    if headings == len(rows):
        headings = min(headings, 1)
    top = [" ".join(dict.fromkeys(cell for cell in column if cell)) for column in zip(*rows[: max(headings, 1)])]
    lines = [top, ["---"] * len(used), *rows[max(headings, 1) :]]
    return [f"| {' | '.join(line)} |" for line in lines]
