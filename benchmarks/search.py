"""Search beside its peers: recall, quality, time, memory and bytes, on real vectors.

python benchmarks/search.py DATA VECTORS WORK [--scales real,10000] [--budgets 8x32,4x8] [--rows ...] [--peers]

VECTORS is what benchmarks/vectors.py wrote for the collections in DATA; WORK keeps what can be used again.  Every row
runs in a process of its own and is kept in results/search.json as soon as it is there, so that the command can be
interrupted and run again; ``--again`` measures rows anew.  ``--peers`` makes an environment for each peer in WORK.
``--processes 5`` searches in five processes, one after the other, and tells the one with the median p50, and the most
memory that one took: the same search may take half as long again in one process as in the next.

Recall is against exact MaxSim over the float16 vectors; for candidate stages it is the share of the true best ten
among as many candidates.  nDCG@10 is the mean over queries with a judged passage, among the passages of all
collections together.  Scales above the number of real passages are made of real vectors moved by noise.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from search_data import Work, make
from search_systems import KEPT, PEERS, ROWS

ROOT = Path(__file__).resolve().parent
RESULTS = ROOT / "results" / "search.json"


def ndcg(found: list[list[int]], judged: list[dict[str, int]]) -> float:
    """Mean nDCG@10 with linear gains over the queries that have a judged passage."""
    values = []
    for line, grades in zip(found, judged, strict=True):
        if grades:
            discounts = 1 / np.log2(np.arange(2, 12))
            gains = np.array([grades.get(str(number), 0) for number in line[:10]] + [0] * (10 - len(line[:10])))
            ideal = np.array((sorted(grades.values(), reverse=True) + [0] * 10)[:10])
            values.append(float((gains * discounts).sum() / (ideal * discounts).sum()))
    return float(np.mean(values)) if values else float("nan")


def recall(found: list[list[int]], truth: np.ndarray, k: int) -> float:
    return float(np.mean([len(set(line) & set(best[:k].tolist())) / k for line, best in zip(found, truth, strict=True)]))


def judge(said: dict, row: str, work: Work) -> dict:
    """Turn what was found into figures."""
    found, every = said.pop("found"), said["every"]
    truth, judged = work.truth[::every], work.info["judged"][::every]
    if row.startswith("candidates"):
        return {**said, **{f"of_10_in_{k}": recall(lines, truth, 10) for k, lines in found.items()}}
    quality = {"recall_10": recall(found["10"], truth, 10), "recall_100": recall(found["100"], truth, 100)}
    return {**said, **quality, "ndcg_10": ndcg(found["10"], judged)}


def growth(tables: dict[str, dict]) -> dict[str, dict[str, float]]:
    """For each budget and row the exponent of latency: p50 grows as passages to that power."""
    points: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for name, entry in tables.items():
        for row, said in entry["rows"].items():
            points.setdefault((name.partition(", ")[2], row), []).append((entry["passages"], said["p50_ms"]))
    exponents: dict[str, dict[str, float]] = {}
    for (budget, row), line in points.items():
        if len(line) > 1:
            exponents.setdefault(budget, {})[row] = round(float(np.polyfit(*np.log(np.array(line).T), 1)[0]), 3)
    return exponents


def python_of(peer: str, work: Path, wanted: bool) -> Path | None:
    """The interpreter of a peer's environment, made if it is asked for."""
    folder = work / "environments" / peer
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists() and wanted:
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", peer, "numpy"], check=True)
    return python if python.exists() else None


def show(rows: dict[str, dict]) -> None:
    quantities = {
        "p50 ms": "p50_ms", "p99 ms": "p99_ms", "CPU ms": "cpu_ms", "batch/s": "batch_qps", "build s": "build_s",
        "build MiB": "build_mib", "search MiB": "search_mib", "bytes": "bytes_a_passage",
    }  # fmt: skip
    table = Table("", "recall@10", "@100", "nDCG@10", *quantities)
    for name, said in rows.items():
        quality = [said.get(key) for key in ("recall_10", "recall_100", "ndcg_10")]
        if "of_10_in_1000" in said:
            quality = [said["of_10_in_10"], said["of_10_in_100"], None]
        figures = (f"{said[key]:,.1f}" for key in quantities.values())
        table.add_row(name, *("" if v is None else f"{v:.3f}" for v in quality), *figures)
    Console(width=170).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("vectors", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--scales", default="real")
    parser.add_argument("--budgets", default="8x32")
    parser.add_argument("--rows", help="Names of rows, or parts of them, with semicolons between; all by default.")
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--keep", action="store_true", help="Keep indexes that can be opened again, and open them.")
    parser.add_argument("--processes", type=int, default=1, help="Search in so many; more than one needs --keep.")
    arguments = parser.parse_args()
    if arguments.processes > 1 and not arguments.keep:
        parser.error("--processes needs --keep: the index is built by the first of them")
    kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    kept.setdefault("machine", {"system": platform.platform(), "cores": os.cpu_count(), "python": platform.python_version()})
    parts = arguments.rows.split(";") if arguments.rows else [""]
    chosen = [row for row in ROWS if any(part == row or (part not in ROWS and part in row) for part in parts)]
    for scale in arguments.scales.split(","):
        for budget in arguments.budgets.split(","):
            work = make(arguments.vectors, arguments.data, arguments.work, scale, budget)
            entry = kept.setdefault("tables", {}).setdefault(f"{scale}, {budget}", {"rows": {}})
            entry.update({key: work.info[key] for key in ("passages", "real", "collections")})
            entry["exact_ndcg_10"] = ndcg(work.truth.tolist(), work.info["judged"])
            for row in chosen:
                if row in entry["rows"] and not arguments.again:
                    continue
                python = python_of(PEERS[row], arguments.work, arguments.peers) if row in PEERS else sys.executable
                if python is None:
                    continue
                out = work.folder / "row.json"
                command = [str(python), str(ROOT / "search_systems.py"), row, str(work.folder), str(out)]
                if arguments.keep and row.startswith(KEPT):
                    command.append(str(work.folder / "kept" / row.replace(", ", "-")))
                said = []
                for _ in range(arguments.processes):
                    if subprocess.run(command, cwd=ROOT).returncode:
                        break
                    said.append(json.loads(out.read_text(encoding="utf-8")))
                if len(said) < arguments.processes:
                    print(f"{row}: failed", file=sys.stderr)
                    continue
                said.sort(key=lambda figures: figures["p50_ms"])
                entry["rows"][row] = judge(said[len(said) // 2], row, work)
                if len(said) > 1:
                    entry["rows"][row]["p50_ms_of_processes"] = [round(figures["p50_ms"], 2) for figures in said]
                    entry["rows"][row]["search_mib"] = max(figures["search_mib"] for figures in said)
                kept["exponents_of_p50"] = growth(kept["tables"])
                RESULTS.write_text(json.dumps(kept, indent=1), encoding="utf-8")
            print(f"\n{scale}, {budget}: {work.info['passages']:,} passages, {work.info['real']:,} of them real; "
                  f"nDCG@10 of exact MaxSim over float16: {entry['exact_ndcg_10']:.4f}")  # fmt: skip
            show(entry["rows"])
    print("p50 grows as passages to the power of", json.dumps(kept.get("exponents_of_p50", {}), indent=1))


if __name__ == "__main__":
    main()
