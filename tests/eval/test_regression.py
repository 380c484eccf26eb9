"""Comparing two results, in Python and on the command line."""

from __future__ import annotations

import copy
import io
import json

import pytest
from rich.console import Console
from typer.testing import CliRunner

from crisp_rag.cli import app
from crisp_rag.errors import DatasetError, InvalidInputError
from crisp_rag.eval import DatasetSpec, Suite, Tolerances, evaluate, read_results, regressions
from crisp_rag.eval.console import run_with_bars

BEFORE = {
    "shop": {
        "crisp": {"nDCG@10": 0.70, "R@10": 0.80, "search_ms_p50": 10.0, "bytes_per_document": 1000.0, "queries": 300},
        "crisp+extractive": {"token_f1": 0.5, "failures": {}},
    }
}


def after(**changes):
    results = copy.deepcopy(BEFORE)
    results["shop"]["crisp"].update({name.replace("_at_", "@"): value for name, value in changes.items()})
    return results


def test_nothing_falls_between_equal_results_and_a_rise_is_welcome():
    assert regressions(BEFORE, BEFORE, Tolerances(0.0, 0.0, 0.0)) == []
    assert regressions(BEFORE, after(nDCG_at_10=0.9)) == []


def test_a_fall_beyond_the_tolerance_says_what_fell_where():
    (fallen,) = regressions(BEFORE, after(nDCG_at_10=0.69))
    assert str(fallen) == "shop, crisp: nDCG@10 fell from 0.7 to 0.69 (-0.01)"
    assert regressions(BEFORE, after(nDCG_at_10=0.69), Tolerances(quality=0.01)) == []
    assert len(regressions(BEFORE, after(nDCG_at_10=0.69, R_at_10=0.1))) == 2


def test_times_and_sizes_are_looked_at_only_when_asked_to():
    slow = after(search_ms_p50=13.0, bytes_per_document=1100.0)
    assert regressions(BEFORE, slow) == []
    (fallen,) = regressions(BEFORE, slow, Tolerances(slower=0.2))
    assert "search_ms_p50 rose from 10 to 13" in str(fallen)
    (fallen,) = regressions(BEFORE, slow, Tolerances(slower=0.5, larger=0.05))
    assert fallen.metric == "bytes_per_document"


def test_what_is_gone_is_a_regression_and_what_is_new_is_none():
    assert {(each.system, each.metric) for each in regressions(BEFORE, {})} == {
        ("crisp", "nDCG@10"),
        ("crisp", "R@10"),
        ("crisp+extractive", "token_f1"),
    }
    assert "is missing now" in str(regressions(BEFORE, {})[0])
    assert regressions({}, BEFORE) == []


def test_files_that_hold_no_results_and_negative_tolerances_are_refused(tmp_path):
    for text in ("{", "[1]", '{"shop": {"crisp": 3}}'):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(DatasetError, match=r"x\.json"):
            read_results(tmp_path / "x.json")
    with pytest.raises(DatasetError):
        read_results(tmp_path / "nowhere.json")
    with pytest.raises(InvalidInputError, match="0 or more"):
        Tolerances(quality=-0.1)


@pytest.fixture
def files(tmp_path):
    def write(results) -> list[str]:
        (tmp_path / "a.json").write_text(json.dumps(BEFORE))
        (tmp_path / "b.json").write_text(json.dumps(results))
        return ["eval", "--compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")]

    return write


def test_the_command_exits_with_6_where_something_fell(files):
    run = CliRunner().invoke
    good, bad = run(app, files(BEFORE)), run(app, files(after(nDCG_at_10=0.6)))
    assert (good.exit_code, good.stdout) == (0, "Nothing fell.\n")
    assert (bad.exit_code, bad.stdout) == (6, "shop, crisp: nDCG@10 fell from 0.7 to 0.6 (-0.1)\n")
    assert run(app, [*files(after(nDCG_at_10=0.6)), "--tolerance", "0.2"]).exit_code == 0
    assert run(app, [*files(after(search_ms_p50=20.0)), "--slower", "0.5"]).exit_code == 6
    assert json.loads(run(app, [*files(after(nDCG_at_10=0.6)), "--json"]).stdout)[0]["metric"] == "nDCG@10"
    assert run(app, ["eval", "--compare", "nowhere.json", "nowhere.json"]).exit_code == 1


def test_results_of_a_run_are_compared_with_themselves(make_folder, make_orderly, tmp_path):
    evaluate([make_folder()], [make_orderly()], out=tmp_path / "out")
    results = read_results(tmp_path / "out" / "results.json")
    assert regressions(results, results, Tolerances(0, 0, 0)) == []


def test_the_command_measures_a_suite_and_says_where_the_report_is(make_folder, words, tmp_path):
    make_folder()
    (tmp_path / "suite.yaml").write_text("datasets: [shop]\nsystems: [bm25, words]\n")
    out = str(tmp_path / "out")
    done = CliRunner().invoke(app, ["eval", str(tmp_path / "suite.yaml"), "--out", out, "--baseline", "words"])
    assert done.exit_code == 0, done.output
    assert "words" in done.stdout and "nDCG@10" in done.stdout
    assert "report.html" in done.stderr and "shop, words: indexed 4 of 4 documents" in done.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["shop"]["bm25"]["versus"]["baseline"] == "words"
    assert list((tmp_path / "out" / "encodings").rglob("*.npz"))


def test_on_a_terminal_there_are_bars_and_elsewhere_lines(make_folder, make_orderly, tmp_path):
    def printed(terminal: bool) -> str:
        console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
        suite = Suite((DatasetSpec(folder),), (make_orderly(),))
        run_with_bars(suite, tmp_path / "out", None, False, [], console)
        return console.file.getvalue()  # type: ignore[attr-defined]

    folder = make_folder()
    assert "━" in printed(True) and "orderly: searched" in printed(True)
    assert printed(False).splitlines() == ["shop, orderly: searched 3 of 3 queries", "shop, orderly: nDCG@10 0.6872"]


def test_a_failure_of_a_system_is_exit_code_1_after_the_others(make_folder, words, tmp_path, monkeypatch):
    folder, out = str(make_folder()), str(tmp_path / "out")
    run = ["eval", folder, "--out", out, "--no-cache", "--json", "--systems"]
    failing = CliRunner().invoke(app, [*run, f"crisp:{tmp_path / 'nowhere'},words"])
    assert failing.exit_code == 1
    assert list(json.loads(failing.stdout)["shop"]) == ["words"]
    assert "error:" in failing.stderr and not (tmp_path / "out" / "encodings").exists()
    assert CliRunner().invoke(app, ["eval", "--out", out]).exit_code == 1
