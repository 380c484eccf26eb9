"""The pages of the two frameworks: their code runs, in order, as a reader would run it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = {"langchain.md": "langchain_core", "llama-index.md": "llama_index.core"}


def model_for(page: str) -> dict[str, Any]:
    """The model that the page takes for granted: the framework's own fake."""
    if page == "langchain.md":
        from langchain_core.language_models import FakeListChatModel

        return {"model": FakeListChatModel(responses=["Within five days."])}
    from llama_index.core.llms import MockLLM

    return {"llm": MockLLM()}


def code_of(page: str) -> list[str]:
    """The Python blocks of a page, in order."""
    return re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_runs(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(PAGES[page])
    blocks = code_of(page)
    assert len(blocks) >= 7
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = model_for(page)
    for number, block in enumerate(blocks, 1):
        exec(compile(block, f"{page}, block {number}", "exec"), names)
    printed = capsys.readouterr().out
    assert "Refunds are paid within five days." in printed
    index = names["index"]
    (index if page == "langchain.md" else index.index).close()


def test_the_code_of_the_evaluation_page_measures_a_collection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("langchain_core")
    page = (DOCS / "evaluation.md").read_text(encoding="utf-8")
    blocks = code_of("evaluation.md")
    assert len(blocks) == 4
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "evaluation"}
    for number, block in enumerate(blocks, 1):
        exec(compile(block, f"evaluation.md, block {number}", "exec", dont_inherit=True), names)
    assert "nDCG@10" in capsys.readouterr().out
    assert names["results"]["shop"]["words"]["Success@1"] == 1.0
    assert (tmp_path / "out" / "report.html").is_file()
    (suite,) = re.findall(r"^```yaml\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    (tmp_path / "suite.yaml").write_text(suite)
    from crisp_rag.eval import load_suite

    assert load_suite(tmp_path / "suite.yaml").baseline == "dense"


@pytest.mark.parametrize("page", [*PAGES, "answering.md", "durability.md", "evaluation.md", "search.md"])
def test_the_readme_links_the_page(page: str) -> None:
    assert f"(docs/{page})" in (DOCS.parent / "README.md").read_text(encoding="utf-8")


def test_the_code_of_the_training_page_trains_an_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from crisp_rag.models import load_encoder

    (block,) = code_of("training.md")
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "training.md", "exec"), {})
    assert load_encoder(tmp_path / "my-encoder").pooling == "8x32"
    assert (tmp_path / "my-encoder" / "README.md").is_file()


def test_the_code_of_the_durability_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in code_of("durability.md"):
        exec(compile(block, "durability.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "20 are on disk" in printed and "14 passages, " in printed and "is about refunds." in printed
    assert {path.name for path in tmp_path.iterdir()} == {"handbook.crisp", "backup", "restored.crisp"}


def test_the_durability_page_names_every_file_of_an_index(tmp_path: Path) -> None:
    from crisp_rag import CrispIndex, load_encoder

    text = (DOCS / "durability.md").read_text(encoding="utf-8")
    with CrispIndex.create(tmp_path / "index", load_encoder()) as index:
        index.add_texts(["Refunds take five days."])
        with index._lock.held():
            for file in (path for path in index.path.rglob("*") if path.is_file()):
                name = file.name if file.parent == index.path else f"{file.parent.name}/"
                assert f"`{name.removeprefix('index.sqlite') or name}`" in text, name


def test_the_code_of_the_answering_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("langchain_core", "syntok", "bm25s"):
        pytest.importorskip(module)
    from langchain_core.language_models import FakeListChatModel

    blocks = code_of("answering.md")
    assert len(blocks) >= 8
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"model": FakeListChatModel(responses=["Refunds are paid within five days [1]."])}
    for number, block in enumerate(blocks, 1):
        exec(compile(block, f"answering.md, block {number}", "exec"), names)
    printed = capsys.readouterr().out
    assert "Anna Gurney" in printed and "('refunds',)" in printed and "False []" in printed
    names["index"].close()


def test_the_code_of_the_search_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in code_of("search.md"):
        exec(compile(block, "search.md", "exec"), names)
    names["index"].close()
    assert capsys.readouterr().out == "exact over 20 passages\nexact ('7bit',)\n"


def test_the_search_page_lists_every_codec_and_its_bytes() -> None:
    from crisp_rag.index.codecs import CODECS, codec_for

    text = (DOCS / "search.md").read_text(encoding="utf-8")
    listed = {name: int(size.replace(",", "")) for name, size in re.findall(r"^\| `(\w+)`[^|]*\| ([\d,]+) \|", text, re.M)}
    assert listed == {name: 32 * sum(codec_for(name, 384).planes) for name in CODECS}


def test_the_code_of_the_forking_page_runs_as_a_program(tmp_path: Path) -> None:
    (program,) = code_of("forking.md")
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "PYTHONPATH": str(DOCS.parent)},
    )
    assert done.returncode == 0, done.stderr
    assert "['refunds', 'parcels']" in done.stdout
