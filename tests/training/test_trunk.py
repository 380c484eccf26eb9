"""Frozen layers run once for every text, and nobody can tell from the result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers.util import batch_to_device

from crisp_rag.errors import InvalidInputError
from crisp_rag.training import TrainingOptions, train
from crisp_rag.training.tokens import token_vectors
from crisp_rag.training.trunk import TrunkMemory, frozen_trunk, transformer_layers

TEXTS = ["The lamp stands at the harbour.", "A baker cleans the oven every week with sand and a brush.", "Gate."]


def _vectors(encoder: Any, texts: list[str]) -> torch.Tensor:
    features = batch_to_device(encoder.model.preprocess(texts, task="document"), encoder.model.device)
    vectors, mask = token_vectors(encoder.model, features, "document")
    return vectors * mask.unsqueeze(-1)


def test_token_vectors_are_the_same_with_and_without_the_memory(tiny: Any) -> None:
    tiny.model.eval()
    with torch.no_grad():
        plain = _vectors(tiny, TEXTS)
        with frozen_trunk(tiny.model, 1) as memory:
            first, second = _vectors(tiny, TEXTS), _vectors(tiny, TEXTS[::-1]).flip(0)
        after = _vectors(tiny, TEXTS)
    assert memory is not None and len(memory) == 3
    for other in (first, second, after):
        assert torch.allclose(other, plain, atol=1e-5)


def test_lower_layers_run_once_for_a_text(tiny: Any) -> None:
    lowest = transformer_layers(tiny.model)[0]
    calls: list[int] = []
    handle = lowest.attention.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad(), frozen_trunk(tiny.model, 1):
        _vectors(tiny, TEXTS)
        assert len(calls) == 3
        _vectors(tiny, TEXTS)
        assert len(calls) == 3
    handle.remove()


def test_a_full_memory_computes_anew(tiny: Any) -> None:
    with torch.no_grad(), frozen_trunk(tiny.model, 1, TrunkMemory(megabytes=0)) as memory:
        assert memory is not None
        full = _vectors(tiny, TEXTS)
        assert len(memory) == 0
        assert torch.allclose(full, _vectors(tiny, TEXTS), atol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_what_is_remembered_lies_on_the_cpu(tiny: Any) -> None:
    tiny.model.eval().to("cuda")
    with torch.no_grad():
        plain = _vectors(tiny, TEXTS)
        with frozen_trunk(tiny.model, 1) as memory:
            first, second = _vectors(tiny, TEXTS), _vectors(tiny, TEXTS)
    ids = tiny.model.preprocess(TEXTS[:1], task="document")["input_ids"][0]
    assert memory is not None and memory.get(ids).device.type == "cpu"
    assert torch.allclose(first, plain, atol=1e-4) and torch.equal(first, second)


def test_without_frozen_layers_there_is_no_memory(tiny: Any) -> None:
    for layers in (None, 2, 7):
        with frozen_trunk(tiny.model, layers) as memory:
            assert memory is None
    assert all("forward" not in vars(layer) for layer in transformer_layers(tiny.model))


def test_layers_are_themselves_again_after_an_error(tiny: Any) -> None:
    with pytest.raises(KeyboardInterrupt), frozen_trunk(tiny.model, 1):
        raise KeyboardInterrupt
    assert all("forward" not in vars(layer) for layer in transformer_layers(tiny.model))


def test_a_backbone_without_layers_is_an_error() -> None:
    with pytest.raises(InvalidInputError, match="list of layers"):
        transformer_layers(torch.nn.Sequential(torch.nn.Linear(2, 2)))  # type: ignore[arg-type]


def test_a_memory_serves_a_second_run_which_ends_where_it_would_without(
    tiny: Any, tiny_backbone: Path, examples: Any, tmp_path: Path
) -> None:
    from crisp_rag.models import build_encoder

    options = TrainingOptions(steps=6, batch_size=8, learning_rate=2e-3, layers=1, save_steps=0)
    memory = TrunkMemory()
    train(tiny, examples, tmp_path / "first", options, trunk_memory=memory)
    known = len(memory)
    again = build_encoder(tiny_backbone, pooling="4x8", max_tokens=64, query_centroid="sum", device="cpu")
    train(again, examples, tmp_path / "second", options, trunk_memory=memory)
    assert len(memory) == known > 0
    for one, other in zip(tiny.model.state_dict().values(), again.model.state_dict().values(), strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
