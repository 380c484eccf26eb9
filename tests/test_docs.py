"""The pages of the two frameworks: their code runs, in order, as a reader would run it."""

from __future__ import annotations

import re
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


@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_runs(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(PAGES[page])
    blocks = re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 7
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = model_for(page)
    for number, block in enumerate(blocks, 1):
        exec(compile(block, f"{page}, block {number}", "exec"), names)
    printed = capsys.readouterr().out
    assert "Refunds are paid within five days." in printed
    index = names["index"]
    (index if page == "langchain.md" else index.index).close()


@pytest.mark.parametrize("page", PAGES)
def test_the_readme_links_the_page(page: str) -> None:
    assert f"(docs/{page})" in (DOCS.parent / "README.md").read_text(encoding="utf-8")


def test_the_code_of_the_training_page_trains_an_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from crisp_rag.models import load_encoder

    (block,) = re.findall(
        r"^```python\n(.*?)^```", (DOCS / "training.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "training.md", "exec"), {})
    assert load_encoder(tmp_path / "my-encoder").pooling == "8x32"
    assert (tmp_path / "my-encoder" / "README.md").is_file()


def test_the_code_of_the_durability_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (DOCS / "durability.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
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


def test_the_readme_links_the_durability_page() -> None:
    assert "(docs/durability.md)" in (DOCS.parent / "README.md").read_text(encoding="utf-8")
