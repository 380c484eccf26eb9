"""The encoder: what a text becomes, and that a saved one comes back the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crisp_rag.errors import EncoderError


def test_importing_the_package_loads_neither_torch_nor_a_framework() -> None:
    program = (
        "import sys, crisp_rag, crisp_rag.index, crisp_rag.models\n"
        "heavy = {'torch', 'transformers', 'sentence_transformers', 'faiss', 'langchain_core', 'llama_index'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "[]"


def test_the_default_encoder_keeps_at_most_16_query_and_32_document_vectors(encoder: Any, texts: list[str]) -> None:
    assert (encoder.dim, encoder.pooling, encoder.max_document_tokens) == (384, "16x32", 255), "the marker is one of 256"
    for task, budget in ((encoder.encode_query, 16), (encoder.encode_document, 32)):
        vectors = task(texts[:4])
        assert [array.shape for array in vectors] == [(budget, 384)] * 4
        assert all(array.dtype == np.float32 and np.isfinite(array).all() for array in vectors)


def test_document_vectors_have_unit_length(encoder: Any, texts: list[str]) -> None:
    for array in encoder.encode_document([*texts[:5], "Short.", "word " * 600]):
        assert np.linalg.norm(array, axis=1) == pytest.approx(np.ones(len(array)), abs=1e-4)


def test_query_vectors_sum_to_the_sum_of_the_token_vectors(encoder: Any, texts: list[str]) -> None:
    for array, own in zip(encoder.encode_query(texts[:3]), encoder.encode_tokens(texts[:3], "query"), strict=True):
        assert array.sum(axis=0) == pytest.approx(own.sum(axis=0), abs=1e-3)


def test_a_query_s_text_vector_counts_a_share_of_its_tokens(encoder: Any, texts: list[str]) -> None:
    other = encoder.with_pooling("8x32", query_text_vector=0.3)
    for array, own in zip(other.encode_query(texts[:3]), encoder.encode_tokens(texts[:3], "query"), strict=True):
        total = own.sum(axis=0)
        text_vector = 0.3 * len(own) * total / np.linalg.norm(total)
        assert array.sum(axis=0) == pytest.approx(total + text_vector, abs=1e-3)
        assert array[-1] == pytest.approx(text_vector, abs=1e-3)


def test_a_short_text_keeps_its_token_vectors_in_order_before_the_text_vector(light: Any) -> None:
    encoder = light
    (tokens,) = encoder.encode_tokens(["Red foxes sleep."])
    assert len(tokens) < 32
    mean = tokens.mean(axis=0)
    vectors = encoder.encode_document("Red foxes sleep.")
    assert vectors[:-1] == pytest.approx(tokens, abs=1e-5)
    assert vectors[-1] == pytest.approx(mean / np.linalg.norm(mean), abs=1e-5)


def test_a_single_text_gives_one_array_and_a_list_gives_a_list(encoder: Any) -> None:
    for encode in (encoder.encode_query, encoder.encode_document):
        one, many = encode("where is the lamp?"), encode(["where is the lamp?"])
        assert isinstance(one, np.ndarray) and one.ndim == 2
        assert isinstance(many, list) and len(many) == 1
        assert one == pytest.approx(many[0], abs=1e-6)
        assert encode([]) == []


def test_a_batch_equals_its_texts_one_by_one(encoder: Any, texts: list[str]) -> None:
    mixed = [texts[0], "Short.", texts[7]]
    for together, text in zip(encoder.encode_document(mixed), mixed, strict=True):
        alone = encoder.encode_document(text)
        assert together.shape == alone.shape
        # Padding shifts token vectors by rounding alone, and every vector finds itself again.
        assert (together @ alone.T).max(axis=1).mean() > 0.999


def test_encoding_twice_gives_the_same_bytes(encoder: Any, texts: list[str]) -> None:
    for first, second in zip(encoder.encode_document(texts[:6]), encoder.encode_document(texts[:6]), strict=True):
        assert np.array_equal(first, second)


def test_tokens_are_counted_with_special_ones_and_uncut(encoder: Any) -> None:
    assert encoder.count_tokens(["oak", "oak pine", "oak " * 600]) == [4, 5, 603], "the marker is counted too"
    assert len(encoder.encode_tokens(["oak " * 600])[0]) == 253, "256 without those that are no words"


@pytest.mark.parametrize("pooling", ["8x32", "25%", "tail4x8", "k2", "none"])
def test_a_saved_encoder_comes_back_with_equal_vectors_and_fingerprint(
    encoder: Any, texts: list[str], tmp_path: Path, pooling: str
) -> None:
    from crisp_rag.models import load_encoder

    original = encoder.with_pooling(pooling)
    original.save(tmp_path / "saved")
    again = load_encoder(tmp_path / "saved", device="cpu")  # there is no trust_remote_code to give
    assert (again.name, again.pooling, again.fingerprint) == (original.name, pooling, original.fingerprint)
    assert again.source == str((tmp_path / "saved").resolve())
    for encode in ("encode_query", "encode_document"):
        for one, two in zip(getattr(original, encode)(texts[:2]), getattr(again, encode)(texts[:2]), strict=True):
            assert np.array_equal(one, two)


def test_options_of_the_pooling_are_saved_with_it(encoder: Any, tmp_path: Path) -> None:
    from crisp_rag.models import load_encoder

    encoder.save(tmp_path / "saved")
    again = load_encoder(tmp_path / "saved", device="cpu")
    assert again.pooling_module.query_centroid == encoder.pooling_module.query_centroid == "sum"
    assert again.fingerprint == encoder.fingerprint


def test_another_pooling_or_option_has_another_fingerprint(encoder: Any) -> None:
    others = [encoder.with_pooling(name) for name in ("8x16", "4x32", "25%", "tail8x32", "k2", "k4", "none")]
    others += [
        encoder.with_pooling("8x32", **{key: value}) for key, value in (("iterations", 2), ("query_centroid", "unit"))
    ]
    fingerprints = [encoder.fingerprint, *(other.fingerprint for other in others)]
    assert len(set(fingerprints)) == len(fingerprints)
    assert encoder.with_pooling("16x32").fingerprint == encoder.fingerprint


def test_from_clusters_to_clusters_the_options_stay(encoder: Any) -> None:
    assert encoder.with_pooling("4x8").pooling_module.query_centroid == "sum"
    assert encoder.with_pooling("4x8", query_centroid="unit").pooling_module.query_centroid == "unit"
    assert encoder.with_pooling("none").with_pooling("4x8").pooling_module.query_centroid == "unit"


@pytest.mark.parametrize("name", ["missing", "empty", "file"])
def test_what_is_no_encoder_is_an_error_that_names_it(tmp_path: Path, name: str) -> None:
    from crisp_rag.models import build_encoder, load_encoder

    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("not a model")
    with pytest.raises(EncoderError, match=name):
        load_encoder(tmp_path / name)
    with pytest.raises(EncoderError, match=name):
        build_encoder(tmp_path / name)


def test_an_unknown_pooling_is_a_value_error() -> None:
    from crisp_rag.models import build_encoder

    with pytest.raises(ValueError, match="Unknown pooling"):
        build_encoder(pooling="mean")
