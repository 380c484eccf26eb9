"""Teachers that stay as they are, and neighbourhoods of examples."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crisp_rag.errors import InvalidInputError
from crisp_rag.training import CrispLoss, Example
from crisp_rag.training.neighbours import group_neighbours
from crisp_rag.training.teachers import TokenTeacher

QUERIES = ["where is the lamp", "who cleans the oven"]
DOCUMENTS = ["The lamp stands at the harbour by the gate.", "A baker cleans the oven every week with sand."]


def _columns(encoder: Any) -> list[tuple[dict[str, Any], str]]:
    return [
        (encoder.model.preprocess(texts, task=task), task)
        for texts, task in ((QUERIES, "query"), (DOCUMENTS, "document"), (DOCUMENTS[::-1], "document"))
    ]


def test_a_teacher_scores_by_mean_maxsim_of_all_tokens(tiny: Any) -> None:
    whole = tiny.with_pooling("none")
    scores = TokenTeacher(whole.model).scores(_columns(tiny))
    queries, documents = whole.encode_query(QUERIES), whole.encode_document(DOCUMENTS + DOCUMENTS[::-1])
    right = [[float((query @ text.T).max(axis=1).mean()) for text in documents] for query in queries]
    np.testing.assert_allclose(scores.numpy(), right, atol=1e-5)


def test_what_it_remembers_it_does_not_compute_again(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tiny.with_pooling("none")
    teacher = TokenTeacher(whole.model, remember=True)
    first = teacher.scores(_columns(tiny))
    np.testing.assert_allclose(first.numpy(), TokenTeacher(whole.model).scores(_columns(tiny)).numpy(), atol=1e-3)
    monkeypatch.setattr("crisp_rag.training.teachers.token_vectors", lambda *_: pytest.fail("computed again"))
    assert torch.equal(teacher.scores(_columns(tiny)), first)


def test_the_student_is_pulled_towards_its_teacher(tiny: Any, tiny_backbone: Path) -> None:
    class Sure:
        def scores(self, columns: Any) -> torch.Tensor:
            return torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])

    tiny.model.eval()
    loss = CrispLoss(tiny.model, contrast=0.0, teacher=Sure())
    optimiser = torch.optim.SGD(tiny.model.parameters(), lr=0.5)
    features = [column for column, _ in _columns(tiny)]
    values = []
    for _ in range(6):
        optimiser.zero_grad()
        value = loss(features)
        value.backward()
        optimiser.step()
        values.append(float(value.detach()))
    assert values[-1] < values[0] * 0.9


def test_several_budgets_a_step_are_the_mean_of_each_alone(tiny: Any) -> None:
    tiny.model.eval()
    features = [column for column, _ in _columns(tiny)]
    budgets = [(2, 4), (4, 8), ("100%", 4)]
    together = float(CrispLoss(tiny.model, budgets=budgets, draws=3)(features))
    alone = [float(CrispLoss(tiny.model, budgets=[budget])(features)) for budget in budgets]
    assert together == pytest.approx(np.mean(alone), abs=1e-5)
    with pytest.raises(InvalidInputError, match="draws"):
        CrispLoss(tiny.model, budgets=budgets, draws=4)


def test_a_neighbourhood_holds_examples_whose_positives_are_alike() -> None:
    chance = np.random.default_rng(0)
    topics = np.repeat(np.arange(6), 8)
    vectors = np.eye(6)[topics] + chance.normal(scale=0.05, size=(48, 6))
    source = ["a" if topic < 3 else "b" for topic in topics]
    examples = [Example(f"q{n}", f"d{n}", source=source[n]) for n in range(48)]
    order = chance.permutation(48)
    grouped = group_neighbours([examples[n] for n in order], vectors[order], size=8)
    assert [example.query for example in grouped] == [f"q{n}" for n in order], "in the order they came in"
    groups = Counter((example.group, int(topics[int(example.query[1:])])) for example in grouped)
    assert len(groups) == 6 and set(groups.values()) == {8}
    again = group_neighbours([examples[n] for n in order], vectors[order], size=8)
    assert again == grouped


def test_neighbourhoods_need_a_vector_an_example() -> None:
    with pytest.raises(InvalidInputError):
        group_neighbours([Example("q", "d")], np.zeros((2, 3)))
