"""From examples to a trained encoder: sentence-transformers' multi-vector trainer with CRISP's batches and loss.

    encoder = load_encoder()
    examples = mine_hard_negatives(examples, corpus, encoder)
    train(encoder, examples, "my-encoder", TrainingOptions(steps=200))
    load_encoder("my-encoder")

Interrupted, ``train(..., resume=True)`` goes on from the last checkpoint and ends where an uninterrupted run ends:
batches, budgets and order depend on the seed and the step alone, and nothing is dropped out at random.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import PrinterCallback, TrainerCallback

from crisp_rag.errors import InvalidInputError
from crisp_rag.models.encoder import CrispEncoder
from crisp_rag.training.batches import PlannedBatchSampler, plan_batches
from crisp_rag.training.data import Example
from crisp_rag.training.losses import Codec, CrispLoss

if TYPE_CHECKING:
    from sentence_transformers import MultiVectorEncoder

CHECKPOINTS = "checkpoints"


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """How to train.  The defaults fit a laptop: no dropout, the upper layers only, documents cut short.

    Args:
        steps: Optimiser steps.
        batch_size: Examples a step; each is scored against all documents of its step.
        learning_rate: Highest rate of AdamW; it warms up over a tenth of the steps and falls linearly to 0.
        per_group: Examples of one group that a step takes together.
        layers: Train so many upper transformer layers; None for the whole backbone.
        max_tokens: Tokens of a text that are read in training; the saved encoder reads as many as before.
        scale, contrast, distillation, teacher_scale, budgets, codec: See :class:`CrispLoss`.
        save_steps: A checkpoint every so many steps, the newest two are kept; 0 for none.
        seed: Decides order, batches and budgets.
    """

    steps: int = 200
    batch_size: int = 32
    learning_rate: float = 3e-5
    per_group: int = 8
    layers: int | None = 3
    max_tokens: int = 160
    scale: float = 20.0
    contrast: float = 1.0
    distillation: float = 1.0
    teacher_scale: float = 20.0
    budgets: tuple[tuple[int | str, int | str], ...] = ()
    codec: Codec = "float"
    save_steps: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "per_group", "max_tokens"):
            if getattr(self, name) < 1:
                raise InvalidInputError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.layers is not None and self.layers < 1:
            raise InvalidInputError(f"layers must be at least 1, or None for all, got {self.layers}.")
        if not self.learning_rate > 0 or self.save_steps < 0:
            raise InvalidInputError("learning_rate must be above 0 and save_steps at least 0.")


@dataclass(slots=True)
class TrainingReport:
    """What a run did.

    Args:
        steps: Steps that are done, those before a resumed run included.
        seconds: Wall clock of this call.
        documents_per_second: Documents (positives and negatives) that went through a step, a second of this call.
        trained_parameters: How many numbers were trained.
        losses: The loss every few steps, with its parts: {"step": ..., "loss": ..., "contrast_float": ...}.
    """

    steps: int = 0
    seconds: float = 0.0
    documents_per_second: float = 0.0
    trained_parameters: int = 0
    losses: list[dict[str, float]] = field(default_factory=list)


def train(
    encoder: CrispEncoder,
    examples: Sequence[Example],
    out: str | Path,
    options: TrainingOptions | None = None,
    *,
    teacher: CrispEncoder | None = None,
    name: str | None = None,
    resume: bool = False,
    on_step: Callable[[int, dict[str, float]], None] | None = None,
) -> TrainingReport:
    """Train an encoder in place and save it.

    Args:
        encoder: What to start from; its pooling is the variant that is trained.
        examples: What to learn.  Every example takes part with as many negatives as the one that has fewest.
        out: Folder of the trained encoder, its ``training.json`` and, until it is done, its checkpoints.
        options: How to train.
        teacher: Unpruned encoder to distil from; None takes the student's own token vectors.
        name: The trained encoder's name; the folder's name by default.
        resume: Go on from the newest checkpoint under ``out``, if there is one.
        on_step: Called after each step with its number and the parts of its loss, for a progress bar.

    Raises:
        InvalidInputError: if there are too few examples for a batch, ``out`` holds an encoder already and this is
            not a resumed run, or a resumed run has other options than the one it resumes.
        ImportError: naming the line that installs what training needs.
    """
    options = options or TrainingOptions()
    _check_installed()
    from datasets import Dataset
    from sentence_transformers import MultiVectorEncoderTrainer, MultiVectorEncoderTrainingArguments

    out = Path(out)
    _claim(out, options, resume)
    plan = plan_batches(
        examples, batch_size=options.batch_size, steps=options.steps, per_group=options.per_group, seed=options.seed
    )
    negatives = min(len(example.negatives) for example in examples)
    columns = {"anchor": [example.query for example in examples], "positive": [each.positive for each in examples]}
    for rank in range(negatives):
        columns[f"negative_{rank + 1}"] = [example.negatives[rank] for example in examples]

    model = encoder.model
    read = model.max_seq_length
    model.max_seq_length = min(options.max_tokens, read or options.max_tokens)
    frozen = _freeze(model, options.layers)
    loss = CrispLoss(
        model,
        scale=options.scale, contrast=options.contrast, distillation=options.distillation,
        teacher=teacher.model if teacher else None, teacher_scale=options.teacher_scale,
        budgets=options.budgets or None, codec=options.codec, seed=options.seed,
    )  # fmt: skip
    watch = _Watch(loss, on_step)
    arguments = MultiVectorEncoderTrainingArguments(
        output_dir=str(out / CHECKPOINTS),
        max_steps=options.steps,
        per_device_train_batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        warmup_steps=max(1, options.steps // 10),
        save_strategy="steps" if options.save_steps else "no",
        save_steps=options.save_steps or options.steps,
        save_total_limit=2,
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=options.seed,
        bf16=torch.cuda.is_available() and torch.cuda.is_bf16_supported(),
        batch_sampler=_Planned(plan),  # type: ignore[arg-type]
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    trainer = MultiVectorEncoderTrainer(
        model=model, args=arguments, train_dataset=Dataset.from_dict(columns), loss=loss, callbacks=[watch]
    )
    trainer.remove_callback(PrinterCallback)  # it writes to stdout, which is for results
    started = time.perf_counter()
    try:
        state = trainer.train(resume_from_checkpoint=_newest_checkpoint(out) if resume else None)
    finally:
        model.max_seq_length = read
        for parameter in frozen:
            parameter.requires_grad_(True)
        model.eval()
    seconds = time.perf_counter() - started
    report = TrainingReport(
        steps=state.global_step,
        seconds=round(seconds, 2),
        documents_per_second=round(watch.steps * options.batch_size * (1 + negatives) / seconds, 2),
        trained_parameters=sum(parameter.numel() for parameter in model.parameters())
        - sum(parameter.numel() for parameter in frozen),
        losses=watch.losses,
    )
    trained = CrispEncoder(model, name=name or out.name)
    trained.save(out)
    _write_report(out, options, report, examples)
    shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
    encoder._fingerprint = None  # the weights that it was taken of are no more
    return report


@dataclass(frozen=True, slots=True)
class _Planned:
    """What the trainer calls for its batches; it is pickled with the trainer's arguments, which a closure is not."""

    plan: list[list[int]]

    def __call__(self, dataset: Any, **settings: Any) -> PlannedBatchSampler:
        return PlannedBatchSampler(self.plan)


class _Watch(TrainerCallback):
    """Tells the loss which step it is in, and keeps what it says."""

    EVERY = 10

    def __init__(self, loss: CrispLoss, on_step: Callable[[int, dict[str, float]], None] | None) -> None:
        self.loss = loss
        self.on_step = on_step
        self.steps = 0
        self.losses: list[dict[str, float]] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.loss.step = state.global_step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.steps += 1
        if state.global_step % self.EVERY == 1 or state.global_step == args.max_steps:
            parts = {key: round(value, 4) for key, value in self.loss.parts.items()}
            self.losses.append({"step": state.global_step, **parts})
        if self.on_step:
            self.on_step(state.global_step, self.loss.parts)


def _freeze(model: MultiVectorEncoder, layers: int | None) -> list[nn.Parameter]:
    """Freeze all but the upper ``layers`` transformer layers, switch dropout off; what was frozen comes back."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    if layers is None:
        return []
    stack = _layers(model)
    trained = {id(parameter) for layer in stack[-layers:] for parameter in layer.parameters()}
    behind = [parameter for module in list(model)[1:] for parameter in module.parameters()]  # a projection, say
    trained |= {id(parameter) for parameter in behind}
    frozen = [parameter for parameter in model.parameters() if id(parameter) not in trained and parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    return frozen


def _layers(model: MultiVectorEncoder) -> nn.ModuleList:
    stacks = [module for module in model[0].modules() if isinstance(module, nn.ModuleList)]
    if not stacks:
        raise InvalidInputError("The backbone has no list of layers to choose from; use layers=None.")
    return max(stacks, key=len)


def _check_installed() -> None:
    missing = [package for package in ("accelerate", "datasets") if find_spec(package) is None]
    if missing:
        raise ImportError(f"Training needs {' and '.join(missing)}: pip install 'crisp-rag[train]'")


def _claim(out: Path, options: TrainingOptions, resume: bool) -> None:
    """Write the options of a new run, or check that a resumed one has the same."""
    path = out / "options.json"
    written = json.loads(json.dumps(asdict(options)))
    if resume and path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = [each.name for each in fields(options) if before.get(each.name) != written[each.name]]
        if changed:
            raise InvalidInputError(f"{out} was begun with other options: {', '.join(changed)} differ.")
        return
    if not resume and any((out / taken).exists() for taken in ("crisp_rag.json", "options.json")):
        raise InvalidInputError(f"{out} holds a training run already; resume it, or take another folder.")
    out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


def _newest_checkpoint(out: Path) -> str | None:
    found = [path for path in (out / CHECKPOINTS).glob("checkpoint-*") if (path / "trainer_state.json").is_file()]
    return str(max(found, key=lambda path: int(path.name.rsplit("-", 1)[1]))) if found else None


def _write_report(out: Path, options: TrainingOptions, report: TrainingReport, examples: Sequence[Example]) -> None:
    sources: dict[str, int] = {}
    for example in examples:
        sources[example.source] = sources.get(example.source, 0) + 1
    content = {"options": asdict(options), "examples": sources, **asdict(report)}
    (out / "training.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
