"""Find source files and turn each into text.

    files, skipped = find_files(["handbook/", "faq.docx"])
    document = load_file(files[0])          # document.text, document.title

HTML and Word files become Markdown, so that their headings and tables survive; PDF files become plain text.  Each
library is imported when a file first needs it.
"""

from __future__ import annotations

import codecs
import hashlib
import io
import logging
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from crisp_rag.errors import IngestError
from crisp_rag.pipelines.splitting import find_headings, front_matter_end

Format = Literal["markdown", "plain"]
LOADER_VERSION = 1
"""Raised when the same bytes would give another text, so that files are indexed anew."""

_INSTALL = "pip install 'crisp-rag[ingest]'"
_DROPPED_TAGS = ("script", "style", "nav", "noscript", "template", "svg", "iframe", "head")
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True, slots=True)
class LoadedDocument:
    """The text of a file.

    Args:
        path: The absolute path, links resolved, with ``/`` between its parts.
        title: The first heading, else what the file says of itself, else the name without extension.
        text: Unicode, lines ended by ``\\n``.
        format: How to read the text.
        digest: Hex blake2b digest of the file's bytes.
    """

    path: str
    title: str
    text: str
    format: Format
    digest: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file or folder that was passed over, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Extracted:
    text: str
    format: Format
    title: str = ""


def load_file(path: str | os.PathLike[str]) -> LoadedDocument:
    """Read a .txt, .md, .markdown, .html, .htm, .pdf or .docx file.

    Raises:
        IngestError: if the file is missing, unreadable, encrypted, broken, no text, or of another kind.
        ImportError: naming the extra to install, if a library for this kind is missing.
    """
    return parse_file(path, read_bytes(path))


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a file.

    Raises:
        IngestError: if it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise IngestError(f"{path} cannot be read: {error.strerror or error}.") from error


def parse_file(path: str | os.PathLike[str], data: bytes) -> LoadedDocument:
    """Turn the bytes of a file into a document; ``path`` gives name and kind.  Errors as :func:`load_file`."""
    path = Path(path).resolve()
    extract = _EXTRACTORS.get(path.suffix.lower())
    if extract is None:
        raise IngestError(f"{path} has an unsupported extension; supported are {', '.join(_EXTRACTORS)}.")
    found = extract(path, data)
    text = _clean(found.text)
    title = " ".join(_clean(_first_heading(text, found.format) or found.title).split()) or path.stem
    return LoadedDocument(path.as_posix(), title, text, found.format, bytes_digest(data))


def bytes_digest(*parts: bytes) -> str:
    """Hex blake2b digest of 16 bytes."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def find_files(
    sources: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
) -> tuple[list[Path], list[Skipped]]:
    """The supported files among sources and below folders among them.

    Args:
        sources: Files and folders.  Folders are searched to the bottom, in order of name, links followed, each
            folder once; names that begin with a dot are passed over unless they were given themselves.

    Returns:
        Resolved paths, each once, and what was skipped: unsupported, unreadable or no regular files.

    Raises:
        IngestError: if a source does not exist.
    """
    given = [sources] if isinstance(sources, (str, os.PathLike)) else list(sources)
    files: dict[Path, None] = {}
    skipped: dict[str, Skipped] = {}
    seen: set[Path] = set()
    for source in given:
        if not Path(source).exists():
            raise IngestError(f"{source} does not exist: name a file or a folder that does.")
    for source in given:
        for path, reason in _walk(Path(source).resolve(), seen):
            if reason:
                skipped.setdefault(str(path), Skipped(str(path), reason))
            else:
                files[path] = None
    return list(files), list(skipped.values())


def _walk(path: Path, seen: set[Path]) -> Iterator[tuple[Path, str]]:
    """Files at or below a path, each with why it cannot be used, or with ''."""
    try:
        real = path.resolve(strict=True)
        kind = real.stat().st_mode
    except (OSError, RuntimeError) as error:
        yield path, f"a link that leads nowhere ({getattr(error, 'strerror', None) or error})"
        return
    if stat.S_ISREG(kind):
        yield (real if (reason := _unusable(real)) == "" else path), reason
    elif not stat.S_ISDIR(kind):
        yield path, "not a regular file"
    elif real not in seen:
        seen.add(real)
        try:
            names = sorted(os.listdir(real))
        except OSError as error:
            yield path, f"cannot be read: {error.strerror or error}"
            return
        for name in names:
            if not name.startswith("."):
                yield from _walk(real / name, seen)


def _unusable(path: Path) -> str:
    if path.suffix.lower() not in _EXTRACTORS:
        return f"unsupported extension {path.suffix!r}" if path.suffix else "no extension"
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return "its name is not Unicode"
    return "" if os.access(path, os.R_OK) else "cannot be read: permission denied"


def _markdown(path: Path, data: bytes) -> _Extracted:
    text = _decode(path, data)
    found = re.search(r"^title:[ \t]*(\S.*)$", text[: front_matter_end(text)], re.MULTILINE)
    return _Extracted(text, "markdown", found.group(1).strip().strip("\"'") if found else "")


def _plain(path: Path, data: bytes) -> _Extracted:
    return _Extracted(_decode(path, data), "plain")


def _html(path: Path, data: bytes) -> _Extracted:
    try:
        markup: str | bytes = _decode(path, data, guess=False)
    except UnicodeDecodeError:
        markup = data  # the parser knows the charsets that pages declare
    return _html_to_markdown(path, markup)


def _docx(path: Path, data: bytes) -> _Extracted:
    mammoth = _library("mammoth", "Word files")
    with _parsing(path, "a Word file"):
        html = mammoth.convert_to_html(io.BytesIO(data)).value
    return _html_to_markdown(path, html)


def _pdf(path: Path, data: bytes) -> _Extracted:
    pypdf = _library("pypdf", "PDF files")
    with _parsing(path, "a PDF"):
        reader = pypdf.PdfReader(io.BytesIO(data))
        # Many files are encrypted with an empty password, only to forbid printing.
        if reader.is_encrypted and not reader.decrypt(""):
            raise IngestError(f"{path} is encrypted: save a copy without a password.")
        pages = [page.extract_text().strip() for page in reader.pages]
        title = reader.metadata.title if reader.metadata else None
    if not pages:
        raise IngestError(f"{path} cannot be read as a PDF: it has no pages.")
    # Writers that are told no title often put this placeholder.
    known = title if isinstance(title, str) and title.strip().lower() not in ("untitled", "(anonymous)") else ""
    return _Extracted("\n\n".join(pages), "plain", known)


def _html_to_markdown(path: Path, markup: str | bytes) -> _Extracted:
    bs4 = _library("bs4", "HTML", "beautifulsoup4")
    markdownify = _library("markdownify", "HTML")
    with _parsing(path, "HTML"):
        soup = bs4.BeautifulSoup(markup, "html.parser")
        title = soup.title.get_text() if soup.title else ""
        for tag in soup(_DROPPED_TAGS):
            tag.decompose()
        for image in soup("img"):
            image.replace_with(image.get("alt") or "")
        # Addresses are no words: they would fill passages and quotes.
        for link in soup("a"):
            link.unwrap()
        text = markdownify.MarkdownConverter(
            heading_style="ATX", bullets="-", escape_asterisks=False, escape_underscores=False, table_infer_header=True
        ).convert_soup(soup)
    return _Extracted(re.sub(r"\n{3,}", "\n\n", text).strip() + "\n", "markdown", title)


_EXTRACTORS: dict[str, Callable[[Path, bytes], _Extracted]] = {
    ".txt": _plain,
    ".md": _markdown,
    ".markdown": _markdown,
    ".html": _html,
    ".htm": _html,
    ".pdf": _pdf,
    ".docx": _docx,
}


def _decode(path: Path, data: bytes, *, guess: bool = True) -> str:
    """Bytes as text: by byte order mark, as UTF-8, or in the encoding that fits best."""
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            try:
                return data.decode(encoding)
            except UnicodeDecodeError as error:
                raise IngestError(f"{path} is not text: it begins as {encoding} and does not go on so.") from error
    if b"\0" in data:
        raise IngestError(f"{path} is not text: it holds NUL bytes.")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        if not guess:
            raise
    try:
        import charset_normalizer
    except ImportError:
        raise IngestError(f"{path} is not UTF-8 text; other encodings need charset-normalizer: {_INSTALL}") from None
    best = charset_normalizer.from_bytes(data).best()
    text = str(best) if best is not None else ""
    controls = sum(character < " " and character not in "\t\n\r\f" for character in text)
    if not text or controls > len(text) // 100:
        raise IngestError(f"{path} is not text in any encoding known here.")
    return text


def _clean(text: str) -> str:
    """``\\n`` line ends, no NULs, and U+FFFD for the lone surrogates that some PDF fonts map to."""
    text = re.sub(r"\r\n?", "\n", text).replace("\0", " ")
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _first_heading(text: str, format: Format) -> str:
    headings = find_headings(text) if format == "markdown" else []
    return next((heading.text for heading in headings if heading.text), "")


def _library(name: str, kind: str, package: str | None = None) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"Reading {kind} needs {package or name}: {_INSTALL}") from error


@contextmanager
def _parsing(path: Path, kind: str) -> Iterator[None]:
    """Whatever a parser raises on a broken file means that it is broken; what it logs meanwhile is said by that."""
    logger = logging.getLogger("pypdf")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    except (IngestError, ImportError):
        raise
    except Exception as error:
        raise IngestError(f"{path} cannot be read as {kind}: {str(error) or type(error).__name__}.") from error
    finally:
        logger.setLevel(level)
