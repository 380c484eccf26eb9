"""Has anything become worse since? Two ``results.json``, metric by metric.

fallen = regressions(read_results("before.json"), read_results("after.json"), Tolerances(quality=0.005))
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crisp_rag.errors import DatasetError, InvalidInputError
from crisp_rag.eval.metrics import METRICS

ANSWERS = (
    "exact_match", "token_f1", "containment", "citation_precision", "citation_recall", "abstention_auroc",
)  # fmt: skip
TIMES = ("search_ms_p50", "search_ms_p90", "index_seconds")
SIZES = ("bytes_per_document",)
DEFAULT_TOLERANCE = 0.005


@dataclass(frozen=True, slots=True)
class Tolerances:
    """What is no regression yet.

    Args:
        quality: How far a metric of retrieval or of answers may fall, in its own units: 0.005 is half a point.
        slower: By what share latencies and the index time may grow; None does not look at them.
        larger: By what share the bytes a document may grow; None does not look at them.

    Raises:
        InvalidInputError: if one is negative.
    """

    quality: float = DEFAULT_TOLERANCE
    slower: float | None = None
    larger: float | None = None

    def __post_init__(self) -> None:
        for name in ("quality", "slower", "larger"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise InvalidInputError(f"A tolerance is 0 or more, got {value} for {name}.")


@dataclass(frozen=True, slots=True)
class Regression:
    """A figure that has become worse; ``after`` is None where it is there no more."""

    dataset: str
    system: str
    metric: str
    before: float
    after: float | None

    def __str__(self) -> str:
        if self.after is None:
            return f"{self.dataset}, {self.system}: {self.metric} was {self.before:.4g} and is missing now"
        verb = "fell" if self.after < self.before else "rose"
        return (
            f"{self.dataset}, {self.system}: {self.metric} {verb} from {self.before:.4g} to {self.after:.4g} "
            f"({self.after - self.before:+.4g})"
        )


def regressions(
    before: Mapping[str, Mapping[str, Any]], after: Mapping[str, Mapping[str, Any]], tolerances: Tolerances | None = None
) -> list[Regression]:
    """Every figure of ``before`` that is worse in ``after`` by more than the tolerance, or missing there.

    Systems and data sets that only ``after`` has are no regression.
    """
    allowed = tolerances or Tolerances()
    found = []
    for dataset, systems in before.items():
        for system, figures in systems.items():
            now = after.get(dataset, {}).get(system, {})
            for metric, value in figures.items():
                worst = _worst_allowed(metric, value, allowed)
                if worst is None:
                    continue
                current, rises = now.get(metric), metric in TIMES + SIZES
                if current is None or (current > worst if rises else current < worst):
                    found.append(Regression(dataset, system, metric, value, current))
    return found


def read_results(path: str | Path) -> dict[str, dict[str, Any]]:
    """The results that an evaluation wrote.

    Raises:
        DatasetError: if the file cannot be read, or holds something else.
    """
    try:
        results = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read as results: {error}") from error
    if not isinstance(results, dict) or not all(
        isinstance(systems, dict) and all(isinstance(figures, dict) for figures in systems.values())
        for systems in results.values()
    ):
        raise DatasetError(f"{path} does not hold results: expected figures by data set and system, as in results.json.")
    return results


def _worst_allowed(metric: str, value: Any, allowed: Tolerances) -> float | None:
    """The worst that a figure may be; None for one that nobody looks at.  A hair more, for sums in another order."""
    if metric in METRICS + ANSWERS:
        return value - allowed.quality - 1e-9
    if metric in TIMES and allowed.slower is not None:
        return value * (1 + allowed.slower) + 1e-9
    if metric in SIZES and allowed.larger is not None:
        return value * (1 + allowed.larger) + 1e-9
    return None
