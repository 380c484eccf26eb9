"""Retrieval metrics: a thin layer over ir-measures, which runs trec_eval's own code.

    score({"q1": [("d3", 12.1), ("d7", 9.8)]}, {"q1": {"d7": 1}})     # {"nDCG@10": 0.63, ...}

nDCG@10 uses the grades as linear gains, its ideal ranking cut at 10 as well.  R@5, R@10, R@100 (the share of a query's
relevant documents among the first so many), RR@10 (one over the rank of the first relevant one; its mean is MRR@10) and
Success@1 (whether the first one is relevant) know only yes and no: relevant is what has at least ``binary_threshold``.
Every judged query counts: one without results scores 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

METRICS = ("nDCG@10", "R@5", "R@10", "R@100", "RR@10", "Success@1")
Ranking = Sequence[tuple[str, float]]


def score(run: Mapping[str, Ranking], qrels: Mapping[str, Mapping[str, int]], binary_threshold: int = 1) -> dict[str, float]:
    """Mean of each metric over the queries in ``qrels``.

    Args:
        run: (document id, score) pairs by query id, best first.  Their order counts and not the score, because
            trec_eval would break ties by document id, in an order that no user ever sees.
        qrels: The grade of each judged document by query id.
        binary_threshold: The least grade that counts as relevant in R, RR and Success.

    Returns:
        Values in [0, 1] by the names in :data:`METRICS`.

    Raises:
        ImportError: if ir-measures is missing; the message names the line that installs it.
    """
    return means(score_queries(run, qrels, binary_threshold))


def means(values: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """What :func:`score` gives, from what :func:`score_queries` gave."""
    return {name: sum(each[name] for each in values.values()) / max(1, len(values)) for name in METRICS}


def score_queries(
    run: Mapping[str, Ranking], qrels: Mapping[str, Mapping[str, int]], binary_threshold: int = 1
) -> dict[str, dict[str, float]]:
    """As :func:`score`, query by query: ``{query: {metric: value}}`` for every query in ``qrels``."""
    measures = require_ir_measures()
    binary = {"rel": binary_threshold}
    wanted = {
        "nDCG@10": measures.nDCG @ 10,
        "R@5": measures.R(**binary) @ 5,
        "R@10": measures.R(**binary) @ 10,
        "R@100": measures.R(**binary) @ 100,
        "RR@10": measures.RR(**binary) @ 10,
        "Success@1": measures.Success(**binary) @ 1,
    }
    ranked = {
        query: {document: float(-rank) for rank, (document, _) in enumerate(drop_own_id(query, run.get(query, ())))}
        for query in qrels
    }
    values = {query: dict.fromkeys(METRICS, 0.0) for query in qrels}
    names = {str(measure): name for name, measure in wanted.items()}
    judged = {query: dict(grades) for query, grades in qrels.items()}
    for value in measures.iter_calc(list(wanted.values()), judged, ranked):
        values[value.query_id][names[str(value.measure)]] = value.value
    return values


def drop_own_id(query_id: str, ranking: Ranking) -> list[tuple[str, float]]:
    """The ranking without the document that has the query's id: BEIR's rule, for queries that are documents too."""
    return [(document, value) for document, value in ranking if document != query_id]


def require_ir_measures() -> Any:
    """The ir_measures module.

    Raises:
        ImportError: if it is missing; the message names the line that installs it.
    """
    try:
        import ir_measures
    except ImportError as error:
        raise ImportError("Metrics need ir-measures: pip install 'crisp-rag[eval]'") from error
    return ir_measures
