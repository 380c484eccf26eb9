"""How the files of an index come to be, and what is looked at before one of them is used."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from crisp_rag.errors import CrispError, IndexCorruptError, IndexExistsError, IndexFormatError, IndexNotFoundError
from crisp_rag.index import places
from crisp_rag.index.acknowledged import acknowledged, check_acknowledged
from crisp_rag.index.declared import declare
from crisp_rag.index.segments import sync_folder
from crisp_rag.index.space import full_disk_explained
from crisp_rag.index.store import Store

if TYPE_CHECKING:
    from crisp_rag.models.encoder import Encoder

FORMAT_VERSION = 2
"""1: all vectors are float16.  2: segments name their codec."""
_NEEDED = ("format_version", "generation", "encoder", "encoder_source", "fingerprint", "dim", "pooling")


def exists(path: Path) -> bool:
    """Whether there is an index in the folder; one whose making was interrupted counts as none."""
    database = path / "index.sqlite"
    if not database.exists():
        return False
    if database.stat().st_size or any((path / "segments").glob("*")):
        try:
            store = Store(database)
            with contextlib.closing(store):
                return bool(store.tables()) or any((path / "segments").glob("*"))
        except CrispError:
            return True
    return False


def make_store(path: Path, encoder: Encoder, codec: str, fields: Sequence[str]) -> Store:
    """Make the files of an empty index, in one transaction.

    Raises:
        IndexExistsError: if another process was quicker.
    """
    with full_disk_explained(path):
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
        IndexCorruptError: if it is missing, cannot be read, lacks settings or lost acknowledged changes.
    """
    database = path / "index.sqlite"
    if not path.is_dir() or not (database.exists() or (path / "segments").exists()):
        raise IndexNotFoundError(f"There is no index at {path}: make one with CrispIndex.create or crisp-rag index.")
    if not database.exists():
        raise IndexCorruptError(f"{database} is missing; restore it from a copy.")
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


def bytes_of(path: Path) -> int:
    """Bytes of all files in a folder; files that go meanwhile count nothing."""
    total = 0
    for file in path.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += file.stat().st_size if file.is_file() else 0
    return total


def _check_settings(path: Path, settings: Mapping[str, str]) -> None:
    version = settings.get("format_version", "")
    if version.isdigit() and int(version) > FORMAT_VERSION:
        raise IndexFormatError(
            f"{path.parent} has format {version} and this crisp-rag reads up to {FORMAT_VERSION}: upgrade crisp-rag."
        )
    numbers = ("format_version", "generation", "dim")
    if not all(key in settings for key in _NEEDED) or not all(settings[key].isdigit() for key in numbers):
        raise IndexCorruptError(f"{path} lacks its settings; restore it from a copy.")
