"""A copy of an index in another folder, made while the index is in use.

The copy is whole before it gets its name: it is written beside the target and then renamed.  It says in its settings
what it is a copy of, so that a newer copy may replace it and nothing else is ever overwritten or removed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import uuid
from pathlib import Path

from crisp_rag.errors import IndexExistsError
from crisp_rag.index import acknowledged
from crisp_rag.index.segments import sync_folder
from crisp_rag.index.space import full_disk_explained
from crisp_rag.index.store import DATABASE, Store


def copy_index(source: Path, store: Store, target: Path) -> Path:
    """Copy an index; the caller holds its writer's lock.

    Args:
        source: The index folder.
        store: Its database.
        target: The folder to make.  The source itself is left as it is.

    Raises:
        IndexExistsError: if there is something at the target that is not an older, unchanged copy of this index.
    """
    if target.exists() and target.resolve() == source.resolve():
        return target
    origin = str(source.resolve())
    replaces = _is_unchanged_copy(target, origin, store.meta().get("identity"))
    if target.exists() and not replaces and (not target.is_dir() or any(target.iterdir())):
        raise IndexExistsError(
            f"There is something at {target} that is no copy of {source}, or more than that: choose another path."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}"
    try:
        with full_disk_explained(target):
            _copy_to(beside, source, store, origin)
        if replaces:
            old = beside.with_name(beside.name + ".old")
            target.rename(old)
            try:
                beside.rename(target)
            except OSError:
                old.rename(target)
                raise
            shutil.rmtree(old, ignore_errors=True)
        else:
            if target.exists():
                target.rmdir()  # it is empty
            beside.rename(target)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return target


def _copy_to(beside: Path, source: Path, store: Store, origin: str) -> None:
    (beside / "segments").mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(beside / "index.sqlite")) as copy:
        store.connection.backup(copy)
        origins = [("copied_from", origin), ("copied_generation", str(store.generation()))]
        copy.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", origins)
        copy.commit()
    for segment in store.segments():
        _copy_file(source / "segments" / segment.file, beside / "segments" / segment.file)
    sync_folder(beside / "segments")
    sync_folder(beside)


def _copy_file(source: Path, target: Path) -> None:
    with source.open("rb") as old, target.open("xb") as new:
        shutil.copyfileobj(old, new, 1 << 20)
        new.flush()
        os.fsync(new.fileno())


_FILES = {*DATABASE, "segments", "candidates", "writer.lock", "writer.json", acknowledged.NAME}


def _is_unchanged_copy(target: Path, origin: str, identity: str | None) -> bool:
    """Whether the target was copied from this index, nobody has written to it since, and nothing else lies in it."""
    if not (target / "index.sqlite").is_file() or not {path.name for path in target.iterdir()} <= _FILES:
        return False
    try:
        with contextlib.closing(sqlite3.connect(target / "index.sqlite")) as connection:
            meta = dict(connection.execute("SELECT key, value FROM meta"))
    except sqlite3.DatabaseError:
        return False
    # Another index may lie where the one that was copied lay: the path alone does not tell.
    same = meta.get("copied_from") == origin and meta.get("identity") == identity
    return same and meta.get("copied_generation") == meta.get("generation")
