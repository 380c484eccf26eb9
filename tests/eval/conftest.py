from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

DOCUMENTS = {
    "d1": ("Refunds", "A refund takes five working days."),
    "d2": ("", "Parcels are shipped from Rotterdam every morning."),
    "d3": ("Returns", "Send the goods back within thirty days."),
    "d4": ("Opening hours", "The shop is closed on Sundays."),
}
QUERIES = {"q1": "how long does a refund take", "q2": "when is the shop closed", "q3": "where are parcels shipped from"}
QRELS = {"q1": {"d1": 1}, "q2": {"d4": 1}, "q3": {"d2": 1}}

MakeFolder = Callable[..., Path]


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """Writes a collection in BEIR's form; any part can be replaced."""

    def make(
        name: str = "shop",
        documents: dict[str, tuple[str, str]] = DOCUMENTS,
        queries: dict[str, str] = QUERIES,
        qrels: dict[str, dict[str, int]] = QRELS,
        split: str = "test",
    ) -> Path:
        folder = tmp_path / name
        (folder / "qrels").mkdir(parents=True)
        rows = [{"_id": id_, "title": title, "text": text} for id_, (title, text) in documents.items()]
        (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        rows = [{"_id": id_, "text": text} for id_, text in queries.items()]
        (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        lines = [f"{query}\t{document}\t{grade}\n" for query, all_ in qrels.items() for document, grade in all_.items()]
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))
        return folder

    return make
