"""A copy of an index is whole, opens by itself, and takes nobody's place but an older copy's."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from crisp_rag.errors import FilterError, IndexExistsError, InvalidInputError
from crisp_rag.index import CrispIndex, Passage, exchange


def test_a_copy_answers_as_the_original_does(index: CrispIndex, passages: Any, encoder: Any, tmp_path: Path) -> None:
    index.add(passages(60))
    index.delete([f"p{number}" for number in range(0, 60, 3)])
    index.copy_to(tmp_path / "a" / "copy.crisp")
    with CrispIndex.open(tmp_path / "a" / "copy.crisp", encoder) as copy:
        assert list(copy.passages()) == list(index.passages())
        assert copy.search("oak elm", 10) == index.search("oak elm", 10)
        copy.add([Passage("new", "oak")])
        assert len(copy) == len(index) + 1


def test_a_newer_copy_replaces_an_older_one_of_the_same_index(
    index: CrispIndex, passages: Any, encoder: Any, tmp_path: Path
) -> None:
    for count in (10, 20):
        index.add(passages(count))
        index.copy_to(tmp_path / "copy.crisp")
        with CrispIndex.open(tmp_path / "copy.crisp", encoder) as copy:
            assert len(copy) == count
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.crisp", "index.crisp"]


def test_anything_else_at_the_target_is_left_alone(index: CrispIndex, encoder: Any, tmp_path: Path) -> None:
    index.add([Passage("a", "oak")])
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("mine")
    with CrispIndex.create(tmp_path / "other.crisp", encoder) as other:
        other.add([Passage("b", "elm")])
    index.copy_to(tmp_path / "written.crisp")
    with CrispIndex.open(tmp_path / "written.crisp", encoder) as written:
        written.add([Passage("c", "fir")])
    for name in ("file", "folder", "other.crisp", "written.crisp"):
        with pytest.raises(IndexExistsError, match=name):
            index.copy_to(tmp_path / name)
    with CrispIndex.open(tmp_path / "written.crisp", encoder) as written:
        assert {passage.id for passage in written.passages()} == {"a", "c"}
    assert (tmp_path / "folder" / "file").read_text() == "mine"


def test_the_own_folder_needs_no_copy_and_an_empty_one_will_do(index: CrispIndex, encoder: Any, tmp_path: Path) -> None:
    index.add([Passage("a", "oak")])
    assert index.copy_to(index.path) == index.path
    (tmp_path / "empty").mkdir()
    index.copy_to(tmp_path / "empty")
    with CrispIndex.open(tmp_path / "empty", encoder) as copy:
        assert len(copy) == len(index) == 1


def test_a_writers_filter_limits_what_it_adds_replaces_deletes_and_gets(index: CrispIndex) -> None:
    index.add([Passage("a", "oak", {"team": "x"}), Passage("b", "elm", {"team": "y"})])
    for where in ({"team": "x"}, lambda metadata: metadata.get("team") == "x"):
        with pytest.raises(InvalidInputError, match="'c'"):
            index.add([Passage("a", "fir", {"team": "x"}), Passage("c", "fir", {"team": "y"})], where=where)
        with pytest.raises(InvalidInputError, match=r"taken.*'b'"):
            index.add([Passage("a", "fir", {"team": "x"}), Passage("b", "fir", {"team": "x"})], where=where)
        assert [passage.text for passage in index.get(["a", "b"])] == ["oak", "elm"]
        index.replace(["a", "b"], [Passage("d", "fir", {"team": "x"})], where=where)
        assert [passage.id for passage in index.passages()] == ["b", "d"]
        assert [passage.id for passage in index.get(["b", "d"], where)] == ["d"]
        index.replace(["d"], [Passage("a", "oak", {"team": "x"})], where=where)
    with pytest.raises(FilterError, match=r"\$near"):
        index.add([], where={"a": {"$near": 1}})


def test_what_somebody_put_beside_an_older_copy_stays(index: CrispIndex, tmp_path: Path) -> None:
    index.add([Passage("a", "oak")])
    copy = index.copy_to(tmp_path / "storage")
    (copy / "docstore.json").write_text("mine")
    with pytest.raises(IndexExistsError, match="more than that"):
        index.copy_to(copy)
    assert (copy / "docstore.json").read_text() == "mine"


def test_another_index_at_the_same_path_does_not_replace_the_copy(encoder: Any, tmp_path: Path) -> None:
    with CrispIndex.create(tmp_path / "i", encoder) as index:
        index.add([Passage("a", "oak")])
        index.copy_to(tmp_path / "copy")
    shutil.rmtree(tmp_path / "i")
    with CrispIndex.create(tmp_path / "i", encoder) as other, pytest.raises(IndexExistsError):
        other.copy_to(tmp_path / "copy")
    with CrispIndex.open(tmp_path / "copy", encoder) as copy:
        assert len(copy) == 1


def test_the_older_copy_is_there_again_where_the_newer_one_cannot_take_its_place(
    index: CrispIndex, encoder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.add([Passage("a", "oak")])
    target = index.copy_to(tmp_path / "copy")
    monkeypatch.setattr(exchange, "_exchanged", lambda *_: False)
    rename = Path.rename

    def failing(self: Path, to: Path) -> Path:
        if Path(to) == target and not self.name.endswith(".old"):
            raise OSError("no")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="no"):
        index.copy_to(target)
    with CrispIndex.open(target, encoder) as copy:
        assert len(copy) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "index.crisp"]


@pytest.mark.parametrize("at_once", [True, False], ids=["exchanged at once", "renamed twice"])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_copier_killed_at_any_rename_leaves_a_whole_copy_under_the_name(
    index: CrispIndex, encoder: Any, tmp_path: Path, forked: Any, number: int, at_once: bool
) -> None:
    index.add([Passage("a", "oak")])
    target = index.copy_to(tmp_path / "a [copy]*")
    index.add([Passage("b", "oak")])

    def copy(tell: Any) -> None:
        if not at_once:
            exchange._exchanged = lambda *_: False
        renames = 0

        def dying(name: str) -> Any:
            system = getattr(os, name)

            def renamed(*arguments: Any, **options: Any) -> Any:
                nonlocal renames
                system(*arguments, **options)
                renames += 1
                if renames == number:
                    os.kill(os.getpid(), signal.SIGKILL)

            return renamed

        os.rename, os.rmdir = dying("rename"), dying("rmdir")
        index.copy_to(target)

    assert forked(copy).wait()[0] in (-signal.SIGKILL, 0)
    with CrispIndex.open(target, encoder) as opened:
        assert {passage.id for passage in opened.passages()} in ({"a"}, {"a", "b"})
    index.copy_to(target)
    with CrispIndex.open(target, encoder) as opened:
        assert len(opened) == 2
