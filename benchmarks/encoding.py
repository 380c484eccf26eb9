"""How fast texts become vectors, and what clustering adds to it and to a training step.

python benchmarks/encoding.py DIR [--texts 384] [--quality DIR ...]     # DIR: a BEIR folder

Rates are documents a second of one run: sentence-transformers' own ``encode`` in float32, of the same pipeline without
clustering and with it, and crisp-rag's with each backend, in turns.  ``--quality`` encodes whole collections with
sentence-transformers in float32 and with the default backend, and compares nDCG@10.  Writes results/encoding.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from reproduction import search
from rich.console import Console
from rich.table import Table

from crisp_rag.eval.datasets import load_beir
from crisp_rag.eval.metrics import score
from crisp_rag.models import load_encoder
from crisp_rag.models.pooling import ClusterPooling
from crisp_rag.training.losses import CrispLoss

OUT = Path(__file__).resolve().parent / "results" / "encoding.json"
ROUNDS = 3


def rates(texts: list[str]) -> dict[str, float]:
    """Documents a second, the median of the rounds."""
    encoder = load_encoder(device="cpu")
    whole = encoder.with_pooling("none")
    ours = {backend: load_encoder(device="cpu", backend=backend) for backend in ("torch", "openvino")}
    unpooled = encoder.with_pooling("none")
    unpooled.backend = "openvino"
    runs: dict[str, Callable[[], Any]] = {
        "sentence-transformers, float32, no clustering": lambda: whole.model.encode_document(texts, convert_to_numpy=True),
        "sentence-transformers, float32, 8x32": lambda: encoder.model.encode_document(texts, convert_to_numpy=True),
        "crisp-rag, torch, 8x32": lambda: ours["torch"].encode_document(texts),
        "crisp-rag, openvino int8, no clustering": lambda: unpooled.encode_document(texts),
        "crisp-rag, openvino int8, 8x32 (default)": lambda: ours["openvino"].encode_document(texts),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for each in (*ours.values(), unpooled, encoder, whole):
        each.encode_document(texts[:16])
    for _ in range(ROUNDS):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    return {name: round(len(texts) / median(values), 1) for name, values in seconds.items()}


def clustering_in_encoding(texts: list[str]) -> float:
    """Time in clustering over the time in everything else, of the default backend."""
    encoder = load_encoder(device="cpu")
    encoder.encode_document(texts[:64])
    with _Clock() as clock:
        started = time.perf_counter()
        encoder.encode_document(texts)
        total = time.perf_counter() - started
    return clock.seconds / (total - clock.seconds)


def clustering_in_training(texts: list[str], batch: int = 24, steps: int = 4) -> float:
    """The same of a training step: forward, loss and backward through the upper three layers."""
    encoder = load_encoder(device="cpu")
    model = encoder.model
    model.max_seq_length = 160
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for layer in model[0].model.encoder.layer[-3:]:
        layer.requires_grad_(True)
    loss = CrispLoss(model)
    with _Clock() as clock:
        started = time.perf_counter()
        for step in range(steps):
            part = texts[step * batch * 2 : (step + 1) * batch * 2]
            queries = [" ".join(text.split()[:12]) for text in part[:batch]]
            features = [
                model.preprocess(each, task=task)
                for each, task in ((queries, "query"), (part[:batch], "document"), (part[batch:], "document"))
            ]
            loss(features).backward()
        total = time.perf_counter() - started
    return clock.seconds / (total - clock.seconds)


class _Clock:
    """Seconds in ClusterPooling.pool_batch while the context lasts."""

    def __enter__(self) -> _Clock:
        self.seconds = 0.0
        self._plain = ClusterPooling.pool_batch

        def timed(pooling: ClusterPooling, *args: Any) -> Any:
            started = time.perf_counter()
            result = self._plain(pooling, *args)
            self.seconds += time.perf_counter() - started
            return result

        ClusterPooling.pool_batch = timed  # type: ignore[method-assign]
        return self

    def __exit__(self, *exc: object) -> None:
        ClusterPooling.pool_batch = self._plain  # type: ignore[method-assign]


def quality(folder: Path) -> dict[str, float]:
    """nDCG@10 at 8x32 with documents of either way; queries are always float32."""
    dataset = load_beir(folder)
    ids, texts = dataset.texts()
    encoder = load_encoder(device="cpu")
    queries = [torch.from_numpy(each) for each in encoder.encode_query(list(dataset.queries.values()))]
    values = {}
    for name, encode in (
        ("sentence-transformers, float32", lambda: encoder.model.encode_document(texts, convert_to_numpy=True)),
        ("default", lambda: encoder.encode_document(texts)),
    ):
        documents = [torch.from_numpy(np.asarray(each, dtype=np.float32)) for each in encode()]
        hits = search(queries, documents)
        run = {query: [(ids[row], value) for row, value in each] for query, each in zip(dataset.queries, hits)}
        values[name] = round(score(run, dataset.qrels, dataset.binary_threshold)["nDCG@10"], 4)
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--texts", type=int, default=384)
    parser.add_argument("--quality", type=Path, nargs="*", default=[])
    arguments = parser.parse_args()
    results = json.loads(OUT.read_text()) if OUT.exists() else {}
    texts = load_beir(arguments.folder).texts()[1][: arguments.texts]
    found = rates(texts)
    base = found["sentence-transformers, float32, no clustering"]
    results["speed"] = {
        "texts": f"the first {len(texts)} of {arguments.folder.resolve().name}",
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "documents_per_second": found,
        "times_sentence_transformers": {name: round(rate / base, 2) for name, rate in found.items()},
        "clustering_adds_to_encoding": round(clustering_in_encoding(texts), 4),
        "clustering_adds_to_a_training_step": round(clustering_in_training(texts), 4),
    }
    for folder in arguments.quality:
        results.setdefault("nDCG@10", {})[folder.resolve().name] = quality(folder)
    OUT.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    table = Table("way", "documents a second", "times")
    for name, rate in found.items():
        table.add_row(name, f"{rate:.1f}", f"{rate / base:.2f}")
    Console().print(table)
    Console().print({key: value for key, value in results["speed"].items() if key.startswith("clustering")})
    Console().print(results.get("nDCG@10", {}))


if __name__ == "__main__":
    main()
