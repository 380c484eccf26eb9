"""Indexes of format 1 open, work and are rewritten by compact; codecs can be changed; budgets are kept."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crisp_rag.errors import IndexCorruptError, InvalidInputError
from crisp_rag.index import CrispIndex, Passage, codecs, segments
from crisp_rag.index.codecs import CODECS, codec_for
from crisp_rag.index.segments import SegmentInfo, map_segment, write_segment

QUERIES = ["oak", "oak pine fir", "alder birch cedar alder"]


def make_format_1(path: Path) -> None:
    """Take from a float16 index what format 1 did not have."""
    with sqlite3.connect(path / "index.sqlite") as connection:
        connection.execute("ALTER TABLE segments DROP COLUMN codec")
        connection.execute("UPDATE meta SET value = '1' WHERE key = 'format_version'")
        connection.execute("DELETE FROM meta WHERE key = 'codec'")
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('dtype', '<f2')")
    connection.close()


def answers(index: CrispIndex) -> list[list[tuple[str, float]]]:
    return [[(hit.id, round(hit.score, 3)) for hit in index.search(query, k=30)] for query in QUERIES]


@pytest.fixture
def old(float16_index: CrispIndex, passages: Any) -> Path:
    """A closed index of format 1."""
    float16_index.add(passages(40))
    float16_index.delete(ids=["p3"])
    float16_index.close()
    make_format_1(float16_index.path)
    return float16_index.path


def test_an_index_of_format_1_opens_and_can_be_written_to(old: Path, encoder: Any, passages: Any) -> None:
    with CrispIndex.open(old, encoder) as index:
        assert (index.stats().format_version, index.stats().codec) == (1, "float16")
        before = answers(index)
        index.add(passages(10, seed=1, prefix="q"))
        assert index.stats().format_version == 1, "older versions can still read it"
        index.delete(ids=[f"q{n}" for n in range(10)])
        assert answers(index) == before


def test_compact_rewrites_format_1_and_changes_no_answer(old: Path, encoder: Any, passages: Any) -> None:
    with CrispIndex.open(old, encoder) as index:
        before = answers(index)
        index.compact()
        assert (index.stats().format_version, index.stats().codec) == (2, "float16")
        assert answers(index) == before
        index.add(passages(5, seed=1, prefix="q"))
    with CrispIndex.open(old, encoder) as again:
        assert len(again) == 44 and again.stats().format_version == 2


def test_an_empty_index_of_format_1_is_rewritten_too(float16_index: CrispIndex, encoder: Any) -> None:
    float16_index.close()
    make_format_1(float16_index.path)
    with CrispIndex.open(float16_index.path, encoder) as again:
        again.compact(codec="1bit")
        again.add_texts(["oak"])
        assert (again.stats().format_version, again.stats().codec, again.stats().bytes_vectors) == (2, "1bit", 6)


@pytest.mark.parametrize("codec", CODECS)
def test_compact_changes_the_codec(index: CrispIndex, passages: Any, encoder: Any, codec: str) -> None:
    index.add(passages(30))
    vectors = index.stats().vectors
    index.compact(codec=codec)
    assert index.stats().codec == codec
    assert index.stats().bytes_vectors == vectors * sum(codec_for(codec, 16).planes)
    index.add(passages(5, seed=1, prefix="q"))  # another open index learns of it, too
    with CrispIndex.open(index.path, encoder) as again:
        assert {segment.codec for segment in again._store.segments()} == {codec}
        assert again.search("oak")[0].score == pytest.approx(index.search("oak")[0].score)


def test_compacting_again_and_again_loses_nothing_more(tmp_path: Path, encoder: Any, passages: Any) -> None:
    with CrispIndex.create(tmp_path / "index", encoder, codec="1bit") as index:
        index.add(passages(30))
        before = answers(index)
        for gone in range(3):
            index.delete(ids=[f"p{gone}"])
            index.compact()
        left = [[pair for pair in line if pair[0] not in ("p0", "p1", "p2")] for line in before]
        assert [sorted(line) for line in answers(index)] == [sorted(line) for line in left]


@pytest.mark.parametrize("codec", CODECS)
def test_scores_are_those_of_the_decoded_vectors(tmp_path: Path, encoder: Any, passages: Any, codec: str) -> None:
    stored = passages(40)
    coding = codec_for(codec, 16)
    with CrispIndex.create(tmp_path / "index", encoder, codec=codec) as index:
        index.add(stored[:25])
        index.add(stored[25:])
        for query in QUERIES:
            for hit in index.search(query, k=40):
                back = coding.turn_back(coding.decode(coding.encode(encoder.encode_document(hit.text))))
                assert hit.score == pytest.approx(float((encoder.encode_query(query) @ back.T).max(axis=1).sum()), abs=2e-3)


@pytest.mark.parametrize(("codec", "most"), [("5bit", 8_000), ("1bit", 1_700)])
def test_a_passage_of_32_vectors_of_384_dims_keeps_its_budget(
    tmp_path: Path, make_encoder: Any, codec: str, most: int
) -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(20, 32, 384)).astype(np.float32)
    with CrispIndex.create(tmp_path / "index", make_encoder(dim=384), codec=codec) as index:
        index.add([Passage(str(n), "text") for n in range(20)], vectors=list(vectors))
        assert index.stats().bytes_vectors <= 20 * most


def test_an_index_that_grows_is_narrowed_and_answers_alike_all_along(
    tmp_path: Path, encoder: Any, passages: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codecs, "WIDE_VECTORS", 250)
    stored = passages(60)
    with CrispIndex.create(tmp_path / "index", encoder) as index:
        assert (index.stats().codec, index.stats().codecs) == ("auto", ())
        for first, there in ((0, ("7bit",)), (20, ("7bit",)), (40, ("5bit", "7bit"))):
            index.add(stored[first : first + 20])
            assert index.stats().codecs == there
            assert_scores(index, encoder, stored[: first + 20])
        index.compact()
        assert (index.stats().codec, index.stats().codecs) == ("auto", ("5bit",))
        assert_scores(index, encoder, stored)
        index.delete([passage.id for passage in stored[5:]])
        index.add(stored[5:6])
        assert index.stats().codecs == ("5bit",)
    with CrispIndex.open(tmp_path / "index", encoder) as index:
        index.compact()
        (file,) = (tmp_path / "index" / "segments").glob("*.5bit")
        index.compact()
        assert file.exists(), "there was nothing to do"
        index.compact(codec="4bit")
        assert (index.stats().codec, index.stats().codecs) == ("4bit", ("4bit",))
        index.compact(codec="auto")
        assert (index.stats().codec, index.stats().codecs) == ("auto", ("7bit",))


def assert_scores(index: CrispIndex, encoder: Any, stored: list[Passage]) -> None:
    for query in QUERIES:
        words = encoder.encode_query(query)
        hits = {hit.id: hit.score for hit in index.search(query, k=len(stored))}
        right = {p.id: float((words @ encoder.encode_document(p.text).T).max(axis=1).sum()) for p in stored}
        assert hits == pytest.approx(right, rel=0.05, abs=0.1)


def test_every_byte_of_a_coded_segment_is_covered_by_its_checksum(tmp_path: Path, encoder: Any) -> None:
    with CrispIndex.create(tmp_path / "index", encoder) as index:
        index.add_texts(["oak pine fir"])
    (file,) = (tmp_path / "index" / "segments").iterdir()
    data = file.read_bytes()
    assert file.suffix == ".7bit" and len(data) == 3 * 18
    for at in range(len(data)):
        file.write_bytes(data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :])
        with pytest.raises(IndexCorruptError, match=file.name):
            CrispIndex.open(tmp_path / "index", encoder)


def test_a_codec_that_does_not_exist_is_refused_before_anything_is_made(tmp_path: Path, index: CrispIndex) -> None:
    with pytest.raises(InvalidInputError, match="no codec 'zip'"):
        CrispIndex.create(tmp_path / "new", index.encoder, codec="zip")
    assert not (tmp_path / "new").exists()
    with pytest.raises(InvalidInputError, match="no codec 'zip'"):
        index.compact(codec="zip")


def test_a_segment_of_an_unknown_codec_is_an_altered_index(index: CrispIndex, encoder: Any) -> None:
    index.add_texts(["oak"])
    index.close()
    with sqlite3.connect(index.path / "index.sqlite") as connection:
        connection.execute("UPDATE segments SET codec = 'zip'")
    connection.close()
    with pytest.raises(IndexCorruptError, match=r"index\.sqlite was altered"):
        CrispIndex.open(index.path, encoder)


def mapped_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssFile")) / 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is told by Linux alone")
def test_a_segment_that_was_read_through_gives_its_memory_back(tmp_path: Path) -> None:
    coding, random = codec_for("float16", 1024), np.random.default_rng(0)
    vectors = random.normal(size=(16_384, 1024)).astype(np.float16)
    written = write_segment(tmp_path, [coding.encode(vectors)], coding)
    segment = map_segment(tmp_path, SegmentInfo(1, *written), 1024)
    before = mapped_mib()
    assert (segment.codec.decode(segment[:]) == vectors).all()
    assert mapped_mib() > before + 28
    segment.forget()
    assert mapped_mib() < before + 4
    assert (segment.codec.decode(segment[:]) == vectors).all()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is told by Linux alone")
def test_what_is_read_again_and_again_with_all_bits_does_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "_READ_AT_MOST", 1024)
    coding, random = codec_for("5bit", 1024), np.random.default_rng(0)
    vectors = random.normal(size=(40_960, 1024)).astype(np.float32)
    segment = map_segment(tmp_path, SegmentInfo(1, *write_segment(tmp_path, [coding.encode(vectors)], coding)), 1024)
    segment.planes[0].max()
    before = mapped_mib()
    right = [plane.copy() for plane in segment.planes]
    segment.forget(first=2)
    for first in range(0, 40_960, 128):
        part = np.arange(first, first + 128)
        assert all((got == plane[part]).all() for got, plane in zip(segment[part], right, strict=True))
    assert mapped_mib() < before + 4
