"""Searching by candidates: nothing that is gone comes back, nothing new is missed, and the cache is only a cache."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crisp_rag.errors import IndexLockedError, InvalidInputError
from crisp_rag.index import CrispIndex, Passage, planner
from crisp_rag.index.candidates import cache as cache_module
from crisp_rag.index.candidates import calibration
from crisp_rag.index.candidates.clusters import train
from crisp_rag.index.candidates.files import CURRENT, _digest
from crisp_rag.index.candidates.lists import EFFORTS, CandidateLists, Effort, _best, _shares, invert
from crisp_rag.index.sketch import eight_bits

EVERYTHING = Effort(10**6, 10**6, 10**6, 10**6)
RANDOM = np.random.default_rng(5)
TOPICS = RANDOM.normal(size=(40, 16)).astype(np.float32)


def made(count: int, seed: int = 0) -> list[np.ndarray]:
    """Passages of 3 to 6 vectors near some of 40 topics."""
    random = np.random.default_rng(seed)
    return [
        (TOPICS[random.integers(0, 40, size=random.integers(3, 7))] + 0.4 * random.normal(size=(1, 16))).astype(np.float32)
        for _ in range(count)
    ]


def passages(count: int, first: int = 0) -> list[Passage]:
    return [Passage(f"p{n}", "text", {"n": n, "hundredth": n % 100}) for n in range(first, first + count)]


QUERIES = [query + 0.2 for query in made(12, seed=99)]


@pytest.fixture(params=["5bit", "4bit", "7bit", "1bit", "float16"])
def large(request: Any, tmp_path: Path, encoder: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[CrispIndex]:
    """An index of 600 passages that counts as a large one, with its lists."""
    monkeypatch.setattr(planner, "EXACT_VECTORS", 100)
    monkeypatch.setattr(calibration, "QUERIES", 16)
    with CrispIndex.create(tmp_path / "index", encoder, codec=request.param) as index:
        index.add(passages(600), vectors=made(600))
        index.prepare()
        yield index


def ids(hits: Any) -> list[str]:
    return [hit.id for hit in hits]


def test_walking_all_lists_equals_scoring_everything(large: CrispIndex) -> None:
    searcher = large._backend._candidates.searcher(large._current())
    for query in QUERIES:
        exact = large.search_vectors([query], k=20, exact=True)[0]
        found, looked_at, scored = searcher.search_with(query, 20, EVERYTHING)
        assert looked_at == scored == 600
        assert [score for _, score in found] == pytest.approx([hit.score for hit in exact], abs=1e-4)


def test_a_search_finds_nearly_all_of_the_best_and_says_how(large: CrispIndex) -> None:
    exact = large.search_vectors(QUERIES, k=5, exact=True)
    found = large.search_vectors(QUERIES, k=5, target_recall=0.99)
    shares = [len(set(ids(some)) & set(ids(right))) / 5 for some, right in zip(found, exact, strict=True)]
    assert np.mean(shares) > 0.95
    for hits, right in zip(found, exact, strict=True):
        assert right.search.method == "exact" and right.search.scored == right.search.passages == 600
        assert hits.search.passages == 600
        if large.stats().codec == "float16":  # has no sign plane: all of a shortlist this long are scored
            assert hits.search.method == "exact" and hits.search.scored == 600
        else:
            assert hits.search.method == "approximate" and hits.search.scored < 600
            assert hits.search.target_recall == 0.99 and 0 < hits.search.measured_recall <= 1


def test_lists_are_walked_whatever_the_codec(large: CrispIndex) -> None:
    searcher = large._backend._candidates.searcher(large._current())
    shares = []
    for query, right in zip(QUERIES, large.search_vectors(QUERIES, k=5, exact=True), strict=True):
        found, looked_at, scored = searcher.search_with(query, 5, Effort(128, 100, 60, 30))
        assert 60 < looked_at <= 100 and (scored == 30 if large.stats().codec == "float16" else 15 <= scored <= 60)
        shares.append(len({row for row, _ in found} & {row for row, _ in searcher.search_with(query, 5, EVERYTHING)[0]}) / 5)
        assert found[0][1] <= right[0].score + 1e-4
    assert np.mean(shares) > 0.8


def test_a_look_at_all_vectors_of_the_best_passages_finds_what_the_walk_did_not_meet(large: CrispIndex) -> None:
    if large.stats().codec == "float16":
        pytest.skip("has no sign plane to look at")
    searcher = large._backend._candidates.searcher(large._current())
    right = [set(ids(hits)) for hits in large.search_vectors(QUERIES, k=2, exact=True)]
    rows = {f"p{n}": row for n, row in enumerate(large._current().flat.rows.tolist())}

    def found(effort: Effort) -> int:
        hits = [searcher.search_with(query, 2, effort)[0] for query in QUERIES]
        return sum(
            len({row for row, _ in some} & {rows[id_] for id_ in best}) for some, best in zip(hits, right, strict=True)
        )

    without, with_it = found(Effort(6, 200, 8, 8)), found(Effort(6, 200, 60, 8))
    assert with_it > without


def test_ties_at_the_cut_of_a_shortlist_take_no_better_passages_place() -> None:
    passages = np.arange(1000, dtype=np.int32)
    gains = np.repeat(np.float32([0.5, 0.75, 1.0]), [900, 60, 40])
    for wanted in (20, 50, 300):
        best = _best(passages, gains, np.array([1000]), wanted, np.zeros(1000, dtype=np.float32))
        assert len(best) == wanted and (np.diff(best) > 0).all()
        assert gains[best].sum() == np.sort(gains)[-wanted:].sum()


def test_so_many_are_scored_as_may_be_among_the_best(large: CrispIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    if large.stats().codec == "float16":
        pytest.skip("has no sign plane to look at")
    searcher = large._backend._candidates.searcher(large._current())
    right = [{row for row, _ in searcher.search_with(query, 5, EVERYTHING)[0]} for query in QUERIES]

    def missed_and_scored() -> tuple[int, list[int]]:
        found = [searcher.search_with(query, 5, Effort(10**6, 10**6, 10**6, 20)) for query in QUERIES]
        missed = [best - {row for row, _ in hits} for best, (hits, _, _) in zip(right, found, strict=True)]
        return sum(map(len, missed)), [scored for _, _, scored in found]

    missed, scored = missed_and_scored()
    monkeypatch.setattr("crisp_rag.index.candidates.search._SURE", -np.inf)
    missed_by_ten, ten = missed_and_scored()
    assert ten == [10] * len(QUERIES)
    if large.stats().codec == "1bit":  # whose looks are scores, but for the rounding of the query
        assert missed == 0 and max(scored) <= 20
    else:
        assert missed <= 4 and missed < missed_by_ten / 3
        assert 10 < np.median(scored) < 200 and len(set(scored)) > 1


def test_scores_are_those_of_an_exact_search(large: CrispIndex) -> None:
    right = {hit.id: hit.score for hit in large.search_vectors(QUERIES[:1], k=600)[0]}
    for hit in large.search_vectors(QUERIES[:1], k=5)[0]:
        assert hit.score == pytest.approx(right[hit.id], abs=1e-4)


def test_a_lower_target_does_less(large: CrispIndex) -> None:
    lists = large._backend._candidates._lists(10**9)
    assert lists is not None and len(lists.recalls) == len(EFFORTS)
    assert list(lists.recalls) == sorted(lists.recalls)
    efforts = [lists.effort(target)[0].shortlist for target in (0.1, 0.9, 0.99)]
    assert efforts == sorted(efforts) and efforts[0] == EFFORTS[0].shortlist


def test_deleted_and_replaced_passages_never_come_back(large: CrispIndex) -> None:
    best = ids(large.search_vectors(QUERIES[:1], k=5)[0])
    large.delete(ids=best[:2])
    large.add([Passage(best[2], "far away")], vectors=[-10 * QUERIES[0][:1]])
    hits = large.search_vectors(QUERIES[:1], k=40)[0]
    assert not set(best[:3]) & set(ids(hits))
    assert set(best[3:]) <= set(ids(hits))
    assert hits.search.passages == 598


def test_what_is_added_is_found_at_once(large: CrispIndex) -> None:
    for number, query in enumerate(QUERIES[:4]):
        large.add([Passage(f"new{number}", "text")], vectors=[query * 2])
        hits = large.search_vectors([query], k=3)[0]
        assert hits[0].id == f"new{number}" and hits.search.passages == 601 + number
    assert large.stats().passages_in_lists == 600


def test_compaction_keeps_the_lists_useful(large: CrispIndex) -> None:
    before = [ids(hits) for hits in large.search_vectors(QUERIES, k=5)]
    large.delete(where={"n": {"$gte": 590}})
    large.compact()
    assert large.stats().passages_in_lists == 590
    gone = {f"p{n}" for n in range(590, 600)}
    for old, hits in zip(before, large.search_vectors(QUERIES, k=5), strict=True):
        assert set(old) - gone <= set(ids(hits))


def test_a_filter_that_keeps_few_gives_k(large: CrispIndex) -> None:
    for where, there in (({"hundredth": 7}, 6), ({"n": {"$lt": 30}}, 30), ({"n": {"$lt": 300}}, 300), ({"n": -1}, 0)):
        exact = large.search_vectors(QUERIES, k=10, where=where, exact=True)
        for hits, right in zip(large.search_vectors(QUERIES, k=10, where=where), exact, strict=True):
            assert len(hits) == min(10, there) == len(right)
            assert hits.search.passages == there
            if there <= 30:
                assert ids(hits) == ids(right)
    large.delete(where={"n": {"$lt": 20}})
    assert len(large.search_vectors(QUERIES[:1], k=10, where={"n": {"$lt": 30}})[0]) == 10


def test_a_filter_narrows_before_the_lists_are_cut(large: CrispIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    """The passages that the filter keeps are the farthest from the query: no list that is walked holds them."""
    query = QUERIES[0]
    worst = ids(large.search_vectors([query], k=600)[0])[-60:]
    where = {"n": {"$in": [int(id_[1:]) for id_ in worst]}}
    monkeypatch.setattr("crisp_rag.index.candidates.lists.EFFORTS", (Effort(1, 4, 4, 4),) * len(EFFORTS))
    hits = large.search_vectors([query], k=10, where=where)[0]
    assert len(hits) == 10 and set(ids(hits)) <= set(worst)


def test_k_beyond_a_quarter_is_exact(large: CrispIndex) -> None:
    hits = large.search_vectors(QUERIES[:1], k=10**9)[0]
    assert len(hits) == 600 and hits.search.method == "exact"


def test_a_batch_equals_its_queries_one_by_one(large: CrispIndex) -> None:
    for query, hits in zip(QUERIES, large.search_vectors(QUERIES, k=5), strict=True):
        assert ids(hits) == ids(large.search_vectors([query], k=5)[0])


@pytest.mark.parametrize("harm", ["gone", "cut", "altered", "no json", "another kind"])
def test_a_damaged_cache_changes_no_answer_and_is_made_anew(large: CrispIndex, encoder: Any, harm: str) -> None:
    exact = [ids(hits) for hits in large.search_vectors(QUERIES, k=5, exact=True)]
    folder = large.path / "candidates"
    (lists,) = folder.glob("*.lists")
    data = lists.read_bytes()
    if harm == "gone":
        lists.unlink()
    elif harm == "cut":
        lists.write_bytes(data[:-1])
    elif harm == "altered":
        lists.write_bytes(data[:500] + bytes([data[500] ^ 1]) + data[501:])
    elif harm == "no json":
        (folder / CURRENT).write_text("{")
    else:
        said = json.loads((folder / CURRENT).read_text())
        said |= {"kind": said["kind"] - 1}
        said["checksum_of_this"] = _digest({key: value for key, value in said.items() if key != "checksum_of_this"})
        (folder / CURRENT).write_text(json.dumps(said))
    with CrispIndex.open(large.path, encoder) as index:
        assert index.stats().passages_in_lists == 0
        hits = index.search_vectors(QUERIES, k=5)
        shares = [len(set(ids(some)) & set(right)) / 5 for some, right in zip(hits, exact, strict=True)]
        assert np.mean(shares) > 0.95
        index._backend.wait()
        assert index.stats().passages_in_lists == 600
        assert len(list(folder.glob("*.lists"))) == 1


def test_lists_are_made_in_the_background_when_the_index_has_outgrown_them(large: CrispIndex) -> None:
    large.add(passages(100, first=600), vectors=made(100, seed=1))
    large.search_vectors(QUERIES[:1])
    large._backend.wait()
    assert large.stats().passages_in_lists == 600, "the lists miss a seventh"
    large.add(passages(100, first=700), vectors=made(100, seed=2))
    large.search_vectors(QUERIES[:1])
    large._backend.wait()
    assert large.stats().passages_in_lists == 800, "they missed a quarter"


def test_readers_go_on_while_lists_are_made(large: CrispIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    going_on, may_end = threading.Event(), threading.Event()
    assign = cache_module.Clusters.assign

    def slow(self: Any, vectors: np.ndarray) -> np.ndarray:
        going_on.set()
        assert may_end.wait(20)
        return assign(self, vectors)

    monkeypatch.setattr(cache_module.Clusters, "assign", slow)
    large.add(passages(300, first=600), vectors=made(300, seed=1))
    large.search_vectors(QUERIES[:1])
    assert going_on.wait(20)
    assert len(large.search_vectors(QUERIES[:1], k=5)[0]) == 5
    assert large.delete(ids=["p600"]) == 1
    with pytest.raises(IndexLockedError, match="prepared by another"):
        large.prepare()
    may_end.set()
    large._backend.wait()
    assert large.stats().passages_in_lists == 899
    assert "p600" not in ids(large.search_vectors(QUERIES[:1], k=100)[0])


def test_an_index_that_is_closed_stops_making_lists(large: CrispIndex) -> None:
    large.add(passages(300, first=600), vectors=made(300, seed=1))
    large.search_vectors(QUERIES[:1])
    large.close()
    large._backend.wait()


def test_a_program_may_end_while_lists_are_made(large: CrispIndex, children: Any) -> None:
    large.delete(where={"n": {"$lt": 300}})
    large.close()
    program = """
    import numpy as np
    from crisp_rag.index import planner
    planner.EXACT_VECTORS = 100
    index = CrispIndex.open(path, encoder)
    print(len(index.search_vectors([np.ones((2, 16))])[0]))
    """
    assert children.run(large.path, program) == "10"


def test_copies_leave_the_cache_behind_and_are_copies_still(large: CrispIndex, encoder: Any, tmp_path: Path) -> None:
    large.copy_to(tmp_path / "copy")
    with CrispIndex.open(tmp_path / "copy", encoder) as copy:
        assert len(copy.search_vectors(QUERIES, k=5)[0]) == 5
        copy._backend.wait()
    large.copy_to(tmp_path / "copy")


def test_a_small_index_is_searched_exactly_and_makes_no_cache(index: CrispIndex) -> None:
    index.add(passages(50), vectors=made(50))
    assert index.search_vectors(QUERIES[:1])[0].search.method == "exact"
    assert index.stats().search == "exact" and not (index.path / "candidates").exists()
    index.prepare()
    assert index.stats().passages_in_lists == 50 and index.search_vectors(QUERIES[:1])[0].search.method == "exact"


@pytest.mark.parametrize("target", [0, -1, 1.01, "much", True, float("nan")])
def test_a_target_that_is_no_share_is_refused(index: CrispIndex, target: Any) -> None:
    with pytest.raises(InvalidInputError, match="target_recall"):
        index.search("oak", target_recall=target)


def test_methods_follow_size_k_and_the_users_word() -> None:
    large, many = 10**7, 10**6
    assert planner.method_for(large, many, 10) == "approximate"
    assert planner.method_for(planner.EXACT_VECTORS, many, 10) == "exact"
    assert planner.method_for(large, many, 10, exact=True) == "exact"
    assert planner.method_for(large, many, 10, target_recall=1) == "exact"
    assert planner.method_for(large, 41, 10) == "approximate"
    assert planner.method_for(large, 40, 10) == "exact"


def test_lists_hold_each_vector_once_and_in_order() -> None:
    codes, passages, numbers = (
        np.array([1, 0, 1, 1, 3], np.int32),
        np.array([1, 1, 0, 0, 0], np.int32),
        np.array([0, 1, 0, 1, 300]),
    )
    borders, listed, own = invert(codes, passages, numbers, 4)
    assert borders.tolist() == [0, 1, 4, 4, 5]
    assert listed.tolist() == [1, 0, 0, 1, 0]
    assert own.tolist() == [1, 0, 1, 0, 300] and own.dtype == np.uint16
    assert invert(codes, passages, np.minimum(numbers, 255), 4)[2].dtype == np.uint8


def test_a_walk_gives_the_vectors_that_it_met_of_the_best_passages() -> None:
    """Three clusters on the axes; a query vector near the first and one between the first two."""
    axes, steps = eight_bits(np.eye(3, dtype=np.float32))
    codes = np.array([0, 1, 0, 1, 2, 2], np.int32)
    passages, numbers = np.array([0, 0, 1, 2, 2, 3], np.int32), np.array([0, 1, 0, 0, 1, 0])
    lists = CandidateLists(np.arange(4), axes, steps, *invert(codes, passages, numbers, 3), "float16")
    query = np.array([[1, 0.1, 0], [0.6, 0.8, 0]], np.float32)
    met = lists.walk(query, Effort(2, 2, 2, 2))
    assert list(zip(met.passages.tolist(), met.numbers.tolist())) == [(0, 0), (0, 1), (1, 0)]
    assert met.floors == pytest.approx([0.1, 0.6], abs=0.01)
    without = lists.walk(query, Effort(2, 2, 2, 2), lambda positions: positions != 0)
    assert list(zip(without.passages.tolist(), without.numbers.tolist())) == [(1, 0), (2, 0)]
    assert len(lists.walk(query, Effort(2, 2, 2, 2), lambda positions: positions < 0).passages) == 0


def test_query_vectors_that_weigh_more_walk_more_lists() -> None:
    axes = np.eye(4, dtype=np.float32)
    assert _shares(axes, 10, 1000).tolist() == [10, 10, 10, 10]
    shares = _shares(axes * np.array([[3], [2], [1], [0]], np.float32), 14, 1000)
    assert shares.tolist() == [36, 16, 4, 1], "as the squares of their lengths, and one at least"
    assert _shares(axes * np.array([[3], [2], [1], [0]], np.float32), 14, 20).tolist() == [20, 16, 4, 1], (
        "no more than there are"
    )
    assert _shares(np.zeros((2, 4), np.float32), 5, 3).tolist() == [3, 3]


def test_vectors_go_to_their_nearest_cluster() -> None:
    random = np.random.default_rng(0)
    centers = random.normal(size=(30, 8)).astype(np.float32) * 5
    sample = np.repeat(centers, 40, axis=0) + random.normal(size=(1200, 8)).astype(np.float32) * 0.05
    clusters = train(sample, 64)
    near = clusters.centroids[clusters.assign(sample)]
    assert np.linalg.norm(near - sample, axis=1).max() < 1


def test_copies_of_where_a_query_was_made_count_for_nothing(
    tmp_path: Path, encoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each passage lies there twelve times: what finds those alone would seem to find all."""
    monkeypatch.setattr(planner, "EXACT_VECTORS", 100)
    wanted: list[np.ndarray] = []
    measure = calibration.measure

    def watched(queries: Any, passages: int, vectors_of: Any, truth: Any, answer: Any) -> Any:
        def answered(query: np.ndarray, k: int, effort: Effort, others: np.ndarray) -> np.ndarray:
            wanted.append(others)
            return answer(query, k, effort, others)

        return measure(queries, passages, vectors_of, truth, answered)

    monkeypatch.setattr(calibration, "measure", watched)
    monkeypatch.setattr(calibration, "QUERIES", 8)
    with CrispIndex.create(tmp_path / "index", encoder) as index:
        index.add(passages(600), vectors=made(50) * 12)
        index.prepare()
    assert len(wanted) == 8 * len(EFFORTS)
    for others in wanted:
        held_out = np.bincount(np.setdiff1d(np.arange(600), others) % 50)
        assert set(held_out.tolist()) == {0, 12}, "all copies of a passage, and of those that are like it"
