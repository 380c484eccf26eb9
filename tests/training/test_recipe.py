"""Training on a tiny backbone: it learns, it resumes in the same place, and it says what is wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crisp_rag.errors import InvalidInputError
from crisp_rag.models import load_encoder
from crisp_rag.training import TrainingOptions, train

OPTIONS = TrainingOptions(
    steps=12, batch_size=8, learning_rate=2e-3, layers=1, save_steps=4, budgets=((4, 8), (2, 4)), codec="both"
)


def _weights(encoder: Any) -> dict[str, np.ndarray]:
    return {name: tensor.detach().numpy().copy() for name, tensor in encoder.model.state_dict().items()}


def test_training_lowers_the_loss_and_saves_an_encoder_that_loads(tiny: Any, examples: Any, tmp_path: Path) -> None:
    report = train(tiny, examples, tmp_path / "out", TrainingOptions(steps=40, batch_size=8, learning_rate=2e-3, layers=2))
    assert report.steps == 40 and report.losses[-1]["contrast_float"] < 0.7 * report.losses[0]["contrast_float"]
    loaded = load_encoder(tmp_path / "out", device="cpu")
    assert loaded.name == "out" and loaded.pooling == "4x8" and loaded.max_document_tokens == 64
    texts = [example.positive for example in examples[:3]]
    for mine, theirs in zip(tiny.encode_document(texts), loaded.encode_document(texts)):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)
    written = json.loads((tmp_path / "out" / "training.json").read_text())
    assert written["examples"] == {"stories": 40} and written["options"]["steps"] == 40


def test_only_the_upper_layers_change(tiny: Any, examples: Any, tmp_path: Path) -> None:
    before = _weights(tiny)
    train(tiny, examples, tmp_path / "out", OPTIONS)
    changed = {name for name, value in _weights(tiny).items() if not np.array_equal(value, before[name])}
    assert changed and all("layer.1." in name for name in changed)
    assert all(parameter.requires_grad for parameter in tiny.model.parameters())


@pytest.mark.parametrize("lora_rank", [None, 4])
def test_averaged_weights_lie_between_the_start_and_the_trained_ones(
    tiny_backbone: Path, examples: Any, tmp_path: Path, lora_rank: int | None
) -> None:
    from crisp_rag.models import build_encoder

    def trained(average: float) -> dict[str, np.ndarray]:
        encoder = build_encoder(tiny_backbone, pooling="4x8", max_tokens=64, device="cpu")
        train(encoder, examples, tmp_path / f"{average}", replace(OPTIONS, lora_rank=lora_rank, average=average))
        return _weights(load_encoder(tmp_path / f"{average}", device="cpu"))

    start = _weights(build_encoder(tiny_backbone, pooling="4x8", max_tokens=64, device="cpu"))
    whole, part = trained(1.0), trained(0.25)
    assert any(not np.array_equal(whole[name], start[name]) for name in start)
    for name, value in start.items():
        np.testing.assert_allclose(part[name], 0.75 * value + 0.25 * whole[name], atol=1e-6)


@pytest.mark.parametrize("lora_rank", [None, 4])
def test_interrupted_and_resumed_it_ends_in_the_same_place(
    tiny: Any, tiny_backbone: Path, examples: Any, tmp_path: Path, lora_rank: int | None
) -> None:
    from crisp_rag.models import build_encoder

    options = replace(OPTIONS, lora_rank=lora_rank)
    train(tiny, examples, tmp_path / "whole", options)

    def interrupt(step: int, parts: dict[str, float]) -> None:
        if step == 6:
            raise KeyboardInterrupt

    def fresh() -> Any:
        return build_encoder(tiny_backbone, pooling="4x8", max_tokens=64, query_centroid="sum", device="cpu")

    with pytest.raises(KeyboardInterrupt):
        train(fresh(), examples, tmp_path / "parts", options, on_step=interrupt)
    assert not (tmp_path / "parts" / "crisp_rag.json").exists()
    resumed = fresh()
    steps: list[int] = []
    train(resumed, examples, tmp_path / "parts", options, resume=True, on_step=lambda step, parts: steps.append(step))
    assert steps == list(range(5, 13))  # from the checkpoint of step 4
    for name, value in _weights(tiny).items():
        np.testing.assert_array_equal(value, _weights(resumed)[name], err_msg=name)


def test_a_run_is_not_overwritten_and_not_resumed_with_other_options(tiny: Any, examples: Any, tmp_path: Path) -> None:
    train(tiny, examples, tmp_path / "out", OPTIONS)
    with pytest.raises(InvalidInputError, match="another folder"):
        train(tiny, examples, tmp_path / "out", OPTIONS)
    with pytest.raises(InvalidInputError, match="learning_rate"):
        changed = TrainingOptions(steps=12, batch_size=8, learning_rate=1e-3, layers=1, save_steps=4,
                                  budgets=OPTIONS.budgets, codec="both")  # fmt: skip
        train(tiny, examples, tmp_path / "out", changed, resume=True)


def test_a_run_is_not_resumed_from_another_encoder(tiny: Any, tiny_backbone: Path, examples: Any, tmp_path: Path) -> None:
    from crisp_rag.models import build_encoder

    train(tiny, examples, tmp_path / "out", OPTIONS)
    other = build_encoder(tiny_backbone, pooling="2x4", max_tokens=64, query_centroid="sum", device="cpu")
    with pytest.raises(InvalidInputError, match="start"):
        train(other, examples, tmp_path / "out", OPTIONS, resume=True)


def test_lora_trains_few_numbers_and_leaves_a_plain_encoder(tiny: Any, examples: Any, tmp_path: Path) -> None:
    before = _weights(tiny)
    options = TrainingOptions(steps=120, batch_size=8, learning_rate=5e-3, layers=2, lora_rank=4)
    report = train(tiny, examples, tmp_path / "out", options)
    assert report.trained_parameters < 0.3 * sum(value.size for name, value in before.items() if "layer." in name)
    assert report.losses[-1]["contrast_float"] < 0.8 * report.losses[0]["contrast_float"]
    after = _weights(load_encoder(tmp_path / "out", device="cpu"))
    assert after.keys() == before.keys()
    changed = {name for name in after if not np.array_equal(after[name], before[name])}
    assert changed and all(name.endswith("weight") and "layer." in name and "Norm" not in name for name in changed)
    assert all(parameter.requires_grad for parameter in tiny.model.parameters())


def test_the_encoder_is_evaluated_on_the_way_and_trains_on_as_if_it_had_not_been(
    tiny: Any, tiny_backbone: Path, examples: Any, tmp_path: Path
) -> None:
    from crisp_rag.models import build_encoder

    seen: list[Any] = []

    def evaluate(encoder: Any) -> dict[str, float]:
        seen.append(encoder.encode_document(examples[0].positive))
        return {"nDCG@10": 0.5}

    watched = train(tiny, examples, tmp_path / "watched", replace(OPTIONS, evaluate_steps=5), evaluate=evaluate)
    assert watched.evaluations == [{"step": 5, "nDCG@10": 0.5}, {"step": 10, "nDCG@10": 0.5}]
    assert not np.array_equal(seen[0], seen[1])
    alone = build_encoder(tiny_backbone, pooling="4x8", max_tokens=64, query_centroid="sum", device="cpu")
    train(alone, examples, tmp_path / "alone", OPTIONS)
    for name, value in _weights(alone).items():
        np.testing.assert_array_equal(value, _weights(tiny)[name], err_msg=name)


def test_a_large_batch_fits_through_small_forward_passes(tiny: Any, examples: Any, tmp_path: Path) -> None:
    options = TrainingOptions(steps=40, batch_size=16, mini_batch_size=4, learning_rate=4e-3, layers=2)
    report = train(tiny, examples, tmp_path / "out", options)
    assert report.losses[-1]["contrast_float"] < 0.8 * report.losses[0]["contrast_float"]


def test_the_model_card_names_data_options_and_base(tiny: Any, examples: Any, tmp_path: Path) -> None:
    train(tiny, examples, tmp_path / "out", OPTIONS)
    card = (tmp_path / "out" / "README.md").read_text()
    for part in ("# out", "stories | 40", "learning_rate | 0.002", "Base: tiny", "pooling `4x8`"):
        assert part in card


@pytest.mark.parametrize(
    "bad",
    [
        {"steps": 0},
        {"lora_rank": 0},
        {"mini_batch_size": 0},
        {"evaluate_steps": -1},
        {"batch_size": 0},
        {"layers": 0},
        {"learning_rate": 0.0},
    ],
)
def test_impossible_options_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        TrainingOptions(**bad)


def test_the_teacher_is_neither_trained_nor_saved(tiny: Any, tiny_backbone: Path, examples: Any, tmp_path: Path) -> None:
    from crisp_rag.models import build_encoder
    from crisp_rag.training.teachers import TokenTeacher

    teacher = build_encoder(tiny_backbone, pooling="none", max_tokens=64, device="cpu")
    before = _weights(teacher)
    train(tiny, examples, tmp_path / "out", OPTIONS, teacher=TokenTeacher(teacher.model))
    for name, value in _weights(teacher).items():
        np.testing.assert_array_equal(value, before[name])
    assert set(_weights(load_encoder(tmp_path / "out", device="cpu"))) == set(before)
