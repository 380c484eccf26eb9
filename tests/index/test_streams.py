"""A stream is added batch by batch: what was committed stays, and memory does not grow with its length."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crisp_rag.errors import IndexLockedError, InvalidInputError
from crisp_rag.index import CrispIndex, Passage, streams


def test_a_stream_is_added_as_a_list_would_be(index: CrispIndex, passages: Any, encoder: Any, expected: Any) -> None:
    stored = passages(50)
    committed: list[int] = []
    assert index.add_stream(iter(stored), commit_every=20, on_commit=committed.append) == 50
    assert committed == [20, 40, 50]
    assert list(index.passages()) == stored
    hits = index.search("oak pine", k=50)
    assert [hit.score for hit in hits] == pytest.approx(
        [score for _, score in expected(encoder, "oak pine", stored)], abs=1e-4
    )
    assert index.add_stream([]) == 0


def test_vectors_may_be_an_iterator_beside_it(index: CrispIndex, passages: Any, encoder: Any) -> None:
    stored = passages(50)
    vectors = (encoder.encode_document(passage.text) for passage in stored)
    index.add_stream(iter(stored), vectors=vectors, commit_every=7)
    first = index.search("fir", k=50)
    index.add(stored)
    assert [(hit.id, hit.score) for hit in index.search("fir", k=50)] == [(hit.id, hit.score) for hit in first]


def test_nothing_is_taken_of_a_stream_before_it_is_needed(
    index: CrispIndex, encoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "ENCODED_AT_ONCE", 4)
    ahead = {"passages": 0, "vectors": 0}
    written = 0
    add = index._backend.add

    def counting(blocks: Iterable[np.ndarray], codec: str) -> Any:
        def counted() -> Iterator[np.ndarray]:
            nonlocal written
            for block in blocks:
                yield block
                written += 1

        return add(counted(), codec)

    def passage(number: int) -> Passage:
        ahead["passages"] = max(ahead["passages"], number + 1 - len(index))
        return Passage(str(number), "oak")

    def vector(number: int) -> np.ndarray:
        ahead["vectors"] = max(ahead["vectors"], number + 1 - written)
        return encoder.encode_document("oak")

    monkeypatch.setattr(index._backend, "add", counting)
    index.add_stream(map(passage, range(100)), vectors=map(vector, range(100)), commit_every=20)
    assert len(index) == 100
    assert ahead == {"passages": 20, "vectors": 4}, "the passages of one batch, the vectors of one block"


def test_a_bad_passage_ends_a_stream_and_what_was_committed_stays(index: CrispIndex, passages: Any) -> None:
    stored = passages(50)
    stored[33] = Passage("bad", " ")
    with pytest.raises(InvalidInputError, match=r"'bad'\. The 30 passages before this batch are in the index\.$"):
        index.add_stream(iter(stored), commit_every=10)
    assert list(index.passages()) == stored[:30]
    assert len(list(index.path.rglob("*.7bit"))) == 3


def test_a_stream_that_raises_costs_one_batch(index: CrispIndex, passages: Any) -> None:
    def broken() -> Iterator[Passage]:
        yield from passages(25)
        raise RuntimeError("the line went dead")

    with pytest.raises(RuntimeError, match="went dead"):
        index.add_stream(broken(), commit_every=10)
    assert len(index) == 20


@pytest.mark.parametrize("count", [23, 27])
def test_vectors_that_do_not_match_the_passages_are_an_error(
    index: CrispIndex, passages: Any, encoder: Any, count: int
) -> None:
    with pytest.raises(InvalidInputError, match="no vectors for passage 'p23'" if count < 25 else "more vectors"):
        index.add_stream(passages(25), vectors=[encoder.encode_document("oak")] * count, commit_every=10)
    assert len(index) == (20 if count < 25 else 25)


def test_bad_vectors_are_named_and_their_batch_leaves_no_file(index: CrispIndex, passages: Any) -> None:
    good, bad = np.ones((2, 16)), np.full((2, 16), np.nan)
    with pytest.raises(InvalidInputError, match=r"'p12'.*The 10 passages before"):
        index.add_stream(passages(20), vectors=[good] * 12 + [bad] * 8, commit_every=10)
    assert len(index) == 10 and len(list(index.path.rglob("*.7bit"))) == 1


@pytest.mark.parametrize("commit_every", [2, 3, 100])
def test_an_id_that_comes_again_replaces_what_came_before_wherever_the_batches_end(
    index: CrispIndex, encoder: Any, commit_every: int
) -> None:
    index.add_texts(["cedar"], ids=["a"])
    stream = [Passage("a", "oak"), Passage("b", "pine"), Passage("a", "fir"), Passage("c", "elm"), Passage("b", "ivy")]
    vectors = [encoder.encode_document(passage.text) for passage in stream]
    for given in (None, vectors):
        assert index.add_stream(stream, vectors=given, commit_every=commit_every) == 5
        assert {passage.id: passage.text for passage in index.passages()} == {"a": "fir", "c": "elm", "b": "ivy"}
        for passage in index.passages():
            assert index.search(passage.text, k=1)[0].id == passage.id, "each has its own vectors"


def test_a_writers_filter_binds_a_stream_too(index: CrispIndex) -> None:
    stream = [Passage("a", "oak", {"team": "x"}), Passage("b", "elm", {"team": "y"})]
    with pytest.raises(InvalidInputError, match="'b'"):
        index.add_stream(stream, where={"team": "x"}, commit_every=1)
    assert [passage.id for passage in index.passages()] == ["a"]
    with pytest.raises(InvalidInputError, match=r"taken.*'a'"):
        index.add_stream([Passage("a", "oak", {"team": "y"})], where={"team": "y"})


@pytest.mark.parametrize("commit_every", [0, -1, 1.5, "2"])
def test_how_often_to_commit_is_a_whole_number(index: CrispIndex, commit_every: Any) -> None:
    with pytest.raises(InvalidInputError, match="commit_every"):
        index.add_stream([Passage("a", "oak")], commit_every=commit_every)


def test_no_other_process_writes_in_the_middle_of_a_stream(index: CrispIndex, passages: Any, forked: Any) -> None:
    path, encoder = index.path, index.encoder
    index.close()

    def stream(tell: Any) -> None:
        with CrispIndex.open(path, encoder) as opened:
            opened.add_stream(itertools.cycle(passages(10)), commit_every=10, on_commit=lambda count: tell(str(count)))

    writer = forked(stream)
    assert writer.readline() == "10"
    with CrispIndex.open(path, encoder) as opened:
        for _ in range(20):
            with pytest.raises(IndexLockedError, match=f"process {writer.pid} "):
                opened.add_texts(["oak"])
            assert len(opened.search("oak", k=100)) == 10, "each round takes the place of the one before"
        writer.kill()
        writer.wait()
        opened.add_texts(["oak"])
        assert len(opened) == 11


def anonymous_mib() -> float:
    """Memory of this process that is no file's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


@pytest.mark.parametrize("count", [20_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_the_length_of_a_stream(tmp_path: Path, encoder: Any, forked: Any, count: int) -> None:
    """The places of the passages, 24 bytes each, and what is held for one batch: below 200 MiB for a million."""
    if not Path("/proc/self/status").exists():
        pytest.skip("memory is read from /proc")

    def add(tell: Any) -> None:
        before, most = anonymous_mib(), 0.0

        def look(_: int) -> None:
            nonlocal most
            most = max(most, anonymous_mib() - before)

        vectors = np.random.default_rng(0).normal(size=(64, 4, 16)).astype(np.float32)
        stream = (Passage(f"p{n}", f"oak pine fir {n} " * 8, {"tenant": n % 1000}) for n in range(count))
        with CrispIndex.create(tmp_path / "index", encoder, indexed_fields=["tenant"]) as index:
            index.add_stream(stream, vectors=(vectors[n % 64] for n in range(count)), commit_every=4096, on_commit=look)
            tell(f"{most:.0f}")
            most = 0.0
            index.delete(where={"tenant": {"$lt": 100}})
            index.compact()
            look(0)
            assert len(index) == count * 9 // 10
            tell(f"{most:.0f}")

    code, lines = forked(add).wait()
    assert code == 0, "\n".join(lines)
    print(f"{count} passages: {lines[0]} MiB more while adding, {lines[1]} MiB more after compacting")
    assert int(lines[0]) < (60 if count < 100_000 else 200)
