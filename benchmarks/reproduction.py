"""The table that the CRISP paper does not have: every variant, and clustering after the fact, on one backbone, one set
of data and the same number of steps.

python benchmarks/reproduction.py DATA WORK [--scale laptop] [--seeds 0 1]
python benchmarks/reproduction.py DATA WORK --scale gpu [--seeds 1 2]

A laptop trains the upper layer, a GPU all of them on more pairs.  DATA holds the BEIR folders.  WORK keeps mined
negatives, hidden states and checkpoints: run it again and it goes on where it stopped; with ``--rows``, two processes
share the work.  Each row starts from the same unpruned model (MV), as in the paper, and so does the MV row itself, which
trains on for the same steps.  Results go to benchmarks/results/reproduction.json (reproduction-gpu.json) after every
row; then ``python benchmarks/reproduction_report.py`` draws the plot and writes the tables into the docs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers.multi_vector_encoder.modules import HierarchicalTokenPooling
from sentence_transformers.util import batch_to_device
from torch import Tensor

from crisp_rag.eval.datasets import load_beir
from crisp_rag.eval.metrics import score_queries
from crisp_rag.eval.systems import create_system
from crisp_rag.jsonlines import numbered_lines
from crisp_rag.models import CrispEncoder, build_encoder, load_encoder
from crisp_rag.models.pooling import ClusterPooling, parse_pooling
from crisp_rag.training import Example, TrainingOptions, examples_from_judgements, mine_hard_negatives, train
from crisp_rag.training.tokens import token_vectors
from crisp_rag.training.trunk import TrunkMemory, frozen_trunk

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
COLLECTIONS = ("scifact", "nfcorpus", "trec-dl19-20-pool")
MINING_TOKENS = 96
SIZES = {"query_centroid": "sum"}  # a query's centroids count the tokens behind them


@dataclass(frozen=True, slots=True)
class Row:
    """How a row is trained and pooled."""

    spec: str
    pooling: dict[str, Any] = field(default_factory=lambda: dict(SIZES))
    training: dict[str, Any] = field(default_factory=dict)
    negatives: bool = True
    collections: tuple[str, ...] = COLLECTIONS

    @property
    def module(self) -> Any:
        """The pooling module, None where every vector is kept."""
        return parse_pooling(self.spec, **self.pooling)


ELASTIC_BUDGETS = ((8, 32), (8, 16), (4, 8), (8, 8), (8, 4))
TRAINED = {
    "MV": Row("none"), "C8x32": Row("8x32"), "C4x8": Row("4x8"),
    "elastic": Row("8x32", training={"budgets": ELASTIC_BUDGETS}),
    "C25": Row("25%"), "C50": Row("50%"), "K2": Row("k2"), "K4": Row("k4"),
    "T8x32": Row("tail8x32"), "T4x8": Row("tail4x8"), "SV": Row("1x1", pooling={}),
}  # fmt: skip
_FEW = COLLECTIONS[:2]
"""One choice changed at a time, on the two smaller collections."""
ABLATIONS = {
    "C8x32, three times the steps": Row("8x32", training={"times": 3}, collections=_FEW),
    "C8x32, no distillation": Row("8x32", training={"distillation": 0.0}, collections=_FEW),
    "C8x32, no contrast": Row("8x32", training={"contrast": 0.0}, collections=_FEW),
    "C8x32, no mined negatives": Row("8x32", negatives=False, collections=_FEW),
    "C8x32, k-means from runs of tokens": Row("8x32", pooling={**SIZES, "init": "segments"}, collections=_FEW),
    "C8x32, unit query centroids": Row("8x32", pooling={}, collections=_FEW),
    "C8x32, centroids not normalised": Row(
        "8x32", pooling={"query_centroid": "mean", "document_centroid": "mean"}, collections=_FEW
    ),
}
ALL_ROWS = TRAINED | ABLATIONS
ALL_SEEDS = ("MV", "C8x32", "C4x8")
POSTHOC = {
    "post-hoc 8x32": Row("8x32"), "post-hoc 4x8": Row("4x8"), "post-hoc 8x32, unit centroids": Row("8x32", pooling={}),
}  # fmt: skip
WARD = {"Ward, documents / 4": 4.0, "Ward, documents / 8": 8.0}
ELASTIC = {f"elastic at {budget}": Row(budget) for budget in ("8x4", "4x8", "8x8", "8x16", "8x32")}
CODED = {"C8x32": "8x32", "elastic": "8x16"}  # trained row and budget of which one-bit and int8 documents are scored too
Pool = Callable[[Tensor, Tensor, str], tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class Config:
    """What the run depends on."""

    layers: int | None
    base_steps: int
    steps: int
    batch_size: int
    per_group: int
    learning_rate: float
    max_tokens: int
    pairs: dict[str, int]
    mining_pool: int
    seeds: tuple[int, ...]
    ward: bool = True
    distillation: float = 1.0

    def training(self, seed: int, steps: int, **changes: Any) -> TrainingOptions:
        settings: dict[str, Any] = {
            "steps": steps, "batch_size": self.batch_size, "learning_rate": self.learning_rate, "layers": self.layers,
            "max_tokens": self.max_tokens, "distillation": self.distillation, "save_steps": 50, "seed": seed,
            "per_group": self.per_group,
        }  # fmt: skip
        return TrainingOptions(**{**settings, **changes})


SCALES = {
    "laptop": Config(
        layers=1, base_steps=200, steps=120, batch_size=24, per_group=6, learning_rate=1e-4, max_tokens=96,
        pairs={"squad-train": 1600, "medquad": 1600, "scitldr": 1200, "pubmedqa-l": 500, "scifact": 809},
        mining_pool=800, seeds=(0, 1),
    ),
    "gpu": Config(
        layers=None, base_steps=500, steps=250, batch_size=64, per_group=8, learning_rate=5e-5, max_tokens=192,
        pairs={"squad-train": 8000, "medquad": 6000, "scitldr": 1992, "pubmedqa-l": 500, "scifact": 809},
        mining_pool=4000, seeds=(1, 2), ward=False,
    ),
}  # fmt: skip


class Collection:
    """A test collection whose texts are tokenised once; hidden states below the trained layers, if some are not, lie in a
    file."""

    def __init__(self, folder: Path, encoder: CrispEncoder, work: Path, layers: int | None, memory: TrunkMemory) -> None:
        self.data = load_beir(folder)
        self.name = self.data.name
        self.ids, texts = self.data.texts()
        self.query_ids = list(self.data.queries)
        self.documents = _batches(encoder, texts, "document")
        self.queries = _batches(encoder, list(self.data.queries.values()), "query")
        if layers is not None:
            for side, batches in (("documents", self.documents), ("queries", self.queries)):
                _remember(encoder, batches, work / f"{self.name}-{side}-{layers}.f16", layers, memory)


def _batches(encoder: CrispEncoder, texts: list[str], task: str) -> list[tuple[list[int], dict]]:
    """Texts of like length together: (their positions, what the tokenizer makes of them)."""
    tokens = 8192 if encoder.model.device.type == "cpu" else 32768  # four times as many take 60 GB of a GPU
    lengths = np.minimum(encoder.count_tokens(texts), encoder.max_document_tokens)
    order = np.argsort(-lengths, kind="stable")
    batches, first = [], 0
    while first < len(order):
        rows = order[first : first + max(1, tokens // int(lengths[order[first]]))].tolist()
        batches.append((rows, encoder.model.preprocess([texts[row] for row in rows], task=task)))
        first += len(rows)
    return batches


def _remember(encoder: CrispEncoder, batches: list, path: Path, layers: int, memory: TrunkMemory) -> None:
    """Fill the memory with float16 states that lie in a file, which is written in bfloat16 arithmetic if need be."""
    lengths = [features["attention_mask"].sum(dim=1).tolist() for _, features in batches]
    total, dim = sum(map(sum, lengths)), encoder.dim
    done = path.with_suffix(".done")
    if not done.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        states = np.memmap(path, np.float16, "w+", shape=(total, dim))
        backbone = encoder.model[0].model
        at = 0
        for (_, features), sizes in zip(batches, lengths):
            given = batch_to_device(dict(features), backbone.device)
            with torch.inference_mode(), torch.autocast(backbone.device.type, torch.bfloat16):
                output = backbone(given["input_ids"], given["attention_mask"], output_hidden_states=True)
            below = output.hidden_states[-1 - layers].half().cpu().numpy()
            for row, size in enumerate(sizes):
                states[at : at + size] = below[row, :size]
                at += size
        states.flush()
        done.touch()
    states, at = np.memmap(path, np.float16, "c", shape=(total, dim)), 0
    for (_, features), sizes in zip(batches, lengths):
        for row, size in enumerate(sizes):
            memory.put(features["input_ids"][row, :size], torch.from_numpy(states[at : at + size]))
            at += size


def _vectors(encoder: CrispEncoder, batches: list, task: str, pools: dict[str, Pool]) -> dict[str, list[Tensor]]:
    """Each pool's vectors of every text, from one pass through the trained layers."""
    kept: dict[str, dict[int, Tensor]] = {name: {} for name in pools}
    device = encoder.model.device
    for rows, features in batches:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16):
            tokens, mask = token_vectors(encoder.model, batch_to_device(dict(features), device), task)
        for name, pool in pools.items():
            with torch.inference_mode():
                vectors, real = pool(tokens.float(), mask, task)
            sizes = real.sum(dim=1).tolist()
            kept[name] |= dict(zip(rows, vectors[real].bfloat16().split(sizes)))
    return {name: [vectors[row] for row in range(len(vectors))] for name, vectors in kept.items()}


def search(queries: list[Tensor], documents: list[Tensor], depth: int = 100) -> Iterator[list[tuple[int, float]]]:
    """Exact MaxSim: the best (row, score) pairs of each query.  bfloat16 products, float32 sums."""
    device = documents[0].device
    lengths = torch.tensor([len(each) for each in documents], device=device)
    blocks = [slice(first, min(first + 2048, len(documents))) for first in range(0, len(documents), 2048)]
    stacks = [torch.cat(documents[block]).bfloat16() for block in blocks]
    for first in range(0, len(queries), 32):
        part = queries[first : first + 32]
        stacked = torch.cat(part).to(device, torch.bfloat16)
        cuts = torch.tensor([len(each) for each in part], device=device)
        scores = torch.empty((len(part), len(documents)), device=device)
        for block, vectors in zip(blocks, stacks):
            best = torch.segment_reduce((vectors @ stacked.T).float(), "max", lengths=lengths[block])
            scores[:, block] = torch.segment_reduce(best.T.contiguous(), "sum", lengths=cuts)
        values, rows = scores.sort(dim=1, descending=True, stable=True)
        for own, found in zip(values[:, :depth].tolist(), rows[:, :depth].tolist()):
            yield list(zip(found, own))


def _figures(collection: Collection, queries: list[Tensor], documents: list[Tensor], bits: int) -> dict[str, Any]:
    run = {
        query: [(collection.ids[row], value) for row, value in hits]
        for query, hits in zip(collection.query_ids, search(queries, documents))
    }
    vectors = sum(map(len, documents)) / len(documents)
    return _means(score_queries(run, collection.data.qrels, collection.data.binary_threshold)) | {
        "vectors_per_document": round(vectors, 2),
        "vectors_per_query": round(sum(map(len, queries)) / len(queries), 2),
        "bytes_per_document": round(vectors * documents[0].shape[1] * bits / 8),
        "bits": bits,
    }


def _means(values: dict[str, dict[str, float]]) -> dict[str, Any]:
    means = {name: float(np.mean([each[name] for each in values.values()])) for name in ("nDCG@10", "R@100")}
    return means | {"per_query": {query: round(each["nDCG@10"], 4) for query, each in values.items()}}


def measure(
    encoder: CrispEncoder, row: str, collection: Collection, config: Config, memory: TrunkMemory, ward: bool
) -> dict[str, dict[str, Any]]:
    """Figures of a trained row and of everything that is made of its vectors after the fact."""
    made = {row: ALL_ROWS[row]} if row != "elastic" else dict(ELASTIC)
    if row == "MV":
        made |= POSTHOC
    pools = {name: _pool(each.module) for name, each in made.items()}
    if ward:
        pools |= {name: _ward(factor) for name, factor in WARD.items()}
    coded = f"elastic at {CODED[row]}" if row == "elastic" else row if row in CODED else None
    figures = {}
    with frozen_trunk(encoder.model, config.layers, memory):
        queries = _vectors(encoder, collection.queries, "query", pools)
        documents = _vectors(encoder, collection.documents, "document", pools)
    for name in pools:
        figures[name] = _figures(collection, queries[name], documents[name], 16)
        if name == coded:
            for code, bits, decode in (("int8", 8, _int8), ("1 bit", 1, torch.sign)):
                coded_documents = [decode(each) for each in documents[name]]
                figures[f"{name}, {code}"] = _figures(collection, queries[name], coded_documents, bits)
    return figures


def _pool(module: Any) -> Pool:
    return module.pool_batch if module is not None else lambda tokens, mask, task: (tokens, mask)


def _ward(factor: float) -> Pool:
    """sentence-transformers' pooling: Ward's method over a document's vectors; queries stay whole."""
    module = HierarchicalTokenPooling(factor)

    def pool(tokens: Tensor, mask: Tensor, task: str) -> tuple[Tensor, Tensor]:
        if task == "query":
            return tokens, mask
        pooled = [module.pool_one(each[keep]) for each, keep in zip(tokens, mask)]
        padded = torch.nn.utils.rnn.pad_sequence(pooled, batch_first=True)
        return padded, torch.arange(padded.shape[1]) < torch.tensor([[len(each)] for each in pooled])

    return pool


def _int8(vectors: Tensor) -> Tensor:
    scale = vectors.float().abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / 127
    return (vectors / scale).round() * scale


def gather(data: Path, work: Path, config: Config, seed: int = 0) -> list[Example]:
    """Training examples with one mined negative each, kept in a file."""
    path = work / "examples.jsonl"
    if path.exists():
        rows = [json.loads(line) for _, line in numbered_lines(path)]
        return [Example(**{**row, "negatives": tuple(row["negatives"])}) for row in rows]
    encoder = build_encoder(max_tokens=MINING_TOKENS, **SIZES)
    examples: list[Example] = []
    for name, limit in config.pairs.items():
        dataset = load_beir(data / name, split="train")
        texts = dataset.texts()[1]
        pool = random.Random(seed).sample(texts, min(config.mining_pool, len(texts)))
        pairs = examples_from_judgements(dataset, limit=limit, seed=seed)
        mined = mine_hard_negatives(pairs, pool, encoder, negatives=1, depth=30, seed=seed)
        examples += [example for example in mined if example.negatives]
        _tell(f"{name}: {len(pairs)} pairs mined")
    work.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(asdict(example)) + "\n" for example in examples), encoding="utf-8")
    return examples


def remember_examples(
    encoder: CrispEncoder, examples: list[Example], folder: Path, config: Config, memory: TrunkMemory
) -> None:
    """Hidden states of all training texts, once for all rows."""
    read, encoder.model.max_seq_length = encoder.model.max_seq_length, config.max_tokens
    queries = list(dict.fromkeys(example.query for example in examples))
    documents = list(dict.fromkeys(text for example in examples for text in (example.positive, *example.negatives)))
    for side, texts in (("query", queries), ("document", documents)):
        path = folder / f"examples-{side}-{config.layers}-{config.max_tokens}.f16"
        _remember(encoder, _batches(encoder, texts, side), path, config.layers, memory)
    encoder.model.max_seq_length = read


def train_row(
    row: str, seed: int, config: Config, work: Path, examples: list[Example], memory: TrunkMemory
) -> tuple[CrispEncoder, dict[str, float]]:
    """The trained encoder of a row, trained now if it is not there yet."""
    base, out = work / f"base-{seed}", work / f"{row}-{seed}"
    if not (base / "crisp_rag.json").exists():
        _tell(f"base, seed {seed}")
        options = config.training(seed, config.base_steps)
        train(build_encoder(pooling="none"), examples, base, options, trunk_memory=memory, resume=True, on_step=_step)
    if not (out / "crisp_rag.json").exists():
        _tell(f"training {row}, seed {seed}")
        how = ALL_ROWS[row]
        options = how.pooling if isinstance(how.module, ClusterPooling) else {}
        encoder = load_encoder(base).with_pooling(how.spec, **options)
        changes = dict(how.training)
        training = config.training(seed + 100, config.steps * changes.pop("times", 1), **changes)
        given = examples if how.negatives else [replace(example, negatives=()) for example in examples]
        train(encoder, given, out, training, trunk_memory=memory, resume=True, on_step=_step)
    report = json.loads((out / "training.json").read_text())
    return load_encoder(out), {"seconds": report["seconds"], "documents_per_second": report["documents_per_second"]}


def bm25(collection: Collection) -> dict[str, Any]:
    """Figures of the lexical baseline."""
    system = create_system("bm25")
    ids, texts = collection.data.texts()
    cost = system.index(ids, texts)
    runs = system.search(list(collection.data.queries.values()), 100)
    values = score_queries(dict(zip(collection.query_ids, runs)), collection.data.qrels, collection.data.binary_threshold)
    return _means(values) | {"vectors_per_document": 0.0, "bytes_per_document": round(cost.bytes / len(ids)), "bits": 0}


def dense(encoder: CrispEncoder, collection: Collection, config: Config, memory: TrunkMemory) -> dict[str, dict[str, Any]]:
    """Figures of all-MiniLM-L6-v2 as its makers use it, one mean-pooled vector a text, as float32 and as int8."""

    def vectors(batches: list) -> list[Tensor]:
        found: dict[int, Tensor] = {}
        for rows, features in batches:
            given = batch_to_device(dict(features), encoder.model.device)
            with torch.inference_mode(), torch.autocast(encoder.model.device.type, torch.bfloat16):
                tokens = encoder.model[0](dict(given))["token_embeddings"].float()
            mask = given["attention_mask"].unsqueeze(-1)
            pooled = torch.nn.functional.normalize((tokens * mask).sum(dim=1) / mask.sum(dim=1), dim=-1)
            found |= {row: each.unsqueeze(0) for row, each in zip(rows, pooled)}
        return [found[row] for row in range(len(found))]

    with frozen_trunk(encoder.model, config.layers, memory):
        queries, documents = vectors(collection.queries), vectors(collection.documents)
    return {
        "dense": _figures(collection, queries, documents, 32),
        "dense, int8": _figures(collection, queries, [_int8(each) for each in documents], 8),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--scale", choices=list(SCALES), default="laptop")
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--rows", nargs="+", choices=list(ALL_ROWS), help="These alone; all if not given.")
    parser.add_argument("--results", type=Path, help="Another file for the results.")
    arguments = parser.parse_args()
    config = SCALES[arguments.scale]
    config = replace(config, seeds=tuple(arguments.seeds or config.seeds))
    path = arguments.results or RESULTS / ("reproduction.json" if arguments.scale == "laptop" else "reproduction-gpu.json")
    work = arguments.work
    examples = gather(arguments.data, work, config)
    memory = TrunkMemory(6000)
    untrained = build_encoder(pooling="none")
    collections = [
        Collection(arguments.data / name, untrained, work / "states", config.layers, memory) for name in COLLECTIONS
    ]
    results = json.loads(path.read_text()) if path.exists() else {"rows": {}}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    results["config"] = {**asdict(config), "examples": len(examples), "torch": torch.__version__, "device": device}
    if config.layers is not None:
        remember_examples(untrained, examples, work / "states", config, memory)
    for collection in collections:
        if collection.name not in results["rows"].get("dense", {}).get("0", {}):
            for name, figures in {"bm25": bm25(collection), **dense(untrained, collection, config, memory)}.items():
                results["rows"].setdefault(name, {}).setdefault("0", {})[collection.name] = figures
                _tell(f"{name}, {collection.name}: nDCG@10 {figures['nDCG@10']:.4f}")
            _save(results, path)
    every = TRAINED if config.layers is None else ALL_SEEDS
    todo = [(row, seed) for seed in config.seeds for row in ALL_ROWS if seed == config.seeds[0] or row in every]
    todo = [(row, seed) for row, seed in todo if not arguments.rows or row in arguments.rows]
    todo.sort(key=lambda item: item[0] not in ALL_SEEDS)  # the rows that are compared come first
    for row, seed in todo:
        measured = results["rows"].get(row if row != "elastic" else "elastic at 8x32", {}).get(str(seed), {})
        wanted = [each for each in collections if each.name in ALL_ROWS[row].collections and each.name not in measured]
        if not wanted:
            continue
        encoder, cost = train_row(row, seed, config, work, examples, memory)
        results.setdefault("training", {}).setdefault(row, {})[str(seed)] = cost
        for collection in wanted:
            ward = config.ward and row == "MV" and seed == config.seeds[0]
            for name, figures in measure(encoder, row, collection, config, memory, ward).items():
                results["rows"].setdefault(name, {}).setdefault(str(seed), {})[collection.name] = figures
                _tell(f"{name}, seed {seed}, {collection.name}: nDCG@10 {figures['nDCG@10']:.4f}")
            results = _save(results, path)


def _save(results: dict[str, Any], path: Path) -> dict[str, Any]:
    """Write the results together with what another process has written since, and return both."""
    others = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    results = _merge(others, results)
    written = path.with_suffix(f".{os.getpid()}.tmp")
    written.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    written.replace(path)
    return results


def _merge(old: Any, new: Any) -> Any:
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    return old | {key: _merge(old[key], value) if key in old else value for key, value in new.items()}


def _step(step: int, parts: dict[str, float]) -> None:
    if step % 20 == 0:
        _tell(f"step {step}  " + "  ".join(f"{name} {value:.3f}" for name, value in parts.items()))


_STARTED = time.perf_counter()


def _tell(message: str) -> None:
    print(f"{time.perf_counter() - _STARTED:6.0f} s  {message}", flush=True)


if __name__ == "__main__":
    main()
