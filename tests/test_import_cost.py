"""Importing crisp_rag costs next to nothing, and an adapter little more than its own framework."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAVY = {"torch", "transformers", "sentence_transformers", "faiss", "sklearn", "scipy", "datasets", "tokenizers"}
FRAMEWORKS = {"langchain_core", "langchain", "llama_index", "langgraph", "pydantic"}


def cost(statement: str) -> dict[str, Any]:
    """What a statement loads and takes in a fresh interpreter: modules, their packages, seconds."""
    program = f"""
import sys, time, json
before = set(sys.modules)
start = time.perf_counter()
{statement}
seconds = time.perf_counter() - start
loaded = set(sys.modules) - before
print(json.dumps({{"modules": len(loaded), "packages": sorted({{m.split(".")[0] for m in loaded}}), "seconds": seconds}}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_importing_the_package_loads_itself_and_a_few_modules_of_pythons_own() -> None:
    package = cost("import crisp_rag")
    assert set(package["packages"]) & (HEAVY | FRAMEWORKS | {"numpy"}) == set()
    assert package["modules"] < 30, package
    assert package["seconds"] < cost("import numpy")["seconds"], "a package that is not even used yet"


def test_the_index_loads_no_framework_and_no_model() -> None:
    assert set(cost("from crisp_rag import CrispIndex")["packages"]) & (HEAVY | FRAMEWORKS) == set()


@pytest.mark.parametrize(
    ("adapter", "framework", "parts"),
    [
        ("langchain", "langchain_core", "retrievers, langchain_core.vectorstores, langchain_core.indexing"),
        (
            "llama_index",
            "llama_index",
            "core, llama_index.core.indices.managed.base, llama_index.core.ingestion, llama_index.core.postprocessor",
        ),
    ],
)
def test_an_adapter_loads_little_beside_its_own_framework(adapter: str, framework: str, parts: str) -> None:
    pytest.importorskip(framework)
    whole = cost(f"import crisp_rag.retrievers.{adapter}")
    assert set(whole["packages"]) & (HEAVY | FRAMEWORKS - {"pydantic"}) == {framework}
    alone = cost(f"import {framework}.{parts}, numpy, sqlite3, asyncio, ctypes, concurrent.futures.thread")
    assert whole["modules"] - alone["modules"] < 80, (whole["modules"], alone["modules"])
    assert whole["seconds"] < 3 * alone["seconds"] + 1
