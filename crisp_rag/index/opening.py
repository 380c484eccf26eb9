"""How the files of an index come to be, and what is looked at before one of them is used."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from crisp_rag.errors import (
    AccessError,
    CrispError,
    IndexCorruptError,
    IndexExistsError,
    IndexNotFoundError,
    InvalidInputError,
)
from crisp_rag.index import places
from crisp_rag.index.access import explained
from crisp_rag.index.acknowledged import acknowledged, check_acknowledged
from crisp_rag.index.declared import declare
from crisp_rag.index.exchange import put_back
from crisp_rag.index.numbers import is_number
from crisp_rag.index.plain_files import check_folder
from crisp_rag.index.schema import FORMAT_VERSION, check_version
from crisp_rag.index.segments import sync_folder
from crisp_rag.index.store import DATABASE, Store

if TYPE_CHECKING:
    from crisp_rag.models.encoder import Encoder

LEFT_BY_MAKING = {*DATABASE, "segments"}
"""What a folder may hold in which the making of an index was interrupted."""
MAX_DIM = 8_192
"""The width of a vector up to which its rotation can be made in memory."""
_NEEDED = ("format_version", "generation", "encoder", "encoder_source", "fingerprint", "dim", "pooling")


def exists(path: Path) -> bool:
    """Whether there is an index in the folder; one whose making was interrupted counts as none."""
    database = path / "index.sqlite"
    with explained(path):
        put_back(path)
        if not database.exists():
            return False
        if not database.stat().st_size and not any((path / "segments").glob("*")):
            return False
    try:
        with contextlib.closing(Store(database)) as store:
            return bool(store.tables()) or any((path / "segments").glob("*"))
    except AccessError:
        raise
    except CrispError:
        return True


def make_store(path: Path, encoder: Encoder, codec: str, fields: Sequence[str]) -> Store:
    """Make the files of an empty index, in one transaction.

    Raises:
        IndexExistsError: if another process was quicker.
        DiskFullError: if there is no space left.
        AccessError: if the system refuses the place.
    """
    if encoder.dim > MAX_DIM:
        raise InvalidInputError(f"{encoder.name!r} gives vectors of {encoder.dim} dims: an index takes {MAX_DIM} at most.")
    with explained(path, missing=True):
        (path / "segments").mkdir(parents=True, exist_ok=True)
    store = Store(path / "index.sqlite", fresh=True)
    try:
        with store.transaction(write=True):
            if store.tables():
                raise IndexExistsError(f"There is an index at {path} already: open it, or choose another path.")
            store.make_tables()
            places.build(store)
            store.set_meta(
                {
                    "format_version": str(FORMAT_VERSION),
                    "generation": "0",
                    "encoder": encoder.name,
                    "encoder_source": getattr(encoder, "source", None) or "",
                    "fingerprint": encoder.fingerprint,
                    "dim": str(encoder.dim),
                    "pooling": encoder.pooling,
                    "codec": codec,
                    "identity": uuid.uuid4().hex,
                }
            )
            declare(store, fields)
        with explained(path):
            sync_folder(path)
            sync_folder(path.resolve().parent)
    except BaseException:
        store.close()
        raise
    return store


def open_store(path: Path) -> Store:
    """Open the database of an index, see that this version can work with it and that nothing acknowledged is missing.

    Raises:
        IndexNotFoundError: if there is none.
        IndexFormatError: if a newer version wrote it.
        IndexCorruptError: if it is missing, is damaged, lacks settings or lost acknowledged changes.
        AccessError: if the system refuses it.
    """
    database = path / "index.sqlite"
    with explained(path):
        put_back(path)
        there = path.is_dir() and (database.exists() or (path / "segments").exists())
    if not there:
        raise IndexNotFoundError(f"There is no index at {path}: make one with CrispIndex.create or crisp-rag index.")
    if not database.exists():
        raise IndexCorruptError(f"{database} is missing; restore it from a copy.")
    for folder in ("segments", "candidates"):
        check_folder(path / folder)
    newest = acknowledged(path)
    store = Store(database)
    try:
        settings = store.meta()
        _check_settings(database, settings)
        check_acknowledged(database, newest, int(settings["generation"]))
    except BaseException:
        store.close()
        raise
    return store


def _check_settings(path: Path, settings: Mapping[str, str]) -> None:
    check_version(path, settings.get("format_version", ""))
    numbers = ("format_version", "generation", "dim")
    whole = all(key in settings for key in _NEEDED) and all(is_number(settings[key]) for key in numbers)
    if not whole or not 1 <= int(settings["dim"]) <= MAX_DIM:
        raise IndexCorruptError(f"{path} lacks its settings; restore it from a copy.")
