"""A folder that is replaced under an open index: noticed, in reading and in writing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from crisp_rag.errors import IndexReplacedError
from crisp_rag.index import CrispIndex, Passage, verify_index, writing

WAYS = {
    "the folder is exchanged": lambda path, copy: (path.rename(path.with_name("old")), shutil.copytree(copy, path)),
    "its files are exchanged": lambda path, copy: (
        [file.rename(path.with_name(f"old {file.name}")) for file in path.iterdir()],
        shutil.copytree(copy, path, dirs_exist_ok=True),
    ),
    "the folder is removed and copied back": lambda path, copy: (shutil.rmtree(path), shutil.copytree(copy, path)),
    "the copy is moved in": lambda path, copy: (path.rename(path.with_name("old")), copy.rename(path)),
}
USES = {
    "add": lambda index: index.add_texts(["oak"], ids=["lost"]),
    "delete": lambda index: index.delete(ids=["b"]),
    "compact": lambda index: index.compact(),
    "search": lambda index: index.search("oak"),
    "filter": lambda index: index.search("oak", where={"n": 1}),
    "get": lambda index: index.get(["a"]),
    "passages": lambda index: list(index.passages()),
    "length": len,
    "stats": lambda index: index.stats(),
    "copy_to": lambda index: index.copy_to(index.path.with_name("another copy")),
    "declare": lambda index: index.declare(["n"]),
}


@pytest.fixture
def copied(index: CrispIndex, tmp_path: Path) -> Path:
    """A copy of an index that has changed since."""
    index.add([Passage("a", "oak", {"n": 1}), Passage("b", "oak pine", {"n": 2})])
    copy = index.copy_to(tmp_path / "copy")
    index.add_texts(["oak"], ids=["after the copy"])
    index.search("oak")
    return copy


@pytest.mark.parametrize("way", WAYS)
def test_a_folder_that_was_replaced_is_refused_in_reading_and_writing_and_the_new_one_stays_whole(
    index: CrispIndex, encoder: Any, copied: Path, way: str
) -> None:
    WAYS[way](index.path, copied)
    for name, use in USES.items():
        with pytest.raises(IndexReplacedError, match=r"index\.crisp was replaced.*open it again"):
            pytest.fail(f"{name}: {use(index)}")
    index.close()
    assert verify_index(index.path).sound
    with CrispIndex.open(index.path, encoder) as restored:
        assert {hit.id for hit in restored.search("oak")} == {"a", "b"}
        restored.add_texts(["oak"], ids=["c"])
        assert len(restored) == 3
    assert verify_index(index.path).sound


def test_a_folder_that_is_gone_is_said_to_be(index: CrispIndex, encoder: Any, copied: Path) -> None:
    index.path.rename(index.path.with_name("elsewhere"))
    for use in USES.values():
        with pytest.raises(IndexReplacedError, match="moved or removed"):
            use(index)
    assert not index.path.exists()
    with CrispIndex.open(index.path.with_name("elsewhere"), encoder) as moved:
        assert len(moved) == 3


def test_a_folder_that_is_replaced_in_the_middle_of_a_write_costs_an_error(
    index: CrispIndex, encoder: Any, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = index._backend.add

    def slow(*arguments: Any) -> Any:
        written = add(*arguments)
        WAYS["the folder is exchanged"](index.path, copied)
        return written

    monkeypatch.setattr(index._backend, "add", slow)
    monkeypatch.setattr(writing, "acknowledge", lambda *_: pytest.fail("it was acknowledged"))
    with pytest.raises(IndexReplacedError):
        index.add_texts(["oak"], ids=["lost"])
    with CrispIndex.open(index.path, encoder) as restored:
        assert {passage.id for passage in restored.passages()} == {"a", "b"}


def test_another_thread_of_a_replaced_index_opens_no_connection_to_the_new_one(
    index: CrispIndex, copied: Path, forked: Any
) -> None:
    WAYS["the folder is exchanged"](index.path, copied)

    def work(tell: Any) -> None:
        with pytest.raises(IndexReplacedError):
            index.search("oak")

    assert forked(work).wait() == (0, [])


def test_an_index_goes_on_when_the_current_directory_changes(
    tmp_path: Path, encoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with CrispIndex.create("relative", encoder) as index:
        index.add_texts(["oak"], ids=["a"])
        monkeypatch.chdir("/")
        index.add_texts(["pine"], ids=["b"])
        assert len(index.search("oak")) == 2 and index.compact().bytes_after
