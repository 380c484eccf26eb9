"""What opening reads, what is checked later, and indexes that an older version wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crisp_rag.errors import IndexCorruptError
from crisp_rag.index import CrispIndex, crisp_index, places, verify_index
from crisp_rag.index.backend import LocalBackend
from crisp_rag.index.schema import statements
from crisp_rag.index.snapshots import SegmentView
from crisp_rag.index.store import Store


@pytest.fixture
def large(index: CrispIndex, passages: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index that counts as too large to be checked whole when it is opened."""
    index.add(passages(30))
    index.add(passages(10, prefix="q"))
    index.delete(ids=["p4"])
    index.close()
    monkeypatch.setattr(crisp_index, "CHECKED_AT_OPEN", -1)
    return index.path


def test_a_large_index_is_checked_as_it_is_used_and_each_part_once(
    large: Path, encoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[str] = []
    whole, record = Store.check, Store._check_digest

    def check(store: Store) -> None:
        if not store._checked:
            checked.append("database")
        whole(store)

    monkeypatch.setattr(Store, "check", check)
    monkeypatch.setattr("crisp_rag.index.backend.map_segment", counted(checked))
    monkeypatch.setattr(Store, "_check_digest", lambda self, values: (checked.append("record"), record(self, values))[1])
    with CrispIndex.open(large, encoder) as index:
        assert len(index) == 39 and checked == []
        index.search("oak", k=3)
        assert sorted(checked) == ["record"] * 3 + ["segment"] * 2
        checked.clear()
        index.search("oak", k=2, where={"even": True})
        assert checked.count("database") == 1 and checked.count("record") == 39 + 2
        checked.clear()
        index.search("oak", k=2, where={"even": True})
        assert checked == ["record"] * 2


def counted(checked: list[str]) -> Any:
    from crisp_rag.index.segments import map_segment

    return lambda *arguments: (checked.append("segment"), map_segment(*arguments))[1]


def test_only_the_places_of_segments_that_changed_are_read_again(large: Path, encoder: Any) -> None:
    with CrispIndex.open(large, encoder) as index:
        before = index._current()
        index.add_texts(["oak"])
        index.delete(ids=["q1"])
        after = index._current()
        assert after.views[0] is before.views[0]
        assert after.views[1] is not before.views[1]
        assert len(after.views) == 3 and after.passages == 39


def test_a_place_that_was_altered_sends_nobody_to_other_vectors(large: Path, encoder: Any) -> None:
    with CrispIndex.open(large, encoder) as index:
        connection = index._store.connection
        rows = dict(connection.execute("SELECT id, start FROM passages WHERE count = (SELECT count FROM passages LIMIT 1)"))
        first, second, *_ = rows
        connection.execute("DROP TRIGGER passage_moved")
        exchanged = [(rows[second], first), (rows[first], second)]
        connection.executemany("UPDATE passages SET start = ? WHERE id = ?", exchanged)
        trigger = next(part for part in statements(places._BUILD) if "passage_moved" in part)
        connection.execute(trigger)
    with pytest.raises(IndexCorruptError, match=r"index\.sqlite .*where its passages lie"):
        CrispIndex.open(large, encoder)


def test_the_sum_over_places_is_the_same_in_sql_and_in_numpy(index: CrispIndex) -> None:
    random = np.random.default_rng(0)
    index.add_texts(["oak"] * 50)
    starts = random.integers(0, 2**40, size=50).tolist()
    counts = random.integers(1, 2**40, size=50).tolist()
    connection = index._store.connection
    for row, (start, count) in enumerate(zip(starts, counts), 1):
        connection.execute("UPDATE passages SET start = ?, count = ? WHERE row = ?", (start, count, row))
    views = connection.execute("SELECT row, start, count FROM passages ORDER BY start").fetchall()
    arrays = np.asarray(views, dtype=np.int64).T
    view = SegmentView(index._store.segments()[0], *arrays)
    assert connection.execute("SELECT checksum FROM segment_places").fetchone()[0] == places.checksum(view)


def as_before_places(path: Path) -> None:
    """What an older version would have written."""
    store = Store(path / "index.sqlite")
    for part in places._PARTS:
        kind = store.connection.execute("SELECT type FROM sqlite_master WHERE name = ?", (part,)).fetchone()
        if kind is not None:
            store.connection.execute(f"DROP {kind[0]} {part}")
    store.connection.execute("DELETE FROM meta WHERE key IN ('places', 'indexed_fields')")
    store.connection.execute("CREATE INDEX passages_by_segment ON passages (segment, start)")
    store.close()
    (path / "acknowledged").unlink()


def test_an_index_of_an_older_version_is_read_as_it_is_and_brought_up_to_date_by_the_first_write(
    large: Path, encoder: Any
) -> None:
    with CrispIndex.open(large, encoder) as index:
        right = index.search("oak", k=50)
    as_before_places(large)
    with CrispIndex.open(large, encoder) as index:
        assert index.search("oak", k=50) == right and len(index) == 39
        assert verify_index(large).sound
        assert not places.built(index._store), "reading changes nothing"
        assert index.delete(ids=["p5"]) == 1
        assert places.built(index._store) and len(index) == 38
        assert index.search("oak", k=50) == [hit for hit in right if hit.id != "p5"]
    assert verify_index(large).sound


def test_a_damaged_index_of_an_older_version_is_refused_when_it_is_opened(large: Path, encoder: Any) -> None:
    as_before_places(large)
    store = Store(large / "index.sqlite")
    store.connection.execute("UPDATE passages SET start = start + 1 WHERE id = 'p1'")
    store.close()
    with pytest.raises(IndexCorruptError, match=r"index\.sqlite"):
        CrispIndex.open(large, encoder)


def test_the_backend_checks_sizes_or_everything(large: Path, encoder: Any) -> None:
    with CrispIndex.open(large, encoder) as index:
        snapshot = index._current()
        segment = large / "segments" / snapshot.views[0].info.file
        data = bytearray(segment.read_bytes())
        data[0] ^= 1
        segment.write_bytes(data)
        assert LocalBackend(large / "segments", 16).check(snapshot, whole=False)
        with pytest.raises(IndexCorruptError, match=segment.name):
            LocalBackend(large / "segments", 16).check(snapshot)


def test_making_an_index_that_was_interrupted_can_be_done_again(tmp_path: Path, encoder: Any, forked: Any) -> None:
    import os
    import signal

    from crisp_rag.index import opening

    def make(tell: Any) -> None:
        opening.declare = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        CrispIndex.create(tmp_path / "index", encoder)

    for exist_ok in (True, False):
        child = forked(make)
        assert child.wait()[0] == -signal.SIGKILL
        assert (tmp_path / "index" / "index.sqlite").exists()
        with CrispIndex.create(tmp_path / "index", encoder, exist_ok=exist_ok) as index:
            index.add_texts(["oak"])
            assert len(index) == 1
        for file in sorted((tmp_path / "index").rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
