"""The ``crisp-rag`` command: index files, search them, ask them questions, measure retrievers.

Exit codes: 0 done; 1 an error, in one sentence on stderr; 2 a wrong call; 3 ``ask`` found no answer; 4 ``index
--strict`` skipped files; 5 ``verify`` found damage.  Results go to stdout, everything else to stderr; ``--json``
makes the results JSON.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from crisp_rag.errors import CrispError

if TYPE_CHECKING:
    from collections.abc import Iterator

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__.split("\n")[0])
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

IndexOption = Annotated[Path, typer.Option("--index", help="The index folder.", show_default=False)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
WhereOption = Annotated[
    str | None, typer.Option("--where", help="""A filter on metadata, as JSON: '{"title": "Refunds"}'.""")
]
NO_ANSWER = 3
SKIPPED = 4
DAMAGED = 5


@app.command("index")
def index_command(
    sources: Annotated[list[Path], typer.Argument(metavar="SRC...", help="Files and folders.", show_default=False)],
    index: IndexOption,
    encoder: Annotated[
        str | None, typer.Option(help="Folder or hub name of an encoder, for a new index; the default one if not given.")
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(help="Vectors a query x a passage, for a new index, such as 8x16; the encoder's own if not given."),
    ] = None,
    as_json: JsonOption = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 4 if any file was skipped.")] = False,
) -> None:
    """Index files and folders; run again, it touches only what changed and drops what vanished."""
    from crisp_rag.index import CrispIndex
    from crisp_rag.pipelines.ingest import ingest

    with _errors():
        fresh = not (index / "index.sqlite").exists()
        chosen = _encoder(encoder, budget) if encoder or budget else None
        with CrispIndex.create(index, chosen, exist_ok=True) as opened:
            if fresh:
                _announce(opened.stats())
            report = ingest(opened, [str(source) for source in sources], show_progress=sys.stderr.isatty())
        skipped = [{"path": str(item.path), "reason": item.reason} for item in report.skipped]
        if as_json:
            _print_json({**report.to_dict(), "skipped": skipped})
        else:
            changed = f"{report.added} added, {report.unchanged} unchanged, {report.removed} removed"
            out.print(f"{report.files} files, {report.passages} passages in {escape(str(index))} ({changed}; "
                      f"{report.seconds:.1f} s).")  # fmt: skip
        for item in skipped:
            err.print(f"[yellow]skipped[/] {escape(_shown(item['path']))}: {escape(item['reason'])}")
    if strict and skipped:
        raise typer.Exit(SKIPPED)


@app.command()
def search(
    query: Annotated[str, typer.Argument(help="Plain words.", show_default=False)],
    index: IndexOption,
    k: Annotated[int, typer.Option("-k", help="Hits at most.")] = 10,
    where: WhereOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the passages that match a query best."""
    with _errors(), _open(index) as opened:
        hits = opened.search(query, k, _filter(where))
        if as_json:
            _print_json([{"id": hit.id, "score": hit.score, "text": hit.text, "metadata": hit.metadata} for hit in hits])
            return
        if not hits:
            err.print("Nothing found.")
        for rank, hit in enumerate(hits, 1):
            place = escape(_shown(str(hit.metadata.get("source", hit.id))))
            heading = escape(str(hit.metadata.get("heading", "") or hit.context))
            out.print(f"[bold]{rank:2}. {hit.score:6.2f}[/]  [cyan]{place}[/]  [dim]{heading}[/]")
            out.print(f"    {escape(_short(hit.text))}")


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="A question in plain words.", show_default=False)],
    index: IndexOption,
    k: Annotated[int, typer.Option("-k", help="Passages to read.")] = 5,
    where: WhereOption = None,
    as_json: JsonOption = False,
) -> None:
    """Answer a question with quotes and their sources, or say that the documents do not hold the answer (exit 3)."""
    from crisp_rag.pipelines.answer import ask as answer_question

    with _errors(), _open(index) as opened:
        answer = answer_question(opened, question, k=k, where=_filter(where))
    if as_json:
        _print_json(answer.to_dict())
    else:
        out.print(f"[bold]{escape(question)}[/]")
        out.print(f"  {escape(answer.text)}")
        for number, source in enumerate(answer.sources, 1):
            place = escape(f"{_shown(source.path) or source.id}:{source.start}-{source.end}")
            out.print(f"  [cyan]\\[{number}] {place}[/]  [dim]score {source.score:.2f}[/]")
            out.print(f"      “{escape(' '.join(source.quote.split()))}”")
        out.print()
    if not answer.answered:
        raise typer.Exit(NO_ANSWER)


@app.command("eval")
def eval_command(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="BEIR folders.", show_default=False)],
    systems: Annotated[str, typer.Option(help="Comma-separated: bm25, dense, colbert, posthoc, crisp.")] = (
        "bm25,dense,colbert,posthoc,crisp"
    ),
    output: Annotated[Path, typer.Option("--out", help="Folder for results.json and the run files.")] = Path("out"),
    limit_queries: Annotated[int | None, typer.Option(help="Only the first N queries of each set.")] = None,
    split: Annotated[str, typer.Option(help="Which qrels: qrels/SPLIT.tsv.")] = "test",
    as_json: JsonOption = False,
) -> None:
    """Measure retrievers on BEIR folders."""
    from crisp_rag.eval.report import tables
    from crisp_rag.eval.runner import evaluate

    with _errors():
        names = [name.strip() for name in systems.split(",") if name.strip()]
        results = evaluate(
            folders, names, out=output, limit_queries=limit_queries, split=split,
            on_progress=lambda message: err.print(f"[dim]{escape(str(message))}[/]"),
        )  # fmt: skip
        if as_json:
            _print_json(results)
            return
        wide = Console(highlight=False, width=max(out.width, 120))  # a pipe has 80 columns, too few for the table
        for table in tables(results):
            wide.print(table)
        err.print(f"Written to {escape(str(output / 'results.json'))}.")


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

    with _errors():
        from crisp_rag.eval.fine_tuning import fine_tune
        from crisp_rag.training import ELASTIC_BUDGETS, TrainingOptions

        options = TrainingOptions(
            steps=steps, batch_size=batch_size, learning_rate=learning_rate, layers=layers or None, lora_rank=lora_rank,
            mini_batch_size=mini_batch, average=average, evaluate_steps=evaluate_steps,
            budgets=ELASTIC_BUDGETS if elastic else (), save_steps=20, seed=seed,
        )  # fmt: skip
        encoder = _encoder(start, variant)
        bar = Progress(
            TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[losses]}"),
            TimeRemainingColumn(), console=err, disable=not sys.stderr.isatty(), transient=True,
        )  # fmt: skip
        task = bar.add_task("", total=steps, losses="", start=False)

        def on_step(step: int, parts: dict[str, float]) -> None:
            if not bar.live.is_started:
                bar.start()
                bar.start_task(task)
            shown = "  ".join(f"{name} {value:.3f}" for name, value in parts.items())
            rate = batch_size * 2 * (bar.tasks[task].speed or 0.0)
            bar.update(task, completed=step, losses=f"{shown}  {rate:.0f} docs/s")

        try:
            report = fine_tune(
                sources, output, questions=questions, encoder=encoder, options=options, resume=resume,
                on_step=on_step, on_message=lambda message: err.print(f"[dim]{escape(message)}[/]"),
            )  # fmt: skip
        finally:
            bar.stop()
    if as_json:
        _print_json(asdict(report))
    else:
        out.print(f"{report.steps} steps in {report.seconds:.0f} s ({report.documents_per_second:.0f} documents a second). "
                  f"The encoder lies in {escape(str(output))}.")  # fmt: skip
        for name, value in report.before.items():
            after = report.after[name]
            out.print(f"  {name:>8}  {value:.4f} -> {after:.4f}  ({after - value:+.4f}, {report.held_out} questions)")
    for item in report.skipped:
        err.print(f"[yellow]skipped[/] {escape(_shown(item['path']))}: {escape(item['reason'])}")


@app.command()
def info(index: IndexOption, as_json: JsonOption = False) -> None:
    """Show what an index holds, after checking its files."""
    with _errors(), _open(index) as opened:
        stats = opened.stats()
        if as_json:
            _print_json(stats.to_dict())
            return
        for name, value in stats.to_dict().items():
            shown = f"{value:.1f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value
            out.print(f"{name.replace('_', ' '):>20}  {escape(str(shown))}")
        _announce(stats)


@app.command()
def verify(index: IndexOption, as_json: JsonOption = False) -> None:
    """Check every byte that an index answers from, and name each file that is damaged (exit 5)."""
    from crisp_rag.index import verify_index

    with _errors():
        found = verify_index(index)
    if as_json:
        _print_json(found.to_dict())
    else:
        for damage in found.damage:
            out.print(f"[red]damaged[/] {escape(_shown(damage.file))}: {escape(damage.problem)}")
        for orphan in found.orphans:
            out.print(f"[yellow]left over[/] {escape(_shown(orphan))}: the next write removes it")
        if found.sound:
            where = f"{found.passages:,} passages in {found.segments} segments"
            out.print(f"Sound: {where}, {found.bytes_checked:,} bytes checked.")
    if not found.sound:
        raise typer.Exit(DAMAGED)


@app.command()
def compact(index: IndexOption, as_json: JsonOption = False) -> None:
    """Give back the space of deleted and replaced passages."""
    with _errors(), _open(index) as opened:
        done = opened.compact()
    if as_json:
        _print_json(asdict(done))
    else:
        out.print(f"{done.bytes_before:,} bytes before, {done.bytes_after:,} after.")


def main() -> None:
    """The entry point."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    app()


@contextmanager
def _errors() -> Iterator[None]:
    """What went wrong in one sentence, without a traceback, and exit code 1."""
    try:
        yield
    except (CrispError, ImportError) as error:
        err.print(f"[red]error:[/] {escape(str(error))}")
        raise typer.Exit(1) from error


def _open(path: Path) -> Any:
    from crisp_rag.index import CrispIndex

    return CrispIndex.open(path)


def _filter(where: str | None) -> dict[str, Any] | None:
    if where is None:
        return None
    try:
        parsed = json.loads(where)
    except ValueError as error:
        raise typer.BadParameter(f"--where is not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise typer.BadParameter("--where is a JSON object.")
    return parsed


def _announce(stats: Any) -> None:
    err.print(f"[dim]Encoder: {escape(stats.encoder)} ({stats.dim} dims, {stats.pooling} query x document vectors).[/]")


def _encoder(name: str | None, pooling: str | None) -> Any:
    from crisp_rag.models import load_encoder

    try:
        return load_encoder(name, budget=pooling)
    except ValueError as error:
        if isinstance(error, CrispError):
            raise
        raise typer.BadParameter(str(error)) from error


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2, default=str) + "\n")


def _shown(path: str) -> str:
    """A path as short as it stays true: relative to here where it lies below."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return path


def _short(text: str, width: int = 160) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= width else flat[: width - 1].rstrip() + "…"
