"""Which loader reads which file: by extension, our own or one that another package brings.

A package brings a loader by the entry point group ``crisp_rag.loaders``: the name is the extension, the object a function
from the file's name and bytes to its text, or to an :class:`crisp_rag.pipelines.loading.Extracted`::

    [project.entry-points."crisp_rag.loaders"]
    ".dwg" = "my_package.drawings:load"
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import PurePath

from crisp_rag.errors import IngestError
from crisp_rag.pipelines.loading.cleaning import clean
from crisp_rag.pipelines.loading.document import Extracted
from crisp_rag.pipelines.markdown import find_headings

Loader = Callable[[str, bytes], "Extracted | str"]

GROUP = "crisp_rag.loaders"
_HERE = "crisp_rag.pipelines.loading"
_KINDS = {
    "text:load_plain": ("text", ".txt .text .log"),
    "text:load_markdown": ("Markdown", ".md .markdown .mdown .mkd"),
    "html:load_html": ("HTML", ".html .htm .xhtml"),
    "pdf:load_pdf": ("a PDF", ".pdf"),
    "word:load_word": ("a Word file", ".docx .docm"),
    "slides:load_slides": ("a PowerPoint file", ".pptx .pptm"),
    "sheets:load_workbook": ("an Excel file", ".xlsx .xlsm"),
    "records:load_csv": ("a table", ".csv"),
    "records:load_tsv": ("a table", ".tsv .tab"),
    "records:load_json": ("JSON", ".json"),
    "records:load_json_lines": ("JSON lines", ".jsonl .ndjson"),
    "notebooks:load_notebook": ("a notebook", ".ipynb"),
    "books:load_epub": ("an e-book", ".epub"),
    "restructured:load_rst": ("reStructuredText", ".rst"),
    "mail:load_mail": ("a mail", ".eml"),
    "archives:load_zip": ("a ZIP archive", ".zip"),
    "code:load_code": (
        "source code",
        ".py .pyi .js .jsx .ts .tsx .java .c .h .cc .cpp .hpp .cs .go .rs .rb .php .swift .kt .scala .lua .pl .r .sh .bash "
        ".ps1 .sql .toml .yaml .yml .ini .cfg .conf",
    ),
}
"""Function to what it reads, in words, and by extension."""


@lru_cache(maxsize=1)
def _built_in() -> dict[str, tuple[str, str]]:
    """Extension to function and kind."""
    return {suffix: (target, kind) for target, (kind, listed) in _KINDS.items() for suffix in listed.split()}


@lru_cache(maxsize=1)
def _brought() -> dict[str, EntryPoint]:
    """Extension to the entry point of another package; our own loaders go before."""
    found = {}
    for point in entry_points(group=GROUP):
        suffix = f".{point.name.lower().lstrip('.')}"
        if suffix not in _built_in():
            found[suffix] = point
    return found


def extensions() -> list[str]:
    """Every extension that can be read, with its dot, in small letters."""
    return [*_built_in(), *_brought()]


def supports(name: str) -> bool:
    """Whether a file of that name can be read."""
    return PurePath(name).suffix.lower() in _built_in() or PurePath(name).suffix.lower() in _brought()


def extract(path: str, data: bytes) -> Extracted:
    """Read a file's bytes; the text is clean, and the title is its first heading where it has one.

    Raises:
        IngestError: if they are damaged, no text, or of a kind that nothing here reads.
        ImportError: naming the extra to install.
    """
    suffix = PurePath(path).suffix.lower()
    if suffix in _built_in():
        target, kind = _built_in()[suffix]
        module, _, name = target.partition(":")
        loader: Loader = getattr(import_module(f"{_HERE}.{module}"), name)
    elif suffix in _brought():
        point = _brought()[suffix]
        kind = f"a {suffix} file"
        with _parsing(path, f"{kind} by {point.value}"):
            loader = point.load()
    else:
        raise IngestError(f"{path} has an unsupported extension; supported are {', '.join(extensions())}.")
    with _parsing(path, kind):
        found = loader(path, data)
        if isinstance(found, str):
            found = Extracted(found)
        text = clean(found.text)
        title = (_first_heading(text) if found.format == "markdown" else "") or found.title
    return Extracted(
        text, found.format, " ".join(clean(title).split()), found.places, found.notes, found.members, found.skipped
    )  # fmt: skip


def _first_heading(text: str) -> str:
    # Most texts have one near their beginning; looking there first saves parsing the rest.
    for part in (text[:20_000], text) if len(text) > 20_000 else (text,):
        if named := next((heading.text for heading in find_headings(part) if heading.text), ""):
            return named
    return ""


@contextlib.contextmanager
def _parsing(path: str, kind: str) -> Iterator[None]:
    """Whatever a parser raises on a broken file means that it is broken; what it logs meanwhile is said by that."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    except (IngestError, ImportError, MemoryError):
        raise
    except RecursionError as error:
        raise IngestError(f"{path} cannot be read as {kind}: it is nested too deep.") from error
    except Exception as error:
        reason = re.sub(r"\s+", " ", str(error)).strip().rstrip(".")[:300] or type(error).__name__
        raise IngestError(f"{path} cannot be read as {kind}: {reason}.") from error
    finally:
        logging.disable(logging.NOTSET)
