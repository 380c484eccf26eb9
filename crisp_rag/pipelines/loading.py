"""Files to text: what lies in a folder, and what each file says.

    files, skipped = find_files(["docs/"])
    document = load_file(files[0])

HTML and Word files become Markdown, so that headings survive; PDF and plain text stay plain.  Character spans that
later stages report are offsets in ``LoadedDocument.text``.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from crisp_rag.errors import IngestError

Format = Literal["markdown", "plain"]


@dataclass(frozen=True, slots=True)
class LoadedDocument:
    """What a file says.  ``path`` is absolute; ``digest`` is of the file's bytes."""

    path: str
    title: str
    text: str
    format: Format
    digest: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that was not read, and why."""

    path: str
    reason: str


def load_file(path: str | Path) -> LoadedDocument:
    """Read a file.

    Raises:
        IngestError: naming the file, if it is unreadable, broken, encrypted or of an unsupported kind.
        ImportError: naming the extra to install, if the library for its kind is missing.
    """
    path = Path(path).resolve()
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise IngestError(f"{path}: {path.suffix or 'a file without extension'} is not supported; {supported()} are.")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise IngestError(f"{path} cannot be read: {error.strerror or error}.") from error
    try:
        title, text, form = reader(path, data)
    except (IngestError, ImportError):
        raise
    except Exception as error:  # parsers raise what they like; the user needs the file's name
        raise IngestError(f"{path} cannot be parsed: {type(error).__name__}: {error}.") from error
    text = text.replace("\x00", "")
    return LoadedDocument(path.as_posix(), " ".join(title.split()) or path.stem, text, form, file_digest(data))


def file_digest(data: bytes) -> str:
    """What :func:`load_file` puts into ``LoadedDocument.digest``."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def supported() -> str:
    """The supported extensions, for people."""
    return " ".join(sorted(_READERS))


def find_files(sources: Iterable[str | Path]) -> tuple[list[Path], list[Skipped]]:
    """The supported files among and below the sources: absolute, without doubles, folders in sorted order.

    Hidden files and folders below a source are passed over; links to folders are followed once.

    Raises:
        IngestError: if a source does not exist.
    """
    files: dict[Path, None] = {}
    skipped: list[Skipped] = []

    def take(path: Path) -> None:
        if path.suffix.lower() in _READERS:
            files[path] = None
        else:
            skipped.append(Skipped(path.as_posix(), f"{path.suffix or 'no extension'} is not supported"))

    for source in map(Path, sources):
        if not source.exists():
            raise IngestError(f"{source} does not exist.")
        if source.is_file():
            take(source.resolve())
            continue
        seen: set[str] = set()
        for folder, folders, names in os.walk(
            source.resolve(), followlinks=True, onerror=lambda e: skipped.append(Skipped(str(e.filename), str(e.strerror)))
        ):
            if (real := os.path.realpath(folder)) in seen:
                folders.clear()
                continue
            seen.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                if not name.startswith("."):
                    take(Path(folder, name).resolve())
    return list(files), skipped


def _decode(path: Path, data: bytes) -> str:
    if b"\x00" in data[:4096] and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise IngestError(f"{path} is not text: it holds NUL bytes.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        detect = _library("charset_normalizer").from_bytes
        best = detect(data).best()
        if best is None:
            raise IngestError(f"{path} is not text in any known encoding.") from None
        return str(best)


def _read_plain(path: Path, data: bytes) -> tuple[str, str, Format]:
    return path.stem.replace("_", " ").replace("-", " "), _decode(path, data), "plain"


def _read_markdown(path: Path, data: bytes) -> tuple[str, str, Format]:
    text = _decode(path, data)
    return _first_heading(text) or path.stem, text, "markdown"


def _read_html(path: Path, data: bytes) -> tuple[str, str, Format]:
    return _from_html(path, _decode(path, data))


def _from_html(path: Path, html: str) -> tuple[str, str, Format]:
    soup = _library("bs4").BeautifulSoup(html, "html.parser")
    title = soup.title.get_text() if soup.title else ""
    for tag in soup(["script", "style", "nav", "noscript", "template", "head"]):
        tag.decompose()
    text = _library("markdownify").markdownify(str(soup), heading_style="ATX", strip=["img"])
    text = re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
    return title or _first_heading(text) or path.stem, text, "markdown"


def _read_docx(path: Path, data: bytes) -> tuple[str, str, Format]:
    import io

    return _from_html(path, _library("mammoth").convert_to_html(io.BytesIO(data)).value)


def _read_pdf(path: Path, data: bytes) -> tuple[str, str, Format]:
    import io

    pypdf = _library("pypdf")
    pdf = pypdf.PdfReader(io.BytesIO(data))
    if pdf.is_encrypted and not pdf.decrypt(""):
        raise IngestError(f"{path} is encrypted.")
    text = "\n\n".join((page.extract_text() or "").strip() for page in pdf.pages)
    title = str((pdf.metadata.title if pdf.metadata else None) or "")
    return title if title.lower() not in ("", "untitled") else path.stem, text, "plain"


def _first_heading(text: str) -> str:
    match = re.search(r"^#{1,6}[ \t]+(.+?)[ \t]*#*$", text, re.MULTILINE)
    return match.group(1) if match else ""


def _library(name: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(f"Reading this kind of file needs {name}: pip install 'crisp-rag[ingest]'") from error


_READERS: dict[str, Callable[[Path, bytes], tuple[str, str, Format]]] = {
    ".txt": _read_plain,
    ".md": _read_markdown,
    ".markdown": _read_markdown,
    ".html": _read_html,
    ".htm": _read_html,
    ".docx": _read_docx,
    ".pdf": _read_pdf,
}
