"""The example corpus from end to end: files in, cited answers out, the same hits from the CLI and both frameworks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from crisp_rag import CrispIndex
from crisp_rag.pipelines.answer import ask
from crisp_rag.pipelines.ingest import ingest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CORPUS = EXAMPLES / "corpus"
QUESTION = "How many days of annual leave do I get?"


def crisp_rag(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "crisp_rag", *arguments], capture_output=True, text=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "handbook.crisp"
    done = crisp_rag("index", str(CORPUS), "--index", str(folder), "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["files"], report["skipped"]) == (42, [])
    assert "crisp-small (384 dims, 16x32" in done.stderr, "a new index says what its encoder is"
    return folder


@pytest.fixture(scope="module")
def index(folder, default_encoder):
    with CrispIndex.open(folder, default_encoder) as opened:
        yield opened


def test_both_frameworks_return_what_the_command_line_returns(folder, index):
    from crisp_rag.retrievers.langchain import CrispRetriever as LangChainRetriever
    from crisp_rag.retrievers.llama_index import CrispRetriever as LlamaRetriever

    printed = json.loads(crisp_rag("search", QUESTION, "--index", str(folder), "-k", "5", "--json").stdout)
    expected = [(hit["id"], pytest.approx(hit["score"], rel=1e-5)) for hit in printed]
    assert len(expected) == 5
    documents = LangChainRetriever(index=index, k=5).invoke(QUESTION)
    nodes = LlamaRetriever(index, similarity_top_k=5).retrieve(QUESTION)
    assert [(doc.id, doc.metadata["score"]) for doc in documents] == expected
    assert [(node.node.node_id, node.score) for node in nodes] == expected


def test_an_answer_quotes_the_file_it_names(folder):
    done = crisp_rag("ask", QUESTION, "--index", str(folder), "--json")
    answer = json.loads(done.stdout)
    assert done.returncode == 0 and answer["answered"]
    assert "28 days" in answer["answer"]
    source = answer["sources"][0]
    text = Path(source["path"]).read_text(encoding="utf-8")
    assert text[source["start"] : source["end"]] == source["quote"]


def test_a_question_without_an_answer_is_declined_with_exit_code_3(folder):
    done = crisp_rag("ask", "Which football club won the championship in 1998?", "--index", str(folder), "--json")
    assert done.returncode == 3
    assert json.loads(done.stdout)["sources"] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("search", " ", "--index", "{}"), "blank"),
        (("search", "leave", "--index", "{}", "-k", "0"), "k is a whole number"),
        (("search", "leave", "--index", "{}", "--where", '{"year": {"$near": 3}}'), "$near"),
        (("info", "--index", "{}-missing"), "no index"),
    ],
)
def test_a_wrong_call_gets_one_sentence_and_no_traceback(folder, arguments, said):
    done = crisp_rag(*(argument.format(folder) if argument.startswith("{}") else argument for argument in arguments))
    assert done.returncode != 0
    assert said in done.stderr and "Traceback" not in done.stderr


def test_indexing_again_touches_nothing(index):
    report = ingest(index, [CORPUS])
    assert (report.added, report.unchanged, report.removed) == (0, 42, 0)


def test_questions_are_answered_from_the_right_document_or_declined(index):
    lines = (EXAMPLES / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    right, declined = 0, 0
    for question in map(json.loads, lines):
        answer = ask(index, question["question"])
        if question["answerable"]:
            paths = {Path(source.path).relative_to(CORPUS).as_posix() for source in answer.sources}
            right += answer.answered and bool(paths & set(question["documents"]))
        else:
            declined += not answer.answered
    assert right >= 40, "of 50 questions"
    assert declined >= 7, "of 10 questions without an answer"


def test_unsupported_files_are_listed_and_fail_a_strict_run(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.txt").write_text("Refunds take five days.", encoding="utf-8")
    (tmp_path / "docs" / "b.xyz").write_text("?", encoding="utf-8")
    done = crisp_rag("index", str(tmp_path / "docs"), "--index", str(tmp_path / "x.crisp"), "--json", "--strict")
    assert done.returncode == 4
    report = json.loads(done.stdout)
    assert report["files"] == 1
    assert [Path(item["path"]).name for item in report["skipped"]] == ["b.xyz"]


def test_a_budget_is_chosen_when_an_index_is_made_and_needs_no_mention_later(tmp_path: Path) -> None:
    folder = tmp_path / "small.crisp"
    source = CORPUS / "handbook" / "refunds.md"
    done = crisp_rag("index", str(source), "--index", str(folder), "--budget", "4x8")
    assert done.returncode == 0 and "4x8 query x document" in done.stderr, done.stderr
    info = json.loads(crisp_rag("info", "--index", str(folder), "--json").stdout)
    assert info["pooling"] == "4x8" and info["vectors_per_passage"] <= 8
    hits = json.loads(crisp_rag("search", "refund", "--index", str(folder), "--json").stdout)
    assert hits and hits[0]["metadata"]["source"].endswith("refunds.md")


def test_a_budget_that_is_none_is_an_error_that_lists_what_there_is(tmp_path: Path) -> None:
    done = crisp_rag("index", str(CORPUS), "--index", str(tmp_path / "x"), "--budget", "many")
    assert done.returncode == 2 and "8x32" in done.stderr
