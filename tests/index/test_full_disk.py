"""A disk that fills up in the middle of a write: one sentence, an index as it was, and work that goes on later."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crisp_rag.errors import DiskFullError
from crisp_rag.index import CrispIndex, Passage, merging, verify_index


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB in memory."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.name != "posix" or not shutil.which("mount"):
        pytest.skip("no mount here")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path, leave: int) -> Path:
    """Take all space but so many bytes."""
    filler = disk / "filler"
    with filler.open("wb") as file:
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_bsize
        file.write(b"x" * max(0, free - leave))
    return filler


def batch(random: np.random.Generator, number: int, size: int) -> list[Passage]:
    words = ["oak", "pine", "fir", "elm", "alder"]
    texts = [" ".join(random.choice(words, size=20)) for _ in range(size)]
    return [Passage(f"{number}-{i}", text, {"number": number, "note": "x" * 200}) for i, text in enumerate(texts)]


def holds(index: CrispIndex, state: dict[str, Passage]) -> bool:
    found = {hit.id for hit in index.search("oak", k=10**6)}
    return list(index.passages()) == list(state.values()) and found == set(state)


@pytest.mark.parametrize("rounds", [12, pytest.param(200, marks=pytest.mark.slow)])
def test_a_disk_that_fills_up_during_writes_costs_nothing_but_an_error(
    small_disk: Path, encoder: Any, monkeypatch: pytest.MonkeyPatch, rounds: int
) -> None:
    monkeypatch.setattr(merging, "MIN_DEAD_VECTORS", 2_000)
    random = np.random.default_rng(rounds)
    state: dict[str, Passage] = {}
    full = {"add": 0, "stream": 0, "delete": 0, "compact": 0}
    path = small_disk / "index"
    index = CrispIndex.create(path, encoder)
    for round_ in range(rounds):
        if len(state) > 300:
            index.delete(where={})
            index.compact()
            state = {}
        kind = ("add", "stream", "compact", "add", "delete")[round_ % 5]
        filler = fill(small_disk, int(random.integers(0, 120_000)))
        passages = batch(random, round_, 60)
        try:
            if kind == "add":
                index.add(passages)
                state |= {passage.id: passage for passage in passages}
            elif kind == "stream":
                counts: list[int] = []
                try:
                    index.add_stream(passages, commit_every=20, on_commit=counts.append)
                finally:
                    state |= {passage.id: passage for passage in passages[: max(counts, default=0)]}
            elif kind == "delete":
                gone = list(state)[::3]
                index.delete(ids=gone)
                for id_ in gone:
                    del state[id_]
            else:
                index.compact()
        except DiskFullError as error:
            full[kind] += 1
            assert str(error).startswith("No space left on device") and "\n" not in str(error)
        assert holds(index, state), f"{kind} in round {round_}, on a full disk"
        filler.unlink()
        if round_ % 4 == 3:
            index.close()
            index = CrispIndex.open(path, encoder)
        assert holds(index, state)
        report = verify_index(path)
        assert report.sound, report
        index.add([Passage("again", "oak", {"n": round_})])
        state.pop("again", None)
        state["again"] = Passage("again", "oak", {"n": round_})
    index.close()
    assert full["add"] and full["stream"] and sum(full.values()) >= rounds / 5, full
    with CrispIndex.open(path, encoder) as index:
        index.compact()
        assert holds(index, state)
        assert len(list((path / "segments").iterdir())) == 1, "what failed left nothing behind"


@pytest.mark.parametrize("leave", [0, 4096, 40_960])
def test_whatever_needs_space_on_a_full_disk_says_so_and_works_again_later(
    small_disk: Path, encoder: Any, passages: Any, leave: int
) -> None:
    path = small_disk / "index"
    with CrispIndex.create(path, encoder) as index:
        index.add(passages(500))
    filler = fill(small_disk, leave)

    def use() -> int:
        with CrispIndex.open(path, encoder) as opened:
            return len(opened.search("oak", k=1000, where={"even": True}))

    def add() -> None:
        with CrispIndex.open(path, encoder) as opened:
            opened.add(passages(100, prefix="q"))

    def copy() -> None:
        with CrispIndex.open(path, encoder) as opened:
            opened.copy_to(small_disk / "copy")

    for write in (add, copy, lambda: CrispIndex.create(small_disk / "other", encoder).close()):
        with pytest.raises(DiskFullError, match="No space left on device to write"):
            write()
    if leave < 40_960:  # SQLite shares memory with other readers in a file: without space for it nobody can read
        for read in (use, lambda: verify_index(path)):
            with pytest.raises(DiskFullError):
                read()
    else:
        assert use() == 250 and verify_index(path).sound
    filler.unlink()
    assert use() == 250 and verify_index(path).sound
    add()
    copy()
    CrispIndex.create(small_disk / "other", encoder).close()
    assert verify_index(small_disk / "copy").passages == 600


def test_a_merge_that_finds_no_space_does_not_undo_the_change_before_it(
    index: CrispIndex, passages: Any, monkeypatch: pytest.MonkeyPatch, bytes_a_vector: int
) -> None:
    index.add(passages(40))
    monkeypatch.setattr(merging, "MIN_DEAD_VECTORS", 10)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        assert index.delete(where={"number": {"$gte": 5}}) == 35
        with pytest.raises(DiskFullError, match="No space left"):
            index.compact()
    assert len(index) == 5 and len(list(index.path.rglob("*.7bit"))) == 1
    index.compact()
    assert index.stats().bytes_vectors == index.stats().vectors * bytes_a_vector


def test_a_commit_that_fails_leaves_its_file_until_the_next_one_has_succeeded(
    index: CrispIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database's log may hold what could not be synced: a file that it might still refer to must not go."""
    index.add_texts(["oak"], ids=["a"])
    sound = index._store.connection

    class Failing:
        """The connection, but that the commit of a change fails."""

        changes = False

        def __getattr__(self, name: str) -> Any:
            return getattr(sound, name)

        def execute(self, sql: str, *parameters: Any) -> Any:
            self.changes = sql == "BEGIN IMMEDIATE" or (self.changes and sql != "BEGIN")
            if sql == "COMMIT" and self.changes:
                import sqlite3

                raise sqlite3.OperationalError("database or disk is full")
            return sound.execute(sql, *parameters)

    own = index._store._connections._own()
    own.connection = Failing()
    with pytest.raises(DiskFullError):
        index.add_texts(["pine"], ids=["b"])
    own.connection = sound
    assert not sound.in_transaction, "what failed is not part of the next change"
    assert len(list(index.path.rglob("*.7bit"))) == 2
    assert len(index) == 1
    index.add_texts(["fir"], ids=["c"])
    assert {passage.id for passage in index.passages()} == {"a", "c"}
    assert len(list(index.path.rglob("*.7bit"))) == 2, "the file of what failed is gone"
