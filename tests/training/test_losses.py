"""The loss against MaxSim written out by hand, and its gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from crisp_rag.errors import InvalidInputError
from crisp_rag.training import CrispLoss


def _features(encoder: Any, *columns: list[str]) -> list[dict[str, Any]]:
    tasks = ["query"] + ["document"] * (len(columns) - 1)
    return [encoder.model.preprocess(column, task=task) for column, task in zip(columns, tasks)]


QUERIES = ["where is the lamp", "who cleans the oven"]
POSITIVES = ["The lamp stands at the harbour by the gate.", "A baker cleans the oven every week with sand."]
NEGATIVES = ["A rope hangs from the wall of the mill.", "The ladder leans on an old tree in the orchard."]


def _by_hand(encoder: Any, documents: list[str], sign: bool = False) -> torch.Tensor:
    """(2, documents) scores over the tokens behind a query."""
    queries = [torch.from_numpy(vectors) for vectors in encoder.encode_query(QUERIES)]
    texts = [torch.from_numpy(vectors) for vectors in encoder.encode_document(documents)]
    if sign:
        texts = [torch.where(text >= 0, 1.0, -1.0) / text.shape[1] ** 0.5 for text in texts]
    lengths = encoder.count_tokens(QUERIES)
    return torch.tensor(
        [[float((query @ text.T).amax(1).sum()) / length for text in texts] for query, length in zip(queries, lengths)]
    )


@pytest.mark.parametrize("codec", ["float", "sign"])
def test_the_contrast_is_cross_entropy_of_maxsim_over_all_documents_of_the_step(tiny: Any, codec: Any) -> None:
    tiny.model.eval()
    loss = CrispLoss(tiny.model, scale=10.0, distillation=0.0, codec=codec)
    got = loss(_features(tiny, QUERIES, POSITIVES, NEGATIVES))
    scores = _by_hand(tiny, POSITIVES + NEGATIVES, sign=codec == "sign")
    assert float(got) == pytest.approx(float(torch.nn.functional.cross_entropy(scores * 10, torch.arange(2))), abs=1e-4)


def test_both_codecs_give_the_mean_of_the_two_losses(tiny: Any) -> None:
    tiny.model.eval()
    features = _features(tiny, QUERIES, POSITIVES)
    values = {codec: float(CrispLoss(tiny.model, codec=codec)(features)) for codec in ("float", "sign", "both")}
    assert values["both"] == pytest.approx((values["float"] + values["sign"]) / 2, abs=1e-5)
    assert values["float"] != pytest.approx(values["sign"], abs=1e-5)


def test_a_student_that_keeps_every_token_has_nothing_to_distil(tiny: Any) -> None:
    tiny.model.eval()
    whole = tiny.with_pooling("64x64", query_centroid="sum")  # as many clusters as there are tokens
    loss = CrispLoss(whole.model, contrast=0.0, distillation=1.0)
    assert float(loss(_features(whole, QUERIES, POSITIVES))) == pytest.approx(0.0, abs=1e-4)


def test_the_gradient_reaches_the_backbone_through_the_centroids_and_through_the_code(tiny: Any) -> None:
    for codec in ("float", "sign"):
        tiny.model.zero_grad()
        CrispLoss(tiny.model, codec=codec)(_features(tiny, QUERIES, POSITIVES)).backward()
        norms = [float(p.grad.norm()) for p in tiny.model.parameters() if p.grad is not None]
        assert norms and all(norm == norm for norm in norms) and max(norms) > 0


def test_budgets_are_drawn_by_seed_and_step(tiny: Any) -> None:
    loss = CrispLoss(tiny.model, budgets=[(2, 4), (4, 8), (8, 16)], seed=3)

    def drawn() -> list[tuple[Any, Any]]:
        pairs = []
        for step in range(30):
            loss.step = step
            (pooling,) = loss._poolings_of_step()
            pairs.append((pooling.query, pooling.document))
        return pairs

    first = drawn()
    assert first == drawn() and set(first) == {(2, 4), (4, 8), (8, 16)}
    assert tiny.pooling == "4x8"  # the model's own stays as it is


def test_settings_that_mean_nothing_are_refused(tiny: Any) -> None:
    with pytest.raises(InvalidInputError, match="codec"):
        CrispLoss(tiny.model, codec="zip")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="not both 0"):
        CrispLoss(tiny.model, contrast=0.0, distillation=0.0)
    with pytest.raises(InvalidInputError, match="ClusterPooling"):
        CrispLoss(tiny.with_pooling("none").model, budgets=[(4, 8)])


@pytest.mark.parametrize("size", [1, 2, 5])
def test_small_forward_passes_give_the_loss_and_the_gradients_of_one_large_one(tiny: Any, size: int) -> None:
    tiny.model.eval()
    features = _features(tiny, [*QUERIES, "a gate"], [*POSITIVES, "The gate is by the harbour."], [*NEGATIVES, "A key."])
    parameters = [parameter for parameter in tiny.model.parameters() if parameter.requires_grad]

    def gradients(mini_batch_size: int | None) -> tuple[float, list[torch.Tensor | None]]:
        tiny.model.zero_grad()
        loss = CrispLoss(tiny.model, scale=10.0, codec="both", mini_batch_size=mini_batch_size)(features)
        (loss * 0.5).backward()  # a factor, as gradient accumulation has one
        return float(loss.detach()), [None if each.grad is None else each.grad.clone() for each in parameters]

    (whole, expected), (cached, got) = gradients(None), gradients(size)
    assert cached == pytest.approx(whole, abs=1e-5)
    assert any(each is not None and bool(each.abs().sum() > 0) for each in expected)
    for right, own in zip(expected, got, strict=True):
        assert (right is None) == (own is None)
        if right is not None and own is not None:
            assert torch.allclose(own, right, atol=1e-5)


def test_the_teacher_sees_the_text_vector_too(tiny: Any) -> None:
    tiny.model.eval()
    # As many clusters as there are tokens, and the text vector.
    whole = tiny.with_pooling("65x65", document_text_vector=True, query_text_vector=0.5)
    loss = CrispLoss(whole.model, contrast=0.0, distillation=1.0)
    assert float(loss(_features(whole, QUERIES, POSITIVES))) == pytest.approx(0.0, abs=1e-4)
