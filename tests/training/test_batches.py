"""Which examples share a step."""

from __future__ import annotations

from collections import Counter

import pytest

from crisp_rag.errors import InvalidInputError
from crisp_rag.training.batches import plan_batches
from crisp_rag.training.data import Example


def _examples(per_group: int, groups: int, source: str = "s") -> list[Example]:
    return [
        Example(f"{source} q{g}-{n}", f"{source} p{g}-{n}", group=str(g), source=source)
        for g in range(groups)
        for n in range(per_group)
    ]


def test_the_plan_has_exactly_the_steps_asked_for_and_full_batches() -> None:
    plan = plan_batches(_examples(10, 5), batch_size=8, steps=23)
    assert len(plan) == 23 and all(len(set(batch)) == 8 for batch in plan)


def test_a_step_holds_examples_of_one_source_and_several_of_a_group() -> None:
    examples = _examples(10, 6, "a") + _examples(10, 6, "b")
    for batch in plan_batches(examples, batch_size=16, steps=10, per_group=8):
        assert len({examples[position].source for position in batch}) == 1
        assert max(Counter(examples[position].group for position in batch).values()) >= 6


def test_no_step_holds_a_text_twice_and_a_waiting_example_comes_later() -> None:
    shared = [Example(f"q{n}", "the same positive", source="s") for n in range(6)]
    examples = shared + _examples(2, 30)
    plan = plan_batches(examples, batch_size=8, steps=7, per_group=2)
    for batch in plan:
        assert len({examples[position].positive for position in batch}) == 8
    assert len({position for batch in plan for position in batch if position < 6}) >= 2


def test_within_an_epoch_no_example_comes_twice() -> None:
    plan = plan_batches(_examples(10, 8), batch_size=8, steps=10)  # 80 examples: one epoch
    counts = Counter(position for batch in plan for position in batch)
    assert set(counts.values()) == {1}


def test_the_plan_depends_on_the_seed_alone_and_a_longer_one_begins_the_same() -> None:
    examples = _examples(10, 5)
    assert plan_batches(examples, batch_size=8, steps=12, seed=4) == plan_batches(examples, batch_size=8, steps=12, seed=4)
    assert plan_batches(examples, batch_size=8, steps=12, seed=4) != plan_batches(examples, batch_size=8, steps=12, seed=5)


def test_too_few_examples_are_an_error() -> None:
    with pytest.raises(InvalidInputError, match="smaller batch size"):
        plan_batches(_examples(3, 2), batch_size=8, steps=1)
