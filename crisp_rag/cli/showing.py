"""``show``: a passage, or a span of a file's text, as the index keeps it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from crisp_rag.cli.console import IndexOption, JsonOption, app, errors, open_index, out, print_json, shown
from crisp_rag.errors import InvalidInputError

if TYPE_CHECKING:
    from crisp_rag.index.types import Passage

_SPAN = re.compile(r"(.+):(\d+)-(\d+)(?:, .*)?", re.S)


@app.command()
def show(
    what: Annotated[
        str,
        typer.Argument(metavar="ID", help="A passage's id, or FILE:START-END as ask prints it.", show_default=False),
    ],
    index: IndexOption,
    as_json: JsonOption = False,
) -> None:
    """Show a passage with what is known of it, or the text that a quote's place names, from the index alone."""
    with errors(), open_index(index) as opened:
        found = opened.get([what])
        if found:
            passage = found[0]
            if as_json:
                print_json(
                    {"id": passage.id, "text": passage.text, "metadata": passage.metadata, "context": passage.context}
                )
            else:
                _print_passage(passage)
            return
        span = _SPAN.fullmatch(what)
        text = _text_of_span(opened, span.group(1), int(span.group(2)), int(span.group(3))) if span else ""
        if not text:
            raise InvalidInputError(f"{index} holds no passage {what!r}: search --json tells ids, ask prints places.")
        if as_json:
            print_json({"text": text})
        else:
            out.print(escape(text))


def _print_passage(passage: Passage) -> None:
    from crisp_rag.pipelines.reading import place_in_words

    data = passage.metadata
    place = place_in_words(data)
    where = f"{shown(str(data.get('source', passage.id)))}:{data.get('start', 0)}-{data.get('end', len(passage.text))}"
    out.print(f"[cyan]{escape(where)}[/]{escape(f', {place}') if place else ''}")
    if passage.context:
        out.print(f"[dim]{escape(' '.join(passage.context.split()))}[/]")
    out.print(escape(passage.text))


def _text_of_span(index: Any, name: str, start: int, end: int) -> str:
    """The text between two places of a file, put together from the passages that it was cut into; blanks between them are
    single."""
    from pathlib import Path

    names = {name, Path(name).absolute().as_posix(), Path(name).resolve().as_posix()}
    where = {"source": {"$in": sorted(names)}, "start": {"$lt": end}, "end": {"$gt": start}}
    passages = sorted(index.passages(where), key=lambda passage: passage.metadata["start"])
    parts = []
    for passage in passages:
        first = passage.metadata["start"]
        parts.append(passage.text[max(0, start - first) : max(0, end - first)])
    return "\n".join(parts)
