"""Immutable files of vectors: little-endian float16, (vectors, dim), row after row, nothing else.

A segment is written once, synced to disk before anything refers to it, and never changed.  Its size and checksum
lie in SQLite; both are checked before the first vector of it is used.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crisp_rag.errors import IndexCorruptError

DTYPE = np.dtype("<f2")
_READ = 1 << 20


@dataclass(frozen=True, slots=True)
class SegmentInfo:
    """What SQLite knows of a segment file."""

    id: int
    file: str
    vectors: int
    checksum: str


def write_segment(folder: Path, blocks: Iterable[np.ndarray], dim: int) -> tuple[str, int, str]:
    """Write blocks of (n, dim) vectors to a new file and sync it and its folder.

    Returns:
        The file's name, the number of vectors in it and its checksum.
    """
    name = f"{uuid.uuid4().hex}.f16"
    digest = hashlib.blake2b(digest_size=16)
    vectors = 0
    path = folder / name
    try:
        with path.open("xb") as file:
            for block in blocks:
                data = np.ascontiguousarray(block, dtype=DTYPE).tobytes()
                digest.update(data)
                file.write(data)
                vectors += len(block)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(folder)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return name, vectors, digest.hexdigest()


def map_segment(folder: Path, info: SegmentInfo, dim: int) -> np.ndarray:
    """The (vectors, dim) float16 memory map of a checked segment.

    Raises:
        FileNotFoundError: if the file is not there; the caller knows whether it should be.
        IndexCorruptError: if its size or checksum is not what was written.
    """
    check_size(folder, info, dim)
    path = folder / info.file
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while chunk := file.read(_READ):
            digest.update(chunk)
    if digest.hexdigest() != info.checksum:
        raise IndexCorruptError(f"{path} was altered: its checksum does not match; restore it from a copy.")
    return np.memmap(path, dtype=DTYPE, mode="r", shape=(info.vectors, dim))


def check_size(folder: Path, info: SegmentInfo, dim: int) -> None:
    """Compare a segment's size with what was written.

    Raises:
        FileNotFoundError: if the file is not there.
        IndexCorruptError: if it is shorter or longer.
    """
    path = folder / info.file
    size = path.stat().st_size
    expected = info.vectors * dim * DTYPE.itemsize
    if size != expected:
        raise IndexCorruptError(f"{path} has {size} bytes and should have {expected}; restore it from a copy.")


def sync_folder(folder: Path) -> None:
    """Make the folder's entries durable, where the platform can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
