"""What a student's scores are compared with: a model that stays as it is, and what it made of each text, kept.

    teacher = TokenTeacher(load_encoder("backbone").with_pooling("none").model, remember=True)
    train(encoder, examples, "my-encoder", teacher=teacher)

A teacher scores every document of a step for every query, so that a step is one list of candidates for each of its
queries.  It runs once for every text; with a memory that lies in files, once for all runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch
from sentence_transformers.util.similarity import maxsim
from torch import Tensor

from crisp_rag.training.tokens import token_vectors

if TYPE_CHECKING:
    from sentence_transformers import MultiVectorEncoder

Column = tuple[dict[str, Any], str]
"""Features of B texts and their task, ``query`` or ``document``."""


class Teacher(Protocol):
    """What :class:`crisp_rag.training.losses.CrispLoss` asks for targets."""

    def scores(self, columns: list[Column]) -> Tensor:
        """(B, documents) scores of the first column's texts with those of all others, column by column.  The loss
        multiplies them by its ``teacher_scale`` on their way into a softmax; only differences in a row count."""


class TokenTeacher:
    """The mean over a query's tokens of their largest inner product with any token of the document: unpruned MaxSim.

    Args:
        model: A multi-vector encoder without pooling; it stays as it is.
        remember: Keep token vectors by token ids, in float16, so that each text runs through the model once; some 100 KB a
            text of 140 tokens and 384 dims.
    """

    def __init__(self, model: MultiVectorEncoder, *, remember: bool = False) -> None:
        self.model = model
        self._held: dict[tuple[str, bytes], Tensor] | None = {} if remember else None

    def put(self, task: str, ids: Tensor, vectors: Tensor) -> None:
        """Keep the (T, D) vectors of a text's (T,) token ids."""
        if self._held is not None:
            self._held[task, ids.cpu().numpy().tobytes()] = vectors

    @torch.no_grad()
    def scores(self, columns: list[Column]) -> Tensor:
        tokens = [self._tokens(*column) for column in columns]
        (query, mask), documents = tokens[0], tokens[1:]
        with torch.autocast(query.device.type, enabled=False):
            found = [maxsim(query, vectors, a_mask=mask, b_mask=kept) for vectors, kept in documents]
        return torch.cat(found, dim=1) / mask.sum(dim=1, keepdim=True).clamp_min(1)

    def _tokens(self, features: dict[str, Any], task: str) -> tuple[Tensor, Tensor]:
        """(B, T, D) unit vectors and their (B, T) mask."""
        ids, mask = features["input_ids"], features["attention_mask"].bool()
        if self._held is None:
            vectors, mask = token_vectors(self.model, features, task)
            return vectors.float(), mask
        keys = [(task, row[kept].cpu().numpy().tobytes()) for row, kept in zip(ids, mask)]
        new = [row for row, key in enumerate(keys) if key not in self._held]
        if new:
            made, kept = token_vectors(self.model, {name: _at(value, new) for name, value in features.items()}, task)
            for row, vectors, real in zip(new, made, kept):
                self._held[keys[row]] = vectors[real].half().cpu()
        rows = [self._held[key] for key in keys]
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(ids.device).float()
        width = torch.arange(padded.shape[1], device=ids.device)
        return padded, width < torch.tensor([[len(row)] for row in rows], device=ids.device)


def _at(value: Any, rows: list[int]) -> Any:
    return value[rows] if isinstance(value, Tensor) and value.dim() else value
