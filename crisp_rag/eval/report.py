"""Turns results into tables for a terminal: ``for table in tables(results): rich.print(table)``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from rich.table import Table
from rich.text import Text


class _Column(NamedTuple):
    key: str
    title: str
    digits: int
    best: Literal["highest", "lowest"] | None


_COLUMNS = (
    _Column("nDCG@10", "nDCG@10", 3, "highest"),
    _Column("R@10", "R@10", 3, "highest"),
    _Column("R@100", "R@100", 3, "highest"),
    _Column("RR@10", "RR@10", 3, "highest"),
    _Column("vectors_per_document", "vectors/doc", 1, None),  # what they cost stands in bytes
    _Column("bytes_per_document", "bytes/doc", 0, "lowest"),
    _Column("encode_docs_per_second", "docs/s", 1, "highest"),
    _Column("search_ms_p50", "p50 ms", 1, "lowest"),
    _Column("search_ms_p99", "p99 ms", 1, "lowest"),
)


def tables(results: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[Table]:
    """One table a data set, systems as rows, the best of each column in bold.

    Args:
        results: What :func:`crisp_rag.eval.runner.evaluate` returns, or ``results.json`` holds.  A value that is
            missing shows as a dash.
    """
    return [_table(name, systems) for name, systems in results.items()]


def _table(name: str, systems: Mapping[str, Mapping[str, float]]) -> Table:
    table = Table(title=Text(name))
    table.add_column("system", no_wrap=True)
    best: dict[str, str] = {}
    for column in _COLUMNS:
        table.add_column(column.title, justify="right", no_wrap=True)
        values = [figures[column.key] for figures in systems.values() if column.key in figures]
        if values and column.best:
            best[column.key] = _shown(max(values) if column.best == "highest" else min(values), column)
    for system, figures in systems.items():
        cells = [Text(system)]
        for column in _COLUMNS:
            shown = _shown(figures.get(column.key), column)
            # Compared as shown: two systems that read the same are both the best.
            cells.append(Text(shown, style="bold" if shown == best.get(column.key) else ""))
        table.add_row(*cells)
    return table


def _shown(value: float | None, column: _Column) -> str:
    return "-" if value is None else f"{value:,.{column.digits}f}"
