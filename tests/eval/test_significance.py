"""Tests and intervals: rarely wrong on equal systems, right on different ones."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, permutation_test

from crisp_rag.errors import InvalidInputError
from crisp_rag.eval.significance import bootstrap_interval, holm, paired_randomisation_test

RUNS = 500


def chance(level: float, runs: int) -> tuple[float, float]:
    """How often, out of so many runs, something happens that happens at this rate; wrong about it once in a thousand."""
    return binom.interval(0.999, runs, level)


def test_two_copies_of_a_system_are_not_different() -> None:
    values = np.random.default_rng(0).random(50)
    assert paired_randomisation_test(values, values) == 1.0


def test_equal_systems_are_called_different_as_often_as_the_level_says() -> None:
    generator = np.random.default_rng(1)
    wrong = 0
    for run in range(RUNS):
        a, b = generator.beta(0.6, 0.4, size=(2, 40))  # as per-query metrics are: most near 0 or 1
        wrong += paired_randomisation_test(a, b, permutations=500, seed=run) < 0.05
    low, high = chance(0.05, RUNS)
    assert low <= wrong <= high


def test_so_are_equal_systems_that_agree_on_most_queries() -> None:
    generator = np.random.default_rng(3)
    wrong = 0
    for run in range(RUNS):
        a = generator.random(60)
        b = np.where(generator.random(60) < 0.6, a, generator.random(60))
        wrong += paired_randomisation_test(a, b, permutations=500, seed=run) < 0.05
    low, high = chance(0.05, RUNS)
    assert low <= wrong <= high


def test_a_planted_difference_is_found_and_its_sign_does_not_matter() -> None:
    generator = np.random.default_rng(2)
    a = generator.random(100)
    b = a + 0.05 + 0.05 * generator.normal(size=100)
    p = paired_randomisation_test(a, b)
    assert p < 0.001 and p == pytest.approx(paired_randomisation_test(b, a), abs=0.001)


def test_it_agrees_with_every_possible_swap() -> None:
    a, b = [0.9, 0.4, 0.7, 0.8, 0.3], [0.5, 0.5, 0.6, 0.4, 0.1]
    differences = np.subtract(a, b)
    signs = np.array(np.meshgrid(*[[-1, 1]] * 5)).reshape(5, -1).T
    exact = np.mean(np.abs((signs * differences).mean(axis=1)) >= abs(differences.mean()) - 1e-12)
    assert paired_randomisation_test(a, b, permutations=20_000) == pytest.approx(exact, abs=0.01)


@pytest.mark.parametrize(("a", "b"), [([], []), ([0.1], [0.1, 0.2])])
def test_unpaired_values_are_refused(a: list[float], b: list[float]) -> None:
    with pytest.raises(InvalidInputError, match="same queries"):
        paired_randomisation_test(a, b)


@pytest.mark.parametrize(("queries", "tolerance"), [(8, 1e-12), (40, 0.02)])
def test_it_agrees_with_scipys_permutation_test(queries: int, tolerance: float) -> None:
    generator = np.random.default_rng(queries)
    b = generator.random(queries)
    a = generator.random(queries) + 0.1
    theirs = permutation_test(
        (a - b,), np.mean, permutation_type="samples", n_resamples=9_999, rng=generator, vectorized=True
    )
    assert paired_randomisation_test(a, b) == pytest.approx(theirs.pvalue, abs=tolerance)


def test_queries_without_a_difference_change_nothing() -> None:
    a, b = [0.9, 0.4, 0.7, 0.8, 0.3, 0.6], [0.5, 0.3, 0.6, 0.4, 0.1, 0.2]
    assert paired_randomisation_test(a, b) == pytest.approx(2 / 2**6)  # all six one way: exact, either tail
    assert paired_randomisation_test([*a, 0.5, 0.5], [*b, 0.5, 0.5]) == paired_randomisation_test(a, b)
    assert paired_randomisation_test([0.5, 0.9], [0.5, 0.1]) == 1.0


def test_holm_multiplies_the_least_by_all_the_next_by_one_less_and_never_turns_the_order() -> None:
    given = {"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}
    assert holm(given) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert list(holm(given)) == list(given)
    assert holm({"only": 0.3}) == {"only": 0.3}
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


def test_after_holm_any_of_several_equal_systems_is_called_different_no_more_often_than_the_level_says() -> None:
    generator = np.random.default_rng(5)
    wrong = uncorrected = 0
    for run in range(RUNS):
        baseline, *others = generator.random((5, 30))
        p_values = {
            name: paired_randomisation_test(other, baseline, permutations=300, seed=run) for name, other in enumerate(others)
        }
        wrong += min(holm(p_values).values()) < 0.05
        uncorrected += min(p_values.values()) < 0.05
    _, high = chance(0.05, RUNS)
    assert wrong <= high < uncorrected


def test_an_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(7)
    runs = 300
    covered = 0
    for run in range(runs):
        low, high = bootstrap_interval(generator.beta(2, 1, size=80), resamples=500, seed=run)
        covered += low <= 2 / 3 <= high
    fewest, most = chance(0.94, runs)  # resampling 80 values is a little too sure
    assert fewest <= covered <= most


def test_an_interval_holds_the_mean_is_the_same_for_a_seed_and_narrower_for_more_queries() -> None:
    values = np.random.default_rng(9).random(400)
    low, high = bootstrap_interval(values)
    assert low < values.mean() < high
    assert bootstrap_interval(values) == (low, high)
    fewer = bootstrap_interval(values[:50])
    assert high - low < fewer[1] - fewer[0]


def test_where_all_queries_score_alike_or_all_but_one_the_interval_is_finite() -> None:
    assert bootstrap_interval([1.0] * 20) == (1.0, 1.0)
    assert bootstrap_interval([0.5]) == (0.5, 0.5)
    low, high = bootstrap_interval([0.0] * 30 + [1.0])
    assert 0.0 <= low < 1 / 31 < high < 0.3
    with pytest.raises(InvalidInputError, match="at least one"):
        bootstrap_interval([])
