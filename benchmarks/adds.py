"""What one more passage costs as an index grows, when passages are added one at a time.

python benchmarks/adds.py [--adds 100000] [--vectors 32] [--folder /dev/shm]

Each add is one passage of so many vectors and one synced commit.  Times are milliseconds an add, means over each
thousand: by the clock, which a busy machine and its disk make longer, and of this process's own processor time.
Merging is part of the adds that it follows.  On a file system in memory syncs cost nothing, so that they hide no growth.
Writes results/adds.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from crisp_rag.index import CrispIndex, Passage, verify_index

OUT = Path(__file__).resolve().parent / "results" / "adds.json"
DIM = 384
PART = 1_000
_TEXT = "Refunds take five working days once the returned parcel has been checked at the warehouse. " * 4


class Ready:
    """Stands in for an encoder: the vectors are given."""

    name, fingerprint, dim, pooling, source, max_document_tokens = "ready", "00", DIM, "none", None, 256

    def encode_query(self, texts: Any, **options: Any) -> Any:
        raise NotImplementedError

    encode_document = encode_query


def grown(folder: Path, adds: int, vectors: int) -> tuple[list[float], list[float], CrispIndex]:
    """Milliseconds an add by the clock and of processor time, for each thousand adds; and the index."""
    random = np.random.default_rng(0)
    drawn = random.normal(size=(4096, vectors, DIM)).astype(np.float32)
    drawn /= np.linalg.norm(drawn, axis=2, keepdims=True)
    index = CrispIndex.create(folder / "index", Ready())
    clock, processor = [], []
    for first in range(0, adds, PART):
        started, started_processor = time.perf_counter(), time.process_time()
        for number in range(first, first + PART):
            index.add([Passage(f"p{number}", _TEXT, {"number": number})], vectors=[drawn[number % len(drawn)]])
        clock.append(round((time.perf_counter() - started) * 1000 / PART, 3))
        processor.append(round((time.process_time() - started_processor) * 1000 / PART, 3))
        if first % (10 * PART) == 0:
            print(f"{first + PART} adds: {clock[-1]} ms each, {processor[-1]} ms of processor time", flush=True)
    return clock, processor, index


def kind_of(folder: Path) -> str:
    """The kind of file system that a folder lies on: a sync costs milliseconds on a disk, and nothing in memory."""
    best, kind = "", "unknown"
    mounts = Path("/proc/mounts")
    for line in mounts.read_text(encoding="utf-8").splitlines() if mounts.exists() else ():
        _, place, found, *_ = line.split()
        if len(place) > len(best) and folder.resolve().is_relative_to(place):
            best, kind = place, found
    return kind


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--adds", type=int, default=100_000)
    parser.add_argument("--vectors", type=int, default=32)
    parser.add_argument("--folder", type=Path, help="Where to make the index; a temporary folder if not given.")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        file_system = kind_of(Path(folder))
        grown(Path(folder) / "before", PART, arguments.vectors)[2].close()  # what is loaded and computed once in a process
        clock, processor, index = grown(Path(folder), arguments.adds, arguments.vectors)
        stats, segments = index.stats(), len(index._current().views)
        index.close()
        sound = verify_index(stats.path).sound
    results = {
        "adds": arguments.adds,
        "vectors_per_add": arguments.vectors,
        "dims": DIM,
        "machine": f"{platform.machine()}, {os.cpu_count()} processors, load {load:.1f} to {os.getloadavg()[0]:.1f}",
        "file_system": file_system,
        "ms_per_add": {"first_thousand": clock[0], "last_thousand": clock[-1], "times": round(clock[-1] / clock[0], 2)},
        "processor_ms_per_add": {
            "first_thousand": processor[0],
            "last_thousand": processor[-1],
            "times": round(processor[-1] / processor[0], 2),
        },
        "slowest_thousand": {"ms_per_add": max(clock), "number": clock.index(max(clock)) + 1},
        "passages": stats.passages,
        "segments": segments,
        "sound": sound,
        "curve_ms_per_add": clock,
        "curve_processor_ms_per_add": processor,
    }
    OUT.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    table = Table("thousand", "ms an add", "processor ms an add")
    for number in sorted({0, 1, 2, 4, 9, 19, 49, len(clock) - 1} & set(range(len(clock)))):
        table.add_row(str(number + 1), f"{clock[number]:.2f}", f"{processor[number]:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
