"""The model card of a trained encoder: what it was trained on, how, and what it scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crisp_rag.models.encoder import CrispEncoder
    from crisp_rag.training.recipe import TrainingOptions, TrainingReport


def model_card(
    encoder: CrispEncoder,
    options: TrainingOptions,
    report: TrainingReport,
    sources: Mapping[str, int],
    *,
    base: str,
    licences: Mapping[str, str] | None = None,
    command: str | None = None,
    figures: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Markdown with the front matter that model hubs read.

    Args:
        encoder: What was trained.
        options: How.
        report: What the run did.
        sources: Examples by the collection they are from.
        base: What the training started from.
        licences: Of the collections, by name.
        command: What makes this encoder again.
        figures: Rows of a table, all with the same columns.
    """
    licences = licences or {}
    lines = [
        "---", "library_name: sentence-transformers", "tags: [multi-vector, late-interaction, crisp]", "---", "",
        f"# {encoder.name}", "",
        f"Turns a text into a few vectors of {encoder.dim} dims: pooling `{encoder.pooling}` (query x document), the "
        "centroids of its token vectors, compared by MaxSim. Clustered inside training as in CRISP (arXiv 2505.11471).",
        "", "```python", "from crisp_rag.models import load_encoder", "",
        'encoder = load_encoder("PATH")', 'vectors = encoder.encode_document("Refunds take five days.")', "```", "",
        "## Trained on", "",
        *_table([{"collection": name, "examples": count, "licence": licences.get(name, "not stated")}
                 for name, count in sources.items()]),
        "", f"Base: {base}.", "", "## How", "",
        f"{report.steps} steps, {report.trained_parameters:,} parameters trained, {report.seconds:.0f} s.",
        "", *_table([{"option": key, "value": value} for key, value in asdict(options).items()]), "",
    ]  # fmt: skip
    if command:
        lines += ["Made by", "", "```console", f"$ {command}", "```", ""]
    if figures:
        lines += ["## Figures", "", *_table(figures), ""]
    return "\n".join(lines)


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if not rows:
        return []
    columns = list(rows[0])
    return [
        "| " + " | ".join(columns) + " |",
        "|" + "---|" * len(columns),
        *("| " + " | ".join(_cell(row[column]) for column in columns) + " |" for row in rows),
    ]


def _cell(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) and 0 < abs(value) < 1 and value >= 0.001 else str(value)
