"""Finding passages: BM25 beside the index, ranking again, filters before every cut."""

from __future__ import annotations

import pytest

from crisp_rag.errors import InvalidInputError
from crisp_rag.index import CrispIndex, Passage
from crisp_rag.pipelines.answer import ask
from crisp_rag.pipelines.retrieval import fuse, retrieve

TEXTS = ["Refunds take five days.", "Parcels abroad take nine days.", "The office lies in Oslo.", "Dogs are welcome."]


@pytest.fixture
def index(tmp_path, words):
    with CrispIndex.create(tmp_path / "x.crisp", words) as made:
        made.add([Passage(f"p{n}", text, {"even": n % 2 == 0}) for n, text in enumerate(TEXTS)])
        yield made


def test_fusion_adds_the_reciprocal_ranks():
    assert fuse([["a", "b"], ["b", "c"]]) == [
        ("b", pytest.approx(1 / 62 + 1 / 61)), ("a", pytest.approx(1 / 61)), ("c", pytest.approx(1 / 62)),
    ]  # fmt: skip


def test_plain_retrieval_is_the_indexs_own(index):
    assert retrieve(index, "refunds", 2) == index.search("refunds", 2)


def test_hybrid_search_finds_what_either_ranking_has(index, monkeypatch):
    pytest.importorskip("bm25s")
    original = index.search
    # The index's own ranking misses it: BM25 alone brings it in, with the relevance that the index would have given.
    monkeypatch.setattr(index, "search", lambda *args: [hit for hit in original(*args) if hit.id != "p2"])
    hits = retrieve(index, "the offices of oslo", 4, hybrid=True)
    found = {hit.id: hit for hit in hits}
    expected = {hit.id: hit.relevance for hit in original("the offices of oslo", 4)}
    assert found["p2"].relevance == pytest.approx(expected["p2"], abs=1e-3)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_a_filter_holds_for_both_rankings(index):
    pytest.importorskip("bm25s")
    hits = retrieve(index, "take days", 4, {"even": False}, hybrid=True)
    assert {hit.id for hit in hits} == {"p1", "p3"}


def test_hybrid_search_sees_what_was_added_and_deleted_since(index):
    pytest.importorskip("bm25s")
    retrieve(index, "cats", 4, hybrid=True)
    index.add([Passage("cat", "Cats stay outside.")])
    index.delete(["p0"])
    hits = retrieve(index, "cats outside", 5, hybrid=True)
    assert hits[0].id == "cat" and "p0" not in {hit.id for hit in hits}


def test_a_question_without_a_known_word_falls_back_to_the_index(index):
    pytest.importorskip("bm25s")
    assert len(retrieve(index, "zzz", 2, hybrid=True)) == 2


def test_reranking_orders_the_pool_anew_and_keeps_relevance(index):
    class Backwards:
        def rank(self, query, texts):
            return [(number, float(number), 0.0) for number in reversed(range(len(texts)))]

    plain = index.search("refunds take days", 4)
    hits = retrieve(index, "refunds take days", 2, rerank=Backwards(), pool=4)
    assert [hit.id for hit in hits] == [hit.id for hit in reversed(plain)][:2]
    assert [hit.relevance for hit in hits] == [hit.relevance for hit in reversed(plain)][:2]


def test_a_cross_encoders_rows_are_understood(index):
    class CrossEncoder:
        def rank(self, query, documents):
            return [{"corpus_id": 1, "score": 0.9}, {"corpus_id": 0, "score": 0.1}]

    plain = index.search("refunds take days", 2)
    hits = retrieve(index, "refunds take days", 2, rerank=CrossEncoder(), pool=2)
    assert [hit.id for hit in hits] == [plain[1].id, plain[0].id]


def test_rerank_true_takes_all_token_vectors(index):
    assert retrieve(index, "refunds take five days", 1, rerank=True)[0].id == "p0"


@pytest.mark.parametrize("options", [{"rerank": 7}, {"hybrid": True, "pool": 1}])
def test_senseless_options_are_refused(index, options):
    with pytest.raises(InvalidInputError):
        retrieve(index, "refunds", 2, **options)


@pytest.mark.parametrize("options", [{}, {"hybrid": True}, {"rerank": True}, {"hybrid": True, "rerank": True}])
def test_ask_takes_every_way_to_retrieve(index, options):
    pytest.importorskip("bm25s")
    answer = ask(index, "refunds take how many days", **options)
    assert answer.sources[0].quote == "Refunds take five days."


@pytest.mark.parametrize("options", [{}, {"hybrid": True, "rerank": True}])
def test_an_empty_index_has_no_answer(tmp_path, words, options):
    with CrispIndex.create(tmp_path / "empty.crisp", words) as index:
        assert not ask(index, "refunds?", **options).answered
