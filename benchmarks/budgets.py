"""What a budget costs and what it is worth: nDCG@10 of one encoder at several budgets, as floats and as one-bit codes.

python benchmarks/budgets.py DIR... [--encoder crisp-minilm] [--out benchmarks/results/budgets.json]

Every document is encoded once; its token vectors are pooled to each budget.  Search is exact; queries stay floats.
Results are added to the file after each collection, under the encoder's name.
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

from crisp_rag.eval.datasets import load_beir
from crisp_rag.eval.metrics import score
from crisp_rag.models import load_encoder
from crisp_rag.models.pooling import parse_pooling

ROOT = Path(__file__).resolve().parent.parent
BUDGETS = ("4x8", "8x16", "8x32", "16x64")
BATCH = 64
CHUNK = 1024


def measure(encoder, folder: Path) -> dict[str, dict[str, float]]:
    """Figures by row name: ``8x32 float16`` and ``8x32 1 bit``."""
    dataset = load_beir(folder)
    ids, texts = dataset.texts()
    order = np.argsort([-len(text) for text in texts], kind="stable")  # chunks of like lengths
    poolings = {budget: parse_pooling(budget, **encoder.pooling_module.options) for budget in BUDGETS}
    pooled: dict[str, list] = {budget: [None] * len(texts) for budget in BUDGETS}
    whole = encoder.with_pooling("none")
    started = time.perf_counter()
    for first in range(0, len(order), CHUNK):
        rows = order[first : first + CHUNK]
        tokens = [torch.from_numpy(each) for each in whole.encode_document([texts[row] for row in rows])]
        for start in range(0, len(rows), BATCH):
            part = tokens[start : start + BATCH]
            padded = torch.nn.utils.rnn.pad_sequence(part, batch_first=True)
            mask = torch.arange(padded.shape[1]).unsqueeze(0) < torch.tensor([[len(each)] for each in part])
            for budget, pooling in poolings.items():
                vectors, kept = pooling.pool_batch(padded, mask, "document")
                for row, own, keep in zip(rows[start : start + BATCH], vectors, kept):
                    pooled[budget][row] = own[keep].half()
        print(f"{dataset.name}: {first + len(rows)}/{len(texts)}, {time.perf_counter() - started:.0f} s", flush=True)
    figures = {}
    query_ids = list(dataset.queries)
    query_tokens = whole.encode_query([dataset.queries[each] for each in query_ids])
    for budget, pooling in poolings.items():
        queries = [pooling.pool_one(torch.from_numpy(each), task="query") for each in query_tokens]
        for code, bits in (("float16", 16), ("1 bit", 1)):
            documents = [each.float() if bits == 16 else torch.where(each >= 0, 1.0, -1.0) for each in pooled[budget]]
            found = zip(query_ids, search(queries, documents))
            run = {query: [(ids[row], value) for row, value in hits] for query, hits in found}
            vectors = sum(map(len, documents)) / len(documents)
            figures[f"{budget} {code}"] = {
                **score(run, dataset.qrels, dataset.binary_threshold),
                "Success@1": sum(dataset.qrels[query].get(run[query][0][0], 0) >= dataset.binary_threshold for query in run)
                / len(run),
                "vectors_per_document": round(vectors, 2),
                "bytes_per_document": round(vectors * encoder.dim * bits / 8),
            }
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", type=Path, nargs="+", metavar="DIR")
    parser.add_argument("--encoder")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "budgets.json")
    arguments = parser.parse_args()
    encoder = load_encoder(arguments.encoder)
    for folder in arguments.folders:
        figures = measure(encoder, folder)
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
