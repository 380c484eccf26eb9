"""Search is exact: the scores, their order and their number are those of brute force, whatever happened before."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from crisp_rag.index import CrispIndex, Passage, merging, scoring, verify_index

QUERIES = ["oak", "oak pine fir", "alder birch cedar alder", "words nobody stored", "rowan " * 40]


def close_to(hits: list[Any], expected: list[tuple[str, float]]) -> bool:
    """Same length and scores; an id may differ only where scores tie within rounding."""
    scores = dict(expected)
    return len(hits) == len(expected) and all(
        hit.score == pytest.approx(score, abs=1e-4) and scores.get(hit.id, hit.score) == pytest.approx(hit.score, abs=1e-4)
        for hit, (_, score) in zip(hits, expected, strict=True)
    )


def test_scores_equal_brute_force_over_all_passages(index: CrispIndex, passages: Any, encoder: Any, expected: Any) -> None:
    stored = passages(120)
    index.add(stored[:50])
    index.add(stored[50:])
    for query in QUERIES:
        hits = index.search(query, k=200)
        right = dict(expected(encoder, query, stored))
        assert {hit.id for hit in hits} == set(right)
        assert [hit.score for hit in hits] == pytest.approx([right[hit.id] for hit in hits], abs=1e-4)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        assert close_to(index.search(query, k=7), expected(encoder, query, stored)[:7])


def test_scores_are_within_float16_of_the_unrounded_ones(float16_index: CrispIndex, passages: Any, encoder: Any) -> None:
    float16_index.add(passages(40))
    for query in QUERIES:
        words = encoder.encode_query(query)
        for hit in float16_index.search(query, k=40):
            exact = float((words @ encoder.encode_document(hit.text).T).max(axis=1).sum())
            assert hit.score == pytest.approx(exact, abs=len(words) * 2e-3)


@pytest.mark.parametrize("block", [1, 7, 64])
def test_the_size_of_a_block_changes_nothing(
    index: CrispIndex, passages: Any, encoder: Any, expected: Any, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    stored = passages(60)
    index.add(stored)
    index.delete(ids=["p10", "p59"])
    monkeypatch.setattr(scoring, "BLOCK_VECTORS", block)
    left = [passage for passage in stored if passage.id not in ("p10", "p59")]
    for query in QUERIES:
        assert close_to(index.search(query, k=100), expected(encoder, query, left))


def test_a_fixed_number_of_vectors_a_passage_is_scored_the_same_way(float16_index: CrispIndex) -> None:
    random = np.random.default_rng(0)
    vectors = [random.normal(size=(4, 16)).astype(np.float16).astype(np.float32) for _ in range(30)]
    float16_index.add([Passage(str(number), "text") for number in range(30)], vectors=vectors)
    float16_index.delete(ids=["3", "4", "17"])
    query = random.normal(size=(5, 16)).astype(np.float32)
    right = {str(n): float((query @ block.T).max(axis=1).sum()) for n, block in enumerate(vectors) if n not in (3, 4, 17)}
    hits = float16_index.search_vectors([query], k=30)[0]
    assert {hit.id: pytest.approx(hit.score, abs=1e-4) for hit in hits} == right
    assert [hit.id for hit in hits] == sorted(right, key=right.__getitem__, reverse=True)


def test_a_batch_equals_its_queries_one_by_one(index: CrispIndex, passages: Any, encoder: Any) -> None:
    index.add(passages(80))
    queries = QUERIES * 30  # more than are scored at once
    batch = index.search_batch(queries, k=9, where={"even": True})
    assert len(batch) == len(queries)
    every = {query: index.search(query, k=40, where={"even": True}) for query in QUERIES}
    again = index.search_vectors(encoder.encode_query(queries[:5]), k=9, where={"even": True})
    assert len(again) == 5
    for query, hits in [*zip(queries, batch, strict=True), *zip(queries, again, strict=False)]:
        right = {hit.id: pytest.approx(hit.score, abs=1e-4) for hit in every[query]}
        assert {hit.id: hit.score for hit in hits} == {hit.id: right[hit.id] for hit in hits}
        # Passages whose scores differ by rounding alone may change places: the sums are made in another order.
        assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in every[query][:9]], abs=1e-4)


def test_ties_go_by_insertion_order(float16_index: CrispIndex) -> None:
    float16_index.add_texts(["oak"] * 5, ids=list("eabdc"))
    float16_index.add_texts(["oak"], ids=["0"])
    assert [hit.id for hit in float16_index.search("oak", k=10)] == list("eabdc0")
    assert [hit.id for hit in float16_index.search("oak", k=3)] == list("eab")
    float16_index.add_texts(["oak"], ids=["a"])  # replaced, hence the newest
    assert [hit.id for hit in float16_index.search("oak", k=10)] == list("ebdc0a")
    float16_index.compact()
    assert [hit.id for hit in float16_index.search("oak", k=10)] == list("ebdc0a")
    assert [passage.id for passage in float16_index.passages()] == list("ebdc0a")


def test_the_best_hit_comes_first_and_relevance_is_a_share_of_the_best_possible(index: CrispIndex) -> None:
    index.add_texts(["pine fir", "oak elm", "oak"], ids=["a", "b", "c"])
    hits = index.search("oak elm", k=3)
    assert hits[0].id == "b" and hits[0].score == pytest.approx(2.0, abs=2e-3)
    assert hits[0].relevance == pytest.approx(1.0, abs=1e-3)
    assert all(-1.001 <= hit.relevance <= 1.001 for hit in hits)


def test_the_context_is_searched_and_not_shown_as_text(index: CrispIndex) -> None:
    index.add([Passage("a", "pine", context="Oak"), Passage("b", "pine")])
    first, second = index.search("oak", k=2)
    assert (first.id, first.text, first.context) == ("a", "pine", "Oak")
    assert first.score > second.score + 0.1


def test_a_hit_belongs_to_the_caller(index: CrispIndex) -> None:
    index.add_texts(["oak"], ids=["a"], metadatas=[{"tags": ["x"]}])
    hit = index.search("oak")[0]
    hit.metadata["tags"].append("y")
    hit.metadata["new"] = 1
    assert index.search("oak")[0].metadata == {"tags": ["x"]}


def test_k_beyond_the_index_gives_everything(index: CrispIndex, passages: Any) -> None:
    index.add(passages(5))
    assert len(index.search("oak", k=10**9)) == 5


def test_deleting_a_passage_removes_it_from_every_later_search(index: CrispIndex, passages: Any, encoder: Any) -> None:
    stored = passages(30)
    index.add(stored)
    left = [passage.id for passage in stored]
    while left:
        gone = left.pop(len(left) // 2)
        text = index.get([gone])[0].text
        assert index.delete(ids=[gone]) == 1
        assert index.delete(ids=[gone]) == 0
        assert {hit.id for hit in index.search(text, k=50)} == set(left)
        assert index.get([gone]) == [] and len(index) == len(left)
    with CrispIndex.open(index.path, encoder) as again:
        assert again.search("oak") == []


def test_many_small_commits_are_merged_and_dead_vectors_given_back(
    index: CrispIndex, passages: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for passage in passages(60):
        index.add([passage])
    assert len(list(index.path.rglob("*.7bit"))) <= 2 * merging.FAN_IN
    monkeypatch.setattr(merging, "MIN_DEAD_VECTORS", 50)
    before = index.stats().bytes_vectors
    index.delete(where={"number": {"$gte": 20}})
    assert index.stats().bytes_vectors < before / 2
    assert len(index.search("oak", k=100)) == 20


def test_compact_gives_back_all_space_and_changes_no_answer(index: CrispIndex, passages: Any, bytes_a_vector: int) -> None:
    before, after = answers_around_a_compaction(index, passages)
    stats = index.stats()
    assert stats.bytes_vectors == stats.vectors * bytes_a_vector
    assert len(list(index.path.rglob("*.7bit"))) == 1
    for old, new in zip(before, after, strict=True):
        assert close_to(new, [(hit.id, hit.score) for hit in old])
        assert [hit.score for hit in new] == pytest.approx([hit.score for hit in old], abs=1e-5)
    index.delete(where={})
    index.compact()
    assert list(index.path.rglob("*.7bit")) == []
    assert index.search("oak") == []


def test_compact_changes_no_order_where_equal_vectors_are_stored_as_equals(float16_index: CrispIndex, passages: Any) -> None:
    for old, new in zip(*answers_around_a_compaction(float16_index, passages), strict=True):
        assert [hit.id for hit in new] == [hit.id for hit in old]
        assert [hit.score for hit in new] == pytest.approx([hit.score for hit in old], abs=1e-5)


def answers_around_a_compaction(index: CrispIndex, passages: Any) -> tuple[list[Any], list[Any]]:
    index.add(passages(20))
    index.add(passages(20, seed=1))
    index.add(passages(10, seed=2, prefix="q"))
    index.delete(where={"even": True})
    before = [index.search(query, k=30) for query in QUERIES]
    index.compact()
    return before, [index.search(query, k=30) for query in QUERIES]


class LikeADict(RuleBasedStateMachine):
    """Any sequence of changes leaves what a dict and brute force over it would give."""

    encoder: Any = None
    expected: Any = None

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.index = CrispIndex.create(self.folder / "index", self.encoder)
        self.model: dict[str, Passage] = {}

    ids = st.sampled_from([f"id{number}" for number in range(12)])
    texts = st.lists(st.sampled_from(["oak", "pine", "fir", "elm", "ash"]), min_size=1, max_size=6).map(" ".join)
    batches = st.dictionaries(ids, st.tuples(texts, st.integers(0, 3)), max_size=6)

    def _put(self, batch: dict[str, tuple[str, int]]) -> list[Passage]:
        return [Passage(id_, text, {"n": n}) for id_, (text, n) in batch.items()]

    def _remember(self, passages: list[Passage]) -> None:
        for passage in passages:
            self.model.pop(passage.id, None)
            self.model[passage.id] = passage

    @rule(batch=batches)
    def add(self, batch: dict[str, tuple[str, int]]) -> None:
        passages = self._put(batch)
        assert self.index.add(passages) == list(batch)
        self._remember(passages)

    @rule(stream=st.lists(st.tuples(ids, texts, st.integers(0, 3)), max_size=8), commit_every=st.integers(1, 4))
    def add_stream(self, stream: list[tuple[str, str, int]], commit_every: int) -> None:
        passages = [Passage(id_, text, {"n": n}) for id_, text, n in stream]
        assert self.index.add_stream(iter(passages), commit_every=commit_every) == len(passages)
        self._remember(passages)

    @rule()
    def declare(self) -> None:
        self.index.declare(["n"])

    @rule(gone=st.lists(ids, max_size=4), batch=batches)
    def replace(self, gone: list[str], batch: dict[str, tuple[str, int]]) -> None:
        passages = self._put(batch)
        self.index.replace(gone, passages)
        for id_ in gone:
            self.model.pop(id_, None)
        self._remember(passages)

    @rule(gone=st.lists(ids, max_size=4))
    def delete(self, gone: list[str]) -> None:
        there = set(gone) & set(self.model)
        assert self.index.delete(ids=gone) == len(there)
        for id_ in there:
            del self.model[id_]

    @rule(n=st.integers(0, 3))
    def delete_where(self, n: int) -> None:
        there = [id_ for id_, passage in self.model.items() if passage.metadata["n"] == n]
        assert self.index.delete(where={"n": n}) == len(there)
        for id_ in there:
            del self.model[id_]

    @precondition(lambda self: self.model)
    @rule(batch=batches)
    def a_bad_batch(self, batch: dict[str, tuple[str, int]]) -> None:
        with pytest.raises(ValueError):
            self.index.add([*self._put(batch), Passage("bad", " ")])

    @rule()
    def compact(self) -> None:
        self.index.compact()

    @rule()
    def reopen(self) -> None:
        self.index.close()
        assert verify_index(self.folder / "index").sound
        self.index = CrispIndex.open(self.folder / "index", self.encoder)

    @rule(query=texts, k=st.integers(1, 15), n=st.one_of(st.none(), st.integers(0, 3)))
    def search(self, query: str, k: int, n: int | None) -> None:
        where = None if n is None else {"n": n}
        kept = [passage for passage in self.model.values() if n is None or passage.metadata["n"] == n]
        assert close_to(self.index.search(query, k, where), type(self).expected(self.encoder, query, kept)[:k])

    @invariant()
    def holds_what_the_dict_holds(self) -> None:
        assert len(self.index) == len(self.model)
        assert list(self.index.passages()) == list(self.model.values())
        assert self.index.get([f"id{n}" for n in range(12)]) == [
            self.model[f"id{n}"] for n in range(12) if f"id{n}" in self.model
        ]

    def teardown(self) -> None:
        self.index.close()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.mark.parametrize("examples", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_any_sequence_of_changes_equals_a_dict_with_brute_force(
    encoder: Any, expected: Any, monkeypatch: pytest.MonkeyPatch, examples: int
) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    monkeypatch.setattr(merging, "FAN_IN", 3)
    monkeypatch.setattr(merging, "MIN_DEAD_VECTORS", 10)
    LikeADict.encoder, LikeADict.expected = encoder, staticmethod(expected)
    run_state_machine_as_test(LikeADict, settings=settings(max_examples=examples, stateful_step_count=20, deadline=None))


def test_no_two_hits_share_anything_that_a_caller_may_change(index: CrispIndex) -> None:
    index.add_texts(["oak"], metadatas=[{"tags": ["a"], "deep": {"er": [1]}}])
    (first,), (second,) = index.search_batch(["oak", "oak"])
    first.metadata["tags"].append("b")
    first.metadata["deep"]["er"].clear()
    assert second.metadata == {"tags": ["a"], "deep": {"er": [1]}}


def test_a_small_index_is_decoded_once_and_not_for_every_search(
    tmp_path: Path, encoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from crisp_rag.index.codecs.rotation import RotatedCodec

    decoded: list[int] = []
    decode = RotatedCodec.decode
    monkeypatch.setattr(RotatedCodec, "decode", lambda self, planes: decoded.append(len(planes[0])) or decode(self, planes))
    with CrispIndex.create(tmp_path / "five", encoder, codec="5bit") as index:
        index.add_texts([f"word{n} shared" for n in range(20)])
        first = index.search("word3 shared", k=20)
        assert decoded == [index.stats().vectors]
        assert index.search("word3 shared", k=20) == first
        index.add_texts(["word3 again"])
        assert len(index.search("word3 shared", k=21)) == 21
        assert len(decoded) == 2  # the new segment alone
