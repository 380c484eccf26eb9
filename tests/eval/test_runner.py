from __future__ import annotations

import json
import math

import pytest

from crisp_rag.errors import DatasetError, InvalidInputError
from crisp_rag.eval import METRICS, SYSTEMS, IndexCost, evaluate

FIGURES = {
    *METRICS,
    "vectors_per_document",
    "bytes_per_document",
    "encode_docs_per_second",
    "index_seconds",
    "search_ms_p50",
    "search_ms_p90",
    "search_ms_p99",
    "peak_memory_mb",
    "added_memory_mb",
    "queries",
    "intervals",
}


class Fixed:
    """Returns the documents in the order they came in, whatever the query."""

    name = "fixed"

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.asked: list[tuple[int, int]] = []
        self.closed = 0

    def index(self, ids, texts, on_progress=None):
        self.ids = list(ids)
        return IndexCost(vectors=3 * len(self.ids), bytes=10 * len(self.ids), encode_seconds=2.0, build_seconds=0.5)

    def search(self, queries, k):
        self.asked.append((len(queries), k))
        return [[(id_, -float(rank)) for rank, id_ in enumerate(self.ids[:k])] for _ in queries]

    def close(self):
        self.closed += 1


class Failing(Fixed):
    def search(self, queries, k):
        raise RuntimeError("out of memory")


@pytest.fixture
def fixed(monkeypatch):
    system = Fixed()
    monkeypatch.setitem(SYSTEMS, "fixed", lambda: system)
    monkeypatch.setitem(SYSTEMS, "failing", Failing)
    return system


def test_results_hold_every_figure_by_data_set_and_system(make_folder, fixed):
    results = evaluate([make_folder("one"), make_folder("two")], ["fixed", "bm25"])
    assert list(results) == ["one", "two"]
    assert all(list(systems) == ["fixed", "bm25"] for systems in results.values())
    assert all(set(systems["fixed"]) == FIGURES for systems in results.values())
    assert all(set(systems["bm25"]) == FIGURES | {"versus"} for systems in results.values())
    figures = results["one"]["fixed"]
    # The answers stand at ranks 1, 4 and 2.
    assert figures["RR@10"] == pytest.approx((1 + 1 / 4 + 1 / 2) / 3)
    assert figures["nDCG@10"] == pytest.approx((1 + 1 / math.log2(5) + 1 / math.log2(3)) / 3)
    assert figures["R@10"] == 1.0
    assert figures["vectors_per_document"] == 3.0
    assert figures["bytes_per_document"] == 10.0
    assert figures["encode_docs_per_second"] == 4 / 2.0
    assert 0 <= figures["search_ms_p50"] <= figures["search_ms_p90"] <= figures["search_ms_p99"]
    assert figures["index_seconds"] == 2.0 + 0.5
    assert figures["queries"] == 3
    assert figures["peak_memory_mb"] >= figures["added_memory_mb"] >= 0
    low, high = figures["intervals"]["nDCG@10"]
    assert 0 < low < figures["nDCG@10"] < high <= 1


def test_latency_is_measured_one_query_at_a_time_with_the_k_asked_for(make_folder, fixed):
    evaluate([make_folder()], ["fixed"], k=7)
    assert fixed.asked == [(3, 8), (1, 7), (1, 7), (1, 7), (1, 7)]  # the run, one untimed, three timed


def test_at_most_a_hundred_queries_are_timed(make_folder, fixed):
    queries = {f"q{i}": f"question {i}" for i in range(130)}
    evaluate([make_folder(queries=queries, qrels={query: {"d1": 1} for query in queries})], ["fixed"])
    assert [count for count, _ in fixed.asked].count(1) == 101
    assert sum(count for count, _ in fixed.asked) == 130 + 101


def test_results_and_runs_are_written(make_folder, fixed, tmp_path):
    out = tmp_path / "out"
    results = evaluate([make_folder()], ["fixed"], out=out, k=2)
    assert json.loads((out / "results.json").read_text()) == results
    lines = (out / "runs" / "shop.fixed.trec").read_text().splitlines()
    assert lines[:2] == ["q1 Q0 d1 1 -0.0 fixed", "q1 Q0 d2 2 -1.0 fixed"]
    assert len(lines) == 3 * 2
    assert sorted(path.name for path in out.rglob("*") if path.is_file()) == [
        "manifest.json",
        "report.html",
        "results.json",
        "shop.fixed.json",
        "shop.fixed.trec",
    ]


def test_a_run_file_is_read_back_by_ir_measures_even_when_ids_have_spaces(make_folder, fixed, tmp_path):
    import ir_measures

    documents = {"Geneva Durben": ("", "likes cheese"), "100% Ida": ("", "likes tea")}
    folder = make_folder(documents=documents, qrels={"q1": {"100% Ida": 1}})
    evaluate([folder], ["fixed"], out=tmp_path / "out")
    hits = list(ir_measures.read_trec_run(str(tmp_path / "out" / "runs" / "shop.fixed.trec")))
    assert [hit.doc_id for hit in hits] == ["Geneva%20Durben", "100%25%20Ida"]


def test_the_querys_own_document_is_dropped_and_k_hits_remain(make_folder, fixed, tmp_path):
    documents = {f"d{i}": ("", f"text {i}") for i in range(5)}
    folder = make_folder(documents=documents, queries={"d0": "text 0"}, qrels={"d0": {"d2": 1}})
    results = evaluate([folder], ["fixed"], out=tmp_path / "out", k=2)
    assert results["shop"]["fixed"]["R@10"] == 1.0
    lines = (tmp_path / "out" / "runs" / "shop.fixed.trec").read_text().splitlines()
    assert [line.split()[2] for line in lines] == ["d1", "d2"]


def test_a_system_that_fails_loses_nothing_of_the_others_and_its_error_comes_at_the_end(make_folder, fixed, tmp_path):
    said: list[str] = []
    with pytest.raises(RuntimeError, match="out of memory"):
        evaluate([make_folder()], ["failing", "fixed"], out=tmp_path / "out", on_progress=said.append)
    assert list(json.loads((tmp_path / "out" / "results.json").read_text())["shop"]) == ["fixed"]
    assert (tmp_path / "out" / "runs" / "shop.fixed.trec").exists()
    assert "shop, failing: failed: out of memory" in said
    assert fixed.closed == 1


def test_results_are_on_disk_after_every_system(make_folder, fixed, tmp_path, monkeypatch):
    seen: list[list[str]] = []

    class Looking(Fixed):
        def index(self, ids, texts, on_progress=None):
            seen.append(list(json.loads((tmp_path / "out" / "results.json").read_text())["shop"]))
            return super().index(ids, texts)

    monkeypatch.setitem(SYSTEMS, "looking", Looking)
    evaluate([make_folder()], ["fixed", "looking"], out=tmp_path / "out")
    assert seen == [["fixed"]]


def test_nothing_is_printed_and_progress_goes_to_the_callback(make_folder, fixed, capfd):
    said: list[str] = []
    evaluate([make_folder()], ["bm25", "fixed"], on_progress=said.append)
    assert capfd.readouterr() == ("", "")
    assert "shop, bm25: indexed 4 of 4 documents" in said
    assert "shop, fixed: searched 3 of 3 queries" in said
    assert said[-1].startswith("shop, fixed: nDCG@10 0.")


def test_mistakes_are_found_before_anything_runs(make_folder, fixed, tmp_path):
    folder = make_folder()
    broken = make_folder("broken")
    (broken / "queries.jsonl").write_text("{")
    for error, arguments in [
        (InvalidInputError, ([folder], ["fixed", "splade"])),
        (InvalidInputError, ([folder], ["fixed", "fixed"])),
        (InvalidInputError, ([folder, folder], ["fixed"])),
        (InvalidInputError, ([], ["fixed"])),
        (InvalidInputError, ([folder], [])),
        (InvalidInputError, (folder, ["fixed"])),
        (DatasetError, ([folder, broken], ["fixed"])),
    ]:
        with pytest.raises(error):
            evaluate(*arguments, out=tmp_path / "out")
    with pytest.raises(InvalidInputError, match="k must be at least 1"):
        evaluate([folder], ["fixed"], k=0)
    assert fixed.asked == []
    assert not (tmp_path / "out").exists()


def test_a_limit_on_queries_is_passed_on(make_folder, fixed):
    assert evaluate([make_folder()], ["fixed"], limit_queries=1)["shop"]["fixed"]["RR@10"] == 1.0
