"""``index``, ``search``, ``ask`` and ``calibrate``."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crisp_rag.cli.console import (
    IndexOption,
    JsonOption,
    announce,
    app,
    encoder_of,
    err,
    errors,
    open_index,
    out,
    print_json,
    shown,
)
from crisp_rag.cli.terminal import escape, visible

if TYPE_CHECKING:
    from collections.abc import Callable

    from crisp_rag.pipelines.ingest import IngestReport

WhereOption = Annotated[
    str | None, typer.Option("--where", help="""A filter on metadata, as JSON: '{"title": "Refunds"}'.""")
]
NO_ANSWER = 3
SKIPPED = 4


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
    exclude: Annotated[
        list[str] | None,
        typer.Option(help="A pattern, as in a .gitignore, of what below the folders is left out; may be given again."),
    ] = None,
    wait: Annotated[float, typer.Option(help="Seconds to wait for another run on the same index.", min=0.0)] = 0.0,
    watch: Annotated[bool, typer.Option("--watch", help="Go on, and follow every change until Ctrl-C.")] = False,
    max_size: Annotated[float, typer.Option(help="MiB that a file may have.", min=0.001)] = 100.0,
    max_seconds: Annotated[float, typer.Option(help="Seconds that reading a file may take.", min=0.1)] = 30.0,
    max_memory: Annotated[float, typer.Option(help="MiB of memory that reading a file may take.", min=64)] = 2048.0,
    as_json: JsonOption = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 4 if any file was skipped.")] = False,
) -> None:
    """Index files and folders; run again, it touches only what changed and drops what vanished.

    Read are text, Markdown, HTML, PDF, Word, PowerPoint, Excel, CSV, TSV, JSON, JSON lines, notebooks, EPUB,
    reStructuredText, mails (.eml), source code, and ZIP archives of these; other packages may bring more.
    """
    from crisp_rag.index import CrispIndex
    from crisp_rag.pipelines.ingest import ingest
    from crisp_rag.pipelines.loading import Limits

    limits = Limits(max_size, max_seconds, max_memory)
    with errors():
        fresh = not (index / "index.sqlite").exists()
        chosen = encoder_of(encoder, budget) if encoder or budget else None
        with CrispIndex.create(index, chosen, exist_ok=True) as opened:
            if fresh:
                announce(opened.stats())

            def run() -> IngestReport:
                return ingest(
                    opened, [str(source) for source in sources],
                    limits=limits, exclude=exclude or (), wait=wait, show_progress=sys.stderr.isatty(),
                )  # fmt: skip

            report = run()
            _print_report(report, index, as_json)
            if watch:
                _follow(sources, index, run, as_json)
    if strict and report.skipped:
        raise typer.Exit(SKIPPED)


def _print_report(report: IngestReport, index: Path, as_json: bool) -> None:
    if as_json:
        print_json(report.to_dict())
    else:
        changed = f"{report.added} added, {report.unchanged} unchanged, {report.removed} removed"
        out.print(f"{report.files} files, {report.passages} passages in {escape(str(index))} ({changed}; "
                  f"{report.seconds:.1f} s).")  # fmt: skip
    for note in report.notes:
        err.print(f"[yellow]note[/] {escape(shown(note.path))}: {escape(note.text)}")
    for item in report.skipped:
        err.print(f"[yellow]skipped[/] {escape(shown(item.path))}: {escape(item.reason)}")


def _follow(sources: list[Path], index: Path, run: Callable[[], IngestReport], as_json: bool) -> None:
    """Index again whenever something changes below the sources, until somebody presses Ctrl-C."""
    try:
        from watchfiles import watch
    except ImportError as error:
        raise ImportError("--watch needs watchfiles: pip install 'crisp-rag[ingest]'") from error
    own = index.resolve()

    def elsewhere(_: object, path: str) -> bool:
        return not Path(path).resolve().is_relative_to(own)

    err.print("[dim]Watching; Ctrl-C ends.[/]")
    with suppress(KeyboardInterrupt):
        for _ in watch(*sources, watch_filter=elsewhere, raise_interrupt=False):
            report = run()
            if report.added or report.removed:
                _print_report(report, index, as_json)


@app.command()
def search(
    query: Annotated[str, typer.Argument(help="Plain words.", show_default=False)],
    index: IndexOption,
    k: Annotated[int, typer.Option("-k", help="Hits at most.")] = 10,
    where: WhereOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the passages that match a query best."""
    from crisp_rag.pipelines.reading import place_in_words

    with errors(), open_index(index) as opened:
        hits = opened.search(query, k, _filter(where))
        if as_json:
            print_json([{"id": hit.id, "score": hit.score, "text": hit.text, "metadata": hit.metadata} for hit in hits])
            return
        if not hits:
            err.print("Nothing found.")
        for rank, hit in enumerate(hits, 1):
            place = escape(
                ", ".join(filter(None, [shown(str(hit.metadata.get("source", hit.id))), place_in_words(hit.metadata)]))
            )
            heading = escape(str(hit.metadata.get("heading", "") or hit.context))
            out.print(f"[bold]{rank:2}. {hit.score:6.2f}[/]  [cyan]{place}[/]  [dim]{heading}[/]")
            out.print(f"    {escape(_short(hit.text))}")


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="A question in plain words.", show_default=False)],
    index: IndexOption,
    k: Annotated[int, typer.Option("-k", help="Passages to read.")] = 5,
    where: WhereOption = None,
    llm: Annotated[
        str | None,
        typer.Option(help="Let a language model write: openai:MODEL, or URL:MODEL of an OpenAI-compatible endpoint."),
    ] = None,
    hybrid: Annotated[bool, typer.Option("--hybrid", help="Join the search with BM25's.")] = False,
    rerank: Annotated[bool, typer.Option("--rerank", help="Rank the first 50 again, with all token vectors.")] = False,
    threshold: Annotated[float | None, typer.Option(help="Evidence below it is declined; see crisp-rag calibrate.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds without a word after which --llm is given up.", min=0.1)] = 60.0,
    max_tokens: Annotated[int, typer.Option(help="Tokens that --llm may write.", min=1)] = 512,
    as_json: JsonOption = False,
) -> None:
    """Answer a question with quotes and their sources, or say that the documents do not hold the answer (exit 3)."""
    from crisp_rag.pipelines.answer import ExtractiveReader
    from crisp_rag.pipelines.answer import ask as answer_question

    with errors(), open_index(index) as opened:
        if llm is None:
            reader: Any = ExtractiveReader(opened.encoder, threshold=threshold)
        else:
            from crisp_rag.pipelines.llm import LLMReader

            show = None if as_json else _piece_printer(question)
            reader = LLMReader(
                llm, opened.encoder, threshold=threshold, timeout=timeout, on_text=show, max_tokens=max_tokens
            )
        answer = answer_question(opened, question, k=k, where=_filter(where), reader=reader, hybrid=hybrid, rerank=rerank)
    if as_json:
        print_json(answer.to_dict())
    elif llm is not None and answer.statements:
        _print_statements(answer)
    else:
        out.print(f"[bold]{escape(question)}[/]")
        out.print(f"  {escape(answer.text)}")
        if answer.note:
            out.print(f"  [dim]{escape(answer.note)}[/]")
        for number, source in enumerate(answer.sources, 1):
            out.print(f"  [cyan]\\[{number}] {_place(source)}[/]  [dim]score {source.score:.2f}[/]")
            out.print(f"      “{escape(' '.join(source.quote.split()))}”")
        out.print()
    if not answer.answered:
        raise typer.Exit(NO_ANSWER)


@app.command()
def calibrate(
    questions: Annotated[
        Path,
        typer.Argument(metavar="JSONL", help="Lines with question and answerable (true or false).", show_default=False),
    ],
    index: IndexOption,
    k: Annotated[int, typer.Option("-k", help="Passages to read.")] = 5,
    answered: Annotated[
        float | None, typer.Option(help="Answer at least this share of what can be answered; both kinds alike if not given.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--out", help="File for the curve, as JSON.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Find the threshold of ask on own questions, with and without an answer in the documents."""
    from crisp_rag.pipelines.thresholds import find_threshold, read_questions

    with errors(), open_index(index) as opened:
        found = find_threshold(opened, read_questions(questions), k=k, answered=answered)
        if output is not None:
            output.write_text(json.dumps(found.to_dict(), indent=1) + "\n", encoding="utf-8")
    if as_json:
        print_json(found.to_dict())
        return
    out.print(f"--threshold {found.threshold:.4f} answers {found.answered:.0%} of {found.answerable} questions that have an "
              f"answer and declines {found.declined:.0%} of {found.unanswerable} that have none.")  # fmt: skip


def _piece_printer(question: str) -> Callable[[str], None]:
    """Prints the pieces of an answer as they come, the question before the first."""
    started = False

    def show(piece: str) -> None:
        nonlocal started
        if not started:
            out.print(f"[bold]{escape(question)}[/]")
            out.print("  ", end="")
            started = True
        out.file.write(visible(piece))
        out.file.flush()

    return show


def _print_statements(answer: Any) -> None:
    """What a language model wrote, sentence by sentence: what supports it, or that nothing does."""
    out.print("\n")
    for statement in (each for each in answer.statements if each.supported):
        out.print(f"  [green]✓[/] {escape(statement.text)}  [dim]support {statement.support:.2f}[/]")
        for source in statement.sources:
            out.print(f"      [cyan]{_place(source)}[/]  “{escape(' '.join(source.quote.split()))}”")
    if unsupported := [each.text for each in answer.statements if not each.supported]:
        more = f" and {len(unsupported) - 1} more" if len(unsupported) > 1 else ""
        out.print(f"  [red]✗ not in the passages:[/] {escape(_short(unsupported[0], 80))}{more}")
    if answer.note:
        out.print(f"  [dim]{escape(answer.note)}[/]")
    if not any(each.supported for each in answer.statements):
        out.print(f"  {escape(answer.text)}")
        for source in answer.sources:
            out.print(f"      [cyan]{_place(source)}[/]  “{escape(' '.join(source.quote.split()))}”")
    use = answer.context
    out.print(f"  [dim]{use.tokens} tokens of passages in the prompt, {use.saved:.0%} of {use.full_tokens} left out.[/]")
    out.print()


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


def _place(source: Any) -> str:
    """Where a quote stands, ready for the console."""
    place = "".join(f", {words}" for words in (source.place, source.standing) if words)
    return escape(f"{shown(source.path) or source.id}:{source.start}-{source.end}{place}")


def _short(text: str, width: int = 160) -> str:
    """A text in one line, cut where it is longer than ``width``."""
    flat = " ".join(text.split())
    return flat if len(flat) <= width else flat[: width - 1].rstrip() + "…"
