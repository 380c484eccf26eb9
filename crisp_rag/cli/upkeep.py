"""``info``, ``verify`` and ``compact``."""

from __future__ import annotations

from dataclasses import asdict

import typer

from crisp_rag.cli.console import IndexOption, JsonOption, announce, app, errors, open_index, out, print_json, shown
from crisp_rag.cli.terminal import escape

DAMAGED = 5


@app.command()
def info(index: IndexOption, as_json: JsonOption = False) -> None:
    """Show what an index holds, after checking its files."""
    with errors(), open_index(index) as opened:
        stats = opened.stats()
        if as_json:
            print_json(stats.to_dict())
            return
        for name, value in stats.to_dict().items():
            figure = f"{value:.1f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value
            out.print(f"{name.replace('_', ' '):>20}  {escape(str(figure))}")
        announce(stats)


@app.command()
def verify(index: IndexOption, as_json: JsonOption = False) -> None:
    """Check every byte that an index answers from, and name each file that is damaged (exit 5)."""
    from crisp_rag.index import verify_index

    with errors():
        found = verify_index(index)
    if as_json:
        print_json(found.to_dict())
    else:
        for damage in found.damage:
            out.print(f"[red]damaged[/] {escape(shown(damage.file))}: {escape(damage.problem)}")
        for orphan in found.orphans:
            out.print(f"[yellow]left over[/] {escape(shown(orphan))}: the next write removes it")
        if found.sound:
            where = f"{found.passages:,} passages in {found.segments} segments"
            out.print(f"Sound: {where}, {found.bytes_checked:,} bytes checked.")
    if not found.sound:
        raise typer.Exit(DAMAGED)


@app.command()
def compact(index: IndexOption, as_json: JsonOption = False) -> None:
    """Give back the space of deleted and replaced passages."""
    with errors(), open_index(index) as opened:
        done = opened.compact()
    if as_json:
        print_json(asdict(done))
    else:
        out.print(f"{done.bytes_before:,} bytes before, {done.bytes_after:,} after.")
