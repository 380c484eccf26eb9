"""Jupyter notebooks: texts as Markdown, code and what it printed as blocks of code."""

from __future__ import annotations

import json
import re
from typing import Any

from crisp_rag.errors import IngestError
from crisp_rag.pipelines.loading.cleaning import clean
from crisp_rag.pipelines.loading.document import Extracted, Place
from crisp_rag.pipelines.loading.encodings import decode
from crisp_rag.pipelines.loading.html import html_to_markdown

LONGEST_OUTPUT = 4000
"""Code points of what a cell printed; more is seldom read."""
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def load_notebook(path: object, data: bytes) -> Extracted:
    """An .ipynb file, of format 3 or 4."""
    try:
        book = json.loads(decode(path, data).text)
    except (ValueError, RecursionError) as error:
        raise IngestError(f"{path} cannot be read as a notebook: {error}.") from error
    if not isinstance(book, dict):
        raise IngestError(f"{path} cannot be read as a notebook: it is no JSON object.")
    sheets = book.get("worksheets") or [book]
    cells = [cell for sheet in sheets if isinstance(sheet, dict) for cell in sheet.get("cells") or ()]
    metadata = book.get("metadata")
    known = metadata if isinstance(metadata, dict) else {}
    info = known.get("language_info")
    language = str(info.get("name") or "") if isinstance(info, dict) else ""
    text, places = "", []
    for number, cell in enumerate(cells, 1):
        content = clean("\n\n".join(_blocks(cell, language))).strip("\n") if isinstance(cell, dict) else ""
        if content.strip():
            text += "\n\n" if text else ""
            places.append(Place(len(text), {"cell": number}))
            text += content
    return Extracted(text + "\n", "markdown", str(known.get("title") or ""), tuple(places))


def _blocks(cell: dict[str, Any], language: str) -> list[str]:
    source = _joined(cell.get("source", cell.get("input", "")))
    kind = cell.get("cell_type")
    if kind == "heading":
        return [f"{'#' * int(cell.get('level') or 1)} {source}"]
    if kind != "code":
        return [source]
    blocks = [_fenced(source, language)] if source.strip() else []
    for output in cell.get("outputs") or ():
        if isinstance(output, dict) and (said := _output(output)).strip():
            blocks.append(said)
    return blocks


def _output(output: dict[str, Any]) -> str:
    given = output.get("data")
    shown = given if isinstance(given, dict) else {}
    if "text/markdown" in shown:
        return _joined(shown["text/markdown"])
    if "text/html" in shown and "<table" in (markup := _joined(shown["text/html"])):
        return html_to_markdown(markup)[0].strip()
    text = _joined(output.get("text") or shown.get("text/plain") or output.get("traceback") or "")
    text = _COLOURS.sub("", text)
    if len(text) > LONGEST_OUTPUT:
        text = text[:LONGEST_OUTPUT] + " …"
    return _fenced(text, "") if text.strip() else ""


def _fenced(text: str, language: str) -> str:
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.strip(chr(10))}\n{fence}"


def _joined(value: Any) -> str:
    return "".join(map(str, value)) if isinstance(value, list) else str(value)
