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
from rich.console import Console
from rich.table import Table

from crisp_rag.eval.datasets import load_beir
from crisp_rag.eval.metrics import score
from crisp_rag.models import load_encoder
from crisp_rag.models.pooling import parse_pooling
from crisp_rag.models.scoring import StackedVectors, ranking

ROOT = Path(__file__).resolve().parent.parent
BUDGETS = ("4x8", "8x8", "8x16", "8x32", "16x64")
BATCH = 64


def measure(encoder, folder: Path) -> dict[str, dict[str, float]]:
    """Figures by row name: ``8x32`` and ``8x32 sign``."""
    dataset = load_beir(folder)
    ids, texts = dataset.texts()
    order = np.argsort([-len(text) for text in texts], kind="stable")  # batches of like lengths
    options = {key: getattr(encoder.pooling_module, key) for key in ("query_centroid", "iterations", "init")}
    poolings = {budget: parse_pooling(budget, **options) for budget in BUDGETS}
    pooled: dict[str, list] = {budget: [None] * len(texts) for budget in BUDGETS}
    started = time.perf_counter()
    for first in range(0, len(order), BATCH):
        rows = order[first : first + BATCH]
        tokens = [torch.from_numpy(each) for each in encoder.encode_tokens([texts[row] for row in rows])]
        padded = torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True)
        mask = torch.arange(padded.shape[1]).unsqueeze(0) < torch.tensor([len(each) for each in tokens]).unsqueeze(1)
        for budget, pooling in poolings.items():
            vectors, kept = pooling.pool_batch(padded, mask, "document")
            for row, own, keep in zip(rows, vectors, kept):
                pooled[budget][row] = own[keep].numpy()
        if first % (BATCH * 20) == 0:
            print(f"{dataset.name}: {first + len(rows)}/{len(texts)}, {time.perf_counter() - started:.0f} s", flush=True)
    figures = {}
    query_ids = list(dataset.queries)
    query_tokens = encoder.encode_tokens([dataset.queries[each] for each in query_ids], "query")
    for budget, pooling in poolings.items():
        queries = [pooling.pool_one(torch.from_numpy(each), task="query").numpy() for each in query_tokens]
        for code in ("float", "sign"):
            documents = pooled[budget]
            if code == "sign":
                documents = [np.where(each >= 0, 1.0, -1.0).astype(np.float32) for each in documents]
            stacked = StackedVectors(documents)
            run = {
                id_: [(ids[row], value) for row, value in ranking(stacked.scores(query))[:100]]
                for id_, query in zip(query_ids, queries)
            }
            vectors = sum(map(len, documents)) / len(documents)
            figures[f"{budget} {code}"] = {
                **score(run, dataset.qrels, dataset.binary_threshold),
                "vectors_per_document": round(vectors, 2),
                "bytes_per_document": round(vectors * encoder.dim * (4 if code == "float" else 1 / 8)),
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
