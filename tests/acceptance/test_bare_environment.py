"""Each adapter where the other framework is not installed, and crisp_rag where neither is.

The environments are real ones: a new venv that holds what the distribution declares for one extra, and nothing else.
The packages are linked from this environment, so making one takes a moment and no network.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
import venv
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import crisp_rag


def declared(extra: str) -> dict[str, Path]:
    """Top-level files and folders of everything that ``crisp-rag[extra]`` needs, by name."""
    found: dict[str, Path] = {"crisp_rag": Path(crisp_rag.__file__).parent}
    seen: set[tuple[str, str]] = set()
    waiting = [("crisp-rag", extra)]
    while waiting:
        name, wanted = waiting.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        try:
            package = distribution(name)
        except PackageNotFoundError:
            continue  # what imports it without having it fails below
        if name != "crisp-rag":
            for file in package.files or ():
                top = file.parts[0]
                if top not in ("..", "__pycache__", "/"):
                    found[top] = Path(str(package.locate_file(top)))
        for line in package.requires or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": wanted}):
                waiting.append((requirement.name, ""))
                waiting += [(requirement.name, part) for part in requirement.extras]
    return found


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory):
    """``bare(extra, program)`` runs a program where nothing else is installed; returns what it printed."""
    made: dict[str, Path] = {}

    def run(extra: str, program: str) -> str:
        if extra not in made:
            made[extra] = tmp_path_factory.mktemp("bare") / (extra or "neither")
            venv.EnvBuilder(with_pip=False, symlinks=True).create(made[extra])
            (packages,) = made[extra].glob("lib/python*/site-packages")
            for name, path in declared(extra).items():
                (packages / name).symlink_to(path)
        folder = tmp_path_factory.mktemp("run")
        command = [made[extra] / "bin" / "python", "-I", "-c", textwrap.dedent(program)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")


def test_a_program_with_langchain_alone_writes_and_retrieves(bare) -> None:
    program = """
    import asyncio, importlib.util
    assert importlib.util.find_spec("llama_index") is None
    from crisp_rag.retrievers.langchain import CrispReranker, CrispRetriever, CrispVectorStore
    store = CrispVectorStore.from_texts(["Refunds take five days.", "The shop opens at nine."], path="shop")
    retriever = CrispRetriever(index=store.index, k=1)
    print(retriever.invoke("When does it open?")[0].page_content)
    print(asyncio.run(retriever.ainvoke("When do I get my money back?"))[0].page_content)
    found = store.similarity_search("money")
    print(CrispReranker(encoder=store.index.encoder, top_n=1).compress_documents(found, "opening hours")[0].page_content)
    """
    assert bare("langchain", program).splitlines() == [
        "The shop opens at nine.",
        "Refunds take five days.",
        "The shop opens at nine.",
    ]


def test_a_program_with_llama_index_alone_writes_and_retrieves(bare) -> None:
    program = """
    import asyncio, importlib.util
    assert importlib.util.find_spec("langchain_core") is None
    from llama_index.core import Document
    from llama_index.core.llms import MockLLM
    from crisp_rag.retrievers.llama_index import CrispRerank, CrispVectorIndex
    documents = [Document(text="Refunds take five days."), Document(text="The shop opens at nine.")]
    index = CrispVectorIndex.from_documents(documents, path="shop")
    retriever = index.as_retriever(similarity_top_k=1)
    print(retriever.retrieve("When does it open?")[0].text)
    print(asyncio.run(retriever.aretrieve("When do I get my money back?"))[0].text)
    rerank = CrispRerank(encoder=index.index.encoder, top_n=1)
    print(index.as_query_engine(llm=MockLLM(), node_postprocessors=[rerank]).query("opening hours").source_nodes[0].text)
    """
    assert bare("llama-index", program).splitlines() == [
        "The shop opens at nine.",
        "Refunds take five days.",
        "The shop opens at nine.",
    ]


def test_without_a_framework_the_index_works_and_the_adapters_say_what_to_install(bare) -> None:
    program = """
    from crisp_rag import CrispIndex
    with CrispIndex.create("shop") as index:
        index.add_texts(["Refunds take five days."])
        print(index.search("money back")[0].text)
    for name in ("langchain", "llama_index"):
        try:
            __import__(f"crisp_rag.retrievers.{name}")
        except ImportError as error:
            print(error)
    """
    text, *errors = bare("", program).splitlines()
    assert text == "Refunds take five days."
    assert ["pip install 'crisp-rag[langchain]'" in errors[0], "pip install 'crisp-rag[llama-index]'" in errors[1]] == [
        True
    ] * 2


@pytest.mark.parametrize(("extra", "adapter"), [("langchain", "llama_index"), ("llama-index", "langchain")])
def test_the_other_adapter_says_what_to_install(bare, extra: str, adapter: str) -> None:
    program = f"""
    try:
        import crisp_rag.retrievers.{adapter}
    except ImportError as error:
        print(error)
    """
    assert f"pip install 'crisp-rag[{adapter.replace('_', '-')}]'" in bare(extra, program)
