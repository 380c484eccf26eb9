"""Metadata that is nested too deep is refused before anything is written, and what was taken once can be got rid of."""

from __future__ import annotations

from typing import Any

import pytest

from crisp_rag.errors import CrispError, InvalidInputError
from crisp_rag.index import CrispIndex, Passage, metadata
from crisp_rag.index.store import Store


def nested(depth: int, kind: type = dict) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = {"k": value} if kind is dict else [value]
    return value


@pytest.mark.parametrize("kind", [dict, list])
@pytest.mark.parametrize("depth", [65, 600, 5000])
def test_too_deep_metadata_is_refused_by_id_and_key(index: CrispIndex, kind: type, depth: int) -> None:
    with pytest.raises(InvalidInputError, match=r"'deep'.*nested too deep to be stored under 'key'"):
        index.add([Passage("good", "oak"), Passage("deep", "oak", {"fine": 1, "key": nested(depth, kind)})])
    assert len(index) == 0


@pytest.mark.parametrize("kind", [dict, list])
def test_what_is_taken_comes_back(index: CrispIndex, kind: type) -> None:
    value = nested(metadata.MAX_DEPTH, kind)
    index.add([Passage("a", "oak", {"key": value})])
    assert index.search("oak")[0].metadata == {"key": value}
    assert index.search("oak", where={"key": {"$exists": True}})
    index.compact()
    assert index.get(["a"])[0].metadata == {"key": value}


def test_what_an_older_version_took_is_named_and_can_be_deleted(
    index: CrispIndex, encoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.add([Passage("a", "oak")])
    with monkeypatch.context() as patch:
        patch.setattr("crisp_rag.index.checks.encode_metadata", lambda passage: "{}")
        patch.setattr("crisp_rag.index.store.encode_metadata", lambda passage: '{"k":' * 5000 + "1" + "}" * 5000)
        index.add([Passage("deep", "oak")])
    index.close()
    with CrispIndex.open(index.path, encoder) as again:
        with pytest.raises(CrispError, match="'deep' is nested too deep"):
            again.search("oak")
        assert again.delete(ids=["deep"]) == 1
        assert [hit.id for hit in again.search("oak")] == ["a"]


def test_checking_a_file_walks_down_no_metadata(index: CrispIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    index.add([Passage("a", "oak", {"k": nested(3)})])
    monkeypatch.setattr(Store, "_record", lambda *_: pytest.fail("it was decoded"))
    index._store.check(again=True)
