"""ZIP packages of documents: opened with what a small file may expand to in mind, and their XML read without entities."""

from __future__ import annotations

import io
import zipfile
import zlib
from typing import Any

from crisp_rag.errors import IngestError
from crisp_rag.pipelines.loading.document import INSTALL

MAX_EXPANDED = 512 * 2**20
"""Bytes that a package may expand to, all its members together."""
MAX_RATIO = 200
"""Times its packed size that a member may expand to once it is above ``FREE``; text shrinks 5 to 20 times."""
FREE = 16 * 2**20
MAX_MEMBERS = 10_000


def open_package(path: object, data: bytes, kind: str) -> zipfile.ZipFile:
    """A ZIP package whose members together stay within bounds.

    Raises:
        IngestError: if it is none, is encrypted, or would expand beyond bounds.
    """
    try:
        package = zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, OverflowError) as error:
        if data.startswith(b"\xd0\xcf\x11\xe0"):
            raise IngestError(
                f"{path} is an old Office file or one with a password: save it in today's format, without a password."
            ) from error
        raise IngestError(f"{path} cannot be read as {kind}: {str(error) or 'it is damaged'}.") from error
    members = package.infolist()
    if len(members) > MAX_MEMBERS:
        raise IngestError(f"{path} holds {len(members)} files, more than {MAX_MEMBERS}: unpack what matters.")
    if sum(info.file_size for info in members) > MAX_EXPANDED:
        raise IngestError(f"{path} expands to more than {MAX_EXPANDED >> 20} MiB: unpack what matters.")
    return package


def read_member(path: object, package: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """The bytes of a member.

    Raises:
        IngestError: if it is encrypted, damaged, or expands more than documents do.
    """
    if info.flag_bits & 1:
        raise IngestError(f"{path} is encrypted ({info.filename}): save a copy without a password.")
    if info.file_size > FREE and info.file_size > MAX_RATIO * max(info.compress_size, 1):
        raise IngestError(
            f"{path}: {info.filename} expands from {info.compress_size} bytes to {info.file_size}, which no document does."
        )
    try:
        with package.open(info) as file:
            # The size that the directory tells may be a lie.
            data = file.read(info.file_size + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError) as error:
        raise IngestError(f"{path}: {info.filename} cannot be unpacked: {str(error) or 'it is damaged'}.") from error
    if len(data) > info.file_size:
        raise IngestError(f"{path}: {info.filename} is larger than its directory says.")
    return data


def parsed_xml(path: object, content: bytes) -> Any:
    """The root of an XML part, without entities, external parts or huge texts.

    Raises:
        IngestError: if it is not well formed.
        ImportError: naming the extra to install.
    """
    try:
        from lxml import etree
    except ImportError as error:
        raise ImportError(f"Reading Office files and e-books needs lxml: {INSTALL}") from error
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, remove_pis=True, huge_tree=False)
    try:
        return etree.fromstring(content, parser)
    except etree.XMLSyntaxError as error:
        said = " ".join((error.msg or "its XML is not well formed").split())
        raise IngestError(f"{path} is damaged: {said}.") from error
