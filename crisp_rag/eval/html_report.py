"""The report of a run: one HTML file that needs no network and no scripts.

write_report(outcome, "out/report.html")
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crisp_rag.eval.comparisons import SIGNIFICANT, mark, split_name
from crisp_rag.eval.examples import Difference, differences
from crisp_rag.eval.metrics import METRICS
from crisp_rag.eval.plots import Point, svg
from crisp_rag.eval.records import write_atomically
from crisp_rag.eval.report import ANSWER_COLUMNS, COST_COLUMNS, best_shown, shown

if TYPE_CHECKING:
    from crisp_rag.eval.runner import Outcome

MAIN = "nDCG@10"
_SIZES = {"wide": (540, 340), "narrow": (340, 300)}
_PLOTS = (
    ("bytes_per_document", "bytes a document (log)", "Quality for its size"),
    ("search_ms_p50", "milliseconds a query, median (log)", "Quality for its time"),
)


def write_report(outcome: Outcome, path: str | Path) -> None:
    """Write the report of a run, replacing an older one whole."""
    write_atomically(Path(path), render(outcome))


def render(outcome: Outcome) -> str:
    """The report as HTML.

    Raises:
        ImportError: if Jinja2 is missing; the message names the line that installs it.
    """
    try:
        import jinja2
    except ImportError as error:
        raise ImportError("The report needs Jinja2: pip install 'crisp-rag[eval]'") from error
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(files("crisp_rag.eval").joinpath("report.html.j2").read_text(encoding="utf-8"))
    manifest = outcome.manifest
    found = differences(outcome)
    return template.render(
        sections=[_section(outcome, name, [each for each in found if each.dataset == name]) for name in outcome.datasets],
        baseline=outcome.suite.baseline_name,
        several=len(outcome.systems) > 1,
        level=SIGNIFICANT,
        manifest=manifest,
        command=shlex.join(manifest["command"]) if manifest["command"] else None,
        failures=[(dataset, system, str(error)) for (dataset, system), error in outcome.failures.items()],
    )


def _section(outcome: Outcome, name: str, found: Sequence[Difference]) -> dict[str, Any]:
    dataset = outcome.datasets[name]
    results = outcome.results[name]
    readers = outcome.suite.readers
    plain = {system: figures for system, figures in results.items() if split_name(system, readers)[1] is None}
    answers = {system: figures for system, figures in results.items() if system not in plain}
    spec = next(each for each, known in zip(outcome.suite.datasets, outcome.datasets) if known == name)
    return {
        "name": name,
        "documents": len(dataset.corpus),
        "queries": len(dataset.queries),
        "unanswerable": len(dataset.unanswerable) if readers else 0,
        "split": spec.split,
        "verdict": _verdict(plain, outcome.suite.baseline_name),
        "metrics": METRICS,
        "rows": [_quality_row(system, figures, plain, outcome.suite.baseline_name) for system, figures in plain.items()],
        "cost_columns": [column.title for column in COST_COLUMNS],
        "cost_rows": [(system, [shown(figures.get(c.key), c) for c in COST_COLUMNS]) for system, figures in plain.items()],
        "plots": [plot for key, x_title, title in _PLOTS if (plot := _plot(plain, key, x_title, title, outcome))],
        "answer_columns": [column.title for column in ANSWER_COLUMNS],
        "answer_rows": [_answer_row(system, figures) for system, figures in answers.items()],
        "differences": found,
    }


def _quality_row(system: str, figures: Mapping[str, Any], all_: Mapping[str, Any], baseline: str) -> dict[str, Any]:
    cells = []
    for metric in METRICS:
        low, high = figures["intervals"][metric]
        tested = figures.get("versus", {}).get("metrics", {}).get(metric)
        tested_as = ""
        if tested:
            tested_as = (
                f"{tested['difference']:+.3f} against {baseline}, p = {tested['p']:.2g}, corrected {tested['p_holm']:.2g}"
            )
        value = f"{figures[metric]:.3f}"
        best = value == best_shown(all_.values(), metric, 3)
        cells.append(
            {"value": value, "best": best, "low": f"{low:.3f}", "high": f"{high:.3f}", "mark": mark(figures, metric),
             "tested": tested_as}
        )  # fmt: skip
    return {"system": system, "baseline": system == baseline, "cells": cells}


def _answer_row(system: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    cells = [
        {"value": shown(figures.get(column.key), column), "interval": figures["intervals"].get(column.key),
         "mark": mark(figures, column.key)} for column in ANSWER_COLUMNS
    ]  # fmt: skip
    return {"system": system, "cells": cells, "failures": figures.get("failures") or {}}


def _plot(plain: Mapping[str, Any], key: str, x_title: str, title: str, outcome: Outcome) -> dict[str, Any] | None:
    points = [
        Point(system, figures[key], figures[MAIN], low, high, system == outcome.suite.baseline_name)
        for system, figures in plain.items()
        if figures.get(key, 0) > 0
        for low, high in [figures["intervals"][MAIN]]
    ]
    if len(points) < 2:
        return None
    from markupsafe import Markup  # comes with Jinja2

    pictures = {
        size: Markup(svg(points, width=width, height=height, title=title, x_title=x_title, y_title=MAIN))
        for size, (width, height) in _SIZES.items()
    }
    return {"title": title, "pictures": pictures}


def _verdict(plain: Mapping[str, Any], baseline: str) -> str:
    """One sentence on who is ahead, and whether that is more than chance."""
    if not plain:
        return "No system was measured."
    best = max(plain, key=lambda system: plain[system][MAIN])
    figures = plain[best]
    if best == baseline or "versus" not in figures:
        ahead = "the baseline itself" if len(plain) > 1 and best == baseline else best
        return f"The best {MAIN} is {figures[MAIN]:.3f}, of {ahead}."
    tested = figures["versus"]["metrics"][MAIN]
    sure = "more than chance would give" if tested["p_holm"] < SIGNIFICANT else "which may be chance"
    return (
        f"The best {MAIN} is {figures[MAIN]:.3f}, of {best}: {100 * tested['difference']:.1f} points above {baseline}, "
        f"{sure} (p = {tested['p_holm']:.2g} after Holm's correction)."
    )
