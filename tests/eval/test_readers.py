"""Readers in a suite: what they are given, and what becomes of their figures."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from types import ModuleType

import numpy as np
import pytest

from crisp_rag.errors import DatasetError, InvalidInputError
from crisp_rag.eval import READERS, evaluate
from crisp_rag.eval.encodings import EncodingCache
from crisp_rag.eval.readers import Reading

QUERIES = {
    "q1": "how long does a refund take",
    "q2": "when is the shop closed",
    "q3": "where are parcels shipped from",
    "u1": "who is the shop owner",
}
ANSWERS = {"q1": ["five working days"], "q2": ["on Sundays"]}


@dataclass
class Scores:
    token_f1: float
    exact_match: float | None = None
    failures: dict[str, str] = field(default_factory=dict)
    per_query: dict = field(default_factory=dict)

    def to_dict(self):
        return {"token_f1": self.token_f1, "exact_match": self.exact_match, "failures": self.failures}


@pytest.fixture
def calls(monkeypatch):
    """What the evaluation of answers was asked for, each time."""
    asked: list[dict] = []

    def evaluate_reader(reader, dataset, hits_by_query, texts, unanswerable_ids, on_progress):
        asked.append({"reader": reader, "dataset": dataset, "hits": hits_by_query, "texts": texts, "no": unanswerable_ids})
        on_progress(len(dataset.queries), len(dataset.queries))
        values = {query: float(hits_by_query[query][0][0] in dataset.qrels[query]) for query in dataset.answers}
        rows = {query: {"answered": True, "token_f1": value} for query, value in values.items()}
        return Scores(float(np.mean(list(values.values()))), failures={"q1": "too long"}, per_query={**rows, "u1": {}})

    module = ModuleType("crisp_rag.eval.answers")
    module.evaluate_reader = evaluate_reader  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "crisp_rag.eval.answers", module)
    monkeypatch.setitem(READERS, "mine", lambda encoder: encoder)
    return asked


@pytest.fixture
def folder(make_folder):
    qrels = {"q1": {"d1": 1}, "q2": {"d4": 1}, "q3": {"d2": 1}}
    return make_folder(queries=QUERIES, qrels=qrels, answers=ANSWERS, unanswerable={"u1": {"d4": 1}})


def test_a_system_with_a_reader_has_figures_of_its_own_and_retrieval_is_measured_on_answerable_queries(folder, words, calls):
    results = evaluate([folder], ["words", "bm25"], readers=["mine"])["shop"]
    assert list(results) == ["words", "words+mine", "bm25", "bm25+mine"]
    assert results["words"]["queries"] == 3
    figures = results["words+mine"]
    assert figures["token_f1"] == 1.0 and "exact_match" not in figures
    assert figures["failures"] == {"q1": "too long"}
    assert figures["intervals"] == {"token_f1": [1.0, 1.0]}
    assert results["bm25+mine"]["versus"]["baseline"] == "words+mine"
    assert set(results["bm25+mine"]["versus"]["metrics"]) == {"token_f1"}


def test_a_reader_gets_questions_with_answers_those_without_and_five_hits_of_each(folder, words, calls):
    evaluate([folder], ["words"], readers=["mine"])
    (call,) = calls
    assert list(call["dataset"].queries) == ["q1", "q2", "u1"]
    assert call["no"] == {"u1"}
    assert call["reader"].dim == words.dim  # the encoder, which remembers queries
    assert all(0 < len(hits) <= 5 for hits in call["hits"].values())
    assert set(call["texts"]) == {id_ for hits in call["hits"].values() for id_, _, _ in hits}
    assert call["texts"]["d1"] == "Refunds\nA refund takes five working days."


def test_the_relevance_of_a_hit_is_its_score_over_the_largest_one_possible(folder, words, calls):
    evaluate([folder], ["words"], readers=["mine"])
    for query, hits in calls[0]["hits"].items():
        for _, score, relevance in hits:
            assert relevance == pytest.approx(score / len(QUERIES[query].split()), abs=0.01)


def test_hits_of_other_systems_get_their_relevance_from_an_encoder_too(folder, words, calls, monkeypatch):
    monkeypatch.setattr("crisp_rag.models.load_encoder", lambda: words)
    evaluate([folder], ["words", "bm25"], readers=["mine"])
    by_words, by_bm25 = (dict.fromkeys(()) | {id_: r for id_, _, r in call["hits"]["q1"]} for call in calls)
    assert by_bm25["d1"] == pytest.approx(by_words["d1"])


def test_answers_are_resumed_too_without_searching_again(folder, words, calls, tmp_path):
    first = evaluate([folder], ["words"], readers=["mine"], out=tmp_path / "out", cache=tmp_path / "e")
    second = evaluate([folder], ["words"], readers=["mine"], out=tmp_path / "out", cache=tmp_path / "e", resume=True)
    assert len(calls) == 1
    assert first == second
    (tmp_path / "out" / "details" / "shop.words%2Bmine.json").unlink()
    third = evaluate([folder], ["words"], readers=["mine"], out=tmp_path / "out", cache=tmp_path / "e", resume=True)
    assert len(calls) == 2 and calls[0]["hits"] == calls[1]["hits"]
    assert first == third


def test_a_reader_that_fails_whole_leaves_the_retrieval_figures(folder, words, calls, tmp_path, monkeypatch):
    monkeypatch.setitem(READERS, "broken", lambda encoder: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        evaluate([folder], ["words"], readers=["broken"], out=tmp_path / "out")
    assert "words+broken failed on shop" in (tmp_path / "out" / "report.html").read_text()


def test_a_data_set_without_answers_or_an_unknown_reader_is_refused_before_anything_runs(make_folder, words, calls):
    with pytest.raises(DatasetError, match="shop has no reference answers"):
        evaluate([make_folder()], ["words"], readers=["mine"])
    with pytest.raises(InvalidInputError, match="Unknown reader 'none': use extractive"):
        evaluate([make_folder("other")], ["words"], readers=["none"])
    assert words.documents == 0


def test_one_encoder_reads_for_all_systems_and_encodes_a_query_once():
    asked = []

    class Counting:
        dim = 2

        def encode_query(self, texts):
            asked.extend(texts)
            return [np.full((1, 2), len(text), dtype=np.float32) for text in texts]

        def with_pooling(self, spec):
            return self

    reading = Reading(Counting, EncodingCache(None))
    first = reading.encoder.encode_query(["one", "three", "one"])
    assert [float(vectors[0, 0]) for vectors in first] == [3.0, 5.0, 3.0]
    assert float(reading.encoder.encode_query("three")[0, 0]) == 5.0
    assert asked == ["one", "three"]
    reading.encoder.with_pooling("none").encode_query(["one"])
    assert asked == ["one", "three", "one"]  # another pooling gives other vectors
