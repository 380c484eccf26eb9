"""Is one system better than another on the same queries, or would chance do as much?

paired_randomisation_test(values_of_a, values_of_b)     # p
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crisp_rag.errors import InvalidInputError


def paired_randomisation_test(a: Sequence[float], b: Sequence[float], *, permutations: int = 10_000, seed: int = 0) -> float:
    """Two-sided p-value of the mean difference under random swaps of the pairs (Fisher's randomisation test).

    The test that Smucker, Allan and Carterette (CIKM 2007) recommend for comparing retrieval systems.

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
    observed = abs(differences.mean())
    generator = np.random.default_rng(seed)
    extreme = 0
    for first in range(0, permutations, 1000):
        signs = generator.choice((-1.0, 1.0), size=(min(1000, permutations - first), len(differences)))
        extreme += int((np.abs((signs * differences).mean(axis=1)) >= observed - 1e-12).sum())
    return (extreme + 1) / (permutations + 1)
