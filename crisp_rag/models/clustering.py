"""Batched spherical k-means on padded token embeddings, with gradient through the cluster means.

CRISP (arXiv 2505.11471) clusters the token vectors of every text inside the training step, so the clustering
has to be a tensor operation: all rows of a batch at once, no Python loop over rows, the same result every time.

Assignments are found on detached vectors; gradients flow through the means alone.

    assign = spherical_kmeans(x, mask, k=32)        # (B, T, K) membership, one-hot on real tokens
    centroids, sizes = cluster_means(x, assign)     # (B, K, D), (B, K)
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Initialisation = Literal["segments", "greedy", "farthest", "spread"]
VERSION = 2
"""Goes into an encoder's fingerprint: to be raised by every change that moves a token to another cluster."""
CANDIDATES = 4
FEWEST_CANDIDATES = 64
"""Candidates a cluster of the greedy start, and a text at least."""
INITIALISATIONS: tuple[Initialisation, ...] = ("segments", "greedy", "farthest", "spread")


def spherical_kmeans(
    embeddings: Tensor,
    mask: Tensor,
    k: int | Tensor,
    *,
    iterations: int = 8,
    init: Initialisation = "greedy",
    weighted: bool = False,
) -> Tensor:
    """Assign the token vectors of each row to at most k clusters by cosine similarity.

    Spherical k-means (Dhillon and Modha 2001): a token goes to the centroid with the largest cosine; a centroid
    is the normalised mean of its tokens.  Deterministic: initial centroids are tokens chosen by a fixed rule and
    ties go to the lowest index.  A cluster that runs empty takes over the worst represented token.

    Args:
        embeddings: (B, T, D) token vectors of any floating dtype and device; need not be unit length.
        mask: (B, T) boolean, True on real tokens.
        k: Clusters a row, one number or a (B,) integer tensor.  A row with at most k tokens keeps each token as
            a cluster of its own.
        iterations: Upper limit on Lloyd's iterations; stops early when no assignment changes.
        init: ``greedy`` takes, one by one, the token that lowers the total cosine distance most (k-means++ with the
            best of 4 k candidates (64 at least) along the text instead of a random one); it leaves the least inertia
            and retrieves best.  ``segments`` cuts the text into k runs of tokens and starts from their means,
            which costs least; ``farthest`` takes the token farthest from those taken; ``spread`` tokens at even
            distances along the text.
        weighted: A token counts as much as its vector is long, both for a centroid and for the greedy start; by
            default all count alike.

    Returns:
        (B, T, K) membership in the dtype of ``embeddings``, K = max k: exactly one 1 for a real token, zeros for
        padding.  A column without members is an unused cluster.  Carries no gradient.

    Raises:
        ValueError: if k is below 1, iterations below 0 or ``init`` unknown.
    """
    if init not in INITIALISATIONS:
        raise ValueError(f"init must be one of {', '.join(INITIALISATIONS)}, got {init!r}.")
    if iterations < 0:
        raise ValueError(f"iterations must be at least 0, got {iterations}.")
    batch, length, _ = embeddings.shape
    device = embeddings.device
    mask = mask.bool()
    clusters = torch.as_tensor(k, device=device, dtype=torch.long).expand(batch)
    if batch == 0 or length == 0:
        return embeddings.new_zeros(batch, length, int(torch.as_tensor(k).max()) if batch else 0)
    if int(clusters.min()) < 1:
        raise ValueError(f"k must be at least 1, got {int(clusters.min())}.")
    width = int(clusters.max())

    with torch.no_grad():
        lengths = mask.sum(dim=1)
        whole = lengths <= clusters
        if bool(whole.all()):
            return _one_hot((mask.cumsum(dim=1) - 1).clamp(0, width - 1), mask, width).to(embeddings.dtype)
        given = embeddings.detach().float()
        if not bool(mask.all()):
            given = given * mask.unsqueeze(-1)
        unit = torch.nn.functional.normalize(given, dim=-1)
        counted = given if weighted else unit
        active = torch.arange(width, device=device).unsqueeze(0) < torch.minimum(clusters, lengths).unsqueeze(1)
        rank = (mask.cumsum(dim=1) - 1).clamp_min(0)

        if init == "segments":
            labels = rank * torch.minimum(clusters, lengths).unsqueeze(1) // lengths.clamp_min(1).unsqueeze(1)
            similarity = _to_centroids(unit, counted, labels, width)
        else:
            weights = counted.norm(dim=-1) if weighted else None
            similarity = _to_initial_tokens(unit, weights, mask, clusters, init)
            labels = _assign(similarity, active)
        for _ in range(iterations):
            labels = _refill_empty(labels, similarity, mask, active)
            similarity = _to_centroids(unit, counted, labels, width)
            updated = _assign(similarity, active)
            if torch.equal(updated, labels):
                break
            labels = updated

        # A short text keeps its tokens, in order, whatever the iterations made of them.
        labels = torch.where(whole.unsqueeze(1), rank.clamp_max(width - 1), labels)
        return _one_hot(labels, mask, width).to(embeddings.dtype)


def cluster_means(embeddings: Tensor, assign: Tensor) -> tuple[Tensor, Tensor]:
    """Means of the clusters, differentiable in ``embeddings``.

    Args:
        embeddings: (B, T, D) token vectors.
        assign: (B, T, K) membership from :func:`spherical_kmeans`.

    Returns:
        (B, K, D) means, zero for an unused cluster, and (B, K) sizes (tokens a cluster) in the same dtype.
    """
    sizes = assign.sum(dim=1)
    tracked = torch.is_grad_enabled() and (embeddings.requires_grad or assign.requires_grad)
    if tracked or embeddings.dtype != torch.float32 or embeddings.device.type != "cpu":
        sums = assign.transpose(1, 2) @ embeddings
    else:  # the same in half the time
        member, labels = assign.max(dim=2)
        sums = _sums(embeddings * member.unsqueeze(-1), labels, assign.shape[2])
    return sums / sizes.clamp_min(1.0).unsqueeze(-1), sizes


def _to_centroids(unit: Tensor, counted: Tensor, labels: Tensor, width: int) -> Tensor:
    """(B, T, K) cosine of every token with the mean of what its clusters count; padding is zero and adds nothing."""
    centroids = torch.nn.functional.normalize(_sums(counted, labels, width), dim=-1)
    return unit @ centroids.transpose(1, 2)


def _sums(vectors: Tensor, labels: Tensor, width: int) -> Tensor:
    """(B, K, D) sums of the (B, T, D) vectors of each label."""
    batch, _, dim = vectors.shape
    sums = vectors.new_zeros(batch * width, dim)
    flat = labels + width * torch.arange(batch, device=labels.device).unsqueeze(1)
    return sums.index_add_(0, flat.flatten(), vectors.reshape(-1, dim)).view(batch, width, dim)


def _assign(similarity: Tensor, active: Tensor) -> Tensor:
    """(B, T) index of the most similar active cluster."""
    if not bool(active.all()):
        similarity = similarity.masked_fill(~active.unsqueeze(1), -torch.inf)
    # max is twice as fast as argmax here, and gives the lowest index of equals too
    return similarity.max(dim=2).indices


def _one_hot(labels: Tensor, mask: Tensor, width: int) -> Tensor:
    one_hot = torch.zeros(*labels.shape, width, device=labels.device)
    return one_hot.scatter_(2, labels.unsqueeze(-1), 1.0) * mask.unsqueeze(-1)


def _refill_empty(labels: Tensor, similarity: Tensor, mask: Tensor, active: Tensor) -> Tensor:
    """Give each empty active cluster one badly represented token of its own: the r-th emptied cluster of a row
    takes the token with the r-th lowest similarity to its centroid, from clusters that can spare it."""
    width = active.shape[1]
    sizes = torch.zeros(active.shape, device=labels.device).scatter_add_(1, labels, mask.float())
    empty = active & (sizes == 0)
    if not bool(empty.any()):
        return labels
    own = similarity.gather(2, labels.unsqueeze(-1)).squeeze(-1)
    spare = sizes.gather(1, labels) > 1  # never empties another cluster by taking its only token
    worst_first = own.masked_fill(~(mask & spare), torch.inf).argsort(dim=1, stable=True)
    takers = torch.where(empty, empty.long().cumsum(dim=1) - 1, 0)
    tokens = worst_first.gather(1, takers.clamp_max(labels.shape[1] - 1))
    usable = empty & torch.isfinite(own.masked_fill(~(mask & spare), torch.inf).gather(1, tokens))
    columns = torch.arange(width, device=labels.device).expand_as(tokens)
    # Unusable takers write their token's present label, which changes nothing.
    target = torch.where(usable, columns, labels.gather(1, tokens))
    order = usable.long().argsort(dim=1, stable=True)  # real takers last, so that they win a shared token
    refilled = labels.clone()
    for column in range(width):  # over clusters, not rows: a scatter with repeated indices is not deterministic
        position = order[:, column : column + 1]
        refilled.scatter_(1, tokens.gather(1, position), target.gather(1, position))
    return refilled


def _to_initial_tokens(unit: Tensor, weights: Tensor | None, mask: Tensor, clusters: Tensor, init: str) -> Tensor:
    """(B, T, K) cosine of every token with those that start as centroids."""
    width = int(clusters.max())
    row = torch.arange(len(unit), device=mask.device).unsqueeze(1)
    if init == "spread":
        spread = _evenly(mask, torch.full_like(clusters, width))
        return unit @ unit[row, spread].transpose(1, 2)
    # (B, C) candidates; a row with fewer tokens than candidates has each of them, the last one several times.
    counts = (CANDIDATES * clusters).clamp_min(FEWEST_CANDIDATES).clamp_max(mask.shape[1])
    candidates = _evenly(mask, counts) if init == "greedy" else None
    some = unit if candidates is None else unit[row, candidates]
    similarity = some @ unit.transpose(1, 2)  # (B, C, T)
    distance = (1.0 - similarity).clamp_min(0.0) * (mask if weights is None else weights * mask).unsqueeze(1)
    unusable = ~mask if candidates is None else ~mask.gather(1, candidates)
    # The first seed is the medoid: the token with the least total distance to the others.
    chosen = distance.sum(dim=2).masked_fill(unusable, torch.inf).argmin(dim=1, keepdim=True)
    seeds = [chosen]
    nearest = distance[row, chosen]  # (B, 1, T)
    lowered = torch.empty_like(distance) if init == "greedy" else None
    for _ in range(1, width):
        if init == "greedy":
            remaining = torch.minimum(nearest, distance, out=lowered).sum(dim=2)
            chosen = remaining.masked_fill(unusable, torch.inf).argmin(dim=1, keepdim=True)
        else:
            chosen = nearest.squeeze(1).masked_fill(~mask, -torch.inf).argmax(dim=1, keepdim=True)
        seeds.append(chosen)
        nearest = torch.minimum(nearest, distance[row, chosen])
    return similarity[row, torch.cat(seeds, dim=1)].transpose(1, 2)


def _evenly(mask: Tensor, counts: Tensor) -> Tensor:
    """(B, max count) positions of a row's count real tokens at even distances, the last one repeated behind them; all of
    its tokens, in order, where it has no more."""
    lengths = mask.sum(dim=1, keepdim=True)
    counts = counts.unsqueeze(1)
    step = torch.arange(int(counts.max()), device=mask.device).unsqueeze(0)
    spaced = ((step + 0.5) * lengths / counts).long()
    rank = torch.minimum(torch.where(lengths <= counts, step, spaced), (lengths - 1).clamp_min(0))
    positions = torch.where(mask, torch.arange(mask.shape[1], device=mask.device), mask.shape[1]).sort(dim=1).values
    return positions.clamp_max(mask.shape[1] - 1).gather(1, rank)
