"""Evaluation: what a retriever is worth on a BEIR collection, next to the baselines it has to beat.

    from crisp_rag.eval import evaluate, tables

    results = evaluate(["data/scifact"], ["bm25", "dense", "crisp"], out="results")
    for table in tables(results):
        rich.print(table)

Needs ``pip install 'crisp-rag[eval]'``.  Importing this package loads no model and none of the extra's packages.
"""

from __future__ import annotations

from crisp_rag.eval.datasets import Dataset, Document, load_beir
from crisp_rag.eval.metrics import METRICS, score
from crisp_rag.eval.report import tables
from crisp_rag.eval.runner import evaluate
from crisp_rag.eval.systems import SYSTEMS, IndexCost, System, create_system

__all__ = [
    "METRICS",
    "SYSTEMS",
    "Dataset",
    "Document",
    "IndexCost",
    "System",
    "create_system",
    "evaluate",
    "load_beir",
    "score",
    "tables",
]
