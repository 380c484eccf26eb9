"""crisp-rag ask and calibrate: what is printed, streamed, and the exit codes."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from crisp_rag.cli import app
from crisp_rag.index import CrispIndex, Passage

TEXTS = {"refunds": "Refunds take five days. Dogs are welcome.", "parcels": "Parcels abroad take nine days."}


@pytest.fixture
def folder(tmp_path, words, monkeypatch):
    with CrispIndex.create(tmp_path / "x.crisp", words) as made:
        made.add([Passage(id_, text, {"source": f"/{id_}.md"}) for id_, text in TEXTS.items()])
    original = CrispIndex.open
    monkeypatch.setattr(CrispIndex, "open", lambda path, encoder=None, **options: original(path, words, **options))
    return tmp_path / "x.crisp"


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_quote_is_printed_with_its_place(folder):
    done = run("ask", "refunds take how many days?", "--index", folder)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[:2] == ["refunds take how many days?", "  Refunds take five days."]
    assert lines[2].startswith("  [1] /refunds.md:0-23  score 0.")


@pytest.mark.parametrize("options", [["--hybrid"], ["--rerank"], ["--hybrid", "--rerank"], ["--threshold", "0.1"]])
def test_every_option_answers(folder, options):
    pytest.importorskip("bm25s")
    assert run("ask", "refunds take how many days?", "--index", folder, *options).exit_code == 0


def test_a_question_without_an_answer_exits_with_3(folder):
    done = run("ask", "who won the cup?", "--index", folder)
    assert done.exit_code == 3 and "do not hold an answer" in done.stdout


def test_a_threshold_of_ones_own_declines(folder):
    assert run("ask", "refunds take how many days?", "--index", folder, "--threshold", "0.99").exit_code == 3


def test_a_language_model_is_streamed_and_its_sentences_are_checked(folder, endpoint):
    pytest.importorskip("openai")
    said = "Refunds take five days [1]. Managers approve every single claim [1]."
    endpoint.respond = lambda handler, number: endpoint.says(handler, said)
    done = run("ask", "refunds take how many days?", "--index", folder, "--llm", endpoint.spec)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(f"refunds take how many days?\n  {said}")
    assert "✓ Refunds take five days." in done.stdout and "/refunds.md:0-23" in done.stdout
    assert "✗ not in the passages: Managers approve every single claim." in done.stdout
    assert "tokens of passages in the prompt" in done.stdout


def test_a_language_models_answer_as_json_has_statements_and_the_saving(folder, endpoint):
    pytest.importorskip("openai")
    endpoint.respond = lambda handler, number: endpoint.says(handler, "Refunds take five days [1].")
    done = run("ask", "refunds take how many days?", "--index", folder, "--llm", endpoint.spec, "--json")
    answer = json.loads(done.stdout)
    assert answer["statements"][0]["ids"] == ["refunds"] and answer["statements"][0]["supported"]
    assert answer["context"]["saved"] > 0 and answer["sources"][0]["quote"] == "Refunds take five days."


def test_a_language_model_that_finds_nothing_exits_with_3(folder, endpoint):
    pytest.importorskip("openai")
    endpoint.respond = lambda handler, number: endpoint.says(handler, "NO ANSWER")
    assert run("ask", "refunds take how many days?", "--index", folder, "--llm", endpoint.spec).exit_code == 3


def test_a_language_model_that_fails_is_one_sentence_and_exit_code_1(folder, endpoint):
    pytest.importorskip("openai")
    endpoint.respond = lambda handler, number: endpoint.status(handler, 401)
    done = run("ask", "refunds take how many days?", "--index", folder, "--llm", endpoint.spec)
    assert done.exit_code == 1 and "refuses the key" in done.stderr and "Traceback" not in done.output
    assert run("ask", "refunds?", "--index", folder, "--llm", "gpt-5").exit_code == 1


def test_calibrate_prints_a_threshold_and_writes_its_curve(folder, tmp_path):
    rows = [("refunds take how many days", True), ("parcels abroad take days", True), ("who won the cup", False)]
    questions = tmp_path / "q.jsonl"
    questions.write_text("\n".join(json.dumps({"question": q, "answerable": a}) for q, a in rows), encoding="utf-8")
    done = run("calibrate", questions, "--index", folder, "--out", tmp_path / "curve.json")
    assert done.exit_code == 0, done.output
    assert "answers 100% of 2 questions that have an answer and declines 100% of 1 that have none" in done.stdout
    assert json.loads((tmp_path / "curve.json").read_text(encoding="utf-8"))["curve"]
    assert run("calibrate", tmp_path / "missing.jsonl", "--index", folder).exit_code == 1
