"""Files into documents: bytes within a limit, read by the loader of their kind, with the files inside them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from crisp_rag.errors import IngestError
from crisp_rag.pipelines.loading.document import Extracted, LoadedDocument, Skipped, bytes_digest
from crisp_rag.pipelines.loading.registry import extract

MAX_DEPTH = 3
"""Archives within archives, mails within mails."""
ATTEMPTS = 3
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def load_file(path: str | os.PathLike[str]) -> LoadedDocument:
    """Read a file, in this process and without limits; :class:`crisp_rag.pipelines.loading.SafeReader` has them.

    Raises:
        IngestError: if the file is missing, unreadable, encrypted, broken, no text, or of another kind.
        ImportError: naming the extra to install, if a library for this kind is missing.
    """
    return parse_file(path, read_bytes(path))


def read_bytes(path: str | os.PathLike[str], max_bytes: int | None = None) -> bytes:
    """The bytes of a file, read again where it changed meanwhile.

    Args:
        path: The file.
        max_bytes: A longer one is refused before it is read whole.

    Raises:
        IngestError: if it cannot be read, is too long, or does not come to rest.
    """
    try:
        for _ in range(ATTEMPTS):
            with open(path, "rb") as file:
                before = os.fstat(file.fileno())
                if max_bytes is not None and before.st_size > max_bytes:
                    raise IngestError(f"{path} has {_size(before.st_size)}, more than the limit of {_size(max_bytes)}.")
                data = file.read() if max_bytes is None else file.read(max_bytes + 1)
                after = os.fstat(file.fileno())
            if max_bytes is not None and len(data) > max_bytes:
                raise IngestError(f"{path} goes on beyond the limit of {_size(max_bytes)}.")
            if (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size):
                return data
    except OSError as error:
        raise IngestError(f"{path} cannot be read: {error.strerror or error}.") from error
    raise IngestError(f"{path} changes while it is read: index it again once it is written.")


def parse_file(path: str | os.PathLike[str], data: bytes) -> LoadedDocument:
    """Turn the bytes of a file into a document; ``path`` gives name and kind.  Errors as :func:`load_file`."""
    return assembled(Path(path).resolve().as_posix(), data, extract)


def assembled(path: str, data: bytes, extracted: Callable[[str, bytes], Extracted], depth: int = 0) -> LoadedDocument:
    """A document and those inside it.

    Args:
        path: Its name, and that of its members before theirs.
        data: Its bytes.
        extracted: Reads one file.
        depth: How many files it lies in.

    Raises:
        IngestError: if it cannot be read; a member that cannot is listed.
    """
    found = extracted(path, data)
    members: list[LoadedDocument] = []
    skipped = [Skipped(f"{path}/{_CONTROLS.sub('_', item.path)}", item.reason) for item in found.skipped]
    for name, content in found.members:
        inside = f"{path}/{_CONTROLS.sub('_', name)}"
        if depth + 1 >= MAX_DEPTH:
            skipped.append(Skipped(inside, f"it lies in {depth + 1} files, one in the other"))
            continue
        try:
            member = assembled(inside, content, extracted, depth + 1)
        except IngestError as error:
            skipped.append(Skipped(inside, str(error)))
            continue
        members += [member, *member.members]
        skipped += member.skipped
    title = found.title or Path(path).stem
    return LoadedDocument(
        path, title, found.text, found.format, bytes_digest(data), found.places, found.notes, tuple(members), tuple(skipped)
    )  # fmt: skip


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count} bytes"
