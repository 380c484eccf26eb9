"""Evaluation: what a retriever is worth on a BEIR collection, next to the baselines it has to beat.

    from crisp_rag.eval import evaluate, tables

    results = evaluate(["data/scifact"], ["bm25", "dense", "crisp"], out="results")    # and results/report.html
    for table in tables(results):
        rich.print(table)

Needs ``pip install 'crisp-rag[eval]'``.  Importing this package loads no model and none of the extra's packages.
"""

from __future__ import annotations

from crisp_rag.eval.datasets import Dataset, Document, load_beir
from crisp_rag.eval.frameworks import RetrieverSystem
from crisp_rag.eval.fusion import FusedSystem
from crisp_rag.eval.metrics import METRICS, score
from crisp_rag.eval.readers import READERS
from crisp_rag.eval.regression import Regression, Tolerances, read_results, regressions
from crisp_rag.eval.report import tables
from crisp_rag.eval.runner import Outcome, evaluate, run_suite
from crisp_rag.eval.suite import DatasetSpec, Suite, load_suite
from crisp_rag.eval.systems import SYSTEMS, IndexCost, System, create_system

__all__ = [
    "METRICS",
    "READERS",
    "SYSTEMS",
    "Dataset",
    "DatasetSpec",
    "Document",
    "FusedSystem",
    "IndexCost",
    "Outcome",
    "Regression",
    "RetrieverSystem",
    "Suite",
    "System",
    "Tolerances",
    "create_system",
    "evaluate",
    "load_beir",
    "load_suite",
    "read_results",
    "regressions",
    "run_suite",
    "score",
    "tables",
]
