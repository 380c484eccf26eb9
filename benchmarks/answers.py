"""Asks the example questions of the example corpus: how many are answered from the right document, or declined.

python benchmarks/answers.py            # writes benchmarks/results/answers.json
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from crisp_rag import CrispIndex
from crisp_rag.pipelines.answer import DEFAULT_K, ExtractiveReader
from crisp_rag.pipelines.ingest import ingest
from crisp_rag.pipelines.retrieval import retrieve

ROOT = Path(__file__).resolve().parent.parent
CORPUS = ROOT / "examples" / "corpus"


RETRIEVALS = {
    "plain": {},
    "hybrid": {"hybrid": True},
    "reranked": {"rerank": True},
    "hybrid, reranked": {"hybrid": True, "rerank": True},
}


def measure() -> dict:
    """Figures over all questions, those of other ways to retrieve, and a line a question."""
    lines = (ROOT / "examples" / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    questions = [json.loads(line) for line in lines]
    with tempfile.TemporaryDirectory() as folder, CrispIndex.create(Path(folder) / "x.crisp") as index:
        report = ingest(index, [CORPUS])
        reader = ExtractiveReader(index.encoder)
        rows = {name: ask_all(index, reader, questions, **options) for name, options in RETRIEVALS.items()}
        return {
            "files": report.files,
            "passages": report.passages,
            "encoder": index.encoder.name,
            "threshold": reader.threshold,
            **figures(rows["plain"]),
            "retrieval": {name: figures(rows[name]) for name in RETRIEVALS},
            "questions": rows["plain"],
        }


def ask_all(index: CrispIndex, reader: ExtractiveReader, questions: list[dict], **options: bool) -> list[dict]:
    rows = []
    for question in questions:
        hits = retrieve(index, question["question"], DEFAULT_K, vectors=reader.vectors, **options)
        answer = reader.read(question["question"], hits)
        first = _path(hits[0].metadata["source"])
        paths = [_path(source.path) for source in answer.sources]
        rows.append(
            {
                "id": question["id"],
                "answerable": question["answerable"],
                "answered": answer.answered,
                "evidence": round(answer.evidence, 4),
                "gold_among_sources": any(path in question["documents"] for path in paths),
                "answer_in_quotes": bool(question["answer"])
                and question["answer"].lower() in " ".join(answer.text.lower().split()),
                "top_passage_is_gold": first in question["documents"],
            }
        )
    return rows


def figures(rows: list[dict]) -> dict:
    answerable = [row for row in rows if row["answerable"]]
    return {
        "answerable": len(answerable),
        "answered": sum(row["answered"] for row in answerable),
        "answered_with_gold_source": sum(row["answered"] and row["gold_among_sources"] for row in answerable),
        "answer_in_quotes": sum(row["answered"] and row["answer_in_quotes"] for row in answerable),
        "top_passage_is_gold": sum(row["top_passage_is_gold"] for row in answerable),
        "unanswerable": len(rows) - len(answerable),
        "declined": sum(not row["answered"] for row in rows if not row["answerable"]),
    }


def _path(source: str) -> str:
    return Path(source).relative_to(CORPUS.resolve()).as_posix()


def main() -> None:
    results = measure()
    table = Table("figure", "value")
    for name, value in results.items():
        if name not in ("questions", "retrieval"):
            table.add_row(name.replace("_", " "), str(value))
    Console().print(table)
    others = Table("retrieval", "gold source", "answer in quotes", "top passage is gold", "declined")
    for name, row in results["retrieval"].items():
        keys = ("answered_with_gold_source", "answer_in_quotes", "top_passage_is_gold", "declined")
        others.add_row(name, *(str(row[key]) for key in keys))
    Console().print(others)
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "benchmarks" / "results" / "answers.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
