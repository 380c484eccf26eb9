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
