"""PDF files by way of pdfium: pages as text in reading order, with form values and notes, without running headers.

pdfium gives the words in the order in which the file draws them.  Mostly that is how they are read; where a file draws
columns line by line, or a form's values after its labels, the places of the words decide.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from crisp_rag.errors import IngestError
from crisp_rag.pipelines.loading.document import INSTALL, Extracted, Place
from crisp_rag.pipelines.loading.page_layout import Word, lines_of, reading_order

MAX_PAGES = 20_000
REPEATED = 3
"""A line at the edge of so many pages, and of more than half of them, is a running header or footer."""
_EDGE = 2
_PLACEHOLDERS = ("untitled", "(anonymous)", "microsoft word - ")
_NUMBERED = re.compile(r"^\d+\b|\b\d+$|(?<=page )\d+|(?<=seite )\d+|(?<=of )\d+", re.I)
_HYPHENS = re.compile("[\x02\ufffe\u00ad](?:\r?\n)?")


def load_pdf(path: object, data: bytes) -> Extracted:
    """A PDF file, the text of its pages with blank lines between.

    Raises:
        IngestError: if it needs a password, or is damaged.
        ImportError: naming the extra to install.
    """
    try:
        import pypdfium2 as pdfium
    except ImportError as error:
        raise ImportError(f"Reading PDF files needs pypdfium2: {INSTALL}") from error
    with _opened(pdfium, path, data) as document:
        count = len(document)
        if count > MAX_PAGES:
            raise IngestError(f"{path} has {count} pages, more than {MAX_PAGES}: split it.")
        pages, pictures, broken = [], [], []
        for number in range(count):
            try:
                text, drawn = _page(document, number)
            except Exception:  # one damaged page loses itself alone
                text, drawn = "", False
                broken.append(number + 1)
            pages.append(text)
            if not text.strip() and drawn:
                pictures.append(number + 1)
        title = _title(document)
    if not pages:
        raise IngestError(f"{path} cannot be read as a PDF: it has no pages.")
    pages = _without_running_lines(pages)
    text, places = "", []
    for number, page in enumerate(pages, 1):
        if page.strip():
            text += "\n\n" if text else ""
            places.append(Place(len(text), {"page": number}))
            text += page.strip()
    return Extracted(text, "plain", title, tuple(places), tuple(_notes(pictures, broken, len(pages))))


@contextmanager
def _opened(pdfium: Any, path: object, data: bytes) -> Iterator[Any]:
    document = None
    try:
        try:
            # Many files are encrypted with an empty password, only to forbid printing.
            document = pdfium.PdfDocument(data)
            document.init_forms()
        except pdfium.PdfiumError as error:
            said = str(error)
            if "password" in said.lower():
                raise IngestError(f"{path} is encrypted and needs a password: save a copy without one.") from error
            if "security" in said.lower():
                raise IngestError(f"{path} is encrypted in a way that cannot be read: save a copy without it.") from error
            raise IngestError(f"{path} cannot be read as a PDF: it is damaged or none.") from error
        yield document
    finally:
        if document is not None:
            document.close()


def _page(document: Any, number: int) -> tuple[str, bool]:
    """The text of a page, and whether something is drawn on it."""
    page = document[number]
    try:
        # What a form's fields hold and what annotations show is no text of the page before.
        filled = _has_annotations(page)
        notes = _annotation_notes(page) if filled else []
        if filled:
            with suppress(Exception):
                page.flatten()
                page.close()
                page = document[number]
        textpage = page.get_textpage()
        try:
            text = textpage.get_text_bounded()
            words = _words(textpage) if text.strip() else []
        finally:
            textpage.close()
        if filled and words:
            text = "\n".join(lines_of(words))
        elif (ordered := reading_order(words)) is not None:
            text = ordered
        drawn = bool(text.strip()) or next(iter(page.get_objects(max_depth=2)), None) is not None
    finally:
        page.close()
    text = _HYPHENS.sub("", text.replace("\r\n", "\n"))
    return "\n".join([text, *notes]).strip(), drawn


def _words(textpage: Any) -> list[Word]:
    """The runs of a page's text with their places, in the order in which they are drawn."""
    words = []
    for place in range(min(textpage.count_rects(), 20_000)):
        left, bottom, right, top = textpage.get_rect(place)
        # A rectangle's edges may cut through the glyphs of its first and last letter.
        text = textpage.get_text_bounded(left - 0.5, bottom - 0.5, right + 0.5, top + 0.5)
        if text.strip():
            words.append(Word(" ".join(text.split()), left, bottom, right, top))
    return words


def _has_annotations(page: Any) -> bool:
    import pypdfium2.raw as raw

    kinds = {raw.FPDF_ANNOT_WIDGET, raw.FPDF_ANNOT_FREETEXT, raw.FPDF_ANNOT_TEXT, raw.FPDF_ANNOT_HIGHLIGHT,
             raw.FPDF_ANNOT_STAMP, raw.FPDF_ANNOT_UNDERLINE, raw.FPDF_ANNOT_STRIKEOUT}  # fmt: skip
    return any(kind in kinds for kind, _ in _annotations(page))


def _annotations(page: Any) -> Iterator[tuple[int, Any]]:
    import pypdfium2.raw as raw

    for place in range(min(raw.FPDFPage_GetAnnotCount(page.raw), 5000)):
        annotation = raw.FPDFPage_GetAnnot(page.raw, place)
        if annotation:
            try:
                yield raw.FPDFAnnot_GetSubtype(annotation), annotation
            finally:
                raw.FPDFPage_CloseAnnot(annotation)


def _annotation_notes(page: Any) -> list[str]:
    """What comments on a page say; text that is drawn on it is among its words already."""
    import pypdfium2.raw as raw

    said = []
    for kind, annotation in _annotations(page):
        if kind in (raw.FPDF_ANNOT_TEXT, raw.FPDF_ANNOT_HIGHLIGHT, raw.FPDF_ANNOT_UNDERLINE, raw.FPDF_ANNOT_STRIKEOUT):
            text = _annotation_text(annotation)
            if text.strip():
                said.append(f"\nNote: {' '.join(text.split())}")
    return said


def _annotation_text(annotation: Any) -> str:
    import ctypes

    import pypdfium2.raw as raw

    size = raw.FPDFAnnot_GetStringValue(annotation, b"Contents", None, 0)
    if size <= 2 or size > 2**20:
        return ""
    buffer = ctypes.create_string_buffer(size)
    raw.FPDFAnnot_GetStringValue(
        annotation, b"Contents", ctypes.cast(buffer, ctypes.POINTER(raw.FPDF_WCHAR)), size
    )  # fmt: skip
    return buffer.raw[: size - 2].decode("utf-16-le", "replace")


def _title(document: Any) -> str:
    """The title in the file's metadata, unless a writer that was told none put a placeholder."""
    try:
        title = str(document.get_metadata_value("Title") or "")
    except Exception:
        return ""
    return "" if title.strip().lower().startswith(_PLACEHOLDERS) else title


def _without_running_lines(pages: list[str]) -> list[str]:
    """The pages without the lines that stand at the top or the bottom of most of them, figures aside."""
    filled = [page for page in pages if page.strip()]
    if len(filled) < REPEATED:
        return pages
    counts: Counter[tuple[int, str]] = Counter()
    for page in filled:
        lines = [line for line in page.split("\n") if line.strip()]
        if len(lines) <= 2 * _EDGE - 1:
            lines = lines[:1] + ([""] * 3) + lines[-1:] if len(lines) > 1 else []
        for place in range(min(_EDGE, len(lines))):
            counts[place, _shape(lines[place])] += 1
            counts[-1 - place, _shape(lines[-1 - place])] += 1
    wanted = max(REPEATED, len(filled) // 2 + 1)
    running = {key for key, count in counts.items() if count >= wanted and key[1]}
    return [_stripped(page, running) for page in pages] if running else pages


def _stripped(page: str, running: set[tuple[int, str]]) -> str:
    lines = page.split("\n")
    places = [number for number, line in enumerate(lines) if line.strip()]
    if len(places) < 2:
        return page
    dropped = set()
    for edge in (range(min(_EDGE, len(places))), (-1 - place for place in range(min(_EDGE, len(places))))):
        for place in edge:
            if (place, _shape(lines[places[place]])) in running:
                dropped.add(places[place])
    return "\n".join(line for number, line in enumerate(lines) if number not in dropped)


def _shape(line: str) -> str:
    """A line with its page number, which differs from page to page, as one sign; a line of the text's own keeps figures."""
    return _NUMBERED.sub("#", " ".join(line.split()))


def _notes(pictures: list[int], broken: list[int], count: int) -> Iterator[str]:
    if pictures and len(pictures) == count:
        yield "a scan: its pages are pictures and hold no text, which needs OCR"
    elif pictures:
        yield f"no text on {_pages(pictures)}, which may be scanned"
    if broken:
        yield f"{_pages(broken)} cannot be read"


def _pages(numbers: list[int]) -> str:
    listed = ", ".join(map(str, numbers[:10])) + (f" and {len(numbers) - 10} more" if len(numbers) > 10 else "")
    return f"page {listed}" if len(numbers) == 1 else f"pages {listed}"
