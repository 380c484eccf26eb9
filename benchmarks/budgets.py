"""What a budget costs and what it is worth: nDCG@10 of one encoder at several budgets, as floats and as one-bit codes.

python benchmarks/budgets.py DIR... [--encoder NAME] [--vectors CACHE] [--out benchmarks/results/budgets.json]

Every document is encoded once; its token vectors are pooled to each budget.  Search is exact; queries stay floats.
With ``--vectors`` documents come from the folder that benchmarks/vectors.py wrote, at the budgets that it has.  Results
are added to the file after each collection, under the encoder's name.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from reproduction import search
from rich.console import Console
from rich.table import Table
from vectors import pooled, pooled_queries

from crisp_rag.eval.datasets import load_beir
from crisp_rag.eval.metrics import score
from crisp_rag.models import load_encoder

ROOT = Path(__file__).resolve().parent.parent
BUDGETS = ("4x8", "8x16", "16x16", "8x32", "16x32", "16x64")


def measure(encoder, folder: Path, cache: Path | None) -> dict[str, dict[str, float]]:
    """Figures by row name: ``8x32 float16`` and ``8x32 1 bit``."""
    dataset = load_beir(folder)
    ids, texts = dataset.texts()
    documents = _read(cache, dataset.name) if cache else _encode(encoder, dataset.name, texts)
    figures = {}
    query_ids = list(dataset.queries)
    for budget, arrays in pooled_queries(encoder, list(dataset.queries.values()), list(documents)).items():
        queries = [torch.from_numpy(each) for each in arrays]
        for code, bits in (("float16", 16), ("1 bit", 1)):
            coded = [each.float() if bits == 16 else torch.where(each >= 0, 1.0, -1.0) for each in documents[budget]]
            found = zip(query_ids, search(queries, coded))
            run = {query: [(ids[row], value) for row, value in hits] for query, hits in found}
            vectors = sum(map(len, coded)) / len(coded)
            figures[f"{budget} {code}"] = {
                **score(run, dataset.qrels, dataset.binary_threshold),
                "Success@1": sum(dataset.qrels[query].get(run[query][0][0], 0) >= dataset.binary_threshold for query in run)
                / len(run),
                "vectors_per_document": round(vectors, 2),
                "bytes_per_document": round(vectors * encoder.dim * bits / 8),
            }
    return figures


def _encode(encoder, name: str, texts: list[str]) -> dict[str, list]:
    """Document vectors by budget."""
    documents: dict[str, list] = {budget: [None] * len(texts) for budget in BUDGETS}  # of a size, the same arrays
    started, done = time.perf_counter(), 0
    for rows, part in pooled(encoder, texts, BUDGETS):
        for budget, arrays in part.items():
            for row, array in zip(rows, arrays):
                documents[budget][row] = torch.from_numpy(array)
        done += len(rows)
        print(f"{name}: {done}/{len(texts)}, {time.perf_counter() - started:.0f} s", flush=True)
    return documents


def _read(cache: Path, name: str) -> dict[str, list]:
    """Document vectors by budget, as they lie in the cache."""
    found = {}
    for path in sorted(cache.glob(f"{name}.*x*.f16")):
        budget = path.name.split(".")[-2]
        counts = np.load(path.with_suffix(".counts.npy"))
        vectors = np.fromfile(path, np.float16).reshape(int(counts.sum()), -1)
        found[budget] = [torch.from_numpy(each) for each in np.split(vectors, np.cumsum(counts)[:-1])]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", type=Path, nargs="+", metavar="DIR")
    parser.add_argument("--encoder")
    parser.add_argument("--vectors", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "budgets.json")
    arguments = parser.parse_args()
    encoder = load_encoder(arguments.encoder)
    for folder in arguments.folders:
        figures = measure(encoder, folder, arguments.vectors)
        results = json.loads(arguments.out.read_text()) if arguments.out.is_file() else {}
        results.setdefault(encoder.name, {})[folder.resolve().name] = figures
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        table = Table("budget and code", "nDCG@10", "R@100", "bytes/doc", title=f"{encoder.name} on {folder.name}")
        for name, row in figures.items():
            table.add_row(name, f"{row['nDCG@10']:.4f}", f"{row['R@100']:.4f}", str(row["bytes_per_document"]))
        Console().print(table)


if __name__ == "__main__":
    main()
