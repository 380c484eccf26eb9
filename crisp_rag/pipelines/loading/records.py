"""Tables and records, one a line with its headings: ``Region: North; Town: Birch; Depot: D2``.

A row by itself says nothing; with its headings it is a passage that can be found, quoted and filtered.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from crisp_rag.errors import IngestError
from crisp_rag.pipelines.loading.cleaning import clean
from crisp_rag.pipelines.loading.document import Extracted, Place
from crisp_rag.pipelines.loading.encodings import decode

MAX_FIELD = 10_000_000
_DELIMITERS = ",;\t|"
_FIGURES = re.compile(r"[-+]?[\d.,:%/ ]*\d[\d.,:%/ ]*")


class RecordWriter:
    """Collects records line by line, with the place of each."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._places: list[Place] = []
        self._length = 0

    def add(self, line: str, **place: Any) -> None:
        """A record; a blank one is none."""
        line = " ".join(clean(line).split())
        if line:
            self._places.append(Place(self._length, place))
            self._lines.append(line)
            self._length += len(line) + 1

    def extracted(self, title: str = "", notes: Sequence[str] = ()) -> Extracted:
        """All of them."""
        return Extracted("\n".join(self._lines), "rows", title, tuple(self._places), tuple(notes))


def record(headings: Sequence[str], values: Sequence[str]) -> str:
    """A row with its headings; empty cells say nothing."""
    parts = []
    for place, value in enumerate(values):
        heading = headings[place].strip().rstrip(":") if place < len(headings) else ""
        if value.strip():
            parts.append(f"{heading}: {value.strip()}" if heading else value.strip())
    return "; ".join(parts)


def has_headings(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first of these rows names the columns: words, no figures, no two alike."""
    if len(rows) < 2:
        return False
    first = [cell.strip() for cell in rows[0]]
    filled = [cell for cell in first if cell]
    if len(filled) < 2 and len(max(rows, key=len)) > 1:
        return False
    return len(set(filled)) == len(filled) > 0 and not any(_FIGURES.fullmatch(cell) or len(cell) > 80 for cell in filled)


def add_rows(out: RecordWriter, rows: Iterable[tuple[int, Sequence[str]]], **place: Any) -> None:
    """Write the rows of one table; what stands above its headings (a title, a note) is a line of its own."""
    filled = [(number, row) for number, row in rows if any(cell.strip() for cell in row)]
    start = 0
    width = max((sum(bool(cell.strip()) for cell in row) for _, row in filled), default=0)
    while width > 1 and start < len(filled) and sum(bool(cell.strip()) for cell in filled[start][1]) == 1:
        number, row = filled[start]
        out.add(record([], row), row=number, **place)
        start += 1
    headings: Sequence[str] = []
    if has_headings([row for _, row in filled[start : start + 50]]):
        headings = filled[start][1]
        start += 1
    for number, row in filled[start:]:
        out.add(record(headings, row), row=number, **place)


def load_csv(path: object, data: bytes) -> Extracted:
    """Comma-separated values, whatever separates them."""
    decoded = decode(path, data)
    return _separated(path, decoded.text, None, decoded.notes)


def load_tsv(path: object, data: bytes) -> Extracted:
    """Values with tabs between."""
    decoded = decode(path, data)
    return _separated(path, decoded.text, "\t", decoded.notes)


def _separated(path: object, text: str, delimiter: str | None, notes: Sequence[str]) -> Extracted:
    text = text.replace("\0", "")
    if found := re.match(r"sep=(.)\r?\n", text):  # Excel's own hint
        delimiter, text = found.group(1), text[found.end() :]
    csv.field_size_limit(MAX_FIELD)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter or _delimiter(text))
    out = RecordWriter()
    try:
        add_rows(out, list(enumerate(rows, 1)))
    except csv.Error as error:
        raise IngestError(f"{path} cannot be read as a table: {error}.") from error
    return out.extracted(notes=notes)


def _delimiter(text: str) -> str:
    """What separates the cells of most of the first lines into the same number of cells."""
    best, most = ",", 0.0
    for delimiter in _DELIMITERS:
        rows: list[list[str]] = []
        try:
            for row in csv.reader(io.StringIO(text[:50_000], newline=""), delimiter=delimiter):
                if row:
                    rows.append(row)
                if len(rows) == 30:
                    break
        except csv.Error:
            continue
        counts = [len(row) for row in rows]
        width = max(set(counts), key=counts.count) if counts else 1
        score = counts.count(width) / len(counts) * min(width, 3) if width > 1 else 0.0
        if score > most:
            best, most = delimiter, score
    return best


def load_json(path: object, data: bytes) -> Extracted:
    """JSON: a list's objects, or an object's parts, are records."""
    decoded = decode(path, data)
    out = RecordWriter()
    for number, line in enumerate(_parts(_parsed(path, decoded.text, "")), 1):
        out.add(line, record=number)
    return out.extracted(notes=decoded.notes)


def load_json_lines(path: object, data: bytes) -> Extracted:
    """JSON lines: each is a record; one that is no JSON is told and passed over."""
    decoded = decode(path, data)
    out, wrong = RecordWriter(), []
    # Only \n ends a line: JSON leaves U+2028 and its like as they are inside a string.
    for number, line in enumerate(decoded.text.split("\n"), 1):
        if line.strip():
            try:
                out.add(flat(_parsed(path, line, f", line {number}")), row=number)
            except IngestError as error:
                wrong.append(error)
    notes = list(decoded.notes)
    extracted = out.extracted()
    if wrong and not extracted.text:
        raise wrong[0]
    if wrong:
        notes.append(f"{len(wrong)} of its lines are no JSON and were left out")
    return out.extracted(notes=notes)


def _parsed(path: object, text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError as error:
        raise IngestError(f"{path}{place} is nested too deep.") from error
    except ValueError as error:
        raise IngestError(f"{path}{place} is no JSON: {error}.") from error


def _parts(value: Any) -> Iterator[str]:
    """The records of a JSON value."""
    if isinstance(value, list):
        for each in value:
            yield flat(each)
    elif isinstance(value, dict):
        single = {key: each for key, each in value.items() if not isinstance(each, (dict, list))}
        if single:
            yield flat(single)
        for key, each in value.items():
            if isinstance(each, list) and any(isinstance(item, (dict, list)) for item in each):
                for item in each:
                    yield f"{key}: {flat(item)}"
            elif key not in single:
                yield flat({key: each})
    else:
        yield flat(value)


def flat(value: Any) -> str:
    """A JSON value in one line: ``name: Elm; depots.north: D1; tags: a, b``."""
    parts: list[str] = []
    waiting: list[tuple[str, Any]] = [("", value)]
    while waiting:
        name, each = waiting.pop()
        if isinstance(each, dict):
            waiting += [(f"{name}.{key}" if name else str(key), item) for key, item in reversed(list(each.items()))]
        elif isinstance(each, list) and any(isinstance(item, (dict, list)) for item in each):
            waiting += [(name, item) for item in reversed(each)]
        else:
            text = ", ".join(map(_said, each)) if isinstance(each, list) else _said(each)
            if text:
                parts.append(f"{name}: {text}" if name else text)
    return "; ".join(parts)


def _said(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
