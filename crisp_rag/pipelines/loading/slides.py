"""PowerPoint files by way of python-pptx: a slide's title, texts, tables, charts and notes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from crisp_rag.pipelines.loading.cleaning import clean
from crisp_rag.pipelines.loading.document import INSTALL, Extracted, Place
from crisp_rag.pipelines.loading.markdown_writer import table_lines
from crisp_rag.pipelines.loading.packed import open_package


def load_slides(path: object, data: bytes) -> Extracted:
    """A .pptx file."""
    try:
        import pptx
    except ImportError as error:
        raise ImportError(f"Reading PowerPoint files needs python-pptx: {INSTALL}") from error
    open_package(path, data, "a PowerPoint file").close()
    show = pptx.Presentation(io.BytesIO(data))
    text, places = "", []
    for number, slide in enumerate(show.slides, 1):
        blocks = [clean(block).strip() for block in _blocks(slide)]
        content = "\n\n".join(block for block in blocks if block)
        if content:
            text += "\n\n" if text else ""
            places.append(Place(len(text), {"slide": number}))
            text += content
    title = show.core_properties.title or ""
    known = "" if title.strip().lower() in ("powerpoint presentation", "untitled") else title
    return Extracted(text + "\n", "markdown", known, tuple(places))


def _blocks(slide: Any) -> Iterator[str]:
    title = slide.shapes.title
    if title is not None and title.has_text_frame and title.text_frame.text.strip():
        yield f"# {' '.join(title.text_frame.text.split())}"
    for shape in sorted(_shapes(slide.shapes), key=_place):
        if title is not None and shape.shape_id == title.shape_id:
            continue
        if getattr(shape, "has_table", False):
            yield "\n".join(table_lines(_cells(shape.table)))
        elif getattr(shape, "has_chart", False):
            yield "\n".join(_chart(shape.chart))
        elif shape.has_text_frame:
            yield from _paragraphs(shape.text_frame)
    if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
        notes = slide.notes_slide.notes_text_frame.text
        if notes.strip():
            yield f"Notes: {notes}"


def _shapes(shapes: Any, depth: int = 0) -> Iterator[Any]:
    """All shapes, those in groups too."""
    for shape in shapes:
        if hasattr(shape, "shapes") and depth < 50:
            yield from _shapes(shape.shapes, depth + 1)
        else:
            yield shape


def _place(shape: Any) -> tuple[int, int]:
    """From the top, then from the left; what lies within half a centimetre lies on one line."""
    return (shape.top or 0) // 180_000, shape.left or 0


def _paragraphs(frame: Any) -> Iterator[str]:
    """A text's paragraphs; several short ones are a list."""
    paragraphs = [(each.level, " ".join(_text(each).split())) for each in frame.paragraphs]
    paragraphs = [(level, text) for level, text in paragraphs if text]
    if len(paragraphs) > 1:
        yield "\n".join(f"{'  ' * level}- {text}" for level, text in paragraphs)
    elif paragraphs:
        text = paragraphs[0][1]
        yield f"\\{text}" if text[0] in "#>|" else text


def _text(paragraph: Any) -> str:
    """A paragraph's text with raised figures kept apart."""
    parts = []
    for run in paragraph.runs:
        baseline = run.font._element.get("baseline") if run.font is not None else None
        raised = baseline is not None and baseline.lstrip("-").isdigit() and int(baseline) > 0
        parts.append(f"^{run.text}" if raised and run.text.strip().isalnum() else run.text)
    return "".join(parts) or paragraph.text


def _cells(table: Any) -> list[list[str]]:
    """A table's cells, those that span several repeated in each."""
    grid = [[" ".join(cell.text.split()).replace("|", "\\|") for cell in row.cells] for row in table.rows]
    for number, row in enumerate(table.rows):
        for column, cell in enumerate(row.cells):
            if cell.is_merge_origin:
                for down in range(cell.span_height):
                    for across in range(cell.span_width):
                        grid[number + down][column + across] = grid[number][column]
    return grid


def _chart(chart: Any) -> Iterator[str]:
    if chart.has_title and chart.chart_title.has_text_frame:
        yield f"Chart: {chart.chart_title.text_frame.text}"
        yield ""
    for plot in chart.plots:
        series = list(plot.series)
        names = [str(name) for name in plot.categories]
        rows = [["", *[str(each.name) for each in series]]]
        rows += [[name, *[_value(each, place) for each in series]] for place, name in enumerate(names)]
        yield from table_lines(rows)


def _value(series: Any, place: int) -> str:
    value = series.values[place] if place < len(series.values) else None
    return "" if value is None else f"{value:g}"
