"""Which examples share a training step.

In-batch negatives teach little when a step's texts have nothing in common.  A step therefore holds examples of one
source, several each of a few groups (articles, topics), and never the same text twice: a repeated positive would
be scored as its own negative.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence

from torch.utils.data import Sampler

from crisp_rag.errors import InvalidInputError
from crisp_rag.training.data import Example


def plan_batches(
    examples: Sequence[Example], *, batch_size: int, steps: int, per_group: int = 8, seed: int = 0
) -> list[list[int]]:
    """The positions of the examples of each step, all steps of a training run.

    Args:
        examples: What there is to learn.
        batch_size: Examples a step.
        steps: How many steps; the examples are gone through as often as it takes, in another order each time.
        per_group: Examples of one group that a step takes together.
        seed: The same seed gives the same plan.

    Raises:
        InvalidInputError: if no source has ``batch_size`` examples with distinct texts.
    """
    batches: list[list[int]] = []
    epoch = 0
    while len(batches) < steps:
        fresh = _plan_epoch(examples, batch_size, per_group, random.Random(f"{seed}-{epoch}"))
        if not fresh:
            raise InvalidInputError(
                f"No source has {batch_size} examples with distinct texts; use a smaller batch size or more data."
            )
        batches += fresh
        epoch += 1
    return batches[:steps]


def _plan_epoch(examples: Sequence[Example], batch_size: int, per_group: int, rng: random.Random) -> list[list[int]]:
    groups: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for position, example in enumerate(examples):
        groups[example.source][example.group].append(position)
    batches = []
    for source in sorted(groups):
        chunks = []
        for members in groups[source].values():
            rng.shuffle(members)
            chunks += [members[first : first + per_group] for first in range(0, len(members), per_group)]
        rng.shuffle(chunks)
        batches += _fill(examples, [position for chunk in chunks for position in chunk], batch_size)
    rng.shuffle(batches)
    return batches


def _fill(examples: Sequence[Example], order: list[int], batch_size: int) -> list[list[int]]:
    """Full batches in this order; an example whose texts a batch holds already waits for the next one."""
    batches = []
    waiting: list[int] = []
    batch: list[int] = []
    held: set[str] = set()

    def take(position: int) -> bool:
        example = examples[position]
        if example.query in held or example.positive in held:
            return False
        held.update((example.query, example.positive))
        batch.append(position)
        return True

    for position in order:
        if not take(position):
            waiting.append(position)
        if len(batch) == batch_size:
            batches.append(list(batch))
            batch.clear()
            held.clear()
            waiting = [later for later in waiting if len(batch) >= batch_size or not take(later)]
    return batches


class PlannedBatchSampler(Sampler[list[int]]):
    """Hands a trainer the batches of a plan, one after the other."""

    def __init__(self, batches: list[list[int]]) -> None:
        self.batches = batches
        self.batch_size = len(batches[0])
        self.drop_last = True

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)
