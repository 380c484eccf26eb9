"""The loss of CRISP training: contrast over centroids, and distillation from the vectors that clustering replaced.

CRISP (arXiv 2505.11471) trains with in-batch contrast on MaxSim over centroids.  Beyond the paper: the scores of
the full token vectors teach the scores of the centroids (KL divergence, no labels needed), budgets can be drawn
anew each step, and document centroids can pass through the index's one-bit code on their way into the score.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.util.similarity import maxsim
from torch import Tensor, nn

from crisp_rag.errors import InvalidInputError
from crisp_rag.models.pooling import BatchedPooling, ClusterPooling, check_budget, find_pooling
from crisp_rag.training.teachers import Teacher
from crisp_rag.training.tokens import token_vectors

Codec = Literal["float", "sign", "both"]


class CrispLoss(nn.Module):
    """Contrast and distillation on MaxSim, after pooling.

    Every document of the step, positive or negative, is scored against every query.  Scores are means over the
    tokens behind a query (over its vectors where they are not weighted by size), so ``scale`` means the same for a
    query of 4 vectors and one of 40.

    Args:
        model: The encoder to train; its pooling module, if it has one, is part of the step.
        scale: 1 / temperature of the contrast.
        contrast: Weight of the contrastive part.
        distillation: Weight of KL(teacher || student) over the step's documents; the teacher scores with all token
            vectors.
        teacher: Scores that stay as they are (:mod:`crisp_rag.training.teachers`); None takes the student's own token
            vectors of the same step, which costs no second forward pass.
        teacher_scale: 1 / temperature of both sides of the distillation.
        budgets: (query, document) budgets to draw from: one encoder for all of them.  None keeps the pooling's own.
        draws: How many of the budgets a step takes; the loss is their mean.  The backbone's part is shared, so a second
            one costs next to nothing.
        codec: ``sign`` scores document vectors as their one-bit code decodes (signs / sqrt(dim)), with a
            straight-through gradient (Bengio et al. 2013, arXiv 1308.3432); ``both`` takes the mean of that loss
            and the one of the vectors as they are, for an encoder that serves either index.
        mini_batch_size: Texts that go through the backbone together.  None takes all of a step at once; a number
            bounds the memory of a large batch by GradCache (Gao et al. 2021, arXiv 2101.06983): the same loss and
            gradients, for a second forward pass.
        seed: For the budgets.

    Inputs of ``forward``: features of queries, positives and any number of negatives, B rows each; no labels.
    """

    def __init__(
        self,
        model: MultiVectorEncoder,
        *,
        scale: float = 20.0,
        contrast: float = 1.0,
        distillation: float = 1.0,
        teacher: Teacher | None = None,
        teacher_scale: float = 20.0,
        budgets: Sequence[tuple[int | str, int | str]] | None = None,
        draws: int = 1,
        codec: Codec = "float",
        mini_batch_size: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if codec not in ("float", "sign", "both"):
            raise InvalidInputError(f"codec must be float, sign or both, got {codec!r}.")
        if contrast < 0 or distillation < 0 or contrast + distillation == 0:
            raise InvalidInputError("contrast and distillation are weights of 0 or more, and not both 0.")
        self.model = model
        self.scale = scale
        self.contrast = contrast
        self.distillation = distillation
        self.teacher_scale = teacher_scale
        self.budgets = [(check_budget(query), check_budget(document)) for query, document in budgets or []]
        self.draws = draws
        self.codec = codec
        self.mini_batch_size = mini_batch_size
        self.seed = seed
        self.step = 0
        """The trainer's step, set by it; decides the budget, so that a resumed run draws the same ones."""
        self.parts: dict[str, float] = {}
        """The parts of the last loss, for the log."""
        if self.budgets and not isinstance(find_pooling(model, BatchedPooling), ClusterPooling):
            raise InvalidInputError("Budgets are drawn for a ClusterPooling; this model has none.")
        if not 1 <= draws <= max(1, len(self.budgets)):
            raise InvalidInputError(f"draws is a number from 1 to that of the budgets, got {draws}.")
        self.teacher = teacher

    def get_config_dict(self) -> dict[str, Any]:
        """The settings, for the model card."""
        keys = ("scale", "contrast", "distillation", "teacher_scale", "budgets", "draws", "codec", "mini_batch_size", "seed")
        return {key: getattr(self, key) for key in keys}

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | None = None) -> Tensor:
        features = [dict(column) for column in sentence_features]
        if self.mini_batch_size is None:
            return self._of_tokens(features, [token_vectors(self.model, *column) for column in _with_tasks(features)])
        return self._cached(features, self.mini_batch_size)

    def _cached(self, features: list[dict[str, Any]], size: int) -> Tensor:
        """GradCache: token vectors without a graph, the loss and its gradients on them, then the backbone again, part
        by part, with those gradients.  The second pass hangs on the returned loss, whose factor it takes over."""
        parts = [
            (column, {key: _rows(value, first, size) for key, value in given.items()}, task)
            for column, (given, task) in enumerate(_with_tasks(features))
            for first in range(0, len(given["input_ids"]), size)
        ]
        tokens: list[tuple[Tensor, Tensor]] = []
        with torch.no_grad():
            for column in range(len(features)):
                made = [token_vectors(self.model, part, task) for own, part, task in parts if own == column]
                tokens.append((torch.cat([vectors for vectors, _ in made]), torch.cat([mask for _, mask in made])))
        if not torch.is_grad_enabled():
            return self._of_tokens(features, tokens)
        leaves = [(vectors.detach().requires_grad_(), mask) for vectors, mask in tokens]
        loss = self._of_tokens(features, leaves)
        gradients = torch.autograd.grad(loss, [vectors for vectors, _ in leaves])

        def second_pass(factor: Tensor) -> None:
            taken = [0] * len(features)
            with torch.enable_grad():
                for column, part, task in parts:
                    vectors, _ = token_vectors(self.model, part, task)
                    own = gradients[column][taken[column] : taken[column] + len(vectors)]
                    taken[column] += len(vectors)
                    (vectors * own).sum().mul(factor).backward()

        outer = loss.detach().requires_grad_()
        outer.register_hook(second_pass)
        return outer

    def _of_tokens(self, features: list[dict[str, Any]], tokens: list[tuple[Tensor, Tensor]]) -> Tensor:
        """The loss for (B, T, D) token vectors and (B, T) masks of queries, positives and negatives."""
        target = self.teacher.scores(_with_tasks(features)) if self.teacher and self.distillation else None
        with torch.autocast(tokens[0][0].device.type, enabled=False):  # bfloat16 is for backbones: scores are close
            return self._of_float32(_in_float32(tokens), None if target is None else target.float())

    def _of_float32(self, tokens: list[tuple[Tensor, Tensor]], target: Tensor | None) -> Tensor:
        """The same for float32 vectors, and the (B, documents) scores of the teacher if it is another one."""
        if target is None and self.distillation:
            target = self._own_scores(tokens)
        self.parts = {}
        losses = []
        pooled: dict[tuple[str, Any], Any] = {}  # of several draws, one side's budget may be the same
        for pooling in self._poolings_of_step():
            query, query_mask = self._pool_once(pooled, pooling, tokens[:1], "query")[0]
            columns = self._pool_once(pooled, pooling, tokens[1:], "document")
            weighted = isinstance(pooling, ClusterPooling) and pooling.weighs_queries
            length = (tokens[0][1] if weighted else query_mask).sum(dim=1, keepdim=True).clamp_min(1)
            for code in ("float", "sign") if self.codec == "both" else (self.codec,):
                coded = [(_one_bit(vectors), mask) for vectors, mask in columns] if code == "sign" else columns
                losses.append(self._of_scores(_scores(query, query_mask, coded) / length, target, code))
        count = len(losses) / (2 if self.codec == "both" else 1)
        self.parts = {name: value / count for name, value in self.parts.items()}
        return torch.stack(losses).mean()

    def _pool_once(
        self, pooled: dict[tuple[str, Any], Any], pooling: Any, columns: list[tuple[Tensor, Tensor]], task: str
    ) -> list[tuple[Tensor, Tensor]]:
        key = (task, pooling.budget(task) if isinstance(pooling, BatchedPooling) else None)
        if key not in pooled:
            pooled[key] = [_pool(pooling, *column, task) for column in columns]
        return pooled[key]

    def _of_scores(self, scores: Tensor, target: Tensor | None, code: str) -> Tensor:
        """The weighted parts for (B, documents) mean MaxSim scores, with the teacher's to distil from."""
        loss = scores.new_zeros(())
        if self.contrast:
            part = nn.functional.cross_entropy(scores * self.scale, torch.arange(len(scores), device=scores.device))
            self._add_part(f"contrast_{code}", part)
            loss = loss + self.contrast * part
        if target is not None:
            part = nn.functional.kl_div(
                (scores * self.teacher_scale).log_softmax(dim=1),
                (target * self.teacher_scale).log_softmax(dim=1),
                reduction="batchmean",
                log_target=True,
            )
            self._add_part(f"distillation_{code}", part)
            loss = loss + self.distillation * part
        return loss

    def _add_part(self, name: str, part: Tensor) -> None:
        self.parts[name] = self.parts.get(name, 0.0) + float(part.detach())

    def _poolings_of_step(self) -> list[Any]:
        pooling = find_pooling(self.model, BatchedPooling)
        if not self.budgets:
            return [pooling]
        drawn = []
        for query, document in random.Random(f"{self.seed}-{self.step}").sample(self.budgets, self.draws):
            each = copy.copy(pooling)
            each.query, each.document = query, document  # type: ignore[union-attr]
            drawn.append(each)
        return drawn

    def _own_scores(self, tokens: list[tuple[Tensor, Tensor]]) -> Tensor:
        """What the student's own (B, T, D) token vectors score before they are pooled."""
        with torch.no_grad():
            length = tokens[0][1].sum(dim=1, keepdim=True).clamp_min(1)
            pooling = find_pooling(self.model, BatchedPooling)
            if isinstance(pooling, ClusterPooling):
                tokens = [
                    pooling.keep_all(*column, "document" if position else "query") for position, column in enumerate(tokens)
                ]
            return _scores(*tokens[0], tokens[1:]) / length


def _in_float32(tokens: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    return [(vectors.float(), mask) for vectors, mask in tokens]


def _one_bit(vectors: Tensor) -> Tensor:
    """Signs / sqrt(dim) forward, identity backward."""
    code = torch.where(vectors >= 0, 1.0, -1.0) / vectors.shape[-1] ** 0.5
    return vectors + (code - vectors).detach()


def _with_tasks(features: list[dict[str, Any]]) -> list[tuple[dict[str, Any], str]]:
    return [(column, "query" if position == 0 else "document") for position, column in enumerate(features)]


def _rows(value: Any, first: int, size: int) -> Any:
    return value[first : first + size] if isinstance(value, Tensor) and value.dim() else value


def _pool(pooling: Any, vectors: Tensor, mask: Tensor, task: str) -> tuple[Tensor, Tensor]:
    if pooling is None or not pooling.applies_to(task):
        return vectors, mask
    return pooling.pool_batch(vectors, mask, task)


def _scores(query: Tensor, mask: Tensor, columns: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """(B, columns x B) MaxSim of every query with every document, column by column."""
    return torch.cat([maxsim(query, vectors, a_mask=mask, b_mask=kept) for vectors, kept in columns], dim=1)
