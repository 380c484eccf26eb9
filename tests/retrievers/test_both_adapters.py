"""Both adapters over one index say the same, and importing them costs no more than their own framework."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from crisp_rag.index import CrispIndex
from crisp_rag.retrievers.shared import narrow

ROOT = Path(__file__).resolve().parents[2]
ADAPTERS = {
    "langchain": ("langchain_core", "crisp-rag[langchain]"),
    "llama_index": ("llama_index", "crisp-rag[llama-index]"),
}


def run_python(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def loaded_by(module: str, names: tuple[str, ...]) -> str:
    """Which of the packages a fresh interpreter has loaded after importing a module."""
    loaded = "{name.split('.')[0] for name in sys.modules}"
    return run_python(f"import sys, {module}; print(*sorted({loaded} & set({names!r})))")


def test_both_adapters_give_the_ids_and_scores_of_the_index(index: CrispIndex, query: str) -> None:
    langchain = pytest.importorskip("crisp_rag.retrievers.langchain", exc_type=ImportError)
    llama_index = pytest.importorskip("crisp_rag.retrievers.llama_index", exc_type=ImportError)
    where = {"year": {"$gte": 2023}}
    expected = [(hit.id, hit.score, hit.text) for hit in index.search(query, k=3, where=where)]
    documents = langchain.CrispRetriever(index=index, k=3, where=where).invoke(query)
    nodes = llama_index.CrispRetriever(index, 3, where=where).retrieve(query)
    assert [(doc.id, doc.metadata["score"], doc.page_content) for doc in documents] == expected
    assert [(node.node_id, node.score, node.text) for node in nodes] == expected
    assert len(expected) == 3


def test_both_adapters_build_indexes_that_answer_alike(tmp_path: Path, encoder: Any, texts: dict[str, str]) -> None:
    langchain = pytest.importorskip("crisp_rag.retrievers.langchain", exc_type=ImportError)
    llama_index = pytest.importorskip("crisp_rag.retrievers.llama_index", exc_type=ImportError)
    schema = pytest.importorskip("llama_index.core.schema")
    one = langchain.CrispRetriever.from_texts(list(texts.values()), ids=list(texts), path=tmp_path / "one", encoder=encoder)
    nodes = [schema.TextNode(id_=id_, text=text) for id_, text in texts.items()]
    two = llama_index.CrispRetriever.from_nodes(nodes, tmp_path / "two", encoder)
    for query in ("parcel abroad", "refunds", "watch"):
        documents = [(doc.id, doc.metadata["score"]) for doc in one.invoke(query)]
        assert documents == [(node.node_id, node.score) for node in two.retrieve(query)]


def test_importing_the_package_loads_no_framework_and_no_torch() -> None:
    names = ("langchain_core", "langchain", "llama_index", "pydantic", "torch", "sentence_transformers", "transformers")
    assert loaded_by("crisp_rag.retrievers", names) == ""


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_an_adapter_loads_its_own_framework_only_and_no_torch(adapter: str) -> None:
    own = ADAPTERS[adapter][0]
    pytest.importorskip(own)
    names = ("langchain_core", "langchain", "llama_index", "torch", "sentence_transformers")
    assert loaded_by(f"crisp_rag.retrievers.{adapter}", names) == own


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_missing_framework_is_answered_with_the_line_that_installs_it(
    adapter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    framework, extra = ADAPTERS[adapter]
    for name in [name for name in sys.modules if name.split(".")[0] == framework]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, f"crisp_rag.retrievers.{adapter}", raising=False)
    monkeypatch.setitem(sys.modules, framework, None)
    with pytest.raises(ImportError) as caught:
        importlib.import_module(f"crisp_rag.retrievers.{adapter}")
    assert f"pip install '{extra}'" in str(caught.value)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_framework_that_lacks_a_part_of_its_own_says_so_itself(
    adapter: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    framework, extra = ADAPTERS[adapter]
    (tmp_path / framework).mkdir()
    (tmp_path / framework / "__init__.py").write_text("import a_part_that_is_not_installed\n")
    for name in [name for name in sys.modules if name.split(".")[0] == framework]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, f"crisp_rag.retrievers.{adapter}", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match="a_part_that_is_not_installed") as caught:
        importlib.import_module(f"crisp_rag.retrievers.{adapter}")
    assert extra not in str(caught.value)


def test_narrowing_by_nothing_is_no_filter_and_by_one_is_that_one() -> None:
    only = {"a": 1}
    assert narrow() is None
    assert narrow(None, None) is None
    assert narrow(None, only, None) is only
    assert narrow(only, None, {"b": 2}) == {"$and": [{"a": 1}, {"b": 2}]}
