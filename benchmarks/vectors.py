"""Encodes collections once, so that benchmarks of search need no encoder: vectors of every passage and test query.

python benchmarks/vectors.py DATA CACHE [--encoder crisp-minilm] [--only scifact,nfcorpus]

DATA holds folders in BEIR form.  For each of them CACHE gets ``NAME.BUDGET.f16`` (float16 vectors, passage after
passage), ``NAME.BUDGET.counts.npy`` (vectors of each passage), ``NAME.ids.json``, and the same for the test queries
with ``.q`` behind the name, as float32.  A collection that is there is passed over, so that the command can be
interrupted and run again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from crisp_rag.eval.datasets import load_beir, read_corpus
from crisp_rag.models import load_encoder
from crisp_rag.models.encoder import CrispEncoder
from crisp_rag.models.pooling import parse_pooling

BUDGETS = ("8x32", "4x8")
BATCH = 64
CHUNK = 1024


def pooled(
    encoder: CrispEncoder, texts: Sequence[str], budgets: Sequence[str]
) -> Iterator[tuple[int, dict[str, list[np.ndarray]]]]:
    """Encode texts once and pool their token vectors to every budget, a chunk of like lengths after the other.

    Yields:
        The rows of the chunk, and for each budget their (vectors, dim) float16 arrays.
    """
    order = np.argsort([-len(text) for text in texts], kind="stable")
    poolings = {budget: parse_pooling(budget, **encoder.pooling_module.options) for budget in budgets}
    whole = encoder.with_pooling("none")
    for first in range(0, len(order), CHUNK):
        rows = order[first : first + CHUNK]
        tokens = [torch.from_numpy(each) for each in whole.encode_document([texts[row] for row in rows])]
        vectors: dict[str, list[np.ndarray]] = {budget: [] for budget in budgets}
        for start in range(0, len(rows), BATCH):
            part = tokens[start : start + BATCH]
            padded = torch.nn.utils.rnn.pad_sequence(part, batch_first=True)
            mask = torch.arange(padded.shape[1]).unsqueeze(0) < torch.tensor([[len(each)] for each in part])
            made: dict[str, list[np.ndarray]] = {}  # by a document's budget, which several share
            for budget, pooling in poolings.items():
                size = budget.partition("x")[2]
                if size not in made:
                    found, kept = pooling.pool_batch(padded, mask, "document")
                    made[size] = [own[keep].half().numpy() for own, keep in zip(found, kept)]
                vectors[budget] += made[size]
        yield rows, vectors


def pooled_queries(encoder: CrispEncoder, texts: Sequence[str], budgets: Sequence[str]) -> dict[str, list[np.ndarray]]:
    """For each budget the (vectors, dim) float32 arrays of the queries."""
    return {budget: encoder.with_pooling(budget).encode_query(list(texts)) for budget in budgets}


def write(folder: Path, name: str, ids: Sequence[str], vectors: dict[str, list[np.ndarray]], kind: str) -> None:
    """Write the arrays of one collection; the ids come last and say that it is complete."""
    for budget, arrays in vectors.items():
        np.concatenate(arrays).tofile(folder / f"{name}.{budget}.{kind}")
        np.save(folder / f"{name}.{budget}.counts.npy", np.array([len(each) for each in arrays], dtype=np.int64))
    (folder / f"{name}.ids.json").write_text(json.dumps(list(ids)), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--encoder")
    parser.add_argument("--only", help="Names of collections, with commas between; all by default.")
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    encoder = load_encoder(arguments.encoder)
    there = sorted(path.parent.name for path in arguments.data.glob("*/corpus.jsonl"))
    names = arguments.only.split(",") if arguments.only else there
    for name in names:
        started = time.perf_counter()
        if not (arguments.cache / f"{name}.q.ids.json").exists() and (arguments.data / name / "qrels" / "test.tsv").exists():
            queries = load_beir(arguments.data / name).queries
            texts = list(queries.values())
            write(arguments.cache, f"{name}.q", list(queries), pooled_queries(encoder, texts, BUDGETS), "f32")
        if not (arguments.cache / f"{name}.ids.json").exists():
            corpus = read_corpus(arguments.data / name / "corpus.jsonl")
            kept = {id_: document.encoded_text for id_, document in corpus.items() if document.encoded_text}
            vectors: dict[str, list] = {budget: [None] * len(kept) for budget in BUDGETS}
            done = 0
            for rows, part in pooled(encoder, list(kept.values()), BUDGETS):
                for budget, arrays in part.items():
                    for row, array in zip(rows, arrays):
                        vectors[budget][row] = array
                done += len(rows)
                print(f"{name}: {done}/{len(kept)}, {time.perf_counter() - started:.0f} s", flush=True)
            write(arguments.cache, name, list(kept), vectors, "f16")


if __name__ == "__main__":
    main()
