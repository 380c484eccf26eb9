"""``eval`` and ``train``."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from crisp_rag.cli.console import JsonOption, app, encoder_of, err, errors, out, print_json, shown
from crisp_rag.cli.terminal import escape

FELL = 6


@app.command("eval")
def eval_command(
    sources: Annotated[
        list[Path] | None,
        typer.Argument(metavar="DIR...|SUITE.yaml", help="BEIR folders, or a suite file.", show_default=False),
    ] = None,
    systems: Annotated[
        str | None,
        typer.Option(
            help="With commas: bm25, dense, colbert, posthoc, ward, crisp, hybrid, crisp@8x16, crisp:PATH, dense:NAME, "
            "multi:NAME. bm25, dense, crisp and hybrid if not given.",
            show_default=False,
        ),
    ] = None,
    readers: Annotated[str | None, typer.Option(help="With commas: extractive, ...; each answers from each system.")] = None,
    baseline: Annotated[
        str | None, typer.Option(help="What the others are tested against; the first system if not given.")
    ] = None,
    output: Annotated[Path, typer.Option("--out", help="Folder for results, runs and the report.")] = Path("out"),
    cache: Annotated[Path | None, typer.Option(help="Folder of encodings; OUT/encodings if not given.")] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Keep no encodings.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Take over what OUT holds already.")] = False,
    limit_queries: Annotated[int | None, typer.Option(help="Only the first N queries of each set.")] = None,
    split: Annotated[str | None, typer.Option(help="Which qrels, qrels/SPLIT.tsv; test if not given.")] = None,
    seed: Annotated[int | None, typer.Option(help="For resampling; 0 if not given.")] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(help="Two results.json, before and after; exit 6 if a figure fell.", show_default=False),
    ] = None,
    tolerance: Annotated[float, typer.Option(help="--compare: how far a metric may fall.")] = 0.005,
    slower: Annotated[float | None, typer.Option(help="--compare: share by which times may grow; not looked at.")] = None,
    larger: Annotated[float | None, typer.Option(help="--compare: share by which sizes may grow; not looked at.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure retrievers and readers on BEIR folders, or compare two measurements."""
    if compare is not None:
        _compare(*compare, tolerance=tolerance, slower=slower, larger=larger, as_json=as_json)
        return
    from crisp_rag.eval.console import print_tables, run_with_bars, suite_of

    with errors():
        suite = suite_of(
            sources or [], systems=systems, readers=readers, split=split, limit_queries=limit_queries,
            baseline=baseline, seed=seed,
        )  # fmt: skip
        encodings = None if no_cache else cache or output / "encodings"
        outcome = run_with_bars(suite, output, encodings, resume, ["crisp-rag", *sys.argv[1:]], err)
        if as_json:
            print_json(outcome.results)
        else:
            print_tables(outcome, out)
            err.print(f"Written to {escape(str(output / 'results.json'))} and {escape(str(output / 'report.html'))}.")
    for (dataset, system), error in outcome.failures.items():
        err.print(f"[red]error:[/] {escape(f'{dataset}, {system}: {error}')}")
    if outcome.failures:
        raise typer.Exit(1)


def _compare(
    before: Path, after: Path, *, tolerance: float, slower: float | None, larger: float | None, as_json: bool
) -> None:
    from crisp_rag.eval.regression import Tolerances, read_results, regressions

    with errors():
        fallen = regressions(read_results(before), read_results(after), Tolerances(tolerance, slower, larger))
    if as_json:
        print_json([asdict(each) for each in fallen])
    else:
        for each in fallen:
            out.print(escape(str(each)))
        if not fallen:
            out.print("Nothing fell.")
    if fallen:
        raise typer.Exit(FELL)


@app.command("train")
def train_command(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="SRC...", help="Documents, BEIR folders, JSONL pairs.", show_default=False),
    ],
    output: Annotated[Path, typer.Option("--out", help="Folder for the trained encoder.", show_default=False)],
    questions: Annotated[
        Path | None, typer.Option(help="JSONL with question and documents: half trains, half is measured.")
    ] = None,
    start: Annotated[str | None, typer.Option("--from", help="Encoder to start from; the default one if not given.")] = None,
    variant: Annotated[str | None, typer.Option(help="c8x32, c4x8, c25, c50, tail8x32, k2, mv, ...")] = None,
    elastic: Annotated[bool, typer.Option("--elastic", help="Draw the budget anew each step: one encoder for all.")] = False,
    steps: Annotated[int, typer.Option(min=1)] = 60,
    batch_size: Annotated[int, typer.Option(min=2)] = 24,
    learning_rate: Annotated[float, typer.Option("--lr")] = 3e-5,
    layers: Annotated[int, typer.Option(help="Upper layers to train; 0 for the whole backbone.", min=0)] = 3,
    lora_rank: Annotated[int | None, typer.Option(help="Train low-rank updates of so many dims instead.", min=1)] = None,
    average: Annotated[
        float, typer.Option(help="How far to go from the start's weights to the trained ones; 1 for all the way.")
    ] = 0.5,
    mini_batch: Annotated[int | None, typer.Option(help="Texts a forward pass, for batches that do not fit.", min=1)] = None,
    evaluate_steps: Annotated[int, typer.Option(help="Measure the kept questions every N steps; 0 never.", min=0)] = 0,
    seed: Annotated[int, typer.Option()] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Fine-tune the encoder on your own documents, and measure it on questions that were kept back."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    with errors():
        from crisp_rag.eval.fine_tuning import fine_tune
        from crisp_rag.training import ELASTIC_BUDGETS, TrainingOptions

        options = TrainingOptions(
            steps=steps, batch_size=batch_size, learning_rate=learning_rate, layers=layers or None, lora_rank=lora_rank,
            mini_batch_size=mini_batch, average=average, evaluate_steps=evaluate_steps,
            budgets=ELASTIC_BUDGETS if elastic else (), save_steps=20, seed=seed,
        )  # fmt: skip
        encoder = encoder_of(start, variant)
        bar = Progress(
            TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[losses]}"),
            TimeRemainingColumn(), console=err, disable=not sys.stderr.isatty(), transient=True,
        )  # fmt: skip
        task = bar.add_task("", total=steps, losses="", start=False)

        def on_step(step: int, parts: dict[str, float]) -> None:
            if not bar.live.is_started:
                bar.start()
                bar.start_task(task)
            losses = "  ".join(f"{name} {value:.3f}" for name, value in parts.items())
            rate = batch_size * 2 * (bar.tasks[task].speed or 0.0)
            bar.update(task, completed=step, losses=f"{losses}  {rate:.0f} docs/s")

        try:
            report = fine_tune(
                sources, output, questions=questions, encoder=encoder, options=options, resume=resume,
                on_step=on_step, on_message=lambda message: err.print(f"[dim]{escape(message)}[/]"),
            )  # fmt: skip
        finally:
            bar.stop()
    if as_json:
        print_json(asdict(report))
    else:
        out.print(f"{report.steps} steps in {report.seconds:.0f} s ({report.documents_per_second:.0f} documents a second). "
                  f"The encoder lies in {escape(str(output))}.")  # fmt: skip
        for name, value in report.before.items():
            after = report.after[name]
            out.print(f"  {name:>8}  {value:.4f} -> {after:.4f}  ({after - value:+.4f}, {report.held_out} questions)")
    for item in report.skipped:
        err.print(f"[yellow]skipped[/] {escape(shown(item['path']))}: {escape(item['reason'])}")
