"""The CRISP recipe: texts in, trained encoder out.

data.py        examples: a query, the document that answers it, documents that do not
batches.py     which examples share a step, so that in-batch negatives are hard
mining.py      hard negatives, found with an encoder
neighbours.py  examples whose documents are alike, so that a step is a list of hard candidates
teachers.py    what a student's scores are compared with
losses.py      contrast and distillation over centroids
trunk.py       frozen layers, run once for every text
model_card.py  what a trained encoder says of itself
recipe.py      TrainingOptions and train(): everything above over sentence-transformers' trainer
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_LAZY = {
    "Example": "data",
    "Section": "data",
    "examples_from_jsonl": "data",
    "examples_from_judgements": "data",
    "examples_from_sections": "data",
    "mine_hard_negatives": "mining",
    "CrispLoss": "losses",
    "ELASTIC_BUDGETS": "recipe",
    "TrainingOptions": "recipe",
    "train": "recipe",
}
__all__ = sorted(_LAZY)

if TYPE_CHECKING:
    from crisp_rag.training.data import Example as Example
    from crisp_rag.training.data import Section as Section
    from crisp_rag.training.data import examples_from_jsonl as examples_from_jsonl
    from crisp_rag.training.data import examples_from_judgements as examples_from_judgements
    from crisp_rag.training.data import examples_from_sections as examples_from_sections
    from crisp_rag.training.losses import CrispLoss as CrispLoss
    from crisp_rag.training.mining import mine_hard_negatives as mine_hard_negatives
    from crisp_rag.training.recipe import ELASTIC_BUDGETS as ELASTIC_BUDGETS
    from crisp_rag.training.recipe import TrainingOptions as TrainingOptions
    from crisp_rag.training.recipe import train as train


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'crisp_rag.training' has no attribute {name!r}")
    return getattr(import_module(f"crisp_rag.training.{_LAZY[name]}"), name)
