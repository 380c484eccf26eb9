"""An evaluation in a terminal: what the options mean, bars while it runs, tables when it is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from crisp_rag.errors import InvalidInputError
from crisp_rag.eval.report import tables
from crisp_rag.eval.runner import Outcome, Step, run_suite, sentence
from crisp_rag.eval.suite import DatasetSpec, Suite, load_suite

DEFAULT_SYSTEMS = ("bm25", "dense", "crisp", "hybrid")
_SUITE_FILES = (".yaml", ".yml")


def suite_of(
    sources: Sequence[Path],
    *,
    systems: str | None = None,
    readers: str | None = None,
    split: str | None = None,
    limit_queries: int | None = None,
    **settings: Any,
) -> Suite:
    """The suite that a command line asks for: folders and options, or a suite file and what the options change in it.

    Args:
        sources: Folders, or one suite file.
        systems, readers: Names with commas between; None for the suite's own.
        split, limit_queries: For every data set; None for the suite's own.
        settings: Other fields of :class:`Suite`; None for the suite's own.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    if systems is not None:
        given["systems"] = _names(systems)
    if readers is not None:
        given["readers"] = _names(readers)
    each: dict[str, Any] = {"split": split, "limit_queries": limit_queries}
    each = {name: value for name, value in each.items() if value is not None}
    if any(source.suffix in _SUITE_FILES for source in sources):
        if len(sources) > 1:
            raise InvalidInputError("A suite file stands alone: it names its own data sets.")
        suite = load_suite(sources[0])
        datasets = tuple(replace(spec, **each) for spec in suite.datasets)
        return replace(suite, datasets=datasets, **given)
    specs = tuple(DatasetSpec(source, **each) for source in sources)
    return Suite(**{"systems": DEFAULT_SYSTEMS, **given, "datasets": specs})


def run_with_bars(
    suite: Suite, out: Path, cache: Path | None, resume: bool, command: Sequence[str], console: Console
) -> Outcome:
    """Run a suite: bars on a terminal, lines of text elsewhere."""
    if not console.is_terminal:

        def line(text: str) -> None:
            console.print(f"[dim]{escape(text)}[/]")

        return run_suite(
            suite, out=out, cache=cache, resume=resume, command=command,
            on_step=lambda step: line(sentence(step)), on_message=line,
        )  # fmt: skip
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=console, transient=True,
    )  # fmt: skip
    with bar:
        task = bar.add_task("")
        stage: tuple[str, str, str] | None = None

        def on_step(step: Step) -> None:
            nonlocal stage
            if stage != (step.dataset, step.system, step.stage):
                stage = (step.dataset, step.system, step.stage)
                bar.reset(task, total=step.total, description=escape(f"{step.dataset}, {step.system}: {step.stage}"))
            bar.update(task, completed=step.done)

        return run_suite(
            suite, out=out, cache=cache, resume=resume, command=command,
            on_step=on_step, on_message=lambda text: bar.console.print(f"[dim]{escape(text)}[/]"),
        )  # fmt: skip


def print_tables(outcome: Outcome, console: Console) -> None:
    """The tables: one a data set where the terminal is wide enough, else quality and cost apart, and never cut."""
    for apart in (False, True):
        made = tables(outcome.results, apart)
        wide = console.options.update_width(1000)
        needed = max((console.measure(table, options=wide).maximum for table in made), default=0)
        if needed <= console.width:
            break
    target = Console(file=console.file, highlight=False, width=max(console.width, needed))
    for table in made:
        target.print(table)


def _names(given: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in given.split(",") if name.strip())
