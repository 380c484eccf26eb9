"""Query tokens weighted by how rare they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crisp_rag.models import build_encoder, load_encoder
from crisp_rag.models.weighting import QueryTokenWeights, rarity_weights


@pytest.fixture(scope="module")
def plain() -> Any:
    return build_encoder(pooling="none", device="cpu")


def test_a_token_that_every_text_has_weighs_less_than_one_that_few_have(plain: Any) -> None:
    texts = [f"the engine of number {number}" for number in range(50)] + ["the lamp"]
    weights = rarity_weights(plain.tokenizer, texts)
    the, engine, lamp, unseen, start = plain.tokenizer.convert_tokens_to_ids(["the", "engine", "lamp", "whale", "[CLS]"])
    assert weights[the] < weights[engine] < weights[lamp] < weights[unseen]
    assert weights[start] < 0.15 * weights[lamp]


def test_the_power_tempers(plain: Any) -> None:
    texts = ["the lamp", "the engine"]
    assert torch.allclose(rarity_weights(plain.tokenizer, texts, power=1) ** 0.5, rarity_weights(plain.tokenizer, texts))


def test_a_query_token_is_scaled_by_its_weight_over_the_querys_mean_and_a_document_is_not(plain: Any) -> None:
    weights = torch.ones(len(plain.tokenizer))
    ids = plain.tokenizer("where is the lamp")["input_ids"]
    weights[ids[3]] = 3.0
    weighted = build_encoder(pooling="none", query_weights=weights, device="cpu")
    before, after = plain.encode_query("where is the lamp"), weighted.encode_query("where is the lamp")
    lengths = np.linalg.norm(after, axis=1)
    assert lengths.sum() == pytest.approx(len(ids), abs=1e-4)
    assert lengths[3] == pytest.approx(3 * lengths[2], abs=1e-4)
    assert after / lengths[:, None] == pytest.approx(before, abs=1e-5)
    assert weighted.encode_document("where is the lamp") == pytest.approx(plain.encode_document("where is the lamp"))


def test_a_query_whose_tokens_all_weigh_nothing_counts_them_alike(plain: Any) -> None:
    weighted = build_encoder(pooling="none", query_weights=torch.zeros(len(plain.tokenizer)), device="cpu")
    assert weighted.encode_query("the lamp") == pytest.approx(plain.encode_query("the lamp"), abs=1e-5)


def test_weights_are_saved_with_the_encoder_and_count_for_its_fingerprint(plain: Any, tmp_path: Path) -> None:
    weights = torch.rand(len(plain.tokenizer))
    encoder = build_encoder(query_weights=weights, device="cpu")
    encoder.save(tmp_path / "saved")
    again = load_encoder(tmp_path / "saved", device="cpu")
    assert again.fingerprint == encoder.fingerprint != build_encoder(device="cpu").fingerprint
    np.testing.assert_array_equal(again.encode_query("where is the lamp"), encoder.encode_query("where is the lamp"))


@pytest.mark.parametrize("weights", [torch.ones(3), torch.tensor([1.0, -1.0]), torch.tensor([1.0, float("nan")])])
def test_weights_that_make_no_sense_are_refused(weights: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="2 finite numbers"):
        QueryTokenWeights(2, weights)
