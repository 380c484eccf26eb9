"""What reading a file gives: its text, where pages and sheets begin in it, and what has to be told about it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Format = Literal["markdown", "plain", "code", "rows"]
"""How to read a text: Markdown; running text; source code, line by line; records, one a line."""

INSTALL = "pip install 'crisp-rag[ingest]'"


@dataclass(frozen=True, slots=True)
class Place:
    """From code point ``start`` on, the text stands there: ``{"page": 3}``, ``{"sheet": "Prices"}``, ``{"slide": 2}``."""

    start: int
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file or folder that was passed over, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Note:
    """A file that was read, and what was lost or doubtful in it."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class Extracted:
    """What a loader makes of a file's bytes.

    Args:
        text: Unicode; whatever ends its lines.
        format: How to read it.
        title: What the file says of itself; a heading of a Markdown text goes before it.
        places: Where pages, sheets and the like begin, by start.
        notes: One sentence for each thing that was lost or is doubtful.
        members: Files inside this one (an archive's, a mail's): name and bytes of each.
        skipped: Members that were passed over, by name, and why.
    """

    text: str
    format: Format = "plain"
    title: str = ""
    places: tuple[Place, ...] = ()
    notes: tuple[str, ...] = ()
    members: tuple[tuple[str, bytes], ...] = ()
    skipped: tuple[Skipped, ...] = ()


@dataclass(frozen=True, slots=True)
class LoadedDocument:
    """The text of a file.

    Args:
        path: The absolute path, links resolved, with ``/`` between its parts; a member's has its name behind its file's.
        title: The first heading, else what the file says of itself, else the name without extension.
        text: Unicode, lines ended by ``\\n``.
        format: How to read the text.
        digest: Hex blake2b digest of the file's bytes.
        places: Where pages, sheets and the like begin, by start.
        notes: One sentence for each thing that was lost or is doubtful.
        members: The documents inside this one.
        skipped: Members that were passed over, and why.
    """

    path: str
    title: str
    text: str
    format: Format
    digest: str
    places: tuple[Place, ...] = ()
    notes: tuple[str, ...] = ()
    members: tuple[LoadedDocument, ...] = ()
    skipped: tuple[Skipped, ...] = ()

    def place_of(self, start: int) -> dict[str, Any]:
        """What is known of the place of a code point; empty where nothing is."""
        found: dict[str, Any] = {}
        for place in self.places:
            if place.start > start:
                break
            found = dict(place.data)
        return found


def bytes_digest(*parts: bytes) -> str:
    """Hex blake2b digest of 16 bytes."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
