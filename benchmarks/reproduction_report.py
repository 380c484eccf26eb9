"""The tables of benchmarks/results/reproduction.json and reproduction-gpu.json, written into docs/reproduction.md, and
the first one's plot, docs/reproduction.svg.

python benchmarks/reproduction_report.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from rich.console import Console

from crisp_rag.eval.significance import paired_randomisation_test

plt.switch_backend("svg")
plt.rcParams["svg.hashsalt"] = "crisp-rag"  # the same figures give the same file

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "reproduction.json"
GPU_RESULTS = RESULTS.with_name("reproduction-gpu.json")
PAGE = ROOT / "docs" / "reproduction.md"
PLOT = ROOT / "docs" / "reproduction.svg"
COLLECTIONS = ("scifact", "nfcorpus", "trec-dl19-20-pool")
PAIRS = (
    ("C8x32", "MV"), ("C8x32", "post-hoc 8x32"), ("C4x8", "MV"), ("C4x8", "post-hoc 4x8"),
    ("elastic at 8x32", "C8x32"), ("elastic at 4x8", "C4x8"), ("elastic at 4x8", "post-hoc 4x8"), ("C8x32", "dense"),
)  # fmt: skip
NAMED = ("MV", "SV", "C8x32", "C4x8", "C25", "C50", "K2", "K4", "T8x32", "T4x8", "post-hoc 8x32", "post-hoc 4x8", "dense",
         "dense, int8", "C8x32, 1 bit", "C8x32, int8", "elastic at 8x16, 1 bit")  # fmt: skip


def summarise(rows: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Means over seeds, of the rows that all collections have."""
    found = {}
    for name, seeds in rows.items():
        whole = {seed: each for seed, each in seeds.items() if all(collection in each for collection in COLLECTIONS)}
        if not whole:
            continue
        values = {c: [each[c]["nDCG@10"] for each in whole.values()] for c in COLLECTIONS}
        means = [np.mean([values[c][position] for c in COLLECTIONS]) for position in range(len(whole))]
        first = next(iter(whole.values()))
        found[name] = {
            **{c: float(np.mean(values[c])) for c in COLLECTIONS},
            "mean": float(np.mean(means)),
            "spread": float(max(means) - min(means)) if len(means) > 1 else None,
            "seeds": len(whole),
            "documents": float(np.mean([first[c]["vectors_per_document"] for c in COLLECTIONS])),
            "queries": float(np.mean([first[c].get("vectors_per_query", 0.0) for c in COLLECTIONS])),
            "bytes": float(np.mean([first[c]["bytes_per_document"] for c in COLLECTIONS])),
        }
    return found


def differences(rows: dict[str, Any]) -> list[dict[str, Any]]:
    """Paired tests over all queries of the three collections, seeds averaged per query."""
    found = []
    for a, b in PAIRS:
        if not {a, b} <= summarise(rows).keys():
            continue
        seeds = [seed for seed in rows[a] if seed in rows[b]] or list(rows[a])
        left, right = [], []
        for collection in COLLECTIONS:
            for query in next(iter(rows[a].values()))[collection]["per_query"]:
                left.append(_value(rows[a], seeds, collection, query))
                right.append(_value(rows[b], seeds, collection, query))
        found.append(
            {
                "a": a, "b": b, "queries": len(left), "seeds": len(seeds),
                "difference": float(np.mean(left) - np.mean(right)), "p": paired_randomisation_test(left, right),
            }
        )  # fmt: skip
    return found


def _value(seeds: dict[str, Any], wanted: list[str], collection: str, query: str) -> float:
    chosen = [seeds[seed] for seed in wanted if seed in seeds and collection in seeds[seed]] or list(seeds.values())
    return float(np.mean([each[collection]["per_query"][query] for each in chosen]))


def table(summary: dict[str, dict[str, Any]], tests: list[dict[str, Any]]) -> str:
    lines = [
        "| row | " + " | ".join(COLLECTIONS) + " | mean | seeds (spread) | vectors a query | vectors a passage | bytes |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in sorted(summary.items(), key=lambda item: -item[1]["mean"]):
        spread = f"{row['seeds']} (.{round(row['spread'] * 1e4):04d})" if row["spread"] is not None else str(row["seeds"])
        scores = " | ".join(f"{row[c]:.4f}" for c in COLLECTIONS)
        sizes = f"{row['queries']:.1f} | {row['documents']:.1f} | {row['bytes']:,.0f}"
        lines.append(f"| {name} | {scores} | **{row['mean']:.4f}** | {spread} | {sizes} |")
    lines += ["", "| comparison | difference of nDCG@10 over all queries | p (paired randomisation) | queries | seeds |",
              "|---|---|---|---|---|"]  # fmt: skip
    lines += [
        f"| {each['a']} - {each['b']} | {each['difference']:+.4f} | {each['p']:.4f} | {each['queries']} | {each['seeds']} |"
        for each in tests
    ]
    return "\n".join(lines)


def ablations(rows: dict[str, Any]) -> str:
    """One choice changed at a time, on the collections that all of these rows have."""
    lines = ["| row | scifact | nfcorpus | mean |", "|---|---|---|---|"]
    for name, seeds in rows.items():
        figures = seeds.get("0", {})
        compared = name in ("MV", "C8x32", "post-hoc 8x32") or name.startswith("C8x32, ")
        if compared and figures.get("nfcorpus", {}).get("bits") == 16:
            values = [figures[collection]["nDCG@10"] for collection in COLLECTIONS[:2]]
            lines.append(f"| {name} | {values[0]:.4f} | {values[1]:.4f} | **{np.mean(values):.4f}** |")
    return "\n".join(lines)


def draw(summary: dict[str, dict[str, Any]]) -> None:
    figure, axes = plt.subplots(figsize=(9, 5.5))
    for name, row in summary.items():
        if name == "bm25":
            axes.axhline(row["mean"], color="grey", linestyle=":", linewidth=1)
            axes.annotate("bm25", (1, row["mean"]), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8)
            continue
        kind = ("dense" if name.startswith("dense") else "post-hoc" if name.startswith(("post-hoc", "Ward")) else
                "elastic" if name.startswith("elastic") else "trained" if name.startswith("C") else "other")  # fmt: skip
        colour = {"dense": "C3", "post-hoc": "C1", "elastic": "C2", "trained": "C0", "other": "C7"}[kind]
        axes.scatter(row["bytes"], row["mean"], color=colour, s=28, zorder=3)
        if name in NAMED:
            place = (4, -10 if kind == "post-hoc" or name == "C25" else 4)  # below, where two labels would meet
            axes.annotate(name, (row["bytes"], row["mean"]), xytext=place, textcoords="offset points", fontsize=8)
    for kind, colour in (("trained clusters", "C0"), ("one elastic encoder", "C2"), ("after the fact", "C1"),
                         ("one vector", "C3"), ("others", "C7")):  # fmt: skip
        axes.scatter([], [], color=colour, s=28, label=kind)
    axes.set_xscale("log")
    axes.set_xlabel("bytes a passage (vectors x dims x bits / 8)")
    axes.set_ylabel("nDCG@10, mean of scifact, nfcorpus, trec-dl19-20-pool")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left", fontsize=8)
    figure.tight_layout()
    figure.savefig(PLOT, metadata={"Date": None})


def main() -> None:
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    summary = summarise(results["rows"])
    tests = differences(results["rows"])
    text = table(summary, tests)
    gpu = json.loads(GPU_RESULTS.read_text(encoding="utf-8"))["rows"]
    written_on_gpu = table(summarise(gpu), differences(gpu))
    page = PAGE.read_text(encoding="utf-8")
    for name, written in (("table", text), ("gpu", written_on_gpu), ("ablations", ablations(results["rows"]))):
        start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, after = page.split(start)[0], page.split(end)[1]
        page = f"{before}{start}\n{written}\n{end}{after}"
    PAGE.write_text(page, encoding="utf-8")
    draw(summary)
    Console(width=200, highlight=False).print(text, written_on_gpu, sep="\n\n", markup=False)


if __name__ == "__main__":
    main()
