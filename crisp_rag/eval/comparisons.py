"""How sure the figures are: an interval for each, and a test of each system against the baseline.

``intervals`` has (low, high) by metric.  ``versus`` has, by metric, the difference from the baseline, the p-value of the
paired randomisation test, and that p-value after Holm's correction: one family a metric, over all data sets and systems
of the run, so that "p_holm below .05" is said wrongly of any of them in one run of twenty at most.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from crisp_rag.eval.metrics import METRICS
from crisp_rag.eval.readers import COMPARED
from crisp_rag.eval.records import PerQuery, Record
from crisp_rag.eval.significance import bootstrap_interval, holm, paired_randomisation_test

Cells = dict[tuple[str, str], Record]
"""Records by data set and system, a system with a reader being ``system+reader``."""
SIGNIFICANT = 0.05


def add_intervals(figures: dict[str, Any], per_query: PerQuery, metrics: Iterable[str], seed: int = 0) -> None:
    """Put ``intervals`` into figures, for the metrics that single queries have."""
    intervals = {}
    for metric in metrics:
        values = [row[metric] for row in per_query.values() if metric in row]
        if values:
            intervals[metric] = list(bootstrap_interval(values, seed=seed))
    figures["intervals"] = intervals


def add_comparisons(cells: Cells, baseline: str, readers: Sequence[str] = (), seed: int = 0) -> None:
    """Put ``versus`` into the figures of every system but the baseline; with a reader, against the baseline with it."""
    p_values: dict[str, dict[tuple[str, str], float]] = {}
    for (dataset, system), record in cells.items():
        name, reader = split_name(system, readers)
        other = cells.get((dataset, f"{baseline}+{reader}" if reader else baseline))
        record.figures.pop("versus", None)
        if name == baseline or other is None:
            continue
        metrics: dict[str, Any] = {}
        for metric in COMPARED if reader else METRICS:
            own, theirs = paired(record.per_query, other.per_query, metric)
            if own:
                p = paired_randomisation_test(own, theirs, seed=seed)
                p_values.setdefault(metric, {})[dataset, system] = p
                metrics[metric] = {"difference": sum(own) / len(own) - sum(theirs) / len(theirs), "p": p}
        record.figures["versus"] = {"baseline": f"{baseline}+{reader}" if reader else baseline, "metrics": metrics}
    for metric, family in p_values.items():
        for cell, corrected in holm(family).items():
            cells[cell].figures["versus"]["metrics"][metric]["p_holm"] = corrected


def split_name(system: str, readers: Sequence[str]) -> tuple[str, str | None]:
    """``crisp+extractive`` as ``crisp`` and ``extractive``; the second is None without a reader."""
    name, plus, reader = system.rpartition("+")
    return (name, reader) if plus and reader in readers else (system, None)


def paired(own: PerQuery, other: PerQuery, metric: str) -> tuple[list[float], list[float]]:
    """A metric's values on the queries that both have it for."""
    shared = [query for query, row in own.items() if metric in row and metric in other.get(query, {})]
    return [float(own[query][metric]) for query in shared], [float(other[query][metric]) for query in shared]


def mark(figures: Mapping[str, Any], metric: str) -> str:
    """▲ or ▼ where the system is better or worse than the baseline by more than chance, else nothing."""
    tested = figures.get("versus", {}).get("metrics", {}).get(metric)
    if not tested or tested["p_holm"] >= SIGNIFICANT:
        return ""
    return "▲" if tested["difference"] > 0 else "▼"
