from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crisp_rag.eval import SYSTEMS
from crisp_rag.eval.systems import MultiVectorSystem

DOCUMENTS = {
    "d1": ("Refunds", "A refund takes five working days."),
    "d2": ("", "Parcels are shipped from Rotterdam every morning."),
    "d3": ("Returns", "Send the goods back within thirty days."),
    "d4": ("Opening hours", "The shop is closed on Sundays."),
}
QUERIES = {"q1": "how long does a refund take", "q2": "when is the shop closed", "q3": "where are parcels shipped from"}
QRELS = {"q1": {"d1": 1}, "q2": {"d4": 1}, "q3": {"d2": 1}}

MakeFolder = Callable[..., Path]


@pytest.fixture(scope="session")
def write_folder() -> MakeFolder:
    """Writes a collection in BEIR's form into a folder; any part can be replaced."""

    def make(
        root: Path,
        name: str = "shop",
        documents: dict[str, tuple[str, str]] = DOCUMENTS,
        queries: dict[str, str] = QUERIES,
        qrels: dict[str, dict[str, int]] = QRELS,
        split: str = "test",
        answers: dict[str, list[str]] | None = None,
        unanswerable: dict[str, dict[str, int]] | None = None,
    ) -> Path:
        folder = root / name
        (folder / "qrels").mkdir(parents=True)
        rows = [{"_id": id_, "title": title, "text": text} for id_, (title, text) in documents.items()]
        (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        rows = [{"_id": id_, "text": text, "answers": (answers or {}).get(id_)} for id_, text in queries.items()]
        (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        for file, judged in ((split, qrels), ("unanswerable", unanswerable)):
            if judged is not None:
                lines = [f"{query}\t{id_}\t{grade}\n" for query, all_ in judged.items() for id_, grade in all_.items()]
                (folder / "qrels" / f"{file}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))
        return folder

    return make


@pytest.fixture
def make_folder(tmp_path: Path, write_folder: MakeFolder) -> MakeFolder:
    """The same, in a folder of the test's own."""
    return partial(write_folder, tmp_path)


class WordEncoder:
    """One unit vector a word, drawn from the word's hash: an encoder that shows its tokens and costs nothing."""

    source = None
    pooling = "words"
    pooling_module = None
    max_document_tokens = 64
    dim = 16

    def __init__(self, name: str = "words", fingerprint: str = "f0f0") -> None:
        self.name, self.fingerprint = name, fingerprint
        self.documents = 0

    def encode_query(self, texts: Any, **options: Any) -> Any:
        return self._one(texts) if isinstance(texts, str) else [self._one(text) for text in texts]

    def encode_document(self, texts: Any, **options: Any) -> Any:
        self.documents += 1 if isinstance(texts, str) else len(texts)
        return self.encode_query(texts)

    def encode_tokens(self, texts: Sequence[str], task: str = "document") -> list[np.ndarray]:
        return [self._one(text) for text in texts]

    def tokenizer(self, text: str, **options: Any) -> dict[str, list[tuple[int, int]]]:
        return {"offset_mapping": [match.span() for match in re.finditer(r"\w+", text)][: self.max_document_tokens]}

    def token_spans(self, texts: Sequence[str], task: str = "document") -> list[list[tuple[int, int]]]:
        return [self.tokenizer(text)["offset_mapping"] for text in texts]

    def _one(self, text: str) -> np.ndarray:
        return np.stack([self._word(word) for word in re.findall(r"\w+", text.lower())[: self.max_document_tokens]])

    def _word(self, word: str) -> np.ndarray:
        seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
        vector = np.random.default_rng(seed).normal(size=self.dim)
        return (vector / np.linalg.norm(vector)).astype(np.float32)


class Orderly:
    """Finds the documents in the order they came in, whatever the query."""

    def __init__(self, name: str = "orderly", backwards: bool = False) -> None:
        self.name, self.backwards = name, backwards
        self.ids: list[str] = []
        self.indexed = 0

    def index(self, ids: Sequence[str], texts: Sequence[str], on_progress: Any = None) -> Any:
        from crisp_rag.eval import IndexCost

        self.ids, self.indexed = list(ids)[:: -1 if self.backwards else 1], self.indexed + 1
        return IndexCost(vectors=len(ids), bytes=100 * len(ids), encode_seconds=1.0)

    def search(self, queries: Sequence[str], k: int) -> list[list[tuple[str, float]]]:
        return [[(id_, -float(rank)) for rank, id_ in enumerate(self.ids[:k])] for _ in queries]

    def close(self) -> None:
        self.ids = []


@pytest.fixture(scope="session")
def make_orderly() -> type[Orderly]:
    return Orderly


def word_system(encoder: WordEncoder | None = None) -> MultiVectorSystem:
    return MultiVectorSystem("words", lambda: encoder or WordEncoder())  # type: ignore[arg-type, return-value]


@pytest.fixture(scope="session")
def make_words() -> Callable[[], MultiVectorSystem]:
    return word_system


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> WordEncoder:
    """The encoder of the system ``words``."""
    encoder = WordEncoder()
    monkeypatch.setitem(SYSTEMS, "words", lambda: word_system(encoder))
    return encoder
