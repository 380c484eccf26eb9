"""A cheap deterministic encoder, and an index over it."""

from __future__ import annotations

import time
import zlib

import numpy as np
import pytest

from crisp_rag import CrispIndex


class WordEncoder:
    """One unit vector a word, drawn from the word's checksum."""

    name, fingerprint, pooling, source = "words", "a0" * 16, "words", None
    dim, max_document_tokens = 32, 64

    def __init__(self, delay: float = 0.0) -> None:
        self.delay = delay

    def _one(self, text: str) -> np.ndarray:
        time.sleep(self.delay)
        rows = [np.random.default_rng(zlib.crc32(word.encode())).normal(size=self.dim) for word in text.lower().split()]
        return np.stack([row / np.linalg.norm(row) for row in rows]).astype(np.float32)

    def encode_query(self, texts, **_):
        return self._one(texts) if isinstance(texts, str) else [self._one(text) for text in texts]

    encode_document = encode_query


@pytest.fixture
def index(tmp_path):
    with CrispIndex.create(tmp_path / "x.crisp", WordEncoder()) as made:
        made.add_texts(
            ["red fox runs", "blue whale swims", "red whale rests", "green fox rests"],
            ids=["a", "b", "c", "d"],
            metadatas=[{"n": i, "source": f"doc{i % 2}", "tags": ["x", f"t{i}"]} for i in range(4)],
        )
        yield made


@pytest.fixture
def slow_index(tmp_path):
    with CrispIndex.create(tmp_path / "slow.crisp", WordEncoder()) as made:
        made.add_texts(["red fox runs", "blue whale swims"])
        made.encoder.delay = 0.2
        yield made
