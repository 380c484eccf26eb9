"""Trains the default encoder: the recipe behind ``load_encoder()``.

python benchmarks/default_encoder.py DATA OUT [--steps 400]      # DATA holds squad-train, medquad, scitldr, ...

Reads only collections whose licences let the trained weights be shared.  Resumes where it was interrupted.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

from crisp_rag.eval.datasets import load_beir
from crisp_rag.models import build_encoder
from crisp_rag.training import Example, TrainingOptions, examples_from_judgements, mine_hard_negatives, train

PAIRS = {"squad-train": 3200, "medquad": 3200, "scitldr": 1992, "pubmedqa-l": 500, "scifact": 809}
MINING_TOKENS = 96
MINING_POOL = 1500
"""Documents of each collection that no pair names, among which negatives are looked for too."""


def gather(data: Path, seed: int, mine: bool) -> list[Example]:
    """Examples of all collections; mined, each has one hard negative of its own collection."""
    encoder = build_encoder(max_tokens=MINING_TOKENS, query_centroid="sum")
    examples: list[Example] = []
    for name, limit in PAIRS.items():
        dataset = load_beir(data / name, split="train")
        pairs = examples_from_judgements(dataset, limit=limit, seed=seed)
        if not mine:
            examples += pairs
            continue
        texts = dataset.texts()[1]
        pool = random.Random(seed).sample(texts, min(MINING_POOL, len(texts)))
        started = time.perf_counter()
        mined = mine_hard_negatives(pairs, pool, encoder, negatives=1, depth=30, seed=seed)
        kept = [example for example in mined if example.negatives]
        examples += kept
        print(f"{name}: {len(pairs)} pairs, {len(kept)} with a negative, {time.perf_counter() - started:.0f} s", flush=True)
    return examples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--mine", action="store_true", help="Hard negatives besides those of the batch.")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    examples = gather(arguments.data, arguments.seed, arguments.mine)
    options = TrainingOptions(
        steps=arguments.steps,
        learning_rate=5e-5,
        max_tokens=128,
        budgets=((8, 32), (8, 16), (8, 32), (4, 8), (16, 64), (8, 24)),
        codec="both",
        save_steps=50,
        seed=arguments.seed,
    )
    encoder = build_encoder(query_centroid="sum")
    started = time.perf_counter()

    def show(step: int, parts: dict[str, float]) -> None:
        shown = "  ".join(f"{key} {value:.3f}" for key, value in parts.items())
        print(f"step {step}/{options.steps}  {shown}  {time.perf_counter() - started:.0f} s", flush=True)

    report = train(encoder, examples, arguments.out, options, name="crisp-minilm", resume=True, on_step=show)
    print(f"{report.steps} steps, {report.documents_per_second} documents a second.")


if __name__ == "__main__":
    main()
