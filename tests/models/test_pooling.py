"""The three poolings: what they keep of a text, and the short names they go by."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from crisp_rag.models.clustering import spherical_kmeans
from crisp_rag.models.pooling import (
    ClusterPooling,
    SpacingPooling,
    TailPooling,
    budget_for,
    check_budget,
    parse_pooling,
)


def batch(*lengths: int, dim: int = 6, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    x = torch.nn.functional.normalize(torch.randn(len(lengths), max(lengths), dim, generator=generator), dim=-1)
    mask = torch.arange(max(lengths)).unsqueeze(0) < torch.tensor(lengths).unsqueeze(1)
    return (x * mask.unsqueeze(-1)).to(dtype), mask


@pytest.mark.parametrize(
    "pooling", [ClusterPooling(4, 6), TailPooling(4, 6), SpacingPooling(3), ClusterPooling("25%", "50%")]
)
@pytest.mark.parametrize("task", ["query", "document", None])
def test_a_batch_equals_its_rows_one_by_one(pooling: Any, task: str | None) -> None:
    lengths = [15, 2, 9, 1]
    x, mask = batch(*lengths)
    pooled, kept = pooling.pool_batch(x, mask, task)
    for row, length in enumerate(lengths):
        alone = pooling.pool_one(x[row, :length], task=task)
        assert torch.allclose(pooled[row][kept[row]], alone, atol=1e-6)
    features = pooling({"token_embeddings": x, "attention_mask": mask.long()}, task=task)
    assert torch.equal(features["token_embeddings"], pooled) and torch.equal(features["attention_mask"], kept)
    listed = pooling.pool([x[row, :length] for row, length in enumerate(lengths)], task=task)
    assert all(torch.allclose(one, pooled[row][kept[row]], atol=1e-6) for row, one in enumerate(listed))


def test_queries_and_documents_have_budgets_of_their_own() -> None:
    x, mask = batch(20, 20)
    pooling = ClusterPooling(4, 9)
    assert pooling.pool_batch(x, mask, "query")[1].sum(dim=1).tolist() == [4, 4]
    assert pooling.pool_batch(x, mask, "document")[1].sum(dim=1).tolist() == [9, 9]
    assert pooling.pool_batch(x, mask, None)[1].sum(dim=1).tolist() == [9, 9]


def test_a_task_that_is_not_listed_is_left_alone() -> None:
    x, mask = batch(10)
    pooling = ClusterPooling(2, 2, tasks=["document"])
    untouched = pooling({"token_embeddings": x, "attention_mask": mask}, task="query")
    assert torch.equal(untouched["token_embeddings"], x)
    assert pooling({"token_embeddings": x, "attention_mask": mask}, task="document")["token_embeddings"].shape[1] == 2


def test_a_relative_budget_is_the_floor_of_its_share_and_at_least_one() -> None:
    lengths = torch.tensor([1, 3, 4, 7, 8, 100, 256])
    assert budget_for("25%", lengths).tolist() == [1, 1, 1, 1, 2, 25, 64]
    assert budget_for("50%", lengths).tolist() == [1, 1, 2, 3, 4, 50, 128]
    assert budget_for("100%", lengths).tolist() == lengths.tolist()
    assert budget_for("0.1%", lengths).tolist() == [1] * 7
    assert budget_for("29%", torch.tensor([100])).tolist() == [29], "no rounding error takes one away"
    assert budget_for(8, lengths).tolist() == [8] * 7


def test_a_share_of_the_tokens_is_kept() -> None:
    x, mask = batch(20, 3, 8)
    assert ClusterPooling("25%", "25%").pool_batch(x, mask, "query")[1].sum(dim=1).tolist() == [5, 1, 2]


def test_a_text_within_its_budget_is_kept_whole_and_in_order() -> None:
    x, mask = batch(6, 3)
    pooled, kept = ClusterPooling(8, 8).pool_batch(x, mask, "document")
    assert kept.sum(dim=1).tolist() == [6, 3]
    assert torch.allclose(pooled[0][kept[0]], x[0], atol=1e-6)
    assert torch.allclose(pooled[1][kept[1]], x[1, :3], atol=1e-6)


def members(x: Tensor, mask: Tensor, k: int) -> Tensor:
    """The memberships that a ClusterPooling with default options makes its vectors of."""
    default = ClusterPooling()
    return spherical_kmeans(x, mask, k, iterations=default.iterations, init=default.init)


@pytest.mark.parametrize("centroid", ["unit", "mean", "sum", "unit_times_size"])
def test_what_a_query_keeps_of_a_cluster(centroid: Any) -> None:
    x, mask = batch(17, 9)
    pooled, kept = ClusterPooling(5, 5, query_centroid=centroid).pool_batch(x, mask, "query")
    assign = members(x, mask, 5)
    for row in range(2):
        for cluster in range(5):
            own = x[row][assign[row, :, cluster] == 1]
            mean = own.mean(dim=0)
            right = {
                "unit": mean / mean.norm(),
                "mean": mean,
                "sum": own.sum(dim=0),
                "unit_times_size": len(own) * mean / mean.norm(),
            }[centroid]
            assert torch.allclose(pooled[row, cluster], right, atol=1e-5)
    assert bool(kept.all())


def test_weighted_query_centroids_make_maxsim_of_one_document_vector_exact() -> None:
    x, mask = batch(17)
    pooled, _ = ClusterPooling(5, query_centroid="sum").pool_batch(x, mask, "query")
    document = torch.nn.functional.normalize(torch.ones(6), dim=0)
    assert torch.allclose((pooled[0] @ document).sum(), (x[0] @ document).sum(), atol=1e-5)


@pytest.mark.parametrize("centroid", ["unit", "mean", "sum", "unit_times_size"])
def test_the_gradient_of_a_pooled_batch_agrees_with_finite_differences(centroid: Any) -> None:
    x, mask = batch(9, 5, 2, dim=4, dtype=torch.float64)
    pooling = ClusterPooling(3, 3, query_centroid=centroid)
    fixed = members(x, mask, 3)
    tokens = x.clone().requires_grad_(True)

    def pooled(t: Tensor) -> Tensor:
        assert torch.equal(members(t, mask, 3), fixed), "the step may not change an assignment"
        return pooling.pool_batch(t, mask, "query")[0]

    # Unit centroids pass through float32: steps and tolerance are as wide as that needs.
    single = centroid in ("unit", "unit_times_size")
    assert torch.autograd.gradcheck(
        pooled, tokens, eps=1e-3 if single else 1e-6, atol=5e-3 if single else 1e-5, nondet_tol=1e-9
    )


def test_identical_tokens_make_no_nan() -> None:
    x = torch.ones(2, 12, 4) / 2
    mask = torch.ones(2, 12, dtype=torch.bool)
    mask[1, 5:] = False
    pooled, kept = ClusterPooling(4, 4).pool_batch(x, mask, "document")
    assert torch.isfinite(pooled).all() and bool(kept.any(dim=1).all())
    assert torch.allclose(pooled[kept].norm(dim=1), torch.ones(int(kept.sum())), atol=1e-6)


@pytest.mark.parametrize("pooling", [ClusterPooling(4, 4), TailPooling(4, 4), SpacingPooling(2)])
def test_nothing_at_all_is_pooled_to_nothing(pooling: Any) -> None:
    features = {"token_embeddings": torch.zeros(0, 5, 4), "attention_mask": torch.zeros(0, 5, dtype=torch.long)}
    assert pooling(dict(features), task="document")["token_embeddings"].shape[0] == 0
    assert pooling.pool_one(torch.zeros(0, 4), task="document").shape == (0, 4)


def test_tail_keeps_the_last_tokens_in_order() -> None:
    x, mask = batch(7, 2, 4)
    pooled, kept = TailPooling(2, 3).pool_batch(x, mask, "document")
    assert torch.equal(pooled[0][kept[0]], x[0, 4:7])
    assert torch.equal(pooled[1][kept[1]], x[1, :2])
    assert torch.equal(pooled[2][kept[2]], x[2, 1:4])
    pooled, kept = TailPooling(2, 3).pool_batch(x, mask, "query")
    assert torch.equal(pooled[0][kept[0]], x[0, 5:7])


def test_spacing_keeps_every_nth_token_from_the_first_on() -> None:
    x, mask = batch(7, 2, 4)
    pooled, kept = SpacingPooling(3).pool_batch(x, mask, "document")
    assert torch.equal(pooled[0][kept[0]], x[0, [0, 3, 6]])
    assert torch.equal(pooled[1][kept[1]], x[1, [0]])
    assert torch.equal(pooled[2][kept[2]], x[2, [0, 3]])


def test_tail_and_spacing_do_not_mind_where_the_padding_is() -> None:
    x, _ = batch(5)
    left = torch.cat([torch.full((1, 3, 6), 9.0), x], dim=1)
    mask = torch.tensor([[False] * 3 + [True] * 5])
    pooled, kept = TailPooling(2, 2).pool_batch(left, mask, "query")
    assert torch.equal(pooled[0][kept[0]], x[0, 3:])
    pooled, kept = SpacingPooling(2).pool_batch(left, mask, "query")
    assert torch.equal(pooled[0][kept[0]], x[0, ::2])


NAMES = [
    ("8x32", ClusterPooling, 8, 32, "8x32"),
    (" C8X32 ", ClusterPooling, 8, 32, "8x32"),
    ("16x16", ClusterPooling, 16, 16, "16x16"),
    ("25%", ClusterPooling, "25%", "25%", "25%"),
    ("c25", ClusterPooling, "25%", "25%", "25%"),
    ("12.5%", ClusterPooling, "12.5%", "12.5%", "12.5%"),
    ("8x50%", ClusterPooling, 8, "50%", "8x50%"),
    ("tail4x8", TailPooling, 4, 8, "tail4x8"),
]


@pytest.mark.parametrize(("name", "kind", "query", "document", "short"), NAMES)
def test_a_short_name_stands_for_a_pooling(name: str, kind: Any, query: Any, document: Any, short: str) -> None:
    pooling = parse_pooling(name)
    assert type(pooling) is kind
    assert (pooling.query, pooling.document, pooling.pooling_name) == (query, document, short)


@pytest.mark.parametrize(
    "name", ["8x32", "16x16", "25%x25%", "25%", "8x50%", "tail4x8", "tail8x8", "tail25%x25%", "k2", "k4"]
)
def test_the_name_that_a_pooling_prints_can_be_read_again(name: str) -> None:
    pooling = parse_pooling(name)
    again = parse_pooling(pooling.pooling_name)
    assert type(again) is type(pooling)
    assert again.get_config_dict() == pooling.get_config_dict()


def test_none_and_spacing_have_names_too() -> None:
    assert parse_pooling("none") is None and parse_pooling("MV") is None
    assert parse_pooling("k4").every == 4 and parse_pooling("k4").pooling_name == "k4"
    assert parse_pooling("8x32", query_centroid="sum").query_centroid == "sum"


@pytest.mark.parametrize(
    "name", ["", "8", "x", "8x", "8x32x1", "0x8", "8x0", "k0", "0%", "101%", "-8x32", "tail", "c0", "kmeans"]
)
def test_an_unknown_name_is_an_error(name: str) -> None:
    with pytest.raises(ValueError):
        parse_pooling(name)


def test_the_error_lists_the_names_there_are() -> None:
    with pytest.raises(ValueError, match="none, 8x32, 25%, tail8x32 or k2"):
        parse_pooling("mean")


def test_budgets_have_one_spelling() -> None:
    assert [check_budget(budget) for budget in (8, "8", " 25 % ", "25.0%")] == [8, 8, "25%", "25%"]


@pytest.mark.parametrize("budget", [0, -1, True, 2.5, None, "0%", "100.1%", "x", "", "-5%", "0"])
def test_a_budget_that_is_none_is_an_error(budget: Any) -> None:
    with pytest.raises(ValueError, match="budget"):
        ClusterPooling(budget, 8)


@pytest.mark.parametrize("options", [{"query_centroid": "max"}, {"document_centroid": "sum"}, {"init": "random"}])
def test_unknown_options_are_errors(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        ClusterPooling(8, 32, **options)
