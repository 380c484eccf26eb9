from __future__ import annotations

import math
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crisp_rag.eval import METRICS, score
from crisp_rag.eval.metrics import score_queries


def ranking(*ids: str) -> list[tuple[str, float]]:
    return [(id_, 1.0 / rank) for rank, id_ in enumerate(ids, start=1)]


def test_values_match_a_calculation_by_hand():
    # Gains 2, 0, 1 at ranks 1, 2, 3; the ideal is 2, 1.
    values = score({"q": ranking("a", "x", "b")}, {"q": {"a": 2, "b": 1}})
    assert values["nDCG@10"] == pytest.approx((2 + 1 / math.log2(4)) / (2 + 1 / math.log2(3)))
    assert values["R@10"] == values["R@100"] == 1.0
    assert values["RR@10"] == 1.0


def test_reciprocal_rank_is_one_over_the_rank_of_the_first_relevant_document():
    assert score({"q": ranking("x", "y", "z", "a")}, {"q": {"a": 1}})["RR@10"] == pytest.approx(0.25)


def test_recall_at_10_and_at_100_look_that_deep_and_no_deeper():
    run = {"q": ranking(*[f"x{i}" for i in range(9)], "a", "b", *[f"y{i}" for i in range(88)], "c", "d")}
    values = score(run, {"q": {"a": 1, "b": 1, "c": 1, "d": 1}})
    assert values["R@10"] == pytest.approx(1 / 4)
    assert values["R@100"] == pytest.approx(3 / 4)
    assert values["RR@10"] == pytest.approx(1 / 10)


def test_the_ideal_ranking_is_cut_at_ten_too():
    documents = [f"d{i}" for i in range(20)]
    assert score({"q": ranking(*documents[:10])}, {"q": dict.fromkeys(documents, 1)})["nDCG@10"] == pytest.approx(1.0)


def test_a_query_without_results_scores_zero_and_counts_in_the_mean():
    qrels = {"q1": {"a": 1}, "q2": {"b": 1}}
    assert score({"q1": ranking("a"), "q2": []}, qrels) == dict.fromkeys(METRICS, 0.5)
    assert score({"q1": ranking("a")}, qrels) == dict.fromkeys(METRICS, 0.5)
    assert score({}, qrels) == dict.fromkeys(METRICS, 0.0)


def test_a_hit_that_has_the_querys_own_id_is_dropped():
    values = score({"a": ranking("a", "b")}, {"a": {"b": 1}})
    assert values["RR@10"] == 1.0
    assert values["nDCG@10"] == pytest.approx(1.0)


def test_the_dropped_hit_leaves_room_for_the_one_behind_it():
    values = score({"a": ranking("a", *[f"x{i}" for i in range(9)], "b")}, {"a": {"b": 1}})
    assert values["R@10"] == 1.0


def test_binary_metrics_count_from_the_threshold_on_and_ndcg_uses_every_grade():
    run, qrels = {"q": ranking("weak", "good")}, {"q": {"weak": 1, "good": 3}}
    low, high = score(run, qrels), score(run, qrels, binary_threshold=2)
    assert (low["RR@10"], high["RR@10"]) == (1.0, 0.5)
    assert low["nDCG@10"] == high["nDCG@10"] == pytest.approx((1 + 3 / math.log2(3)) / (3 + 1 / math.log2(3)))
    assert score({"q": ranking("weak")}, qrels, binary_threshold=2)["R@10"] == 0.0


def test_ties_keep_the_order_that_the_system_gave():
    qrels = {"q": {"a": 1}}
    assert score({"q": [("a", 1.0), ("z", 1.0)]}, qrels)["RR@10"] == 1.0
    assert score({"q": [("z", 1.0), ("a", 1.0)]}, qrels)["RR@10"] == 0.5


def test_results_of_a_query_that_nobody_judged_count_nowhere():
    assert score({"q": ranking("a"), "other": ranking("x")}, {"q": {"a": 1}}) == dict.fromkeys(METRICS, 1.0)


def test_a_missing_ir_measures_names_the_line_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ir_measures", None)
    with pytest.raises(ImportError, match=r"pip install 'crisp-rag\[eval\]'"):
        score({}, {"q": {"a": 1}})


DOCUMENTS = [f"d{i}" for i in range(30)]
RANKED = st.lists(st.sampled_from(DOCUMENTS), max_size=25, unique=True)
JUDGED = st.dictionaries(st.sampled_from(DOCUMENTS), st.integers(0, 3), min_size=1, max_size=12)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(RANKED, JUDGED), min_size=1, max_size=4), st.sampled_from([1, 2]))
def test_every_value_agrees_with_trec_eval_to_four_digits(queries, threshold):
    import pytrec_eval

    run = {f"q{i}": ranking(*ids) for i, (ids, _) in enumerate(queries)}
    qrels = {f"q{i}": judged for i, (_, judged) in enumerate(queries)}
    scored = {query: {id_: -float(rank) for rank, (id_, _) in enumerate(hits)} for query, hits in run.items() if hits}
    first_ten = {query: dict(list(hits.items())[:10]) for query, hits in scored.items()}
    graded = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10"}).evaluate(scored)
    wanted = {"recall.5,10,100", "success.1"}
    binary = pytrec_eval.RelevanceEvaluator(qrels, wanted, relevance_level=threshold).evaluate(scored)
    reciprocal = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank"}, relevance_level=threshold).evaluate(first_ten)
    values = score_queries(run, qrels, threshold)
    for query in qrels:
        own = values[query]
        if query not in scored:
            assert set(own.values()) == {0.0}
            continue
        theirs = binary[query]
        assert own == pytest.approx(
            {
                "nDCG@10": graded[query]["ndcg_cut_10"],
                "R@5": theirs["recall_5"],
                "R@10": theirs["recall_10"],
                "R@100": theirs["recall_100"],
                "RR@10": reciprocal[query]["recip_rank"],
                "Success@1": theirs["success_1"],
            },
            abs=5e-5,
        )
    means = score(run, qrels, threshold)
    assert means == pytest.approx({name: sum(row[name] for row in values.values()) / len(qrels) for name in METRICS})


def test_success_looks_at_the_first_hit_alone():
    qrels = {"q1": {"a": 1}, "q2": {"a": 1}}
    assert score({"q1": ranking("a", "x"), "q2": ranking("x", "a")}, qrels)["Success@1"] == 0.5
