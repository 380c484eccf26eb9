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
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
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
from crisp_rag.training.model_card import model_card
from crisp_rag.training.teachers import Teacher
from crisp_rag.training.trunk import TrunkMemory, frozen_trunk, transformer_layers

if TYPE_CHECKING:
    from sentence_transformers import MultiVectorEncoder

CHECKPOINTS = "checkpoints"
TRAINED = "trained.safetensors"
ELASTIC_BUDGETS: tuple[tuple[int | str, int | str], ...] = ((8, 32), (8, 16), (8, 32), (4, 8), (16, 64), (8, 24))
"""One encoder for every budget between 4x8 and 16x64, the default one twice as often."""


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
        lora_rank: Train low-rank updates of so many dims (LoRA, arXiv 2106.09685) of the chosen layers' linear maps
            instead of the maps; they are merged into the weights at the end.  None trains the weights.
        average: How far the saved weights go from the start's (0) to the trained ones (1).  Half way keeps more of what
            the start knows of other texts than those trained on (WiSE-FT, Wortsman et al. 2021, arXiv 2109.01903).
        scale, contrast, distillation, teacher_scale, budgets, draws, codec, mini_batch_size: See :class:`CrispLoss`.
        bfloat16: Run the backbone in bfloat16 autocast; losses stay in float32.  A GPU that can does so anyway; a processor
            with bfloat16 products takes half the time a step.
        evaluate_steps: Call ``evaluate`` every so many steps; 0 for never.
        save_steps: A checkpoint every so many steps, the newest two are kept; 0 for none.
        seed: Decides order, batches and budgets.
    """

    steps: int = 200
    batch_size: int = 32
    learning_rate: float = 3e-5
    per_group: int = 8
    layers: int | None = 3
    lora_rank: int | None = None
    max_tokens: int = 160
    average: float = 1.0
    scale: float = 20.0
    contrast: float = 1.0
    distillation: float = 1.0
    teacher_scale: float = 20.0
    budgets: tuple[tuple[int | str, int | str], ...] = ()
    draws: int = 1
    codec: Codec = "float"
    mini_batch_size: int | None = None
    bfloat16: bool = False
    evaluate_steps: int = 0
    save_steps: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "per_group", "max_tokens", "draws"):
            if getattr(self, name) < 1:
                raise InvalidInputError(f"{name} must be at least 1, got {getattr(self, name)}.")
        for name in ("layers", "lora_rank", "mini_batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InvalidInputError(f"{name} must be at least 1, or None, got {value}.")
        if not 0 < self.average <= 1:
            raise InvalidInputError(f"average must be above 0 and at most 1, got {self.average}.")
        if not self.learning_rate > 0 or self.save_steps < 0 or self.evaluate_steps < 0:
            raise InvalidInputError("learning_rate must be above 0, save_steps and evaluate_steps at least 0.")


@dataclass(slots=True)
class TrainingReport:
    """What a run did.

    Args:
        steps: Steps that are done, those before a resumed run included.
        seconds: Wall clock of this call.
        documents_per_second: Documents (positives and negatives) that went through a step, a second of this call.
        trained_parameters: How many numbers were trained.
        losses: The parts of the loss every few steps: {"step": ..., "contrast_float": ...}.
        evaluations: What ``evaluate`` gave: {"step": ..., "nDCG@10": ...}.
    """

    steps: int = 0
    seconds: float = 0.0
    documents_per_second: float = 0.0
    trained_parameters: int = 0
    losses: list[dict[str, float]] = field(default_factory=list)
    evaluations: list[dict[str, float]] = field(default_factory=list)


def train(
    encoder: CrispEncoder,
    examples: Sequence[Example],
    out: str | Path,
    options: TrainingOptions | None = None,
    *,
    teacher: Teacher | None = None,
    trunk_memory: TrunkMemory | None = None,
    name: str | None = None,
    resume: bool = False,
    on_step: Callable[[int, dict[str, float]], None] | None = None,
    evaluate: Callable[[CrispEncoder], dict[str, float]] | None = None,
) -> TrainingReport:
    """Train an encoder in place and save it.

    Args:
        encoder: What to start from; its pooling is the variant that is trained.
        examples: What to learn.  Every example takes part with as many negatives as the one that has fewest.
        out: Folder of the trained encoder, its ``training.json`` and model card and, until it is done, checkpoints.
        options: How to train.
        teacher: What to distil from; None takes the student's own token vectors.
        trunk_memory: Hidden states below the trained layers that an earlier run from the same backbone left.
        name: The trained encoder's name; the folder's name by default.
        resume: Go on from the newest checkpoint under ``out``, if there is one.
        on_step: Called after each step with its number and the parts of its loss, for a progress bar.
        evaluate: Metrics of the encoder as it is; called every ``evaluate_steps`` steps and kept in the report.

    Raises:
        InvalidInputError: if there are too few examples for a batch, ``out`` holds an encoder already and this is
            not a resumed run, or a resumed run has other options than the one it resumes.
        ImportError: naming the line that installs what training needs.
    """
    options = options or TrainingOptions()
    _check_installed()
    from datasets import Dataset
    from sentence_transformers import MultiVectorEncoderTrainingArguments

    out = Path(out)
    _claim(out, options, encoder, resume)
    plan = plan_batches(
        examples, batch_size=options.batch_size, steps=options.steps, per_group=options.per_group, seed=options.seed
    )
    negatives = min(len(example.negatives) for example in examples)
    columns = {"anchor": [example.query for example in examples], "positive": [each.positive for each in examples]}
    for rank in range(negatives):
        columns[f"negative_{rank + 1}"] = [example.negatives[rank] for example in examples]

    model = encoder.model
    model.model_card_data.widget = [{}]  # or the trainer makes up examples for a card that is written below
    read = model.max_seq_length
    model.max_seq_length = min(options.max_tokens, read or options.max_tokens)
    start = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    frozen = _freeze(model, options.layers)
    merge = _add_lora(model, options) if options.lora_rank else None
    loss = CrispLoss(
        model,
        scale=options.scale, contrast=options.contrast, distillation=options.distillation, teacher=teacher,
        teacher_scale=options.teacher_scale, budgets=options.budgets or None, draws=options.draws, codec=options.codec,
        mini_batch_size=options.mini_batch_size, seed=options.seed,
    )  # fmt: skip
    watch = _Watch(loss, on_step, _evaluation(encoder, evaluate, read), options.evaluate_steps)
    parameters = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
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
        use_cpu=not torch.cuda.is_available(),
        bf16=options.bfloat16 or (torch.cuda.is_available() and torch.cuda.is_bf16_supported()),
        batch_sampler=_Planned(plan),  # type: ignore[arg-type]
        dataloader_pin_memory=torch.cuda.is_available(),
        prompts={column: model.prompts.get("query" if column == "anchor" else "document") or "" for column in columns},
    )
    trainer = _trainer_class()(
        model=model, args=arguments, train_dataset=Dataset.from_dict(columns), loss=loss, callbacks=[watch]
    )
    trainer.remove_callback(PrinterCallback)  # it writes to stdout, which is for results
    started = time.perf_counter()
    try:
        with frozen_trunk(model, options.layers, trunk_memory):
            state = trainer.train(resume_from_checkpoint=_newest_checkpoint(out) if resume else None)
    finally:
        model.max_seq_length = read
        if merge:
            merge()
        for parameter in frozen:
            parameter.requires_grad_(True)
        model.eval()
    _average(model, start, options.average)
    seconds = time.perf_counter() - started
    report = TrainingReport(
        steps=state.global_step,
        seconds=round(seconds, 2),
        documents_per_second=round(watch.steps * options.batch_size * (1 + negatives) / seconds, 2),
        trained_parameters=parameters,
        losses=watch.losses,
        evaluations=watch.evaluations,
    )
    trained = CrispEncoder(model, name=name or out.name)
    trained.save(out)
    sources = dict(Counter(example.source for example in examples))
    content = {"options": asdict(options), "examples": sources, **asdict(report)}
    (out / "training.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    card = model_card(trained, options, report, sources, base=encoder.name)
    (out / "README.md").write_text(card, encoding="utf-8")
    shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
    encoder.weights_changed()
    return report


@torch.no_grad()
def _average(model: nn.Module, start: dict[str, torch.Tensor], share: float) -> None:
    """Go ``share`` of the way from the start's weights to the model's."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and share < 1:
            tensor.copy_(torch.lerp(start[name].to(tensor.device), tensor, share))


@dataclass(frozen=True, slots=True)
class _Planned:
    """What the trainer calls for its batches; it is pickled with the trainer's arguments, which a closure is not."""

    plan: list[list[int]]

    def __call__(self, dataset: Any, **settings: Any) -> PlannedBatchSampler:
        return PlannedBatchSampler(self.plan)


class _Watch(TrainerCallback):
    """Tells the loss which step it is in, keeps what it says, and has the encoder evaluated."""

    EVERY = 10

    def __init__(
        self,
        loss: CrispLoss,
        on_step: Callable[[int, dict[str, float]], None] | None,
        evaluate: Callable[[], dict[str, float]] | None,
        evaluate_steps: int,
    ) -> None:
        self.loss = loss
        self.on_step = on_step
        self.evaluate = evaluate
        self.evaluate_steps = evaluate_steps
        self.steps = 0
        self.losses: list[dict[str, float]] = []
        self.evaluations: list[dict[str, float]] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.loss.step = state.global_step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.steps += 1
        if state.global_step % self.EVERY == 1 or state.global_step == args.max_steps:
            parts = {key: round(value, 4) for key, value in self.loss.parts.items()}
            self.losses.append({"step": state.global_step, **parts})
        if self.on_step:
            self.on_step(state.global_step, self.loss.parts)
        if self.evaluate and self.evaluate_steps and state.global_step % self.evaluate_steps == 0:
            self.evaluations.append({"step": state.global_step, **self.evaluate()})


def _evaluation(
    encoder: CrispEncoder, evaluate: Callable[[CrispEncoder], dict[str, float]] | None, read: int | None
) -> Callable[[], dict[str, float]] | None:
    """The evaluation of the encoder as it will be saved: whole texts, PyTorch, no gradient; then training goes on."""
    if evaluate is None:
        return None

    def run() -> dict[str, float]:
        model = encoder.model
        cut, backend = model.max_seq_length, encoder.backend
        model.max_seq_length, encoder.backend = read, "torch"
        try:
            return evaluate(encoder)
        finally:
            model.max_seq_length, encoder.backend = cut, backend
            model.train()

    return run


def switch_dropout_off(model: nn.Module) -> None:
    """Nothing is dropped from now on, in training neither."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0


def _freeze(model: MultiVectorEncoder, layers: int | None) -> list[nn.Parameter]:
    """Freeze all but the upper ``layers`` transformer layers, switch dropout off; what was frozen comes back."""
    switch_dropout_off(model)
    if layers is None:
        return []
    stack = transformer_layers(model)
    trained = {id(parameter) for layer in stack[-layers:] for parameter in layer.parameters()}
    behind = [parameter for module in list(model)[1:] for parameter in module.parameters()]  # a projection, say
    trained |= {id(parameter) for parameter in behind}
    frozen = [parameter for parameter in model.parameters() if id(parameter) not in trained and parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    return frozen


def _add_lora(model: MultiVectorEncoder, options: TrainingOptions) -> Callable[[], None]:
    """Put low-rank updates on the trained layers' linear maps, the rest is frozen; returns what merges them."""
    if find_spec("peft") is None:
        raise ImportError("LoRA needs peft: pip install 'crisp-rag[train]'")
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.lora import LoraLayer

    backbone: Any = model[0].model
    stack = transformer_layers(model)
    names = {id(module): name for name, module in backbone.named_modules()}
    targets = [
        names[id(module)]
        for layer in stack[len(stack) - (options.layers or len(stack)) :]
        for module in layer.modules()
        if isinstance(module, nn.Linear)
    ]
    rank = options.lora_rank or 1
    torch.manual_seed(options.seed)  # the updates start at random
    before = {id(parameter) for parameter in backbone.parameters()}
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=targets), backbone)
    for parameter in backbone.parameters():
        parameter.requires_grad_(id(parameter) not in before)

    def merge() -> None:
        for name, module in list(backbone.named_modules()):
            if isinstance(module, LoraLayer):
                module.merge()  # type: ignore[operator]
                parent = backbone.get_submodule(name.rpartition(".")[0])
                setattr(parent, name.rpartition(".")[2], module.get_base_layer())
        backbone.requires_grad_(True)

    return merge


def _check_installed() -> None:
    missing = [package for package in ("accelerate", "datasets") if find_spec(package) is None]
    if missing:
        raise ImportError(f"Training needs {' and '.join(missing)}: pip install 'crisp-rag[train]'")


def _trainer_class() -> type:
    """sentence-transformers' trainer with checkpoints of the trained numbers alone, LoRA's among them."""
    from safetensors.torch import load_file, save_file
    from sentence_transformers import MultiVectorEncoderTrainer

    class Trainer(MultiVectorEncoderTrainer):
        def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
            folder = Path(output_dir or self.args.output_dir or CHECKPOINTS)
            folder.mkdir(parents=True, exist_ok=True)
            save_file({name: each.detach().contiguous() for name, each in self._trained()}, folder / TRAINED)

        def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
            saved = load_file(Path(resume_from_checkpoint, TRAINED))
            with torch.no_grad():
                for name, parameter in self._trained():
                    parameter.copy_(saved[name])

        def _trained(self) -> list[tuple[str, nn.Parameter]]:
            return [(name, each) for name, each in self.model.named_parameters() if each.requires_grad]

    return Trainer


def _claim(out: Path, options: TrainingOptions, encoder: CrispEncoder, resume: bool) -> None:
    """Write what a new run starts with, or check that a resumed one starts with the same."""
    path = out / "options.json"
    written = {**json.loads(json.dumps(asdict(options))), "start": encoder.fingerprint}
    if resume and path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = [name for name, value in written.items() if before.get(name) != value]
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
