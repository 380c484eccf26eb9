"""The cache of encodings: nothing is encoded twice, and nothing old is taken for something new."""

from __future__ import annotations

import numpy as np
import pytest

from crisp_rag.eval import evaluate
from crisp_rag.eval.encodings import EncodingCache


class Counting:
    def __init__(self):
        self.texts: list[str] = []

    def __call__(self, texts):
        self.texts += texts
        return [np.full((len(text), 4), len(text) / 8, dtype=np.float32) for text in texts]


@pytest.fixture
def encode():
    return Counting()


def test_the_second_time_vectors_are_read_with_the_seconds_that_they_took(tmp_path, encode):
    cache = EncodingCache(tmp_path)
    first = cache.encode("model", ["a", "bcd"], encode)
    second = EncodingCache(tmp_path).encode("model", ["a", "bcd"], encode)
    assert encode.texts == ["a", "bcd"]
    assert (first.cached, second.cached) == (False, True)
    assert second.seconds == pytest.approx(first.seconds)
    assert [each.shape for each in second.vectors] == [(1, 4), (3, 4)]
    assert all(np.array_equal(a, b) for a, b in zip(first.vectors, second.vectors))


@pytest.mark.parametrize(
    ("fingerprint", "texts"), [("other", ["a", "b"]), ("model", ["a", "c"]), ("model", ["b", "a"]), ("model", ["ab"])]
)
def test_another_encoder_or_text_finds_nothing(tmp_path, encode, fingerprint, texts):
    cache = EncodingCache(tmp_path)
    cache.encode("model", ["a", "b"], encode)
    assert not cache.encode(fingerprint, texts, encode).cached


def test_a_damaged_file_is_made_anew(tmp_path, encode):
    cache = EncodingCache(tmp_path)
    cache.encode("model", ["a"], encode)
    (path,) = tmp_path.rglob("*.npz")
    for damage in (path.read_bytes()[:-40], b"", b"something else"):
        path.write_bytes(damage)
        assert not cache.encode("model", ["a"], encode).cached
        assert cache.encode("model", ["a"], encode).cached


def test_without_a_folder_nothing_is_kept(tmp_path, encode, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cache = EncodingCache(None)
    assert not any(cache.encode("model", ["a"], encode).cached for _ in range(2))
    assert list(tmp_path.iterdir()) == []


def test_a_second_evaluation_encodes_no_document_and_finds_the_same(make_folder, words, tmp_path):
    folder = make_folder()
    runs = [evaluate([folder], ["words"], cache=tmp_path / "encodings")["shop"]["words"] for _ in range(2)]
    assert words.documents == 4
    for metric in ("nDCG@10", "bytes_per_document", "encode_docs_per_second"):
        assert runs[0][metric] == pytest.approx(runs[1][metric])
    words.fingerprint = "trained since"
    evaluate([folder], ["words"], cache=tmp_path / "encodings")
    assert words.documents == 8
