from __future__ import annotations

import subprocess
import sys

from rich.console import Console

from crisp_rag.eval import tables

RESULTS = {
    "shop": {
        "bm25": {"nDCG@10": 0.61, "bytes_per_document": 900.0, "search_ms_p50": 0.2, "vectors_per_document": 0.0},
        "crisp": {"nDCG@10": 0.7004, "bytes_per_document": 24576.0, "search_ms_p50": 3.0, "vectors_per_document": 32.0},
        "[x]": {"nDCG@10": 0.7003},
    },
    "office": {},
}


def cells(table, title):
    column = next(column for column in table.columns if column.header == title)
    return [(cell.plain, str(cell.style)) for cell in column.cells]


def test_there_is_one_table_a_data_set_with_systems_as_rows():
    shop, office = tables(RESULTS)
    assert (str(shop.title), str(office.title)) == ("shop", "office")
    assert [text for text, _ in cells(shop, "system")] == ["bm25", "crisp", "[x]"]
    assert office.row_count == 0


def test_the_best_is_bold_and_what_reads_the_same_is_as_good():
    shop = tables(RESULTS)[0]
    assert cells(shop, "nDCG@10") == [("0.610", ""), ("0.700", "bold"), ("0.700", "bold")]


def test_for_size_and_time_the_lowest_is_the_best_and_what_is_missing_is_a_dash():
    shop = tables(RESULTS)[0]
    assert cells(shop, "bytes/doc") == [("900", "bold"), ("24,576", ""), ("-", "")]
    assert cells(shop, "p50 ms") == [("0.2", "bold"), ("3.0", ""), ("-", "")]
    assert cells(shop, "R@100") == [("-", "")] * 3
    assert all(style == "" for _, style in cells(shop, "vectors/doc"))


def test_tables_show_names_as_they_are():
    console = Console(width=160)
    with console.capture() as captured:
        console.print(tables(RESULTS)[0])
    assert "[x]" in captured.get() and "24,576" in captured.get()


def test_importing_the_evaluation_loads_no_model_library():
    code = "import sys, crisp_rag.eval; print([m for m in ('torch', 'faiss', 'bm25s', 'ir_measures') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_what_differs_from_the_baseline_by_more_than_chance_is_marked():
    def versus(difference, p_holm):
        tested = {"difference": difference, "p": p_holm / 2, "p_holm": p_holm}
        return {"baseline": "bm25", "metrics": {"nDCG@10": tested}}

    results = {
        "shop": {
            "bm25": {"nDCG@10": 0.61},
            "better": {"nDCG@10": 0.70, "versus": versus(0.09, 0.01)},
            "worse": {"nDCG@10": 0.40, "versus": versus(-0.21, 0.01)},
            "chance": {"nDCG@10": 0.62, "versus": versus(0.01, 0.05)},
        }
    }
    assert [text for text, _ in cells(tables(results)[0], "nDCG@10")] == ["0.610", "0.700▲", "0.400▼", "0.620"]


def test_systems_with_readers_stand_in_a_table_of_their_own():
    results = {"shop": {"bm25": {"nDCG@10": 0.6}, "bm25+extractive": {"token_f1": 0.5, "abstention_auroc": 0.8}}}
    plain, answers = tables(results)
    assert (str(plain.title), str(answers.title)) == ("shop", "shop, answers")
    assert [text for text, _ in cells(answers, "system")] == ["bm25+extractive"]
    assert cells(answers, "token F1") == [("0.500", "bold")]


def test_quality_and_cost_can_stand_apart_and_then_fit_a_hundred_and_twenty_columns():
    quality, cost, *_ = tables(RESULTS, apart=True)
    assert (str(quality.title), str(cost.title)) == ("shop", "shop, cost")
    assert [text for text, _ in cells(cost, "p50 ms")] == ["0.2", "3.0", "-"]
    options = Console().options.update_width(1000)
    assert all(Console().measure(table, options=options).maximum <= 120 for table in (quality, cost))
