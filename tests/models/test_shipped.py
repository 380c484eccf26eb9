"""The encoders that install with crisp-rag: what they are, and what happens where one does not fit its base."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crisp_rag.errors import EncoderError
from crisp_rag.models import build_encoder, load_encoder
from crisp_rag.models.names import SHIPPED
from crisp_rag.models.shipped import FOLDER, load_shipped, save_shipped


def test_the_default_encoder_keeps_32_vectors_of_384_dims(encoder: Any, texts: list[str]) -> None:
    assert (encoder.name, encoder.dim, encoder.source) == ("crisp-small", 384, "crisp-small")
    assert {len(array) for array in encoder.encode_document([text * 3 for text in texts[:4]])} == {32}
    assert len(encoder.encode_query("lighthouse lamps")) == len(encoder.encode_query("lighthouse lamps?")) < 8


def test_the_light_encoder_keeps_eight_and_32_vectors_of_384_dims(light: Any, texts: list[str]) -> None:
    assert (light.name, light.dim, light.pooling, light.source) == ("crisp-minilm", 384, "8x32", "crisp-minilm")
    assert {len(array) for array in light.encode_document([text * 3 for text in texts[:4]])} == {32}
    assert len(light.encode_query(texts[0])) == 8


def test_an_index_of_the_former_default_opens_with_it(light: Any, tmp_path: Path) -> None:
    from crisp_rag import CrispIndex

    with CrispIndex.create(tmp_path / "old.crisp", light) as index:
        index.add_texts(["Refunds take five days.", "The office is in Oslo."])
    with CrispIndex.open(tmp_path / "old.crisp") as index:
        assert index.encoder.name == "crisp-minilm"
        assert index.search("how long do refunds take?", 1)[0].text == "Refunds take five days."


@pytest.mark.parametrize("name", ["crisp-small", "crisp-minilm"])
def test_their_files_are_small_and_carry_a_model_card(name: str) -> None:
    folder = SHIPPED[name]
    assert sum(file.stat().st_size for file in folder.iterdir()) < 45e6
    card = (folder / "README.md").read_text(encoding="utf-8")
    for word in ("squad", "medquad", "scitldr", "pubmedqa", "scifact", "CC BY-SA 4.0", "nDCG@10", f"{name}.py"):
        assert word.replace("-minilm.py", "_minilm.py").replace("-small.py", "_small.py") in card


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    encoder = build_encoder(
        query_weights=torch.rand(30522).half().float(),
        query_centroid="sum",
        device="cpu",
        document_text_vector=True,
        query_text_vector=0.5,
    )
    with torch.no_grad():
        layer = encoder.model[0].model.encoder.layer[-1].output.dense.weight
        layer.copy_((layer + 0.01).half().float())
    save_shipped(encoder, tmp_path)
    again = load_shipped(tmp_path, device="cpu")
    assert again.fingerprint == encoder.fingerprint
    np.testing.assert_array_equal(again.encode_document("a lamp"), encoder.encode_document("a lamp"))
    assert (tmp_path / "trained.safetensors").stat().st_size < 3e6, "only what differs from the base is written"


def test_another_base_is_an_error_that_names_both(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "it")
    config = json.loads((tmp_path / "it" / "config.json").read_text())
    (tmp_path / "it" / "config.json").write_text(json.dumps({**config, "base": "0123456789abcdef"}))
    with pytest.raises(EncoderError, match=f"0123456789abcdef.*{config['base']}"):
        load_shipped(tmp_path / "it")


def test_a_damaged_file_is_an_error_that_names_the_folder(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "it")
    (tmp_path / "it" / "trained.safetensors").write_bytes(b"not tensors")
    with pytest.raises(EncoderError, match="it"):
        load_shipped(tmp_path / "it")


def test_an_encoder_without_clusters_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="not pooled to clusters"):
        save_shipped(build_encoder(pooling="none", device="cpu"), tmp_path)


@pytest.mark.parametrize("budget", ["4x8", "8x16", "16x64"])
def test_one_encoder_serves_any_budget_and_its_source_remembers_which(budget: str, texts: list[str]) -> None:
    encoder = load_encoder(budget=budget, device="cpu")
    again = load_encoder(encoder.source, device="cpu")
    assert encoder.pooling == again.pooling == budget and encoder.name == again.name == f"crisp-small@{budget}"
    assert encoder.fingerprint == again.fingerprint != load_encoder(device="cpu").fingerprint
    assert len(encoder.encode_document(texts[0] * 4)) == int(budget.split("x")[1])
    assert load_encoder(encoder.source, budget="8x32", device="cpu").source == "crisp-small@8x32"


def test_the_untrained_encoder_can_be_had_by_name() -> None:
    encoder = load_encoder("minilm-posthoc-8x32", device="cpu")
    assert encoder.source == "minilm-posthoc-8x32" and encoder.fingerprint != load_encoder(device="cpu").fingerprint
