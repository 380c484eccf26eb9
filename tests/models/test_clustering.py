"""Spherical k-means in batches: as good as scikit-learn's, the same every time, differentiable through the means."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from crisp_rag.models.clustering import INITIALISATIONS, cluster_means, spherical_kmeans


def ragged(*lengths: int, dim: int = 8, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Unit vectors (B, T, dim) with random rubbish in the padding, and the mask."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.nn.functional.normalize(torch.randn(len(lengths), max(lengths), dim, generator=generator), dim=-1)
    mask = torch.arange(max(lengths)).unsqueeze(0) < torch.tensor(lengths).unsqueeze(1)
    return torch.where(mask.unsqueeze(-1), x, 7.0), mask


def inertia(matrix: np.ndarray, labels: np.ndarray) -> float:
    """Sum of squared distances to the mean of the own cluster."""
    return sum(
        float(((matrix[labels == label] - matrix[labels == label].mean(axis=0)) ** 2).sum()) for label in np.unique(labels)
    )


def test_inertia_is_within_two_percent_of_scikit_learn_on_200_real_cases(token_matrices: list[np.ndarray]) -> None:
    """Against one k-means++ start on average; a single greedy start may not lose much to the best of ten either."""
    from sklearn.cluster import KMeans

    ours, single, best = [], [], []
    for k in (4, 8, 16, 32):
        lengths = torch.tensor([len(matrix) for matrix in token_matrices])
        padded = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(m) for m in token_matrices], batch_first=True)
        mask = torch.arange(padded.shape[1]).unsqueeze(0) < lengths.unsqueeze(1)
        labels = spherical_kmeans(padded, mask, k).argmax(dim=2).numpy()
        for number, matrix in enumerate(token_matrices):
            assert len(matrix) > k
            found = labels[number, : len(matrix)]
            assert len(np.unique(found)) == k
            ours.append(inertia(matrix, found))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                single.append(KMeans(k, n_init=1, random_state=0).fit(matrix).inertia_)
                if number % 5 == 0:
                    best.append((ours[-1], KMeans(k, n_init=10, random_state=0).fit(matrix).inertia_))
    assert len(ours) == 200
    assert np.mean(ours) <= 1.02 * np.mean(single)
    own, others = np.mean(best, axis=0)
    assert own <= 1.02 * others


@pytest.mark.parametrize("init", INITIALISATIONS)
def test_every_real_token_has_one_cluster_and_padding_none(init: Any) -> None:
    x, mask = ragged(20, 3, 11, 1)
    assign = spherical_kmeans(x, mask, 5, init=init)
    assert assign.shape == (4, 20, 5)
    assert torch.equal(assign.sum(dim=2), mask.float())
    assert set(assign.unique().tolist()) == {0.0, 1.0}
    assert (assign.sum(dim=1) > 0).sum(dim=1).tolist() == [5, 3, 5, 1]


@pytest.mark.parametrize("init", INITIALISATIONS)
def test_a_batch_equals_its_rows_one_by_one(init: Any) -> None:
    lengths = [30, 4, 17, 5, 1, 22]
    x, mask = ragged(*lengths, dim=24)
    together = spherical_kmeans(x, mask, 5, init=init)
    for row, length in enumerate(lengths):
        alone = spherical_kmeans(x[row : row + 1, :length], mask[row : row + 1, :length], 5, init=init)
        assert torch.equal(together[row, :length], alone[0])


def test_each_row_may_have_its_own_k() -> None:
    x, mask = ragged(12, 12, 12)
    assign = spherical_kmeans(x, mask, torch.tensor([2, 7, 12]))
    assert (assign.sum(dim=1) > 0).sum(dim=1).tolist() == [2, 7, 12]
    assert torch.equal(assign[0, :, :2], spherical_kmeans(x[:1], mask[:1], 2)[0])


def test_padding_on_the_left_or_in_the_middle_changes_nothing() -> None:
    x, _ = ragged(9, dim=12)
    plain = spherical_kmeans(x, torch.ones(1, 9, dtype=torch.bool), 3)[0]
    places = [2, 3, 5, 6, 7, 9, 10, 12, 13]
    wide, mask = torch.full((1, 15, 12), 3.0), torch.zeros(1, 15, dtype=torch.bool)
    wide[0, places], mask[0, places] = x[0], True
    assert torch.equal(spherical_kmeans(wide, mask, 3)[0, places], plain)


@pytest.mark.parametrize("init", INITIALISATIONS)
def test_the_result_is_the_same_twice(init: Any, token_matrices: list[np.ndarray]) -> None:
    x = torch.from_numpy(token_matrices[0]).unsqueeze(0)
    mask = torch.ones(x.shape[:2], dtype=torch.bool)
    assert torch.equal(spherical_kmeans(x, mask, 16, init=init), spherical_kmeans(x, mask, 16, init=init))


def test_a_short_text_keeps_its_tokens_in_order() -> None:
    x, mask = ragged(4, 8, 3)
    assign = spherical_kmeans(x, mask, 8)
    means, sizes = cluster_means(torch.where(mask.unsqueeze(-1), x, 0.0), assign)
    for row, length in enumerate([4, 8, 3]):
        assert torch.allclose(means[row, :length], x[row, :length])
        assert sizes[row].tolist() == [1.0] * length + [0.0] * (8 - length)


def test_separated_groups_are_found() -> None:
    generator = torch.Generator().manual_seed(3)
    truth = torch.arange(40) % 4
    x = torch.eye(8)[truth] + 0.05 * torch.randn(40, 8, generator=generator)
    labels = spherical_kmeans(x.unsqueeze(0), torch.ones(1, 40, dtype=torch.bool), 4)[0].argmax(dim=1)
    assert len({(int(a), int(b)) for a, b in zip(truth, labels)}) == 4


def test_the_length_of_a_vector_does_not_move_it_to_another_cluster() -> None:
    x, mask = ragged(20)
    scaled = x * torch.rand(1, 20, 1, generator=torch.Generator().manual_seed(1)).add(0.1)
    assert torch.equal(spherical_kmeans(x, mask, 4), spherical_kmeans(scaled, mask, 4))


@pytest.mark.parametrize("init", INITIALISATIONS)
@pytest.mark.parametrize("different", [1, 2, 3])
def test_identical_tokens_neither_crash_nor_make_nan(init: Any, different: int) -> None:
    x = torch.eye(6)[torch.arange(20) % different].unsqueeze(0)
    mask = torch.ones(1, 20, dtype=torch.bool)
    assign = spherical_kmeans(x, mask, 8, init=init)
    means, sizes = cluster_means(x, assign)
    assert torch.equal(assign.sum(dim=2), torch.ones(1, 20))
    assert torch.isfinite(means).all() and float(sizes.sum()) == 20
    used = means[0][sizes[0] > 0]
    assert torch.allclose(used.norm(dim=1), torch.ones(len(used)), atol=1e-5), "no cluster mixes different tokens"


def test_zero_vectors_and_empty_rows_make_no_nan() -> None:
    x, mask = torch.zeros(3, 6, 4), torch.ones(3, 6, dtype=torch.bool)
    mask[1] = False
    x[2, 0] = 1
    means, sizes = cluster_means(x, spherical_kmeans(x, mask, 3))
    assert torch.isfinite(means).all()
    assert sizes.sum(dim=1).tolist() == [6, 0, 6]
    assert spherical_kmeans(torch.zeros(0, 6, 4), torch.ones(0, 6), 3).shape[:2] == (0, 6)
    assert spherical_kmeans(torch.zeros(2, 0, 4), torch.ones(2, 0), 3).shape[:2] == (2, 0)


def test_a_cluster_that_is_empty_has_a_zero_mean_and_size() -> None:
    x, mask = ragged(2, dim=4)
    means, sizes = cluster_means(x, spherical_kmeans(x, mask, 5))
    assert sizes[0].tolist() == [1, 1, 0, 0, 0]
    assert torch.equal(means[0, 2:], torch.zeros(3, 4))


def test_a_cluster_that_runs_empty_is_given_a_token(token_matrices: list[np.ndarray]) -> None:
    """The worst start there is, evenly spread over a text that repeats itself, still uses every cluster."""
    base = torch.from_numpy(token_matrices[0][:10])
    x = torch.cat([base[:1].expand(40, -1), base]).unsqueeze(0)
    sizes = spherical_kmeans(x, torch.ones(1, 50, dtype=torch.bool), 8, init="spread").sum(dim=1)
    assert (sizes > 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_floating_dtype_is_taken_and_given_back(dtype: torch.dtype) -> None:
    x, mask = ragged(12)
    means, _ = cluster_means(x.to(dtype), spherical_kmeans(x.to(dtype), mask, 4))
    assert means.dtype == dtype and torch.isfinite(means).all()


def test_memberships_carry_no_gradient_and_means_do() -> None:
    x, mask = ragged(12)
    x.requires_grad_(True)
    assign = spherical_kmeans(x, mask, 4)
    assert not assign.requires_grad
    cluster_means(x, assign)[0].square().sum().backward()
    assert x.grad is not None and (x.grad.abs().sum(dim=2) > 0).all()


def test_the_gradient_through_the_means_agrees_with_finite_differences() -> None:
    x, mask = ragged(9, 5, dim=4)
    assign = spherical_kmeans(x, mask, 3).double()
    tokens = torch.where(mask.unsqueeze(-1), x, 0.0).double().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda t: cluster_means(t, assign)[0], tokens)


@pytest.mark.parametrize(
    "options", [{"k": 0}, {"k": torch.tensor([3, 0])}, {"k": 3, "init": "random"}, {"k": 3, "iterations": -1}]
)
def test_bad_options_are_errors(options: dict[str, Any]) -> None:
    x, mask = ragged(6, 6)
    with pytest.raises(ValueError):
        spherical_kmeans(x, mask, **options)
