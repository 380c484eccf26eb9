"""Token pooling that leaves a few vectors a text: CRISP's clusters and the paper's two rules of thumb.

All three are sentence-transformers ``BaseTokenPooling`` modules and serve in the same three ways: as a module of
a model's pipeline (saved with it), for one call as ``encode(token_pooling=...)``, or on stored embeddings by
``pool(...)``.  Unlike the base class they pool whole batches, so that they can stand inside a training step.

A budget is a number of vectors (``32``) or a share of a text's tokens (``"25%"``), one for queries and one for
documents; ``parse_pooling("8x32")`` builds the module that a short name stands for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Literal, TypeVar, cast

import torch
from sentence_transformers.multi_vector_encoder.modules.token_pooling import BaseTokenPooling
from torch import Tensor

from crisp_rag.models.clustering import INITIALISATIONS, Initialisation, cluster_means, spherical_kmeans

Budget = int | str
Centroid = Literal["unit", "mean", "sum", "unit_times_size"]
CENTROIDS: tuple[Centroid, ...] = ("unit", "mean", "sum", "unit_times_size")


_Kind = TypeVar("_Kind", bound=BaseTokenPooling)


def find_pooling(modules: Iterable[Any], kind: type[_Kind]) -> _Kind | None:
    """The first module of a pipeline that is such a pooling."""
    return next((module for module in modules if isinstance(module, kind)), None)


def check_budget(budget: Budget) -> Budget:
    """The budget in its canonical form: an int of at least 1, or ``"N%"`` with N in (0, 100].

    Raises:
        ValueError: if it is neither.
    """
    if isinstance(budget, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", budget)
        if match and 0 < float(match.group(1)) <= 100:
            return f"{float(match.group(1)):g}%"
        if budget.strip().isdigit():
            budget = int(budget)
    if isinstance(budget, int) and not isinstance(budget, bool) and budget >= 1:
        return budget
    raise ValueError(f"A budget is a number of vectors (32) or a share of the tokens ('25%'), got {budget!r}.")


def budget_for(budget: Budget, lengths: Tensor) -> Tensor:
    """(B,) vectors to keep for texts of (B,) ``lengths`` tokens: the budget, or floor(share x length), at least 1."""
    if isinstance(budget, int):
        return torch.full_like(lengths, budget)
    share = float(budget.rstrip("%")) / 100
    return (lengths.double() * share + 1e-9).floor().long().clamp_min(1)


class BatchedPooling(BaseTokenPooling):
    """What the three poolings share: a budget for each side, and ``forward`` over the whole padded batch."""

    config_keys: list[str] = ["query", "document", "tasks"]

    def __init__(self, query: Budget = 8, document: Budget = 32, *, tasks: str | list[str] | None = None) -> None:
        super().__init__(tasks=tasks if tasks is not None else ["query", "document"])
        self.query = check_budget(query)
        self.document = check_budget(document)

    @property
    def budget_name(self) -> str:
        """``8x32``, ``25%x50%``: a query's x a document's."""
        return f"{self.query}x{self.document}"

    @property
    def pooling_name(self) -> str:
        """The short name that :func:`parse_pooling` reads."""
        return self.budget_name

    def budget(self, task: str | None) -> Budget:
        """The budget for a task; no task counts as ``"document"``."""
        return self.query if task == "query" else self.document

    def pool_batch(self, embeddings: Tensor, mask: Tensor, task: str | None) -> tuple[Tensor, Tensor]:
        """(B, T, D) token vectors and their (B, T) mask to (B, K, D) kept vectors and their (B, K) mask."""
        raise TypeError(f"{type(self).__name__} does not say how it pools.")

    def forward(self, features: dict[str, Tensor], task: str | None = None) -> dict[str, Tensor]:  # type: ignore[override]
        if not self.applies_to(task) or features["token_embeddings"].shape[0] == 0:
            return features
        pooled, mask = self.pool_batch(features["token_embeddings"], features["attention_mask"].bool(), task)
        features["token_embeddings"] = pooled
        features["attention_mask"] = mask
        return features

    def pool_one(self, embedding: Tensor, *, task: str | None = None, **kwargs: object) -> Tensor:
        if embedding.shape[0] == 0:
            return embedding
        mask = torch.ones(1, embedding.shape[0], dtype=torch.bool, device=embedding.device)
        pooled, kept = self.pool_batch(embedding.unsqueeze(0), mask, task)
        return pooled[0][kept[0]]

    def pool(  # type: ignore[override]  # the base class drops the task, and our budget depends on it
        self,
        embeddings: list[Tensor] | Tensor,
        *,
        task: str | None = None,
        attention_mask: Tensor | None = None,
        padding_side: str = "right",
    ) -> list[Tensor] | Tensor:
        if isinstance(embeddings, list) and self.applies_to(task):
            return [self.pool_one(one, task=task) for one in embeddings]
        if isinstance(embeddings, Tensor) and self.applies_to(task) and attention_mask is not None:
            pooled, mask = self.pool_batch(embeddings, attention_mask.bool(), task)
            return pooled * mask.unsqueeze(-1)
        return super().pool(  # type: ignore[return-value]
            embeddings, task=task, attention_mask=attention_mask, padding_side=padding_side
        )


class ClusterPooling(BatchedPooling):
    """Spherical k-means over the token vectors of a text; the centroids stand for the text (CRISP's Ck variants).

    Place it after the token-level ``Normalize`` module.

    Args:
        query: Clusters a query, a number or a share such as ``"25%"``.
        document: Clusters a document.
        query_centroid: What a query keeps of a cluster of n unit token vectors with mean m: ``unit`` m / |m|;
            ``mean`` m; ``sum`` n m; ``unit_times_size`` n m / |m|.  The last two weigh a centroid by the tokens
            behind it, which makes MaxSim over centroids an approximation of MaxSim over all tokens.
        document_centroid: The same for documents.  Weighted ones make no sense there and are refused.
        document_text_vector: One of a document's vectors is the mean direction of all its tokens, what a one-vector
            model would keep; the budget has one cluster less for it.
        query_text_vector: Above 0, one of a query's vectors is its mean direction, and counts this many times its
            tokens: MaxSim then adds a whole-text match to the matches of its parts.
        iterations: Upper limit on Lloyd's iterations.
        init: How the first centroids are chosen, see :func:`crisp_rag.models.clustering.spherical_kmeans`.
        tasks: Tasks that are pooled; both by default.
    """

    config_keys: list[str] = [
        "query", "document", "query_centroid", "document_centroid", "document_text_vector", "query_text_vector",
        "iterations", "init", "tasks",
    ]  # fmt: skip

    def __init__(
        self,
        query: Budget = 8,
        document: Budget = 32,
        *,
        query_centroid: Centroid = "unit",
        document_centroid: Centroid = "unit",
        document_text_vector: bool = False,
        query_text_vector: float = 0.0,
        iterations: int = 4,
        init: Initialisation = "greedy",
        tasks: str | list[str] | None = None,
    ) -> None:
        super().__init__(query, document, tasks=tasks)
        if query_centroid not in CENTROIDS:
            raise ValueError(f"query_centroid must be one of {', '.join(CENTROIDS)}, got {query_centroid!r}.")
        if document_centroid not in ("unit", "mean"):
            raise ValueError(f"document_centroid must be unit or mean, got {document_centroid!r}.")
        if init not in INITIALISATIONS:
            raise ValueError(f"init must be one of {', '.join(INITIALISATIONS)}, got {init!r}.")
        if not 0 <= query_text_vector < float("inf"):
            raise ValueError(f"query_text_vector is a weight of 0 or more, got {query_text_vector}.")
        self.query_centroid = query_centroid
        self.document_centroid = document_centroid
        self.document_text_vector = document_text_vector
        self.query_text_vector = query_text_vector
        self.iterations = iterations
        self.init = init

    @property
    def pooling_name(self) -> str:
        """``8x32``, or ``25%`` where both sides have the same share."""
        same_share = isinstance(self.query, str) and self.query == self.document
        return str(self.query) if same_share else self.budget_name

    @property
    def options(self) -> dict[str, Any]:
        """Every setting but the budgets, as keyword arguments of another ClusterPooling."""
        return {key: getattr(self, key) for key in self.config_keys if key not in ("query", "document")}

    @property
    def weighs_queries(self) -> bool:
        """Whether a query's vectors add up to its number of tokens."""
        return self.query_centroid in ("sum", "unit_times_size")

    def pool_batch(self, embeddings: Tensor, mask: Tensor, task: str | None) -> tuple[Tensor, Tensor]:
        k = budget_for(self.budget(task), mask.sum(dim=1))
        with_text = (k > 1) & self._has_text_vector(task)  # a budget of one is the mean already
        assign = spherical_kmeans(
            embeddings, mask, k - with_text.long(), iterations=self.iterations, init=self.init,
            weighted=task == "query" and self.weighs_queries,
        )  # fmt: skip
        means, sizes = cluster_means(embeddings, assign)
        centroid = self.query_centroid if task == "query" else self.document_centroid
        if centroid in ("unit", "unit_times_size"):
            means = _unit(means)
        if centroid in ("sum", "unit_times_size"):
            means = means * sizes.unsqueeze(-1)
        if not self._has_text_vector(task):
            return means, sizes > 0
        return self._append_text_vector(means, sizes > 0, embeddings, mask, with_text, task)

    def keep_all(self, embeddings: Tensor, mask: Tensor, task: str | None) -> tuple[Tensor, Tensor]:
        """(B, T, D) token vectors and their mask as they are, and the text vector behind them if there is one: what
        the centroids stand for."""
        if not self._has_text_vector(task):
            return embeddings, mask
        with_text = torch.ones(len(mask), dtype=torch.bool, device=mask.device)
        return self._append_text_vector(embeddings, mask, embeddings, mask, with_text, task)

    def _has_text_vector(self, task: str | None) -> bool:
        return self.query_text_vector > 0 if task == "query" else self.document_text_vector

    def _append_text_vector(
        self, vectors: Tensor, kept: Tensor, embeddings: Tensor, mask: Tensor, with_text: Tensor, task: str | None
    ) -> tuple[Tensor, Tensor]:
        text = _unit((embeddings * mask.unsqueeze(-1)).sum(dim=1, keepdim=True))
        if task == "query":
            text = text * self.query_text_vector
            if self.weighs_queries:
                text = text * mask.sum(dim=1).view(-1, 1, 1)
        return torch.cat([vectors, text], dim=1), torch.cat([kept, with_text.unsqueeze(1)], dim=1)


def _unit(vectors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors.float(), dim=-1).to(vectors.dtype)


class TailPooling(BatchedPooling):
    """Keeps the last k token vectors of a text (the paper's Tail variants)."""

    @property
    def pooling_name(self) -> str:
        return f"tail{self.budget_name}"

    def pool_batch(self, embeddings: Tensor, mask: Tensor, task: str | None) -> tuple[Tensor, Tensor]:
        lengths = mask.sum(dim=1)
        position = mask.long().cumsum(dim=1)
        kept = mask & (position > (lengths - budget_for(self.budget(task), lengths)).unsqueeze(1))
        return _gather_kept(embeddings, kept)


class SpacingPooling(BatchedPooling):
    """Keeps every n-th token vector of a text, from the first on (the paper's K2 and K4 variants).

    Args:
        every: The distance between kept tokens.
        tasks: Tasks that are pooled; both by default.
    """

    config_keys: list[str] = ["every", "tasks"]

    def __init__(self, every: int = 2, *, tasks: str | list[str] | None = None) -> None:
        super().__init__(tasks=tasks)
        if every < 1:
            raise ValueError(f"every must be at least 1, got {every}.")
        self.every = every

    @property
    def pooling_name(self) -> str:
        return f"k{self.every}"

    def pool_batch(self, embeddings: Tensor, mask: Tensor, task: str | None) -> tuple[Tensor, Tensor]:
        rank = mask.long().cumsum(dim=1) - 1
        return _gather_kept(embeddings, mask & (rank % self.every == 0))


def _gather_kept(embeddings: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Move the kept vectors of each row to its front, in order: (B, T, D), (B, T) to (B, K, D), (B, K)."""
    counts = kept.sum(dim=1)
    width = int(counts.max())
    order = (~kept).long().argsort(dim=1, stable=True)[:, :width]
    gathered = embeddings.gather(1, order.unsqueeze(-1).expand(-1, -1, embeddings.shape[-1]))
    mask = torch.arange(width, device=kept.device).unsqueeze(0) < counts.unsqueeze(1)
    return gathered * mask.unsqueeze(-1), mask


def parse_pooling(name: str, **options: object) -> BaseTokenPooling | None:
    """The pooling that a short name stands for.

    Args:
        name: ``none``; ``8x32`` or ``c8x32`` (clusters a query x a document); ``25%`` or ``c25`` (a share of the
            tokens on both sides); ``tail8x32``; ``k2`` (every second token).
        options: Passed to :class:`ClusterPooling`.

    Raises:
        ValueError: if the name is none of these.
    """
    text = name.strip().lower()
    if text in ("none", "mv"):
        return None
    if match := re.fullmatch(r"k(\d+)", text):
        return SpacingPooling(int(match.group(1)))
    if match := re.fullmatch(r"(tail|c)?(\d+(?:\.\d+)?%?)x(\d+(?:\.\d+)?%?)", text):
        query, document = check_budget(match.group(2)), check_budget(match.group(3))
        if match.group(1) == "tail":
            return TailPooling(query, document)
        return ClusterPooling(query, document, **cast(dict, options))
    if match := re.fullmatch(r"c(\d+)|(\d+(?:\.\d+)?)%", text):
        share = f"{match.group(1) or match.group(2)}%"
        return ClusterPooling(share, share, **cast(dict, options))
    raise ValueError(f"Unknown pooling {name!r}: use none, 8x32, 25%, tail8x32 or k2.")
