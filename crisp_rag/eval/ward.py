"""Ward's clustering of a document's token vectors after the fact: the fair rival of clustering inside training."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from crisp_rag.models.pooling import BatchedPooling, Budget, budget_for


class WardPooling(BatchedPooling):
    """Hierarchical clusters of least variance (Ward 1963), as token pooling takes them (arXiv 2409.14683), but to a number
    of vectors instead of a factor.  Queries stay whole.

    Args:
        document: Vectors a document, a number or a share such as ``"25%"``.
    """

    config_keys: list[str] = ["document"]

    def __init__(self, document: Budget = 32) -> None:
        super().__init__("100%", document, tasks=["document"])

    @property
    def pooling_name(self) -> str:
        return f"ward{self.document}"

    def pool_batch(self, embeddings: Tensor, mask: Tensor, task: str | None) -> tuple[Tensor, Tensor]:
        if not self.applies_to(task):
            return embeddings, mask
        counts = budget_for(self.budget(task), mask.sum(dim=1)).tolist()
        rows = [_ward(row[kept].float(), count) for row, kept, count in zip(embeddings, mask, counts)]
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(embeddings.dtype)
        width = torch.arange(padded.shape[1], device=padded.device)
        return padded, width < torch.tensor([[len(row)] for row in rows], device=padded.device)


def _ward(vectors: Tensor, count: int) -> Tensor:
    """(T, D) to at most (count, D) unit means of clusters, in order of their first tokens."""
    if len(vectors) <= count:
        return vectors
    from scipy.cluster.hierarchy import fcluster, linkage

    labels = fcluster(linkage(vectors.cpu().numpy(), method="ward"), t=count, criterion="maxclust")
    _, first = np.unique(labels, return_index=True)
    order = {label: place for place, label in enumerate(labels[np.sort(first)])}
    places = torch.tensor([order[label] for label in labels], device=vectors.device)
    sums = vectors.new_zeros(len(order), vectors.shape[1]).index_add_(0, places, vectors)
    return torch.nn.functional.normalize(sums, dim=-1)
