"""What ``crisp-rag train`` brings on one's own documents: questions of a half that was kept back, before and after.

python benchmarks/fine_tuning.py [--seeds 0 1 2] [--documents examples/corpus] [--questions examples/questions.jsonl]

A seed decides which half of the questions trains; everything else is as in the command without options.  A small
corpus has few questions, so that one split says little: the mean over the splits is what counts.  Writes
results/fine_tuning.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from crisp_rag.eval.fine_tuning import QUESTION_WEIGHT, fine_tune
from crisp_rag.models import load_encoder
from crisp_rag.training import TrainingOptions

ROOT = Path(__file__).resolve().parents[1]
OUT = Path(__file__).resolve().parent / "results" / "fine_tuning.json"
METRIC = "nDCG@10"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--documents", type=Path, default=ROOT / "examples" / "corpus")
    parser.add_argument("--questions", type=Path, default=ROOT / "examples" / "questions.jsonl")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--lr", type=float, default=3e-5)
    parser.add_argument("--average", type=float, default=0.5)
    parser.add_argument("--weight", type=int, default=QUESTION_WEIGHT)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    options = TrainingOptions(
        steps=arguments.steps, batch_size=24, learning_rate=arguments.lr, average=arguments.average, save_steps=20
    )
    splits: list[dict[str, Any]] = []
    for seed in arguments.seeds:
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            report = fine_tune(
                [arguments.documents], Path(folder) / "trained", questions=arguments.questions,
                encoder=load_encoder(device="cpu"), options=replace(options, seed=seed), question_weight=arguments.weight,
            )  # fmt: skip
            seconds = time.perf_counter() - started
        splits.append(
            {"seed": seed, "held_out": report.held_out, "before": report.before, "after": report.after,
             "minutes": round(seconds / 60, 2)}
        )  # fmt: skip
        print(f"seed {seed}: {report.before[METRIC]:.4f} -> {report.after[METRIC]:.4f}  {seconds:.0f} s", flush=True)
    results = {
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "options": {"steps": arguments.steps, "lr": arguments.lr, "average": arguments.average, "weight": arguments.weight},
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
