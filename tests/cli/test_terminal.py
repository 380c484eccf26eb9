"""What strangers wrote reaches the terminal as text that does nothing; errors are one sentence and no traceback."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from crisp_rag.cli import app
from crisp_rag.cli.terminal import escape, visible, visible_json
from crisp_rag.index import CrispIndex, Passage

CLIPBOARD = "\x1b]52;c;ZXZpbA==\x07"
NASTY = f"refunds {CLIPBOARD}\x1b[2J\x9b31m\r\x08\x7f\u202egnp"
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")


class Words:
    """One vector a word."""

    name, fingerprint, dim, pooling, source, max_document_tokens = "words", "00", 8, "none", None, 64

    def encode_query(self, texts: Any, **_: Any) -> Any:
        import numpy as np

        def one(text: str) -> Any:
            return np.stack([np.eye(8, dtype="f4")[sum(map(ord, word)) % 8] for word in text.split()])

        return one(texts) if isinstance(texts, str) else [one(text) for text in texts]

    encode_document = encode_query


@pytest.fixture
def nasty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index whose passages, sources, headings and ids would steer a terminal."""
    encoder = Words()
    with CrispIndex.create(tmp_path / "index", encoder) as index:  # type: ignore[arg-type]
        index.add([Passage(f"id{CLIPBOARD}", NASTY, {"source": f"/x/{NASTY}", "heading": NASTY}, NASTY)])
    monkeypatch.setattr("crisp_rag.index.crisp_index.encoder_of", lambda *_: encoder)
    return tmp_path / "index"


@pytest.mark.parametrize("options", [[], ["--json"]])
@pytest.mark.parametrize("command", [["search", "refunds"], ["info"], ["verify"]])
def test_a_command_shows_what_would_steer_the_terminal(nasty: Path, command: list[str], options: list[str]) -> None:
    done = CliRunner().invoke(app, [*command, "--index", str(nasty), *options])
    assert done.exit_code == 0, done.output
    assert not STEERING.search(done.output.replace("\n", "")), repr(done.output)
    if command[0] == "search" and not options:
        assert r"\x1b]52;c;ZXZpbA==\x07" in done.output and r"\u202e" in done.output
    if command[0] == "search" and options:
        assert json.loads(done.stdout)[0]["text"] == NASTY, "JSON says the same to those who read it"


def test_a_models_stream_is_shown_and_does_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    from crisp_rag.cli import console, documents

    show = documents._piece_printer(f"why{CLIPBOARD}")
    with console.out.capture():
        pass
    console.out.file = __import__("sys").stdout
    try:
        for piece in ("Within ", CLIPBOARD[:4], CLIPBOARD[4:], "five\r\ndays"):
            show(piece)
    finally:
        console.out.file = None
    said = capsys.readouterr().out
    assert not STEERING.search(said) and "five\ndays" in said and r"\x1b]52" in said


def test_what_is_text_stays_as_it_is() -> None:
    text = "Größe — „naïve“ 東京 🙂 [bold]\n\ttab"
    assert visible(text) == text
    assert escape("[red]x\x1b[0m") == r"\[red]x\x1b[0m"
    assert json.loads(visible_json(json.dumps("\x9b\x7fé", ensure_ascii=False))) == "\x9b\x7fé"


def test_whatever_goes_wrong_is_one_sentence(tmp_path: Path, nasty: Path) -> None:
    (tmp_path / "file").write_text("x")
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"question": "refunds", "answerable": true}\n')
    calls = [
        ["info", "--index", str(tmp_path / ("x" * 300))],
        ["verify", "--index", str(tmp_path / ("x" * 300))],
        ["search", "x", "--index", str(tmp_path / "file" / "below")],
        ["info", "--index", str(tmp_path / "none")],
        ["index", str(tmp_path / "file"), "--index", str(tmp_path / "file" / "below")],
        ["index", str(tmp_path / "file"), "--index", str(tmp_path / ("x" * 300))],
    ]
    if hasattr(os, "mkfifo"):
        (tmp_path / "pipes").mkdir()
        os.mkfifo(tmp_path / "pipes" / "index.sqlite")
        calls.append(["info", "--index", str(tmp_path / "pipes")])
    for call in calls:
        done = CliRunner().invoke(app, call)
        assert done.exit_code == 1, (call, done.output)
        assert isinstance(done.exception, SystemExit), call
        assert "Traceback" not in done.output and "error:" in done.output, call
