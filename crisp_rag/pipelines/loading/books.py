"""E-books: the chapters of an EPUB file in the order of its spine."""

from __future__ import annotations

import posixpath
import zipfile
from urllib.parse import unquote

from crisp_rag.errors import IngestError
from crisp_rag.pipelines.loading.cleaning import clean
from crisp_rag.pipelines.loading.document import Extracted, Place
from crisp_rag.pipelines.loading.encodings import decode
from crisp_rag.pipelines.loading.html import html_to_markdown
from crisp_rag.pipelines.loading.packed import open_package, parsed_xml, read_member


def load_epub(path: object, data: bytes) -> Extracted:
    """An .epub file without copy protection."""
    package = open_package(path, data, "an e-book")
    book = _root(path, package)
    folder = posixpath.dirname(book)
    root = parsed_xml(path, _member(path, package, book))
    items = {item.get("id"): item.get("href") or "" for item in root.iter("{*}item")}
    kinds = {item.get("id"): item.get("media-type") or "" for item in root.iter("{*}item")}
    locked = _locked(path, package)
    text, places, notes = "", [], []
    spine = [entry.get("idref") for entry in root.iter("{*}itemref") if entry.get("linear") != "no"]
    for number, name in enumerate(spine, 1):
        href = posixpath.normpath(posixpath.join(folder, unquote(items.get(name, "").split("#")[0])))
        if "html" not in kinds.get(name, "html") or not items.get(name):
            continue
        if href in locked:
            raise IngestError(f"{path} is copy-protected: its chapters are encrypted.")
        try:
            chapter = clean(html_to_markdown(decode(path, _member(path, package, href)).text)[0]).strip()
        except IngestError as error:
            notes.append(f"chapter {number} cannot be read ({error})")
            continue
        if chapter:
            text += "\n\n" if text else ""
            places.append(Place(len(text), {"chapter": number}))
            text += chapter
    if not text and notes:
        raise IngestError(f"{path} cannot be read as an e-book: {notes[0]}.")
    title = root.findtext(".//{http://purl.org/dc/elements/1.1/}title") or ""
    return Extracted(text + "\n", "markdown", title, tuple(places), tuple(notes))


def _root(path: object, package: zipfile.ZipFile) -> str:
    container = parsed_xml(path, _member(path, package, "META-INF/container.xml"))
    for file in container.iter("{*}rootfile"):
        if file.get("full-path"):
            return str(file.get("full-path"))
    raise IngestError(f"{path} cannot be read as an e-book: its container names no book.")


def _locked(path: object, package: zipfile.ZipFile) -> frozenset[str]:
    """What is encrypted, by name; fonts often are, and nobody minds."""
    if "META-INF/encryption.xml" not in package.namelist():
        return frozenset()
    root = parsed_xml(path, _member(path, package, "META-INF/encryption.xml"))
    return frozenset(unquote(found.get("URI") or "") for found in root.iter("{*}CipherReference"))


def _member(path: object, package: zipfile.ZipFile, name: str) -> bytes:
    try:
        info = package.getinfo(name)
    except KeyError:
        raise IngestError(f"{path} is damaged: it lacks {name}.") from None
    return read_member(path, package, info)
