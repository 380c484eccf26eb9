"""One row of the search benchmark in a process of its own, so that its memory is its own.

python benchmarks/search_systems.py ROW FOLDER OUT [KEPT]      # FOLDER as search_data.py makes it

With KEPT, a folder, what was built stays there, and is not built again.

Peers run in environments of their own, by the same file: it needs numpy alone until a row asks for more.
"""

from __future__ import annotations

import ctypes
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

K = 10
WARM = 10


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def peak_mib() -> float:
    """The most memory that this process had since :func:`forget_peak`, touched pages of mapped files included."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return float("nan")


def forget_peak() -> None:
    """Give freed memory back, and count the peak from here on."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


class Cached:
    """An encoder that is not asked for anything."""

    name, source, fingerprint, dim, pooling, max_document_tokens = "cached", None, "0" * 16, 384, "cached", 256


class System:
    """What a row is: it builds, then searches.  ``every`` asks every so manieth query alone, where each takes seconds."""

    every = 1


class Crisp(System):
    """crisp-rag's index with a codec; ``exact`` scores everything."""

    def __init__(self, codec: str, exact: bool = False) -> None:
        self.codec, self.exact = codec, exact
        self.every = 6 if exact else 1

    def build(self, work, folder: Path) -> None:
        from crisp_rag.index import CrispIndex, Passage

        self.index = CrispIndex.create(folder / "index", Cached(), codec=self.codec, indexed_fields=["n"])
        for first, vectors, starts, counts in work.blocks(8192):
            passages = [Passage(str(n), "-", {"n": n % 100}) for n in range(first, first + len(counts))]
            self.index.add(passages, vectors=[vectors[s : s + c] for s, c in zip(starts, counts)])
        self.index.compact()
        if not self.exact:
            self.index.prepare()
        self.index.close()
        self.open(folder)

    def open(self, folder: Path) -> None:
        from crisp_rag.index import CrispIndex

        self.index = CrispIndex.open(folder / "index", Cached())
        # The text of a passage is a dash: what counts is what the vectors and the lists take.
        self.bytes = self.index.stats().bytes_vectors + size(folder / "index" / "candidates")

    def search(self, queries, k):
        found = self.index.search_vectors(queries, k=k, exact=self.exact)
        return [[int(hit.id) for hit in hits] for hits in found]

    def filtered(self, queries, k, share):
        found = self.index.search_vectors(queries, k=k, where={"n": {"$lt": share}})
        return [[int(hit.id) for hit in hits] for hits in found]


class Lists(Crisp):
    """The candidate stage alone: what its shortlists of some lengths hold."""

    def __init__(self) -> None:
        super().__init__("5bit")

    def search(self, queries, k):
        from crisp_rag.index.candidates.lists import Effort

        lists = self.index._backend._candidates.searcher(self.index._current()).lists
        turn = self.index._backend.segment(self.index._current().views[0]).codec.turn
        return [np.unique(lists.walk(turn(query), Effort(64, k, k, k)).passages).tolist() for query in queries]


class Muvera(System):
    """Fixed dimensional encodings (MUVERA, arXiv 2405.19504) in one FAISS index of 8-bit numbers with a graph."""

    BITS, REPETITIONS, PROJECTED = 4, 20, 16

    def build(self, work, folder: Path) -> None:
        import faiss

        random = np.random.default_rng(0)
        self.planes = random.standard_normal((self.REPETITIONS, 384, self.BITS)).astype(np.float32)
        signs = random.choice([-1, 1], (self.REPETITIONS, 384, self.PROJECTED))
        self.projections = (signs / np.sqrt(self.PROJECTED)).astype(np.float32)
        width = self.REPETITIONS * self.PROJECTED * 2**self.BITS
        self.index = faiss.IndexHNSWSQ(width, faiss.ScalarQuantizer.QT_8bit, 16, faiss.METRIC_INNER_PRODUCT)
        self.index.hnsw.efConstruction = 80
        for _, vectors, starts, counts in work.blocks():
            block = np.stack([self.encode(vectors[s : s + c].astype(np.float32), True) for s, c in zip(starts, counts)])
            if not self.index.is_trained:
                self.index.train(block)
            self.index.add(block)
        faiss.write_index(self.index, str(folder / "fde"))
        self.bytes = size(folder)

    def encode(self, vectors: np.ndarray, passage: bool) -> np.ndarray:
        parts = []
        powers = 2 ** np.arange(self.BITS)
        for planes, projection in zip(self.planes, self.projections):
            bits = (vectors @ planes > 0).astype(np.int64)
            buckets = bits @ powers
            sums = np.zeros((2**self.BITS, self.PROJECTED), np.float32)
            projected = vectors @ projection
            np.add.at(sums, buckets, projected)
            if passage:
                sizes = np.bincount(buckets, minlength=2**self.BITS)
                sums /= np.maximum(sizes, 1)[:, None]
                for empty in np.flatnonzero(sizes == 0):  # an empty bucket gets the vector that is nearest to it
                    apart = (bits != (empty >> np.arange(self.BITS) & 1)).sum(axis=1)
                    sums[empty] = projected[apart.argmin()]
            parts.append(sums.ravel())
        return np.concatenate(parts)

    def search(self, queries, k):
        self.index.hnsw.efSearch = max(64, 2 * k)
        return self.index.search(np.stack([self.encode(query, False) for query in queries]), k)[1].tolist()


class Dense(System):
    """One vector a passage, the mean of its vectors, in a FAISS graph: the floor."""

    def build(self, work, folder: Path) -> None:
        import faiss

        self.index = faiss.IndexHNSWFlat(384, 32, faiss.METRIC_INNER_PRODUCT)
        for _, vectors, starts, counts in work.blocks():
            self.index.add(self.means(vectors.astype(np.float32), starts, counts))
        faiss.write_index(self.index, str(folder / "dense"))
        self.bytes = size(folder)

    @staticmethod
    def means(vectors: np.ndarray, starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
        means = np.add.reduceat(vectors, starts, axis=0) / np.asarray(counts)[:, None]
        return means / np.linalg.norm(means, axis=1, keepdims=True)

    def search(self, queries, k):
        self.index.hnsw.efSearch = max(64, k)
        return self.index.search(np.stack([query.sum(axis=0) for query in queries]), k)[1].tolist()


class Torch(System):
    """Exact MaxSim over float16 vectors in torch, block by block: the yardstick."""

    every = 6

    def build(self, work, folder: Path) -> None:
        from search_data import exact

        self.exact, self.work, self.bytes = exact, work, (work.folder / "passages.f16").stat().st_size

    def search(self, queries, k):
        return self.exact(self.work, queries, k).tolist()


class Product(Torch):
    """Exact MaxSim over product quantisation, as RepCONC (arXiv 2110.05789) stores vectors, by FAISS: a byte for each pair
    of dimensions, as many as the magnitudes of ``5bit`` take."""

    BYTES, TRAINED_ON = 192, 100_000

    def build(self, work, folder: Path) -> None:
        import faiss
        from search_data import Work, exact

        every = work.vectors
        chosen = np.sort(np.random.default_rng(0).choice(len(every), min(len(every), self.TRAINED_ON), replace=False))
        quantizer = faiss.ProductQuantizer(384, self.BYTES, 8)
        quantizer.train(every[chosen].astype(np.float32))
        with (folder / "passages.f16").open("wb") as file:
            for _, vectors, _, _ in work.blocks():
                codes = quantizer.compute_codes(vectors.astype(np.float32))
                quantizer.decode(codes).astype(np.float16).tofile(file)
        shutil.copy(work.folder / "counts.npy", folder / "counts.npy")
        self.exact, self.work, self.bytes = exact, Work(folder), len(every) * self.BYTES


class FastPlaid(System):
    """fast-plaid with its defaults on the CPU; of its bits a dimension 4 are the default, 8 the most."""

    def __init__(self, bits: int = 4) -> None:
        self.bits = bits

    def build(self, work, folder: Path) -> None:
        self.open(folder)
        vectors, counts = work.vectors, work.counts
        ends = np.cumsum(counts)
        documents = [self.torch.from_numpy(np.array(vectors[e - c : e])) for e, c in zip(ends, counts)]
        self.index.create(documents_embeddings=documents, nbits=self.bits)
        self.bytes = size(folder / "plaid")

    def open(self, folder: Path) -> None:
        import torch
        from fast_plaid import search

        self.torch = torch
        self.index = search.FastPlaid(index=str(folder / "plaid"), device="cpu")
        self.bytes = size(folder / "plaid")

    def search(self, queries, k):
        width = max(map(len, queries))
        padded = np.stack([np.pad(query, ((0, width - len(query)), (0, 0))) for query in queries])
        found = self.index.search(queries_embeddings=self.torch.from_numpy(padded), top_k=k)
        return [[number for number, _ in line] for line in found]


class Lance(System):
    """LanceDB's multivector column with its default index; cosine only, so the lengths of query vectors are lost."""

    def build(self, work, folder: Path) -> None:
        import lancedb
        import pyarrow as pa

        self.db = lancedb.connect(str(folder / "lance"))
        kind = pa.schema([pa.field("n", pa.int64()), pa.field("vector", pa.list_(pa.list_(pa.float16(), 384)))])

        def batches():
            for first, vectors, starts, counts in work.blocks():
                flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 384)
                offsets = pa.array(np.append(starts, len(vectors)), pa.int32())
                column = pa.ListArray.from_arrays(offsets, flat)
                yield pa.record_batch([pa.array(np.arange(first, first + len(counts))), column], schema=kind)

        self.table = self.db.create_table("passages", data=pa.RecordBatchReader.from_batches(kind, batches()))
        self.table.create_index(metric="cosine", vector_column_name="vector")
        self.bytes = size(folder)

    def search(self, queries, k):
        found = (self.table.search(query).limit(k).refine_factor(20).select(["n"]).to_arrow() for query in queries)
        return [table["n"].to_pylist() for table in found]


class Qdrant(System):
    """Qdrant's client in local mode, which scores everything."""

    every = 12

    def build(self, work, folder: Path) -> None:
        from qdrant_client import QdrantClient, models

        self.client = QdrantClient(path=str(folder / "qdrant"))
        many = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
        config = models.VectorParams(size=384, distance=models.Distance.DOT, multivector_config=many)
        self.client.create_collection("p", vectors_config=config)
        for first, vectors, starts, counts in work.blocks(500):
            points = [
                models.PointStruct(id=first + n, vector=vectors[s : s + c].astype(np.float32).tolist())
                for n, (s, c) in enumerate(zip(starts, counts))
            ]
            self.client.upsert("p", points)
        self.bytes = size(folder)

    def search(self, queries, k):
        found = [self.client.query_points("p", query=query.tolist(), limit=k).points for query in queries]
        return [[point.id for point in points] for points in found]


ROWS = {
    "exact MaxSim, torch": Torch,
    "crisp-rag (default)": lambda: Crisp("auto"),
    "crisp-rag, 5bit": lambda: Crisp("5bit"),
    "crisp-rag, 4bit": lambda: Crisp("4bit"),
    "crisp-rag, 1bit": lambda: Crisp("1bit"),
    "crisp-rag, float16": lambda: Crisp("float16"),
    "crisp-rag, 5bit, exact": lambda: Crisp("5bit", exact=True),
    "crisp-rag, 4bit, exact": lambda: Crisp("4bit", exact=True),
    "crisp-rag, 7bit, exact": lambda: Crisp("7bit", exact=True),
    "crisp-rag, 1bit, exact": lambda: Crisp("1bit", exact=True),
    "product quantisation, exact": Product,
    "candidates: lists": Lists,
    "candidates: MUVERA": Muvera,
    "dense, FAISS HNSW": Dense,
    "fast-plaid": FastPlaid,
    "fast-plaid, 8 bits": lambda: FastPlaid(8),
    "LanceDB": Lance,
    "Qdrant local": Qdrant,
}
KEPT = ("crisp-rag", "fast-plaid")  # whose indexes can be opened again
PEERS = {
    "fast-plaid": "fast-plaid", "fast-plaid, 8 bits": "fast-plaid", "LanceDB": "lancedb", "Qdrant local": "qdrant-client",
}  # fmt: skip


def built(system: System, work, folder: Path) -> dict:
    """Figures of the build; where it was built before, they lie beside it."""
    said = folder / "built.json"
    if said.exists():
        system.open(folder)
        return json.loads(said.read_text(encoding="utf-8"))
    started = time.perf_counter()
    system.build(work, folder)
    figures = {"build_s": time.perf_counter() - started, "build_mib": peak_mib()}
    said.write_text(json.dumps(figures), encoding="utf-8")
    return figures


def measure(row: str, folder: Path, kept: Path | None) -> dict:
    from search_data import Work

    work = Work(folder)
    with tempfile.TemporaryDirectory(dir=folder) as passing:
        system = ROWS[row]()
        queries = work.queries[:: system.every]
        if kept is not None:
            kept.mkdir(parents=True, exist_ok=True)
        figures = built(system, work, kept or Path(passing))
        forget_peak()
        for query in queries[:WARM]:
            system.search([query], K)
        took, cpu = [], time.process_time()
        for query in queries:
            begun = time.perf_counter()
            system.search([query], K)
            took.append(time.perf_counter() - begun)
        cpu = (time.process_time() - cpu) / len(queries)
        begun = time.perf_counter()
        system.search(queries, K)
        batch = len(queries) / (time.perf_counter() - begun)
        said = {
            **figures, "bytes_a_passage": system.bytes / len(work.counts), "batch_qps": batch,
            "p50_ms": 1e3 * float(np.percentile(took, 50)), "p99_ms": 1e3 * float(np.percentile(took, 99)),
            "cpu_ms": 1e3 * cpu, "search_mib": peak_mib(),
            "every": system.every,
            "found": {str(k): system.search(queries, k) for k in (K, 100)},
        }  # fmt: skip
        if row.startswith("candidates"):
            said["found"]["1000"] = system.search(queries, 1000)
        if hasattr(system, "filtered"):
            for share in (1, 10):
                took, found = [], []
                for query in queries:
                    begun = time.perf_counter()
                    found += system.filtered([query], K, share)
                    took.append(time.perf_counter() - begun)
                said[f"filter_{share}pct_first_ms"] = 1e3 * took[0]  # looks the filter up, and checks the database once
                said[f"filter_{share}pct_p50_ms"] = 1e3 * float(np.percentile(took, 50))
                said[f"filter_{share}pct_least"] = min(map(len, found))
        shutil.rmtree(passing, ignore_errors=True)
    return said


if __name__ == "__main__":
    row, folder, out, *kept = sys.argv[1:]
    Path(out).write_text(json.dumps(measure(row, Path(folder), Path(kept[0]) if kept else None)), encoding="utf-8")
