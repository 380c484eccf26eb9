"""Immutable files of coded vectors: the planes of their codec one behind the other, nothing else.

A segment is written once, synced to disk before anything refers to it, and never changed.  Its codec, its number of
vectors and its checksum lie in SQLite; size and checksum are checked before the first vector of it is used.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import re
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from crisp_rag.errors import IndexCorruptError
from crisp_rag.index.access import explained
from crisp_rag.index.codecs import CODECS, FORMAT_1_CODEC, Codec, codec_for
from crisp_rag.index.plain_files import check_plain, open_plain

DTYPE = np.dtype("<f2")
"""Vectors are taken up to the largest number of this type, whatever codec they get."""

SUFFIXES = {name: ".f16" if name == FORMAT_1_CODEC else f".{name}" for name in CODECS}
"""The end of the names of segment files, by codec."""
_NAME = re.compile(rf"\w{{1,64}}({'|'.join(re.escape(suffix) for suffix in SUFFIXES.values())})", re.ASCII)
_READ = 1 << 20
_READ_AT_MOST = 32_768
"""Vectors that are read with all bits before their pages are given back: those of 1,024 passages, of which each may have
brought 64 KB of neighbours, or 350 where the system has larger pages.  What a first look reads stays in memory."""
_ENCODE = 8_192  # vectors encoded at once: enough for the matrix product, and 12 MB of float32 at 384 dims


@dataclass(frozen=True, slots=True)
class SegmentInfo:
    """What SQLite knows of a segment file."""

    id: int
    file: str
    vectors: int
    checksum: str
    codec: str = FORMAT_1_CODEC


class Segment:
    """A mapped segment.

    Attributes:
        codec: How its vectors are stored.
        planes: (vectors, bytes) uint8 maps, one for each plane of the codec.
    """

    def __init__(self, codec: Codec, planes: Sequence[np.ndarray], mapped: mmap.mmap | None = None) -> None:
        self.codec = codec
        self.planes = tuple(planes)
        self._mapped = mapped
        self._read = 0
        self._decoded: np.ndarray | None = None

    @property
    def decoded(self) -> np.ndarray:
        """All of its vectors as its codec decodes them, (vectors, dim) float32, kept in memory from then on."""
        if self._decoded is None:
            self._decoded = np.ascontiguousarray(self.codec.decode(self[:]), dtype=np.float32)
        return self._decoded

    def __getitem__(self, chosen: slice | np.ndarray) -> list[np.ndarray]:
        """The planes of some vectors."""
        found = [picked(plane, chosen) for plane in self.planes]
        self._read += len(found[0])
        if self._read > _READ_AT_MOST:
            self._read = 0
            sketch = self.codec.sketch
            self.forget(first=0 if sketch is None else max(sketch[:2]) + 1)
        return found

    def forget(self, first: int = 0) -> None:
        """Give back the memory of what was read; a page that is read again is mapped again, which costs a little time.

        Args:
            first: The first of the planes to forget; those before it stay.
        """
        if self._mapped is None or not hasattr(mmap, "MADV_DONTNEED"):
            return
        start = sum(plane.nbytes for plane in self.planes[:first])
        start += -start % mmap.PAGESIZE
        if start < len(self._mapped):
            self._mapped.madvise(mmap.MADV_DONTNEED, start)

    def vectors(self, chosen: slice | np.ndarray) -> np.ndarray:
        """(n, dim) float32 vectors as the encoder gave them, but for what the codec loses."""
        return self.codec.turn_back(self.codec.decode(self[chosen]))

    def turned_for(self, codec: Codec, chosen: slice | np.ndarray) -> np.ndarray:
        """The same, turned as another codec turns vectors."""
        return self.codec.decode(self[chosen]) if codec is self.codec else codec.turn(self.vectors(chosen))


def picked(plane: np.ndarray, chosen: slice | np.ndarray) -> np.ndarray:
    """Some rows of a plane; for numbers ``take`` has a quarter of the time of an index."""
    return plane[chosen] if isinstance(chosen, slice) else np.take(plane, chosen, axis=0)


def encoded(blocks: Iterable[np.ndarray], codec: Codec) -> Iterator[list[np.ndarray]]:
    """The planes of blocks of (n, dim) vectors, some thousand vectors at once."""
    waiting: list[np.ndarray] = []
    size = 0
    for block in blocks:
        waiting.append(block)
        size += len(block)
        if size >= _ENCODE:
            yield codec.encode(np.concatenate(waiting))
            waiting, size = [], 0
    if waiting:
        yield codec.encode(np.concatenate(waiting))


def is_segment_name(name: str) -> bool:
    """Whether a file of that name can be a segment: nothing that leads out of the folder."""
    return _NAME.fullmatch(name) is not None


def write_segment(folder: Path, parts: Iterable[Sequence[np.ndarray]], codec: Codec) -> tuple[str, int, str, str]:
    """Write coded vectors to a new file and sync it and its folder.

    Planes behind the first wait in files of their own until the first is complete: nothing is held in memory.

    Args:
        folder: Where to write.
        parts: The planes of some vectors each, as :meth:`Codec.encode` gives them.
        codec: What they were coded with.

    Returns:
        The file's name, the number of vectors in it, its checksum and the codec's name.

    Raises:
        DiskFullError: if there is no space left.
        AccessError: if the system refuses the file.
    """
    name = f"{uuid.uuid4().hex}{SUFFIXES[codec.name]}"
    path = folder / name
    process = os.getpid()
    vectors = 0
    digest = hashlib.blake2b(digest_size=16)
    try:
        with ExitStack() as stack:
            with explained(path, missing=True):
                # Without buffers: a copy of this process, forked while the parts are made, must have nothing left to write.
                file = stack.enter_context(path.open("xb", buffering=0))
                later = [_waiting(folder, stack) for _ in codec.planes[1:]]
            for part in parts:  # which may raise what it likes
                with explained(path):
                    vectors += len(part[0])
                    first = np.ascontiguousarray(part[0]).data
                    digest.update(first)
                    _write(file, first)
                    for plane, waiting in zip(part[1:], later, strict=True):
                        _write(waiting, np.ascontiguousarray(plane).data)
            with explained(path):
                for waiting in later:
                    _append(file, waiting, digest)
                os.fsync(file.fileno())
        with explained(folder):
            sync_folder(folder)
    except BaseException:
        if process == os.getpid():
            path.unlink(missing_ok=True)
        raise
    return name, vectors, digest.hexdigest(), codec.name


def _waiting(folder: Path, stack: ExitStack) -> IO[bytes]:
    return stack.enter_context(tempfile.TemporaryFile(dir=folder, buffering=0))  # type: ignore[call-overload,no-any-return]


def _write(file: IO[bytes], data: memoryview) -> None:
    left = data.cast("B") if data.nbytes else data
    while left.nbytes:
        left = left[file.write(left) :]


def _append(file: IO[bytes], waiting: IO[bytes], digest: hashlib.blake2b) -> None:
    waiting.seek(0)
    while chunk := waiting.read(_READ):
        digest.update(chunk)
        _write(file, memoryview(chunk))


def map_segment(folder: Path, info: SegmentInfo, dim: int) -> Segment:
    """The planes of a checked segment, mapped into memory.

    Raises:
        FileNotFoundError: if the file is not there; the caller knows whether it should be.
        IndexCorruptError: if its size or checksum is not what was written, or it is no plain file.
        AccessError: if the system refuses it.
    """
    check_size(folder, info, dim)
    path = folder / info.file
    codec = codec_for(info.codec, dim)
    if checksum_of(path) != info.checksum:
        raise IndexCorruptError(f"{path} was altered: its checksum does not match; restore it from a copy.")
    if not info.vectors:
        return Segment(codec, [np.empty((0, width), dtype=np.uint8) for width in codec.planes])
    with explained(path), open_plain(path) as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    data = np.frombuffer(mapped, dtype=np.uint8)
    ends = np.cumsum(codec.planes) * info.vectors
    planes = [
        data[end - width * info.vectors : end].reshape(-1, width) for end, width in zip(ends, codec.planes, strict=True)
    ]
    return Segment(codec, planes, mapped)


def check_size(folder: Path, info: SegmentInfo, dim: int) -> None:
    """Compare a segment's size with what was written.

    Raises:
        FileNotFoundError: if the file is not there.
        IndexCorruptError: if it is shorter or longer.
    """
    path = folder / info.file
    with explained(path):
        size = check_plain(path).st_size
    expected = info.vectors * sum(codec_for(info.codec, dim).planes)
    if size != expected:
        raise IndexCorruptError(f"{path} has {size} bytes and should have {expected}; restore it from a copy.")


def segment_files(folder: Path) -> list[Path]:
    """The segment files of a folder, whether anything refers to them or not."""
    with explained(folder):
        return sorted(path for path in folder.glob("*.*") if path.suffix in SUFFIXES.values())


def checksum_of(path: Path) -> str:
    """The checksum of a file's bytes."""
    digest = hashlib.blake2b(digest_size=16)
    with explained(path), open_plain(path) as file:
        while chunk := file.read(_READ):
            digest.update(chunk)
    return digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """Make the folder's entries durable, where the platform can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
