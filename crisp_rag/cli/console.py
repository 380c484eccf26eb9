"""What the commands share: consoles, common options, errors as one sentence, and how things are shown."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from crisp_rag.cli.terminal import escape, visible_json
from crisp_rag.errors import CrispError
from crisp_rag.models.names import DEFAULT_ENCODER_NAME, LIGHT_ENCODER_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

IndexOption = Annotated[Path, typer.Option("--index", help="The index folder.", show_default=False)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@contextmanager
def errors() -> Iterator[None]:
    """What went wrong in one sentence, without a traceback, and exit code 1."""
    try:
        yield
    except (CrispError, ImportError) as error:
        said = str(error)
    except OSError as error:  # an output that cannot be written, say
        from crisp_rag.index.access import refused

        said = str(refused(error.filename or "A file", error.errno, error.strerror or str(error)))
    else:
        return
    err.print(f"[red]error:[/] {escape(said)}")
    raise typer.Exit(1)


def open_index(path: Path) -> Any:
    """The index in a folder."""
    from crisp_rag.index import CrispIndex

    return CrispIndex.open(path)


def announce(stats: Any) -> None:
    """Say which encoder an index was built with, and if there is a better one today."""
    former = stats.encoder.partition("@")[0] == LIGHT_ENCODER_NAME
    better = f" New indexes take {DEFAULT_ENCODER_NAME}, which finds more." if former else ""
    encoder = f"Encoder: {escape(stats.encoder)} ({stats.dim} dims, {stats.pooling} query x document vectors)."
    err.print(f"[dim]{encoder}{better}[/]")


def encoder_of(name: str | None, pooling: str | None) -> Any:
    """The encoder of that name, the default one without a name; a budget it cannot have is a wrong call."""
    from crisp_rag.models import load_encoder

    try:
        return load_encoder(name, budget=pooling)
    except ValueError as error:
        if isinstance(error, CrispError):
            raise
        raise typer.BadParameter(str(error)) from error


def print_json(value: Any) -> None:
    """A result as JSON on stdout."""
    sys.stdout.write(visible_json(json.dumps(value, ensure_ascii=False, indent=2, default=str)) + "\n")


def shown(path: str) -> str:
    """A path as short as it stays true: relative to here where it lies below."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return path
