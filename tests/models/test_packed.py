"""Encoders that ship whole: a byte a weight, and what damage says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crisp_rag.errors import EncoderError
from crisp_rag.models import build_encoder
from crisp_rag.models.packed import WEIGHTS, load_packed, packed, save_packed, unpacked


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("packed")
    save_packed(_minilm(), out)
    return out


def _minilm() -> Any:
    weights = torch.ones(30522)
    weights[[101, 102]] = 0.0
    return build_encoder(
        pooling="16x32", query_weights=weights, query_centroid="sum", content_only=True, device="cpu", name="packed"
    )


def test_vectors_of_packed_weights_are_those_of_the_encoder(folder: Path, texts: list[str]) -> None:
    encoder, again = _minilm().with_pooling("none"), load_packed(folder, device="cpu")
    assert (again.name, again.pooling, again.dim) == ("packed", "16x32", 384)
    for right, own in zip(encoder.encode_document(texts), again.with_pooling("none").encode_document(texts)):
        assert float((right * own).sum(axis=1).min()) > 0.995


def test_what_is_packed_again_is_the_same(folder: Path, tmp_path: Path) -> None:
    encoder = load_packed(folder, device="cpu")
    save_packed(encoder, tmp_path / "again")
    assert load_packed(tmp_path / "again", device="cpu").fingerprint == encoder.fingerprint


def test_a_weight_takes_a_byte() -> None:
    values = torch.randn(64, 384)
    tensors = packed({"a": values, "b": torch.ones(3)})
    assert tensors["a"].dtype == torch.int8 and tensors["a.scale"].shape == (64, 1)
    error = (unpacked(tensors)["a"] - values).abs()
    assert bool((error <= tensors["a.scale"] / 2 + 1e-6).all())
    assert set(unpacked(tensors)) == {"a", "b"}


@pytest.mark.parametrize("damage", ["flipped", "cut", "no config", "no weights", "no tokenizer"])
def test_a_damaged_file_is_an_error_that_names_it(folder: Path, tmp_path: Path, damage: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    weights = copy / WEIGHTS
    if damage == "flipped":
        data = bytearray(weights.read_bytes())
        data[len(data) // 2] ^= 1
        weights.write_bytes(bytes(data))
    elif damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-100])
    else:
        {"no config": copy / "config.json", "no weights": weights, "no tokenizer": copy / "tokenizer.json"}[damage].unlink()
    with pytest.raises(EncoderError, match="copy"):
        load_packed(copy, device="cpu")


def test_only_clusters_are_packed(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="not pooled to clusters"):
        save_packed(build_encoder(pooling="none", device="cpu"), tmp_path)


def test_its_configuration_is_plain_json(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["backbone"]["model_type"] == "bert" and config["content_only"] is True
    assert config["pooling_options"]["query_centroid"] == "sum"
    assert np.isfinite(config["max_tokens"])
