"""What ``crisp-rag train`` brings on one's own documents: questions of a half that was kept back, before and after.

python benchmarks/fine_tuning.py [--seeds 0 1 2] [--documents examples/corpus] [--questions examples/questions.jsonl]
    [OPTION OF crisp-rag train ...]

Runs the command itself; a seed decides which half of the questions trains.  A small corpus has few questions, so that one
split says little: the mean over the splits is what counts.  Writes results/fine_tuning.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
OUT = Path(__file__).resolve().parent / "results" / "fine_tuning.json"
METRIC = "nDCG@10"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--documents", type=Path, default=ROOT / "examples" / "corpus")
    parser.add_argument("--questions", type=Path, default=ROOT / "examples" / "questions.jsonl")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=OUT)
    arguments, options = parser.parse_known_args()
    splits: list[dict[str, Any]] = []
    for seed in arguments.seeds:
        with tempfile.TemporaryDirectory() as folder:
            command = [
                sys.executable, "-m", "crisp_rag", "train", str(arguments.documents), "--out", f"{folder}/trained",
                "--questions", str(arguments.questions), "--seed", str(seed), "--json", *options,
            ]  # fmt: skip
            started = time.perf_counter()
            report = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
            seconds = time.perf_counter() - started
        splits.append(
            {"seed": seed, "held_out": report["held_out"], "before": report["before"], "after": report["after"],
             "minutes": round(seconds / 60, 2)}
        )  # fmt: skip
        print(f"seed {seed}: {report['before'][METRIC]:.4f} -> {report['after'][METRIC]:.4f}  {seconds:.0f} s", flush=True)
    results = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "options": options,
        "mean": {
            name: {when: round(mean(split[when][name] for split in splits), 4) for when in ("before", "after")}
            for name in splits[0]["before"]
        },
        "splits": splits,
    }
    arguments.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    table = Table("seed", "questions", "before", "after", "minutes")
    for split in splits:
        table.add_row(
            str(split["seed"]), str(split["held_out"]), f"{split['before'][METRIC]:.4f}", f"{split['after'][METRIC]:.4f}",
            f"{split['minutes']:.1f}",
        )  # fmt: skip
    table.add_row("mean", "", *(f"{results['mean'][METRIC][when]:.4f}" for when in ("before", "after")), "")
    Console().print(table)


if __name__ == "__main__":
    main()
