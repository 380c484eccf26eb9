"""Turns results into tables for a terminal: ``for table in tables(results): rich.print(table)``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from rich.table import Table
from rich.text import Text

from crisp_rag.eval.comparisons import mark


class Column(NamedTuple):
    """A figure and how it is shown."""

    key: str
    title: str
    digits: int
    best: Literal["highest", "lowest"] | None


QUALITY_COLUMNS = (
    Column("nDCG@10", "nDCG@10", 3, "highest"),
    Column("R@5", "R@5", 3, "highest"),
    Column("R@10", "R@10", 3, "highest"),
    Column("R@100", "R@100", 3, "highest"),
    Column("RR@10", "RR@10", 3, "highest"),
    Column("Success@1", "S@1", 3, "highest"),
)
COST_COLUMNS = (
    Column("vectors_per_document", "vectors/doc", 1, None),  # what they cost stands in bytes
    Column("bytes_per_document", "bytes/doc", 0, "lowest"),
    Column("encode_docs_per_second", "docs/s", 1, "highest"),
    Column("index_seconds", "index s", 1, "lowest"),
    Column("search_ms_p50", "p50 ms", 1, "lowest"),
    Column("search_ms_p90", "p90 ms", 1, "lowest"),
    Column("search_ms_p99", "p99 ms", 1, "lowest"),
    Column("peak_memory_mb", "peak MB", 0, None),  # of the whole process, whatever ran in it before
    Column("added_memory_mb", "added MB", 0, None),
)
ANSWER_COLUMNS = (
    Column("exact_match", "exact", 3, "highest"),
    Column("token_f1", "token F1", 3, "highest"),
    Column("containment", "contained", 3, "highest"),
    Column("citation_precision", "cite P", 3, "highest"),
    Column("citation_recall", "cite R", 3, "highest"),
    Column("abstention_auroc", "abstain AUROC", 3, "highest"),
    Column("context_tokens", "context tokens", 0, None),
)


def tables(results: Mapping[str, Mapping[str, Mapping[str, Any]]], apart: bool = False) -> list[Table]:
    """One table a data set, systems as rows, the best of each column in bold; systems with readers in a table of their
    own.  ▲ and ▼ mark what is better and worse than the baseline by more than chance.

    Args:
        results: What :func:`crisp_rag.eval.runner.evaluate` returns, or ``results.json`` holds.  A value that is
            missing shows as a dash.
        apart: Put quality and cost into tables of their own, which fit 120 columns.
    """
    made = []
    for name, systems in results.items():
        answers = {system: figures for system, figures in systems.items() if _reads(figures)}
        plain = {system: figures for system, figures in systems.items() if system not in answers}
        if apart:
            made += [_table(name, plain, QUALITY_COLUMNS), _table(f"{name}, cost", plain, COST_COLUMNS)]
        else:
            made.append(_table(name, plain, QUALITY_COLUMNS + COST_COLUMNS))
        if answers:
            made.append(_table(f"{name}, answers", answers, ANSWER_COLUMNS))
    return made


def shown(value: float | None, column: Column) -> str:
    """A figure as it is printed, a dash where there is none."""
    return "-" if value is None else f"{value:,.{column.digits}f}"


def best_shown(systems: Iterable[Mapping[str, Any]], key: str, digits: int, best: str = "highest") -> str | None:
    """The best value of a figure as it is printed; None if no system has it."""
    values = [figures[key] for figures in systems if figures.get(key) is not None]
    return f"{max(values) if best == 'highest' else min(values):,.{digits}f}" if values else None


def _reads(figures: Mapping[str, Any]) -> bool:
    return any(column.key in figures for column in ANSWER_COLUMNS)


def _table(name: str, systems: Mapping[str, Mapping[str, Any]], columns: Sequence[Column]) -> Table:
    table = Table(title=Text(name))
    table.add_column("system", no_wrap=True)
    best = {
        column.key: best_shown(systems.values(), column.key, column.digits, column.best) for column in columns if column.best
    }
    for column in columns:
        table.add_column(column.title, justify="right", no_wrap=True)
    for system, figures in systems.items():
        cells = [Text(system)]
        for column in columns:
            value = shown(figures.get(column.key), column)
            # Compared as shown: two systems that read the same are both the best.
            style = "bold" if value == best.get(column.key) else ""
            cells.append(Text(value + mark(figures, column.key), style=style))
        table.add_row(*cells)
    return table
