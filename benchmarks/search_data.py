"""What the search benchmark searches: real vectors, as many as asked for, with the right answers.

Below the number of real passages a scale is a random part of them; above it, copies that are moved by noise are added,
and the scale counts as made.  The right answers are exact MaxSim over the float16 vectors, computed once.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

DIM = 384
QUERIES = 40  # of each collection; a quarter of them where passages are made: exact answers take long there
TRUTH = 100
NOISE = 0.5  # the length of what moves a copied vector, in lengths of it
BLOCK = 2_000  # passages


@dataclass
class Work:
    """One scale at one budget, in a folder."""

    folder: Path

    @property
    def counts(self) -> np.ndarray:
        return np.load(self.folder / "counts.npy")

    @property
    def vectors(self) -> np.ndarray:
        """(vectors, dim) float16, mapped."""
        return np.memmap(self.folder / "passages.f16", dtype=np.float16, mode="r").reshape(-1, DIM)

    @property
    def queries(self) -> list[np.ndarray]:
        flat, counts = np.load(self.folder / "queries.npy"), np.load(self.folder / "query_counts.npy")
        return np.split(flat, np.cumsum(counts)[:-1])

    @property
    def truth(self) -> np.ndarray:
        return np.load(self.folder / "truth.npy")

    @property
    def info(self) -> dict:
        return json.loads((self.folder / "info.json").read_text(encoding="utf-8"))

    def blocks(self, size: int = BLOCK):
        """(first passage, vectors, starts, counts) of some passages at a time; starts are in these vectors."""
        counts = self.counts
        starts = np.cumsum(counts) - counts
        with (self.folder / "passages.f16").open("rb") as file:  # read, not mapped: mapped pages would count as memory
            for first in range(0, len(counts), size):
                own = counts[first : first + size]
                vectors = np.fromfile(file, np.float16, int(own.sum()) * DIM).reshape(-1, DIM)
                yield first, vectors, starts[first : first + size] - starts[first], own


def make(cache: Path, data: Path, work: Path, scale: str, budget: str) -> Work:
    """The folder of a scale, made if it is not there."""
    made = Work(work / f"{scale}-{budget}")
    if (made.folder / "info.json").exists():
        return made
    made.folder.mkdir(parents=True, exist_ok=True)
    names = sorted(path.name[: -len(".ids.json")] for path in cache.glob("*.ids.json") if ".q." not in path.name)
    random = np.random.default_rng(0)
    counts = {name: np.load(cache / f"{name}.{budget}.counts.npy") for name in names}
    there = sum(map(len, counts.values()))
    wanted = there if scale == "real" else int(scale)
    chosen = np.sort(random.choice(there, min(there, wanted), replace=False))
    places = [(name, number) for name in names for number in range(len(counts[name]))]
    kept: dict[str, list[int]] = {name: [] for name in names}
    for place in chosen.tolist():
        kept[places[place][0]].append(places[place][1])
    written, lengths, numbers = 0, [], {}
    with (made.folder / "passages.f16").open("wb") as file:
        round_ = 0
        while written < wanted:
            for name in names:
                vectors = np.memmap(cache / f"{name}.{budget}.f16", dtype=np.float16, mode="r").reshape(-1, DIM)
                starts = np.cumsum(counts[name]) - counts[name]
                for part in np.array_split(np.asarray(kept[name], dtype=np.int64), max(1, len(kept[name]) // BLOCK)):
                    part = part[: wanted - written]
                    own = counts[name][part]
                    picked = np.repeat(starts[part] - np.cumsum(own) + own, own) + np.arange(own.sum())
                    block = np.asarray(vectors[picked])
                    if round_:
                        block = moved(block.astype(np.float32), random).astype(np.float16)
                    block.tofile(file)
                    if not round_:
                        numbers.update({(name, int(p)): written + i for i, p in enumerate(part)})
                    lengths.append(own)
                    written += len(part)
            round_ += 1
    np.save(made.folder / "counts.npy", np.concatenate(lengths))
    queries = QUERIES if wanted <= there else QUERIES // 4
    judged = add_queries(made, cache, data, names, budget, numbers, queries, random)
    np.save(made.folder / "truth.npy", exact(made, made.queries, TRUTH))
    info = {"passages": written, "real": min(there, wanted), "judged": judged, "collections": names}
    (made.folder / "info.json").write_text(json.dumps(info), encoding="utf-8")
    return made


def moved(vectors: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Unit vectors near the given ones."""
    vectors = vectors + NOISE / np.sqrt(DIM) * random.standard_normal(vectors.shape, dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def add_queries(
    made: Work, cache: Path, data: Path, names: list[str], budget: str, numbers: dict, queries: int, random
) -> list[dict]:
    """Write some queries of each collection; returns the judged passages of each, of those that are there."""
    flat, counts, judged = [], [], []
    for name in names:
        if not (cache / f"{name}.q.ids.json").exists():
            continue
        ids = json.loads((cache / f"{name}.q.ids.json").read_text())
        passages = {id_: number for number, id_ in enumerate(json.loads((cache / f"{name}.ids.json").read_text()))}
        own = np.load(cache / f"{name}.q.{budget}.counts.npy")
        vectors = np.fromfile(cache / f"{name}.q.{budget}.f32", dtype=np.float32).reshape(-1, DIM)
        starts = np.cumsum(own) - own
        grades: dict[str, dict[int, int]] = {}
        for line in (data / name / "qrels" / "test.tsv").read_text().splitlines()[1:]:
            query, passage, grade = line.split("\t")
            if (name, passages.get(passage, -1)) in numbers and int(grade) > 0:
                grades.setdefault(query, {})[numbers[name, passages[passage]]] = int(grade)
        for number in random.choice(len(ids), min(queries, len(ids)), replace=False):
            flat.append(vectors[starts[number] : starts[number] + own[number]])
            counts.append(own[number])
            judged.append({str(p): g for p, g in grades.get(ids[number], {}).items()})
    np.save(made.folder / "queries.npy", np.concatenate(flat))
    np.save(made.folder / "query_counts.npy", np.array(counts))
    return judged


def exact(work: Work, queries: list[np.ndarray], k: int) -> np.ndarray:
    """(queries, k) passages by exact MaxSim over the float16 vectors, in float32."""
    import torch  # the peers' environments need none

    stacked = torch.from_numpy(np.concatenate(queries))
    borders = np.cumsum([0, *map(len, queries)])[:-1]
    best = np.full((len(queries), 0), -np.inf, np.float32)
    who = np.zeros((len(queries), 0), np.int64)
    for first, vectors, starts, counts in work.blocks():
        similarity = (stacked @ torch.from_numpy(vectors.astype(np.float32)).T).numpy()
        scores = np.add.reduceat(np.maximum.reduceat(similarity, starts, axis=1), borders, axis=0)
        best = np.concatenate([best, scores], axis=1)
        who = np.concatenate([who, np.broadcast_to(first + np.arange(len(counts)), scores.shape)], axis=1)
        order = np.argsort(-best, axis=1, kind="stable")[:, :k]
        best, who = np.take_along_axis(best, order, 1), np.take_along_axis(who, order, 1)
    return who
