"""The example corpus and its questions hold together: what the question file promises is in the documents."""

from __future__ import annotations

import json
import re
from collections import Counter
from html import unescape
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
CORPUS = EXAMPLES / "corpus"
QUESTIONS: list[dict[str, Any]] = [
    json.loads(line) for line in (EXAMPLES / "questions.jsonl").read_text(encoding="utf-8").splitlines()
]
ANSWERABLE = [question for question in QUESTIONS if question["answerable"]]
UNANSWERABLE = [question for question in QUESTIONS if not question["answerable"]]
FILES = sorted(path for path in CORPUS.rglob("*") if path.is_file())


def read_text(path: Path) -> str:
    """Return the plain text of a document with white space squeezed, independently of the product's own readers."""
    if path.suffix == ".pdf":
        pypdf = pytest.importorskip("pypdf")
        text = "\n".join(page.extract_text() for page in pypdf.PdfReader(path).pages)
    elif path.suffix == ".docx":
        document = pytest.importorskip("docx").Document(str(path))
        cells = [cell.text for table in document.tables for row in table.rows for cell in row.cells]
        text = "\n".join([paragraph.text for paragraph in document.paragraphs] + cells)
    elif path.suffix == ".html":
        text = unescape(re.sub(r"<[^>]+>", " ", path.read_text(encoding="utf-8")))
    else:
        text = path.read_text(encoding="utf-8")
    return re.sub(r"\s+", " ", text)


def holds(text: str, answer: str) -> bool:
    """Tell whether the answer stands in the text as whole words, so that 44 is not found inside 4435."""
    return re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", text, re.IGNORECASE) is not None


def test_there_are_fifty_answerable_and_ten_unanswerable_questions():
    assert (len(ANSWERABLE), len(UNANSWERABLE)) == (50, 10)


def test_ids_and_questions_are_unique():
    assert len({question["id"] for question in QUESTIONS}) == len(QUESTIONS)
    assert len({question["question"].lower() for question in QUESTIONS}) == len(QUESTIONS)


def test_every_question_has_the_same_fields():
    fields = {"id", "question", "documents", "answer", "answerable"}
    assert all(set(question) == fields for question in QUESTIONS)


@pytest.mark.parametrize("question", ANSWERABLE, ids=lambda question: question["id"])
def test_the_answer_stands_in_every_gold_document(question: dict[str, Any]):
    assert question["documents"]
    for name in question["documents"]:
        assert (CORPUS / name) in FILES
        assert holds(read_text(CORPUS / name), question["answer"])


def test_unanswerable_questions_name_no_document_and_no_answer():
    assert all(question["documents"] == [] and question["answer"] is None for question in UNANSWERABLE)


def test_the_corpus_has_every_kind_of_file_and_nothing_else():
    kinds = Counter(path.suffix for path in FILES)
    assert set(kinds) == {".md", ".txt", ".html", ".docx", ".pdf"}
    assert 38 <= len(FILES) <= 45
    assert kinds[".txt"] >= 4 and kinds[".html"] >= 3 and kinds[".docx"] == kinds[".pdf"] == 1


def test_the_questions_reach_every_kind_of_file_and_most_documents():
    asked = {name for question in ANSWERABLE for name in question["documents"]}
    assert {Path(name).suffix for name in asked} == {path.suffix for path in FILES}
    assert len(asked) >= 0.75 * len(FILES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(CORPUS).as_posix())
def test_documents_are_short(path: Path):
    assert 150 <= len(read_text(path).split()) <= 450


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.suffix == ".md"], ids=lambda path: path.relative_to(CORPUS).as_posix()
)
def test_markdown_documents_have_one_title_and_sections(path: Path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ")
    assert sum(line.startswith("# ") for line in lines) == 1
    assert sum(line.startswith("## ") for line in lines) >= 2
