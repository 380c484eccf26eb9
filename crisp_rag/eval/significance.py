"""Is one system better than another on the same queries, or would chance do as much?

    paired_randomisation_test(values_of_a, values_of_b)     # p
    holm({"crisp": 0.01, "posthoc": 0.04})                  # {"crisp": 0.02, "posthoc": 0.04}
    bootstrap_interval(values_of_a)                         # (0.66, 0.74)

Resampling is SciPy's; what is ours is what it is asked.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from crisp_rag.errors import InvalidInputError

PERMUTATIONS = 10_000
RESAMPLES = 5_000
_VALUES_AT_ONCE = 4_000_000
_Name = TypeVar("_Name", bound=Hashable)


def paired_randomisation_test(
    a: Sequence[float], b: Sequence[float], *, permutations: int = PERMUTATIONS, seed: int = 0
) -> float:
    """Two-sided p-value of the mean difference under random swaps of the pairs (Fisher's randomisation test).

    The test that Smucker, Allan and Carterette (CIKM 2007) recommend for comparing retrieval systems.  Queries on
    which both have the same value change nothing under a swap and are left out; where all swaps of the others are
    fewer than ``permutations``, each is tried once and p is exact.

    Args:
        a: A metric of one system, one value a query.
        b: The same of the other, the queries in the same order.
        permutations: Random swaps; the least p that can come out is 1 / (permutations + 1).
        seed: For the swaps.

    Raises:
        InvalidInputError: if the two are not of the same length, or empty.
    """
    if len(a) != len(b) or not len(a):
        raise InvalidInputError(f"A paired test needs the same queries twice, got {len(a)} and {len(b)} values.")
    differences = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    differences = differences[differences != 0]
    if not len(differences):
        return 1.0
    if len(differences) == 1:  # either swap is as far from zero, and SciPy wants two values
        return 1.0
    stats = _scipy_stats()
    result = stats.permutation_test(
        (differences,), _mean, vectorized=True, permutation_type="samples", n_resamples=permutations,
        batch=max(1, _VALUES_AT_ONCE // len(differences)), rng=np.random.default_rng(seed),
    )  # fmt: skip
    return float(result.pvalue)


def holm(p_values: Mapping[_Name, float]) -> dict[_Name, float]:
    """p-values corrected for their number (Holm 1979): calling those below a level different is wrong about any of
    them with at most that probability, however they depend on each other.

    Args:
        p_values: By name.

    Returns:
        Corrected ones in [p, 1] by the same names, in the same order.
    """
    ordered = sorted(p_values, key=lambda name: p_values[name])
    corrected: dict[_Name, float] = {}
    highest = 0.0
    for rank, name in enumerate(ordered):
        highest = max(highest, min(1.0, (len(ordered) - rank) * p_values[name]))
        corrected[name] = highest
    return {name: corrected[name] for name in p_values}


def bootstrap_interval(
    values: Sequence[float], *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Interval of the mean over other queries of the same kind (bias-corrected and accelerated bootstrap, Efron 1987).

    Args:
        values: One a query.
        confidence: How often such an interval covers the true mean.
        resamples: Samples drawn, with replacement.
        seed: For them.

    Returns:
        (low, high); both are the mean where all values are equal.

    Raises:
        InvalidInputError: if there are no values.
    """
    if not len(values):
        raise InvalidInputError("An interval needs at least one value.")
    array = np.asarray(values, dtype=np.float64)
    if (array == array[0]).all():
        return float(array[0]), float(array[0])
    stats = _scipy_stats()
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a degenerate distribution, which is handled here
            interval = stats.bootstrap(
                (array,), _mean, vectorized=True, n_resamples=resamples, confidence_level=confidence, method=method,
                batch=max(1, _VALUES_AT_ONCE // len(array)), rng=np.random.default_rng(seed),
            ).confidence_interval  # fmt: skip
        if np.isfinite([interval.low, interval.high]).all():
            break
    return float(interval.low), float(interval.high)


def _mean(sample: np.ndarray, axis: int = -1) -> np.ndarray:
    return sample.mean(axis=axis)


def _scipy_stats() -> Any:
    from scipy import stats  # half a second, and not every evaluation tests

    return stats
