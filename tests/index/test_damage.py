"""Flipped and missing bytes in any file of an index: an error that names a file, or the right answer all the same."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crisp_rag.errors import CrispError, EncoderMismatchError, IndexCorruptError, IndexFormatError
from crisp_rag.index import CrispIndex, Passage, crisp_index, planner, verify_index

ANSWERS: dict[str, Callable[[CrispIndex], Any]] = {
    "search": lambda index: [(hit.id, hit.text, round(hit.score, 3)) for hit in index.search("oak pine", k=60)],
    "few": lambda index: [(hit.id, hit.metadata, round(hit.score, 3)) for hit in index.search("fir elm", k=3)],
    "declared": lambda index: [(hit.id, hit.text) for hit in index.search("fir", k=60, where={"even": True})],
    "filter": lambda index: [hit.id for hit in index.search("fir", k=60, where={"number": {"$lt": 7}})],
    "get": lambda index: index.get([f"{prefix}{number}" for prefix in "pq" for number in range(31)]),
    "passages": lambda index: list(index.passages()),
    "count": lambda index: (len(index), index.stats().vectors),
}


def filled(path: Path, encoder: Any, passages: Any, copy: Path) -> dict[str, Any]:
    """An index as a killed writer leaves it, with a log that no checkpoint has emptied; returns its answers."""
    with CrispIndex.create(path, encoder, indexed_fields=["even"]) as index:
        index.add(passages(30))
        index.add(passages(10, seed=1, prefix="q"))
    with CrispIndex.open(path, encoder) as index:
        index.delete(ids=["p3", "q4"])
        index.add([Passage("p5", "fir fir oak", {"number": 5, "even": True})])
        right = {name: answer(index) for name, answer in ANSWERS.items()}
        (path / "writer.json").write_text('{"pid": 1, "host": "h", "program": "p", "since": "s"}')
        shutil.copytree(path, copy)
    assert (copy / "index.sqlite-wal").stat().st_size and (copy / "acknowledged").exists()
    return right


def damaged(random: np.random.Generator, data: bytes) -> bytes:
    """Bytes flipped, cut off, zeroed, or appended."""
    kind, at = random.integers(0, 8), int(random.integers(0, max(1, len(data))))
    if kind == 0:
        return data[:at]
    if kind == 1:
        length = int(random.integers(1, 600))
        return data[:at] + b"\0" * min(length, len(data) - at) + data[at + length :]
    if kind == 2:
        return data + random.bytes(int(random.integers(1, 100)))
    if not data:
        return b"x"
    used = np.flatnonzero(np.frombuffer(data, np.uint8))
    at = int(random.choice(used)) if len(used) and kind < 7 else at
    return data[:at] + bytes([data[at] ^ (1 << int(random.integers(0, 8)))]) + data[at + 1 :]


@pytest.mark.parametrize("rounds", [150, pytest.param(2000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("checked_at_open", [True, False], ids=["small", "large"])
def test_damage_to_any_file_is_an_error_that_names_it_or_changes_no_answer(
    tmp_path: Path, encoder: Any, passages: Any, monkeypatch: pytest.MonkeyPatch, rounds: int, checked_at_open: bool
) -> None:
    right = filled(tmp_path / "index", encoder, passages, tmp_path / "copy")
    if not checked_at_open:
        monkeypatch.setattr(crisp_index, "CHECKED_AT_OPEN", -1)
    random = np.random.default_rng(rounds)
    files = sorted(file.relative_to(tmp_path / "copy") for file in (tmp_path / "copy").rglob("*") if file.is_file())
    assert len(files) >= 7
    refused = dict.fromkeys(map(str, files), 0)
    for round_ in range(rounds):
        name = files[round_ % len(files)]
        target = tmp_path / "damaged"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(tmp_path / "copy", target)
        if random.integers(0, 20):
            (target / name).write_bytes(damaged(random, (target / name).read_bytes()))
        else:
            (target / name).unlink()
        said = wrong_answers(target, encoder, right, random)
        if said is not None:
            refused[str(name)] += 1
            assert "index.sqlite" in said or name.suffix == ".7bit" or "built with" in said or "format" in said, said
            if name.suffix == ".7bit":
                assert name.name in said, said
    assert all(count for name, count in refused.items() if name.endswith((".7bit", ".sqlite", "-wal"))), refused
    assert not any(count for name, count in refused.items() if name.startswith(("writer", "ack"))), refused


def wrong_answers(path: Path, encoder: Any, right: dict[str, Any], random: np.random.Generator) -> str | None:
    """Ask an index everything in a random order: each answer is right, or the error is returned."""
    try:
        with CrispIndex.open(path, encoder) as index:
            for name in random.permutation(sorted(right)).tolist():
                assert ANSWERS[name](index) == right[name], f"{name} is wrong"
    except CrispError as error:
        assert isinstance(error, (IndexCorruptError, EncoderMismatchError, IndexFormatError)), repr(error)
        return str(error)
    return None


def test_a_large_index_with_a_damaged_segment_opens_and_is_refused_at_the_first_search(
    tmp_path: Path, encoder: Any, passages: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path / "index", encoder, passages, tmp_path / "copy")
    monkeypatch.setattr(crisp_index, "CHECKED_AT_OPEN", -1)
    segment = max((tmp_path / "copy" / "segments").iterdir(), key=lambda file: file.stat().st_size)
    data = bytearray(segment.read_bytes())
    data[5] ^= 1
    segment.write_bytes(data)
    with CrispIndex.open(tmp_path / "copy", encoder) as index:
        assert len(index) == 38, "what lies elsewhere can be read"
        assert [passage.id for passage in index.get(["p1"])] == ["p1"]
        for _ in range(2):
            with pytest.raises(IndexCorruptError, match=segment.name):
                index.search("oak")
    segment.write_bytes(data[:-2])
    with pytest.raises(IndexCorruptError, match=segment.name):
        CrispIndex.open(tmp_path / "copy", encoder)


def test_losing_the_log_of_acknowledged_changes_is_noticed(tmp_path: Path, encoder: Any, passages: Any) -> None:
    filled(tmp_path / "index", encoder, passages, tmp_path / "copy")
    (tmp_path / "copy" / "index.sqlite-wal").unlink()
    with pytest.raises(IndexCorruptError, match=r"index\.sqlite-wal.* 2 acknowledged changes are missing"):
        CrispIndex.open(tmp_path / "copy", encoder)
    report = verify_index(tmp_path / "copy")
    assert [damage.file for damage in report.damage] == [str(tmp_path / "copy" / "index.sqlite-wal")]
    (tmp_path / "copy" / "acknowledged").unlink()
    with CrispIndex.open(tmp_path / "copy", encoder) as index:
        assert len(index) == 40, "the user has chosen the older state"


def test_a_writer_whose_name_cannot_be_read_is_another_process(index: CrispIndex, children: Any) -> None:
    holder = children.start(
        index.path,
        """
        index = CrispIndex.open(path, encoder)
        with index._lock.held():
            print("held", flush=True)
            sys.stdin.readline()
        """,
    )
    assert holder.stdout.readline() == "held\n"
    for said in (b"[1]", b"\xff", b"", b'{"pid": 1}', b"null"):
        (index.path / "writer.json").write_bytes(said)
        with pytest.raises(CrispError, match="written by another process"):
            index.add_texts(["oak"])


@pytest.mark.parametrize("rounds", [30, pytest.param(400, marks=pytest.mark.slow)])
def test_damaged_lists_of_candidates_are_made_anew_or_left_aside(
    tmp_path: Path, encoder: Any, passages: Any, monkeypatch: pytest.MonkeyPatch, rounds: int
) -> None:
    monkeypatch.setattr(planner, "EXACT_VECTORS", 0)
    monkeypatch.setattr(crisp_index, "CHECKED_AT_OPEN", -1)
    with CrispIndex.create(tmp_path / "index", encoder) as index:
        index.add(passages(300))
        index.prepare()
        right = {hit.id: (hit.text, hit.score) for hit in index.search("oak pine", k=300)}
        best = [hit.id for hit in index.search("oak pine", k=3, exact=True)]
    files = sorted(file.relative_to(tmp_path / "index") for file in (tmp_path / "index").rglob("*") if file.is_file())
    cached = [name for name in files if name.parts[0] == "candidates"]
    assert len(cached) >= 2 and len(right) == 300
    random = np.random.default_rng(rounds)
    refused = 0
    for round_ in range(rounds):
        name = cached[round_ % len(cached)] if round_ % 3 else files[round_ % len(files)]
        target = tmp_path / f"damaged{round_}"  # lists of the one before may still be in the making
        shutil.copytree(tmp_path / "index", target)
        (target / name).write_bytes(damaged(random, (target / name).read_bytes()))
        try:
            with CrispIndex.open(target, encoder) as index:
                hits = index.search("oak pine", k=3)
                assert len(hits) == 3
                for hit in hits:
                    assert (hit.text, pytest.approx(hit.score, abs=1e-4)) == right[hit.id], name
                assert [hit.id for hit in index.search("oak pine", k=3, exact=True)] == best
        except IndexCorruptError as error:
            refused += 1
            assert name not in cached and ("index.sqlite" in str(error) or name.name in str(error)), (name, error)
    assert refused
