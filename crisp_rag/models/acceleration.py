"""The backbone on a CPU at some four times the speed: OpenVINO, int8 weights, activations quantised as they come.

    fast = accelerate(encoder.model)        # None where OpenVINO is missing or the backbone does not convert
    fast.encode_document(texts, batch_size=BATCH_SIZE)

Each linear layer keeps one scale an output row and 8-bit weights (symmetric, absolute maximum); OpenVINO quantises
activations in groups of 128 at run time and multiplies in int8, everything else runs in bfloat16 where the processor
has it.  Token vectors keep a mean cosine of .999 to those of float32.  ``benchmarks/encoding.py`` measures both.
"""

from __future__ import annotations

import copy
import logging
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from sentence_transformers import MultiVectorEncoder
from torch import Tensor, nn

BATCH_SIZE = 8
"""Texts a forward pass: small enough for the caches of a processor."""
ACTIVATION_GROUP = 128
_log = logging.getLogger(__name__)


def accelerate(model: MultiVectorEncoder) -> MultiVectorEncoder | None:
    """A copy of the pipeline that shares every module but runs its backbone in OpenVINO.

    Args:
        model: A text encoder on the CPU.  Weights are read now: one that is trained later needs a new copy.

    Returns:
        None where OpenVINO is not installed, the model is not on the CPU, or its backbone cannot be converted; the
        reason goes to the log.
    """
    if model.device.type != "cpu":
        return None
    openvino = _openvino()
    if openvino is None:
        return None
    try:
        runner = _Runner(openvino, model[0].model)
    except Exception as error:  # what a foreign backbone raises while it is traced cannot be foreseen
        _log.warning("The backbone stays in PyTorch, OpenVINO could not convert it: %s", error)
        return None
    transformer = copy.copy(model[0])
    transformer.forward = runner.forward  # on the copy alone
    fast = copy.copy(model)
    fast._modules = dict(model._modules)
    fast._modules[next(iter(fast._modules))] = transformer
    if _tokenises_plainly(model):
        fast.__class__ = type("Accelerated", (_TokenisedOnce, type(model)), {})
    return fast


class _TokenisedOnce(MultiVectorEncoder):
    """Tokenises what it is given before it sorts it, so that a batch holds texts of as many tokens and little padding."""

    _tokenised = threading.local()

    def _inference(self, inputs: list, **options: Any) -> Any:
        if all(isinstance(text, str) for text in inputs):
            rows = _token_ids(self, inputs, options.get("task"), options.get("prompt"))
            self._tokenised.ids = dict(zip(inputs, rows, strict=True))
        try:
            return super()._inference(inputs, **options)
        finally:
            self._tokenised.ids = {}

    def _input_length(self, text: Any) -> int:  # type: ignore[override]  # the original is static
        known = getattr(self._tokenised, "ids", {})
        return len(known[text]) if known else super()._input_length(text)

    def preprocess(self, inputs: Any, prompt: str | None = None, **options: Any) -> dict[str, Any]:
        known = getattr(self._tokenised, "ids", {})
        if not known:
            return super().preprocess(inputs, prompt=prompt, **options)
        ids, mask = padded_ids([known[text] for text in inputs], self.tokenizer.pad_token_id)
        return {"input_ids": ids, "attention_mask": mask, "modality": "text"}


def _token_ids(model: MultiVectorEncoder, texts: list[str], task: str | None, prompt: str | None) -> list[list[int]]:
    own = {"query": getattr(model[0], "query_length", None), "document": getattr(model[0], "document_length", None)}
    limit = own.get(task or "") or model.max_seq_length
    texts = [prompt + text for text in texts] if prompt else texts
    encoded = model.tokenizer(texts, truncation=True, max_length=limit, return_attention_mask=False)
    return encoded["input_ids"]


def padded_ids(rows: Sequence[list[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Rows of token ids to (B, T) ids, padded on the right, and their mask."""
    lengths = np.array([len(row) for row in rows])
    mask = np.arange(lengths.max()) < lengths[:, None]
    ids = np.full(mask.shape, pad, dtype=np.int64)
    ids[mask] = np.concatenate(rows)
    return torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64))


def _tokenises_plainly(model: MultiVectorEncoder) -> bool:
    """Whether the pipeline makes of texts what its tokenizer does: no expansion of queries, no template; a prompt stands
    before the text and nothing more."""
    texts = ["one two three", "word " * 2 * (model.max_seq_length or 512)]
    for task in ("query", "document"):
        prompt = model.prompts.get(task) or None
        expected = model.preprocess(texts, prompt=prompt, task=task)
        try:
            ids, mask = padded_ids(_token_ids(model, texts, task, prompt), model.tokenizer.pad_token_id)
        except (TypeError, ValueError, AttributeError):
            return False
        if not (torch.equal(expected["input_ids"], ids) and torch.equal(expected["attention_mask"], mask)):
            return False
    return True


class _Runner:
    """A compiled backbone; any number of threads may call it."""

    def __init__(self, openvino: Any, backbone: Any) -> None:
        core = openvino.Core()
        ids = torch.ones(2, 16, dtype=torch.long)
        with warnings.catch_warnings(), quiet():  # tracing warns of every branch on a shape
            warnings.simplefilter("ignore")
            converted = openvino.convert_model(
                _LastHiddenState(_with_int8_weights(backbone)),
                example_input={"input_ids": ids, "attention_mask": torch.ones_like(ids)},
            )
        has_bfloat16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        self._compiled = core.compile_model(
            converted,
            "CPU",
            {
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                "INFERENCE_PRECISION_HINT": "bf16" if has_bfloat16 else "f32",
                "DYNAMIC_QUANTIZATION_GROUP_SIZE": ACTIVATION_GROUP,
            },
        )
        self._own = threading.local()  # a request serves one thread at a time

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """As ``Transformer.forward`` for text: adds ``token_embeddings``, (B, T, D) float32."""
        if not hasattr(self._own, "request"):
            self._own.request = self._compiled.create_infer_request()
        inputs = (features["input_ids"], features["attention_mask"])
        output = self._own.request.infer([np.ascontiguousarray(each.numpy()) for each in inputs])
        features["token_embeddings"] = torch.from_numpy(output[0])
        return features


class _LastHiddenState(nn.Module):
    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state


class _Int8Linear(nn.Module):
    """A linear layer written the way OpenVINO recognises as compressed: int8 weights times a scale a row."""

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        scale = weight.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / 127
        self.register_buffer("weight", (weight / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().float())

    def forward(self, inputs: Tensor) -> Tensor:
        return nn.functional.linear(inputs, self.weight.to(torch.float32) * self.scale, self.bias)


def _with_int8_weights(backbone: nn.Module) -> nn.Module:
    backbone = copy.deepcopy(backbone).float().eval()
    for module in list(backbone.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                setattr(module, name, _Int8Linear(child))
    return backbone


@contextmanager
def quiet() -> Iterator[None]:
    """transformers says nothing but errors meanwhile."""
    from transformers.utils import logging as transformers_logging

    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)


def _openvino() -> Any:
    """The openvino module, imported without its telemetry, which would otherwise report every import."""
    if "openvino" not in sys.modules:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError:
        return None
    return openvino
