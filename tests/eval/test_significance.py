"""The paired test: rarely wrong on equal systems, right on different ones."""

from __future__ import annotations

import numpy as np
import pytest

from crisp_rag.errors import InvalidInputError
from crisp_rag.eval.significance import paired_randomisation_test


def test_two_copies_of_a_system_are_not_different() -> None:
    values = np.random.default_rng(0).random(50)
    assert paired_randomisation_test(values, values) == 1.0


def test_equal_systems_are_called_different_as_often_as_the_level_says() -> None:
    generator = np.random.default_rng(1)
    wrong = 0
    for run in range(300):
        a, b = generator.normal(size=(2, 40))
        wrong += paired_randomisation_test(a, b, permutations=500, seed=run) < 0.05
    assert 0.02 <= wrong / 300 <= 0.09


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
