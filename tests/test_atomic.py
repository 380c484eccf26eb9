"""Written files have the rights that the umask gives, and are never half."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from crisp_rag.atomic import replacing


@pytest.fixture(params=[0o077, 0o022, 0o027])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def rights(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_written_files_keep_the_umask(tmp_path: Path, umask: int) -> None:
    from crisp_rag.eval.encodings import Encoded, _write
    from crisp_rag.eval.records import write_atomically

    write_atomically(tmp_path / "out" / "results.json", "{}")
    _write(tmp_path / "encodings" / "a.npz", Encoded([np.ones((2, 3))], 0.1, False), np.float16)
    assert rights(tmp_path / "out" / "results.json") == rights(tmp_path / "encodings" / "a.npz") == 0o666 & ~umask


def test_an_index_keeps_the_umask(tmp_path: Path, umask: int) -> None:
    from crisp_rag.index.file_lock import FileLock

    lock = FileLock(tmp_path / "writer.lock")
    assert lock.acquire()
    lock.release()
    assert rights(tmp_path / "writer.lock") == 0o666 & ~umask


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(ValueError, match="no"), replacing(tmp_path / "file") as file:
        file.write(b"half")
        raise ValueError("no")
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_text() == "old"
    with replacing(tmp_path / "file") as file:
        file.write(b"new")
    assert (tmp_path / "file").read_text() == "new"
