"""A cheap encoder and a small index for the tests of both adapters."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crisp_rag.index import CrispIndex


class FakeEncoder:
    """One unit vector a word, drawn from the word's hash; at most 32 words.  The same on every machine."""

    source = None
    name = "fake-words"
    fingerprint = "0123456789abcdef"
    dim = 24
    pooling = "words"
    max_document_tokens = 32

    def encode_query(self, texts: Any, *, batch_size: int = 32, show_progress: bool = False) -> Any:
        return self._encode(texts)

    def encode_document(self, texts: Any, *, batch_size: int = 32, show_progress: bool = False) -> Any:
        return self._encode(texts)

    def count_tokens(self, texts: Any) -> list[int]:
        return [len(text.split()) for text in texts]

    def _encode(self, texts: Any) -> Any:
        if isinstance(texts, str):
            return self._one(texts)
        return [self._one(text) for text in texts]

    def _one(self, text: str) -> np.ndarray:
        return np.stack([self._word(word) for word in text.lower().split()[: self.max_document_tokens]])

    def _word(self, word: str) -> np.ndarray:
        seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
        vector = np.random.default_rng(seed).normal(size=self.dim)
        return (vector / np.linalg.norm(vector)).astype(np.float32)


class CountingEncoder(FakeEncoder):
    """Writes down how many texts each call brought."""

    def __init__(self) -> None:
        self.queries: list[int] = []
        self.documents: list[int] = []

    def encode_query(self, texts: Any, *, batch_size: int = 32, show_progress: bool = False) -> Any:
        self.queries.append(1 if isinstance(texts, str) else len(texts))
        return super().encode_query(texts)

    def encode_document(self, texts: Any, *, batch_size: int = 32, show_progress: bool = False) -> Any:
        self.documents.append(1 if isinstance(texts, str) else len(texts))
        return super().encode_document(texts)


class GateEncoder(CountingEncoder):
    """Holds every query back until the gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()

    def encode_query(self, texts: Any, *, batch_size: int = 32, show_progress: bool = False) -> Any:
        vectors = super().encode_query(texts)
        assert self.gate.wait(20), "nobody opened the gate"
        return vectors


TEXTS = {
    "refund": "refunds take five days once the parcel is back",
    "ship": "parcel shipping takes two days inside the country",
    "abroad": "parcel shipping abroad takes nine days and costs more",
    "hours": "the shop opens at nine and closes at six",
    "gift": "gift cards never expire and cannot be turned into cash refunds",
    "repair": "repair of a watch takes two weeks",
}
METADATAS: dict[str, dict[str, Any]] = {
    "refund": {"team": "sales", "year": 2024, "source": "policy.md"},
    "ship": {"team": "logistics", "year": 2023, "source": "policy.md"},
    "abroad": {"team": "logistics", "year": 2025, "source": "abroad.md"},
    "hours": {"team": "shop", "year": 2025},
    "gift": {"team": "sales", "year": 2022, "score": "user's own", "tags": ["card", "cash"]},
    "repair": {"team": "shop", "nested": {"deep": [1, {"x": None}]}},
}
QUERIES = ["refunds in five days", "parcel shipping", "when does the shop open", "watch", "xylophone"]


@pytest.fixture(scope="session")
def encoder() -> FakeEncoder:
    return FakeEncoder()


@pytest.fixture
def counting_encoder() -> CountingEncoder:
    return CountingEncoder()


@pytest.fixture
def gate_encoder() -> GateEncoder:
    return GateEncoder()


@pytest.fixture
def texts() -> dict[str, str]:
    return dict(TEXTS)


@pytest.fixture
def metadatas() -> dict[str, dict[str, Any]]:
    return {id_: dict(metadata) for id_, metadata in METADATAS.items()}


@pytest.fixture(params=QUERIES)
def query(request: pytest.FixtureRequest) -> str:
    return request.param


def filled(path: Path, encoder: Any) -> CrispIndex:
    index = CrispIndex.create(path, encoder, codec="float16")
    index.add_texts(list(TEXTS.values()), ids=list(TEXTS), metadatas=list(METADATAS.values()))
    return index


@pytest.fixture
def fill() -> Any:
    """``fill(path, encoder)`` makes the small index."""
    return filled


@pytest.fixture
def index(tmp_path: Path, encoder: FakeEncoder) -> Iterator[CrispIndex]:
    with filled(tmp_path / "small.crisp", encoder) as made:
        yield made
