"""What the adapters cost over CrispIndex.search, and fifty concurrent queries beside one batch in a thread.

python benchmarks/adapters.py            # writes benchmarks/results/adapters.json

The overhead is measured with queries encoded beforehand, so that the encoder's milliseconds, and how they vary, do
not cover it: each query goes to the index and to every adapter in turn, and the overhead is the median difference.
The concurrent part encodes for real, with the default encoder.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import VectorStoreQuery
from rich.console import Console
from rich.table import Table

from crisp_rag import CrispIndex, load_encoder
from crisp_rag.pipelines.ingest import ingest
from crisp_rag.retrievers import langchain, llama_index

ROOT = Path(__file__).resolve().parent.parent
K = 10
ROUNDS = 7
TOGETHER = 50
REPEATS = 11


class Remembered:
    """An encoder that has encoded its queries before."""

    def __init__(self, encoder: Any, queries: list[str]) -> None:
        self._encoder = encoder
        self._vectors = dict(zip(queries, encoder.encode_query(queries), strict=True))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def encode_query(self, texts: Any, **options: Any) -> Any:
        return self._vectors[texts] if isinstance(texts, str) else [self._vectors[text] for text in texts]


def questions() -> list[str]:
    lines = (ROOT / "examples" / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["question"] for line in lines]


def as_nodes(source: CrispIndex, target: CrispIndex) -> None:
    """The same passages as LlamaIndex writes them, with source and neighbours."""
    passages = list(source.passages())
    nodes = [TextNode(id_=passage.id, text=passage.text, metadata=dict(passage.metadata)) for passage in passages]
    for before, node in pairwise(nodes):
        node.relationships[NodeRelationship.PREVIOUS] = before.as_related_node_info()
    for node in nodes:
        node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=str(node.metadata["source"]))
    llama_index.CrispVectorStore(target).add(nodes)


def overheads(index: CrispIndex, queries: list[str]) -> dict[str, Any]:
    """Milliseconds a query of each way to ask, and of what it adds to a plain search."""
    loop = asyncio.new_event_loop()
    retriever, store = langchain.CrispRetriever(index=index, k=K), langchain.CrispVectorStore(index)
    nodes, node_store = llama_index.CrispRetriever(index, K), llama_index.CrispVectorStore(index)
    ways: dict[str, Callable[[str], Any]] = {
        "CrispIndex.search": lambda query: index.search(query, K),
        "LangChain CrispRetriever.invoke": retriever.invoke,
        "LangChain CrispRetriever.ainvoke": lambda query: loop.run_until_complete(retriever.ainvoke(query)),
        "LangChain CrispVectorStore.similarity_search": lambda query: store.similarity_search(query, K),
        "LlamaIndex CrispRetriever.retrieve": nodes.retrieve,
        "LlamaIndex CrispRetriever.aretrieve": lambda query: loop.run_until_complete(nodes.aretrieve(query)),
        "LlamaIndex CrispVectorStore.query": lambda query: node_store.query(
            VectorStoreQuery(query_str=query, similarity_top_k=K)
        ),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(ROUNDS + 2):
        for number, query in enumerate(queries):
            # Each in turn goes first: the first of a query finds the caches cold.
            turn = (number + round_) % len(ways)
            for name, ask in [*ways.items()][turn:] + [*ways.items()][:turn]:
                start = time.perf_counter()
                ask(query)
                if round_ >= 2:
                    times[name].append(1000 * (time.perf_counter() - start))
    loop.close()
    plain = times["CrispIndex.search"]
    return {
        name: {
            "ms": statistics.median(taken),
            "overhead_ms": statistics.median(own - base for own, base in zip(taken, plain, strict=True)),
        }
        for name, taken in times.items()
    }


def together(index: CrispIndex, queries: list[str]) -> dict[str, float]:
    """Median milliseconds for fifty queries, asked in different ways."""
    chosen = queries[:TOGETHER]
    retriever, nodes = langchain.CrispRetriever(index=index, k=K), llama_index.CrispRetriever(index, K)

    async def at_once(ask: Any) -> None:
        await asyncio.gather(*map(ask, chosen))

    ways: dict[str, Callable[[], Any]] = {
        "search_batch in a thread": lambda: asyncio.to_thread(index.search_batch, chosen, K),
        "LangChain batch in a thread": lambda: asyncio.to_thread(retriever.batch, chosen),
        "50 x ainvoke": lambda: at_once(retriever.ainvoke),
        "50 x aretrieve": lambda: at_once(nodes.aretrieve),
        "50 x search in threads": lambda: at_once(lambda query: asyncio.to_thread(index.search, query, K)),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(REPEATS + 1):
        turn = repeat % len(ways)
        for name, run in [*ways.items()][turn:] + [*ways.items()][:turn]:
            start = time.perf_counter()
            asyncio.run(run())
            if repeat:
                times[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(taken) for name, taken in times.items()}


def measure() -> dict[str, Any]:
    queries = questions()
    encoder = load_encoder()
    with tempfile.TemporaryDirectory() as folder:
        real = CrispIndex.create(Path(folder) / "real", encoder)
        ingest(real, [ROOT / "examples" / "corpus"])
        quick = CrispIndex.create(Path(folder) / "quick", Remembered(encoder, queries))
        as_nodes(real, quick)
        results = {
            "passages": len(real),
            "queries": len(queries),
            "k": K,
            "ways": overheads(quick, queries),
            "fifty_ms": together(real, queries),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "versions": {name: version(name) for name in ("langchain-core", "llama-index-core", "torch")},
        }
        for index in (real, quick):
            index.close()
    return results


def main() -> None:
    results = measure()
    table = Table("way", "ms a query", "overhead, ms", title=f"{results['passages']} passages, k={K}, queries encoded")
    for name, figures in results["ways"].items():
        table.add_row(name, f"{figures['ms']:.2f}", f"{figures['overhead_ms']:.2f}")
    table.add_section()
    for name, taken in results["fifty_ms"].items():
        table.add_row(f"{name}, encoding included, 50 queries", f"{taken:.0f} in all", "")
    Console().print(table)
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "benchmarks" / "results" / "adapters.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
