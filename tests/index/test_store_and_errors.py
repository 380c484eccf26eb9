"""What bad input gets: one sentence that says what was wrong, and an index as it was before."""

from __future__ import annotations

import shutil
import sqlite3
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crisp_rag.errors import (
    CrispError,
    EncoderMismatchError,
    IndexClosedError,
    IndexCorruptError,
    IndexExistsError,
    IndexFormatError,
    IndexLockedError,
    IndexNotFoundError,
    InvalidInputError,
)
from crisp_rag.index import CrispIndex, Passage


@pytest.mark.parametrize("query", ["", " ", "\n\t", None, 5])
def test_a_blank_query_is_a_value_error(index: CrispIndex, query: Any) -> None:
    index.add_texts(["oak"])
    with pytest.raises(ValueError, match="query needs words"):
        index.search(query)
    with pytest.raises(InvalidInputError):
        index.search_batch(["oak", query])


def test_an_empty_index_answers_with_no_hits(index: CrispIndex) -> None:
    assert index.search("oak") == []
    assert index.search_batch(["oak", "pine"]) == [[], []]
    assert index.search("oak", where={"a": 1}) == []
    assert index.search_vectors([np.ones((1, 16))]) == [[]]
    assert index.search_batch([]) == []
    assert list(index.passages()) == [] and index.get(["a"]) == [] and len(index) == 0
    assert index.add([]) == [] and index.delete(ids=["a"]) == 0
    assert index.stats().vectors_per_passage == 0


@pytest.mark.parametrize("k", [0, -1, True, 2.0, "3", None])
def test_k_below_one_or_no_whole_number_is_an_error(index: CrispIndex, k: Any) -> None:
    index.add_texts(["oak"])
    with pytest.raises(InvalidInputError, match="at least 1"):
        index.search("oak", k=k)


BAD_PASSAGES = [
    (Passage("bad", ""), "'bad'"),
    (Passage("bad", " \n"), "'bad'"),
    (Passage("bad", None), "'bad'"),  # type: ignore[arg-type]
    (Passage("bad", 5), "'bad'"),  # type: ignore[arg-type]
    (Passage("bad", b"bytes"), "'bad'"),  # type: ignore[arg-type]
    (Passage("bad", "text", context=3), "'bad'"),  # type: ignore[arg-type]
    (Passage("bad", "lone \ud800 surrogate"), "bad"),
    (Passage("bad", "text", {"a": float("nan")}), "'bad'"),
    (Passage("bad", "text", {"a": object()}), "'bad'"),
    (Passage("bad", "text", {1: "a"}), "'bad'"),  # type: ignore[dict-item]
    (Passage("bad", "text", ["a"]), "'bad'"),  # type: ignore[arg-type]
    (Passage("", "text"), "id of passage 1"),
    (Passage(7, "text"), "id of passage 1"),  # type: ignore[arg-type]
    ("text", "Passage 1"),
    (Passage("good", "again"), "'good'"),
]


@pytest.mark.parametrize(("bad", "named"), BAD_PASSAGES)
def test_one_bad_passage_is_named_and_nothing_of_its_batch_is_written(index: CrispIndex, bad: Any, named: str) -> None:
    index.add([Passage("before", "oak")])
    files = sorted(index.path.rglob("*.7bit"))
    with pytest.raises(InvalidInputError) as caught:
        index.add([Passage("good", "pine"), bad, Passage("after", "fir")])
    assert named in str(caught.value)
    assert [passage.id for passage in index.passages()] == ["before"]
    assert sorted(index.path.rglob("*.7bit")) == files


BAD_VECTORS = [
    np.full((2, 16), np.nan),
    np.array([[np.inf] + [0.0] * 15]),
    np.ones((2, 15)),
    np.ones(16),
    np.ones((0, 16)),
    np.ones((1, 2, 16)),
    np.full((1, 16), 1e6),
    np.array([["a"] * 16]),
    np.array([[True] * 16]),
]


@pytest.mark.parametrize("bad", BAD_VECTORS, ids=lambda array: f"{array.dtype}-{array.shape}")
def test_bad_vectors_are_rejected_by_id_and_nothing_is_written(index: CrispIndex, bad: np.ndarray) -> None:
    good = np.eye(16, dtype=np.float32)[:2]
    with pytest.raises(InvalidInputError, match="'bad'"):
        index.add([Passage("good", "oak"), Passage("bad", "pine")], vectors=[good, bad])
    assert len(index) == 0
    assert list(index.path.rglob("*.7bit")) == []


@pytest.mark.parametrize("bad", BAD_VECTORS[:6], ids=lambda array: f"{array.dtype}-{array.shape}")
def test_bad_query_vectors_are_rejected(index: CrispIndex, bad: np.ndarray) -> None:
    index.add_texts(["oak"])
    with pytest.raises(InvalidInputError, match="Query 1"):
        index.search_vectors([np.ones((1, 16)), bad])


def test_an_encoder_that_makes_nan_adds_nothing(index: CrispIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index.encoder, "encode_document", lambda texts, **_: [np.full((1, 16), np.nan) for _ in texts])
    with pytest.raises(InvalidInputError, match="'a'"):
        index.add([Passage("a", "oak")])
    assert len(index) == 0


def test_counts_that_differ_are_an_error(index: CrispIndex) -> None:
    with pytest.raises(InvalidInputError, match="2 texts and 1 ids"):
        index.add_texts(["oak", "pine"], ids=["a"])
    with pytest.raises(InvalidInputError, match="1 texts and 2 metadatas"):
        index.add_texts(["oak"], metadatas=[{}, {}])
    with pytest.raises(InvalidInputError, match="1 passages and vectors for 2"):
        index.add([Passage("a", "oak")], vectors=[np.ones((1, 16))] * 2)


def test_one_string_is_no_list_of_strings(index: CrispIndex) -> None:
    for call in (index.add_texts, index.get, index.delete, index.search_batch):
        with pytest.raises(InvalidInputError, match="one string"):
            call("abc")


def test_an_id_given_twice_in_one_batch_is_an_error(index: CrispIndex) -> None:
    with pytest.raises(InvalidInputError, match=r"twice.*'a'"):
        index.add_texts(["oak", "pine", "fir"], ids=["a", "b", "a"])
    assert len(index) == 0


def test_an_id_that_exists_is_replaced(index: CrispIndex) -> None:
    index.add_texts(["oak", "pine"], ids=["a", "b"], metadatas=[{"n": 1}, {}])
    index.add_texts(["fir"], ids=["a"], metadatas=[{"n": 2}])
    assert len(index) == 2
    assert index.get(["a"]) == [Passage("a", "fir", {"n": 2})]
    assert [hit.text for hit in index.search("oak", k=10)] != []
    assert "oak" not in {hit.text for hit in index.search("oak", k=10)}
    assert index.search("fir", k=1)[0].id == "a"


def test_replace_deletes_and_adds_in_one_commit(index: CrispIndex) -> None:
    index.add_texts(["oak", "pine"], ids=["a", "b"])
    with pytest.raises(InvalidInputError):
        index.replace(["a"], [Passage("c", " ")])
    assert [passage.id for passage in index.passages()] == ["a", "b"]
    assert index.replace(["a", "missing"], [Passage("c", "fir")]) == ["c"]
    assert [passage.id for passage in index.passages()] == ["b", "c"]


def test_delete_needs_to_be_told_what(index: CrispIndex) -> None:
    index.add_texts(["oak", "pine"], ids=["a", "b"], metadatas=[{"n": 1}, {"n": 2}])
    with pytest.raises(InvalidInputError, match="ids or where"):
        index.delete()
    assert index.delete(ids=["a", "missing"], where={"n": 2}) == 0
    assert index.delete(ids=["a", "b", "missing"], where={"n": 2}) == 1
    assert index.delete(where={}) == 1
    assert len(index) == 0


def test_what_was_stored_comes_back_as_it_was(index: CrispIndex) -> None:
    metadata = {
        "n": 1,
        "big": 2**62,
        "f": 0.1,
        "t": True,
        "none": None,
        "list": [1, "é", None],
        "d": {"x": [1]},
        "'": '"',
    }
    stored = [Passage("a\x00b", 'quote " and \n line', metadata, "Title"), Passage("ключ", "текст 🌲", {}, "")]
    index.add(stored)
    with CrispIndex.open(index.path, index.encoder) as again:
        assert list(again.passages()) == stored
        assert again.get(["ключ", "missing", "a\x00b"]) == [stored[1], stored[0]]
        hit = next(hit for hit in again.search("quote") if hit.id == "a\x00b")
    assert (hit.text, hit.metadata, hit.context) == (stored[0].text, metadata, "Title")


def test_stats_count_what_is_there(index: CrispIndex, bytes_a_vector: int) -> None:
    index.add_texts(["oak", "oak pine fir"])
    stats = index.stats()
    assert (stats.passages, stats.vectors, stats.vectors_per_passage) == (2, 4, 2.0)
    assert stats.bytes_vectors == 4 * bytes_a_vector <= stats.bytes_on_disk
    assert (stats.encoder, stats.dim, stats.pooling, stats.search) == ("fake", 16, "words", "exact")
    assert stats.to_dict()["passages"] == 2


# -- opening ----------------------------------------------------------------------------------------------------


def test_opening_with_another_encoder_names_both(index: CrispIndex, make_encoder: Any) -> None:
    with pytest.raises(EncoderMismatchError) as caught:
        CrispIndex.open(index.path, make_encoder("stranger", "0123456789abcdef"))
    assert "'fake'" in str(caught.value) and "'stranger'" in str(caught.value)


def test_an_index_of_an_encoder_without_a_source_says_that_one_is_needed(index: CrispIndex) -> None:
    index.add_texts(["oak"])
    with CrispIndex.open(index.path) as again:
        assert len(again) == 1
        with pytest.raises(EncoderMismatchError, match=r"'fake'.*encoder="):
            again.search("oak")


def test_a_newer_format_names_both_versions(index: CrispIndex, encoder: Any) -> None:
    index.close()
    with sqlite3.connect(index.path / "index.sqlite") as connection:
        connection.execute("UPDATE meta SET value = '7' WHERE key = 'format_version'")
    connection.close()
    with pytest.raises(IndexFormatError, match=r"format 7 .* up to 2"):
        CrispIndex.open(index.path, encoder)


def test_there_is_no_index_where_there_is_none(tmp_path: Path, encoder: Any) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(IndexNotFoundError, match=path.name):
            CrispIndex.open(path, encoder)
        with pytest.raises(FileNotFoundError):
            CrispIndex.open(path, encoder)


def test_creating_never_overwrites(index: CrispIndex, encoder: Any, tmp_path: Path) -> None:
    index.add_texts(["oak"])
    with pytest.raises(IndexExistsError):
        CrispIndex.create(index.path, encoder)
    with CrispIndex.create(index.path, encoder, exist_ok=True) as again:
        assert len(again) == 1
    (tmp_path / "file").write_text("precious")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "note").write_text("precious")
    for name in ("file", "folder"):
        with pytest.raises(IndexExistsError):
            CrispIndex.create(tmp_path / name, encoder, exist_ok=True)
    assert (tmp_path / "file").read_text() == (tmp_path / "folder" / "note").read_text() == "precious"


def test_a_closed_index_says_so(index: CrispIndex) -> None:
    index.close()
    index.close()
    calls = [
        lambda: index.search("oak"),
        lambda: index.add_texts(["oak"]),
        lambda: index.delete(ids=["a"]),
        lambda: index.get(["a"]),
        lambda: list(index.passages()),
        lambda: len(index),
        lambda: index.stats(),
        lambda: index.compact(),
        lambda: index.search_vectors([np.ones((1, 16))]),
    ]
    for call in calls:
        with pytest.raises(IndexClosedError):
            call()


# -- damaged files ----------------------------------------------------------------------------------------------


def filled(path: Path, encoder: Any, passages: Any) -> Path:
    with CrispIndex.create(path, encoder) as index:
        index.add(passages(30))
        index.add(passages(10, seed=1, prefix="q"))
        index.delete(ids=["p3", "q4"])
    return path


@pytest.mark.parametrize("damage", ["truncate", "extend", "alter", "remove", "empty"])
def test_a_damaged_segment_is_named_when_the_index_is_opened(
    tmp_path: Path, encoder: Any, passages: Any, damage: str
) -> None:
    path = filled(tmp_path / "index", encoder, passages)
    segment = max((path / "segments").iterdir(), key=lambda file: file.stat().st_size)
    data = bytearray(segment.read_bytes())
    if damage == "truncate":
        segment.write_bytes(data[:-2])
    elif damage == "extend":
        segment.write_bytes(data + b"\0\0")
    elif damage == "alter":
        data[len(data) // 2] ^= 1
        segment.write_bytes(data)
    elif damage == "empty":
        segment.write_bytes(b"")
    else:
        segment.unlink()
    with pytest.raises(IndexCorruptError) as caught:
        CrispIndex.open(path, encoder)
    assert segment.name in str(caught.value)


@pytest.mark.parametrize("damage", ["truncate", "garbage", "remove", "empty"])
def test_a_damaged_database_is_named_when_the_index_is_opened(
    tmp_path: Path, encoder: Any, passages: Any, damage: str
) -> None:
    path = filled(tmp_path / "index", encoder, passages)
    file = path / "index.sqlite"
    data = file.read_bytes()
    if damage == "remove":
        file.unlink()
    else:
        file.write_bytes({"truncate": data[: len(data) // 2], "garbage": b"\xa5" * len(data), "empty": b""}[damage])
    with pytest.raises(IndexCorruptError, match=r"index\.sqlite"):
        CrispIndex.open(path, encoder)


def test_a_flipped_byte_of_the_database_is_an_error_or_harmless_and_never_a_wrong_answer(
    tmp_path: Path, encoder: Any, passages: Any, everything: Any
) -> None:
    path = filled(tmp_path / "index", encoder, passages)
    file = path / "index.sqlite"
    assert not Path(f"{file}-wal").exists(), "closing the last connection checkpoints"
    sound = file.read_bytes()

    def answers(index: CrispIndex) -> Any:
        names = [f"{prefix}{number}" for prefix in "pq" for number in range(31)]
        hits = [index.search("oak pine", k=50), index.search("fir", k=5, where={"even": True})]
        return everything(index), [p.id for p in index.get(names)], len(index), list(map(repr, hits))

    with CrispIndex.open(path, encoder) as index:
        right = answers(index)

    used = [offset for offset in range(len(sound)) if sound[offset]]
    random = np.random.default_rng(7)
    offsets = {*range(0, 100), *random.choice(used, size=min(900, len(used)), replace=False).tolist()}
    refused, wrong = 0, []
    for number, offset in enumerate(sorted(offsets)):
        altered = bytearray(sound)
        altered[offset] ^= (1 << (number % 8)) if number % 3 else 0xFF
        target = tmp_path / "altered"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        (target / "segments").symlink_to(path / "segments")
        (target / "index.sqlite").write_bytes(altered)
        try:
            with CrispIndex.open(target, encoder) as index:
                if answers(index) != right:
                    wrong.append(f"offset {offset}: a wrong answer")
        except CrispError as error:
            assert isinstance(error, (IndexCorruptError, EncoderMismatchError, IndexFormatError)), error
            refused += 1
        except Exception as error:
            wrong.append(f"offset {offset}: {type(error).__name__}: {error}")
    assert not wrong, "\n".join(wrong[:20])
    assert refused > len(offsets) / 2


# -- the writer's lock ------------------------------------------------------------------------------------------

HOLD = """
index = CrispIndex.open(path, encoder)
with index._lock.held():
    print("held", flush=True)
    sys.stdin.readline()
    time.sleep(0.3)
"""


def test_a_second_writer_process_is_told_who_holds_the_index(index: CrispIndex, children: Any) -> None:
    index.add_texts(["oak"], ids=["a"])
    holder = children.start(index.path, HOLD)
    assert holder.stdout.readline() == "held\n"
    for write in (lambda: index.add_texts(["pine"]), lambda: index.delete(ids=["a"]), index.compact):
        with pytest.raises(IndexLockedError, match=rf"process {holder.pid} "):
            write()
    assert [hit.id for hit in index.search("oak")] == ["a"], "readers never wait"
    holder.communicate("\n", timeout=30)
    index.add_texts(["pine"], ids=["b"])
    assert len(index) == 2


def test_a_second_writer_process_waits_when_asked_to(index: CrispIndex, encoder: Any, children: Any) -> None:
    holder = children.start(index.path, HOLD)
    assert holder.stdout.readline() == "held\n"
    with CrispIndex.open(index.path, encoder, wait=30) as patient:
        holder.stdin.write("\n")
        holder.stdin.flush()
        before = time.monotonic()
        patient.add_texts(["pine"])
        assert time.monotonic() - before > 0.1, "it had to wait"
        assert len(patient) == 1


def test_waiting_ends_with_the_same_error(index: CrispIndex, encoder: Any, children: Any) -> None:
    holder = children.start(index.path, HOLD)
    assert holder.stdout.readline() == "held\n"
    patient = CrispIndex.open(index.path, encoder, wait=0.2)
    with patient, pytest.raises(IndexLockedError, match=str(holder.pid)):
        patient.add_texts(["pine"])


def test_a_killed_writer_blocks_nobody(index: CrispIndex, children: Any) -> None:
    holder = children.start(index.path, HOLD)
    assert holder.stdout.readline() == "held\n"
    holder.kill()
    holder.wait()
    index.add_texts(["pine"])
    assert len(index) == 1


@pytest.mark.parametrize("key", [1, True, None])
def test_a_key_that_json_would_turn_into_a_string_is_refused_however_deep(index: CrispIndex, key: Any) -> None:
    for metadata in ({key: "x"}, {"a": {key: "x"}}, {"a": [{"b": ({key: "x"},)}]}):
        with pytest.raises(InvalidInputError, match="keys must be strings"):
            index.add([Passage("a", "oak", metadata)])
    assert len(index) == 0


def test_metadata_nested_without_end_is_refused_by_id(index: CrispIndex) -> None:
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(InvalidInputError, match="'a'"):
        index.add([Passage("a", "oak", {"deep": deep})])


@pytest.mark.parametrize("id_", [["a"], None, 1, {"a": 1}, "\ud800"])
def test_an_id_that_is_no_string_is_the_callers_mistake_and_no_damage(index: CrispIndex, id_: Any) -> None:
    index.add_texts(["oak"], ids=["1"])
    for use in (index.get, index.delete, lambda ids: index.replace(ids, [])):
        with pytest.raises(InvalidInputError):
            use([id_])
    assert len(index) == 1


def test_what_is_not_unicode_is_an_input_error(index: CrispIndex) -> None:
    index.add_texts(["oak"])
    for search in (
        lambda: index.search("\ud800"),
        lambda: index.search("oak", where={"a": "\ud800"}),
        lambda: index.search("oak", where={"\ud800": "a"}),
    ):
        with pytest.raises(InvalidInputError, match="not Unicode"):
            search()
