"""A check of every byte that an index answers from, which names each file that is not sound."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from crisp_rag.errors import IndexCorruptError, IndexLockedError
from crisp_rag.index import places
from crisp_rag.index.backend import LocalBackend
from crisp_rag.index.opening import open_store
from crisp_rag.index.segments import segment_files
from crisp_rag.index.store import Store

_ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class Damage:
    """A file that is not sound, and what is wrong with it."""

    file: str
    problem: str


@dataclass(frozen=True, slots=True)
class Verification:
    """What a check found.

    Args:
        path: The index folder.
        passages: How many passages were checked.
        segments: How many segment files were checked.
        bytes_checked: The size of what was read.
        damage: What is not sound; empty for a sound index.
        orphans: Files in ``segments`` that the index does not refer to: an interrupted write left them, or another
            process is writing them now.  The next write removes what is left over; they are no damage.
    """

    path: str
    passages: int
    segments: int
    bytes_checked: int
    damage: tuple[Damage, ...]
    orphans: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """Whether nothing is damaged."""
        return not self.damage

    def to_dict(self) -> dict[str, Any]:
        """The same as a dict, with ``sound``."""
        return {**asdict(self), "sound": self.sound}


def verify_index(path: str | Path) -> Verification:
    """Check the database's structure, every passage's digest, and every segment's size and checksum.

    Needs neither the encoder nor the writer's lock: it looks at one state of the index, and looks again where a
    writer took files of it away meanwhile.

    Raises:
        IndexNotFoundError: if there is no index.
        IndexFormatError: if a newer version wrote it.
        IndexLockedError: if it changes too fast for one state to be checked.
    """
    path = Path(path)
    database = path / "index.sqlite"
    store = None
    try:
        store = open_store(path)
        dim = int(store.meta()["dim"])
        for _ in range(_ATTEMPTS):
            found = _verify(path, store, dim)
            if found is not None:
                return found
        raise IndexLockedError(f"{path} changes faster than it can be checked: try again when nobody writes.")
    except IndexCorruptError as error:
        return _only(path, Damage(_blamed(database, str(error)), str(error)))
    finally:
        if store is not None:
            store.close()


def _verify(path: Path, store: Store, dim: int) -> Verification | None:
    """What a check finds, None where the index changed meanwhile and files are missing that were there."""
    generation = store.generation()
    store.check(again=True)
    snapshot = places.load_snapshot(store)
    backend = LocalBackend(path / "segments", dim)
    damage, read = [], store.path.stat().st_size
    for view in snapshot.views:
        file = path / "segments" / view.info.file
        try:
            backend.segment(view)
            read += file.stat().st_size
        except FileNotFoundError:
            if store.generation() != generation:
                return None
            damage.append(Damage(str(file), "is missing"))
        except IndexCorruptError as error:
            damage.append(Damage(str(file), str(error)))
    known = {view.info.file for view in snapshot.views}
    there = [file.name for file in segment_files(path / "segments")]
    orphans = tuple(str(path / "segments" / name) for name in there if name not in known)
    return Verification(str(path), snapshot.passages, len(snapshot.views), read, tuple(damage), orphans)


def _only(path: Path, damage: Damage) -> Verification:
    return Verification(str(path), 0, 0, 0, (damage,), ())


def _blamed(database: Path, message: str) -> str:
    return f"{database}-wal" if f"{database}-wal was" in message else str(database)
