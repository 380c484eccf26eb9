"""What was acknowledged survives; what other processes do is seen."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from crisp_rag.index import CrispIndex

WRITE_FOREVER = """
import uuid
index = CrispIndex.open(path, encoder, wait=30)
while True:
    added = index.add_texts(["oak pine", "fir elm alder"], ids=[uuid.uuid4().hex, uuid.uuid4().hex])
    print("added", *added, flush=True)
    if added[0] < "3":
        index.delete(ids=added[:1])
        print("deleted", added[0], flush=True)
    if added[0] < "1":
        index.compact()
"""


@pytest.mark.parametrize("round_", range(3))
def test_killing_a_writer_loses_nothing_that_it_acknowledged(
    index: CrispIndex, encoder: Any, children: Any, round_: int
) -> None:
    index.close()
    acknowledged: set[str] = set()
    touched: set[str] = set()
    for kill in range(3):
        child = children.start(index.path, WRITE_FOREVER)
        first = child.stdout.readline()
        time.sleep(0.05 + 0.06 * kill + 0.02 * round_)
        child.kill()
        # Read by the same reader: communicate() would pass over lines that readline() had read ahead.
        for line in [first, *child.stdout.read().splitlines()]:
            words = line.split()
            if words[:1] == ["added"] and len(words) == 3:
                acknowledged.update(words[1:])
                touched.update(words[1:2])
            elif words[:1] == ["deleted"] and len(words) == 2 and len(words[1]) == 32:
                acknowledged.discard(words[1])
        with CrispIndex.open(index.path, encoder) as opened:
            there = {passage.id for passage in opened.passages()}
            # A deletion may have been committed and not yet acknowledged when the writer died: one at most.
            lost = acknowledged - there
            assert len(lost) <= 1 and all(id_ in touched and id_ < "3" for id_ in lost)
            acknowledged -= lost
            assert {passage.id for passage in opened.get(sorted(acknowledged))} == acknowledged
            assert {hit.id for hit in opened.search("oak", k=10**6)} == there
    with CrispIndex.open(index.path, encoder) as opened:
        opened.add_texts(["still writable"], ids=["last"])
        assert opened.search("writable", k=1)[0].id == "last"
    assert acknowledged


DIE_BEFORE_THE_COMMIT = """
from crisp_rag.index import store
index = CrispIndex.open(path, encoder)
store.Store.advance = lambda self: os._exit(9)
index.add_texts(["fir"], ids=["unacknowledged"])
"""


def test_a_writer_that_dies_before_its_commit_leaves_no_trace_after_the_next_write(
    index: CrispIndex, encoder: Any, children: Any
) -> None:
    index.add_texts(["oak"], ids=["a"])
    index.close()
    child = children.start(index.path, DIE_BEFORE_THE_COMMIT)
    child.communicate(timeout=60)
    assert child.returncode == 9
    segments = set((index.path / "segments").iterdir())
    assert len(segments) == 2, "the segment that nothing refers to"
    with CrispIndex.open(index.path, encoder) as opened:
        assert [hit.id for hit in opened.search("fir", k=10)] == ["a"]
        assert set((index.path / "segments").iterdir()) == segments, "readers remove nothing"
        opened.add_texts(["pine"], ids=["b"])
        assert len(list((index.path / "segments").iterdir())) == 2
        assert {hit.id for hit in opened.search("fir", k=10)} == {"a", "b"}


def test_orphan_segment_files_are_swept_by_the_next_writer_and_other_files_are_not(index: CrispIndex, encoder: Any) -> None:
    index.add_texts(["oak"], ids=["a"])
    (index.path / "segments" / "orphan.7bit").write_bytes(b"half a segm")
    (index.path / "segments" / "README").write_text("mine")
    with CrispIndex.open(index.path, encoder) as opened:
        opened.delete(ids=["missing"])
        assert not (index.path / "segments" / "orphan.7bit").exists()
        assert (index.path / "segments" / "README").exists()
        assert [hit.id for hit in opened.search("oak")] == ["a"]


def test_a_failed_commit_leaves_the_index_and_its_files_as_they_were(
    index: CrispIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.add_texts(["oak"], ids=["a"])
    files = sorted(index.path.rglob("*.7bit"))

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(type(index._store), "insert", full)
        with pytest.raises(OSError, match="No space"):
            index.add_texts(["pine", "fir"], ids=["a", "b"])
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space"):
            index.add_texts(["pine", "fir"], ids=["a", "b"])
    assert sorted(index.path.rglob("*.7bit")) == files
    assert [(hit.id, hit.text) for hit in index.search("oak")] == [("a", "oak")]
    index.add_texts(["pine"], ids=["b"])
    assert len(index) == 2


def test_an_open_reader_sees_what_another_process_changes(index: CrispIndex, children: Any) -> None:
    index.add_texts(["oak", "pine"], ids=["a", "b"])
    assert len(index.search("oak")) == 2
    children.run(index.path, 'CrispIndex.open(path, encoder).add_texts(["fir"], ids=["c"])')
    assert {hit.id for hit in index.search("oak")} == {"a", "b", "c"}
    assert index.search("fir", k=1)[0].id == "c"
    children.run(index.path, 'CrispIndex.open(path, encoder).delete(ids=["a"])')
    assert {hit.id for hit in index.search("oak")} == {"b", "c"} and index.get(["a"]) == []
    children.run(index.path, 'CrispIndex.open(path, encoder).add_texts(["elm"], ids=["b"])')
    assert index.search("elm", k=1)[0].text == "elm"
    index.add_texts(["alder"], ids=["d"])
    printed = children.run(index.path, "print(*sorted(p.id for p in CrispIndex.open(path, encoder).passages()))")
    assert printed == "b c d"


def test_a_reader_stays_open_while_another_process_compacts(
    index: CrispIndex, passages: Any, children: Any, bytes_a_vector: int
) -> None:
    index.add(passages(30))
    index.delete(where={"even": True})
    before = index.search("oak", k=30)
    children.run(index.path, "CrispIndex.open(path, encoder).compact()")
    after = index.search("oak", k=30)
    assert [hit.id for hit in after] == [hit.id for hit in before]
    assert [hit.score for hit in after] == pytest.approx([hit.score for hit in before], abs=1e-5)
    assert index.stats().bytes_vectors == index.stats().vectors * bytes_a_vector


COMPACT_AND_WRITE = """
index = CrispIndex.open(path, encoder)
end = time.monotonic() + 2
while time.monotonic() < end:
    index.add_texts(["fir"], ids=["turning"])
    index.compact()
"""


def test_a_reader_finds_everything_at_every_moment_of_another_process_compacting(
    index: CrispIndex, passages: Any, encoder: Any, children: Any
) -> None:
    index.add(passages(40))
    child = children.start(index.path, COMPACT_AND_WRITE)
    rounds = opened = 0
    while child.poll() is None:
        found = {hit.id for hit in index.search("oak", k=100)} - {"turning"}
        assert len(found) == 40
        assert len(index.search("oak", k=100, where={"even": True})) == 20
        rounds += 1
        if rounds % 5 == 0:
            with CrispIndex.open(index.path, encoder) as again:
                opened += len(again.search("oak", k=100)) >= 40
    assert child.returncode == 0, child.communicate()[1]
    assert rounds >= 5 and opened >= 1


def test_an_index_is_a_folder_that_can_be_copied_once_closed(
    index: CrispIndex, passages: Any, encoder: Any, tmp_path: Path
) -> None:
    import shutil

    index.add(passages(20))
    before = index.search("oak", k=5)
    index.close()
    shutil.copytree(index.path, tmp_path / "copy")
    with CrispIndex.open(tmp_path / "copy", encoder) as copy:
        assert copy.search("oak", k=5) == before
