"""A copy of an index in another folder, made while the index is in use.

The copy is whole before it gets its name: it is written beside the target, and then takes its place.  It says in its
settings what it is a copy of, so that a newer copy may replace it and nothing else is ever overwritten or removed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from crisp_rag.errors import AccessError, CrispError, IndexCorruptError, IndexExistsError
from crisp_rag.index import acknowledged
from crisp_rag.index.access import explained
from crisp_rag.index.exchange import beside, put_back, take_place
from crisp_rag.index.plain_files import open_plain
from crisp_rag.index.segments import sync_folder
from crisp_rag.index.store import DATABASE, Store


def copy_index(source: Path, store: Store, target: Path) -> Path:
    """Copy an index; the caller holds its writer's lock.

    Args:
        source: The index folder.
        store: Its database.
        target: The folder to make.  The source itself is left as it is.

    Raises:
        IndexExistsError: if there is something at the target that is not an older, unchanged copy of this index.
        DiskFullError: if there is no space left.
        AccessError: if the system refuses the target.
    """
    with explained(target, missing=True):
        put_back(target)
        if target.exists() and target.resolve() == source.resolve():
            return target
        origin = str(source.resolve())
        replaces = _is_unchanged_copy(target, origin, store.meta().get("identity"))
        if target.exists() and not replaces and (not target.is_dir() or any(target.iterdir())):
            raise IndexExistsError(
                f"There is something at {target} that is no copy of {source}, or more than that: choose another path."
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        newer = beside(target)
        try:
            _copy_to(newer, source, store, origin)
            if replaces:
                take_place(newer, target)
            else:
                if target.exists():
                    target.rmdir()  # it is empty
                newer.rename(target)
            sync_folder(target.parent)
        finally:
            shutil.rmtree(newer, ignore_errors=True)
    return target


def _copy_to(newer: Path, source: Path, store: Store, origin: str) -> None:
    (newer / "segments").mkdir(parents=True)
    with contextlib.closing(Store(newer / "index.sqlite", fresh=True)) as copy:
        with store.guarded(), copy.guarded():
            store.connection.backup(copy.connection)
        with copy.transaction(write=True):
            copy.set_meta({"copied_from": origin, "copied_generation": str(store.generation())})
    for segment in store.segments():
        try:
            _copy_file(source / "segments" / segment.file, newer / "segments" / segment.file)
        except FileNotFoundError as error:  # nobody takes segments away while the lock is held
            raise IndexCorruptError(f"{error.filename} is missing; restore it from a copy.") from error
    sync_folder(newer / "segments")
    sync_folder(newer)


def _copy_file(source: Path, target: Path) -> None:
    with open_plain(source) as old, target.open("xb") as new:
        shutil.copyfileobj(old, new, 1 << 20)
        new.flush()
        os.fsync(new.fileno())


_FILES = {*DATABASE, "segments", "candidates", "writer.lock", "writer.json", acknowledged.NAME}


def _is_unchanged_copy(target: Path, origin: str, identity: str | None) -> bool:
    """Whether the target was copied from this index, nobody has written to it since, and nothing else lies in it."""
    if not (target / "index.sqlite").is_file() or not {path.name for path in target.iterdir()} <= _FILES:
        return False
    try:
        with contextlib.closing(Store(target / "index.sqlite")) as copy:
            meta = copy.meta()
    except AccessError:
        raise
    except CrispError:
        return False
    # Another index may lie where the one that was copied lay: the path alone does not tell.
    same = meta.get("copied_from") == origin and meta.get("identity") == identity
    return same and meta.get("copied_generation") == meta.get("generation")
