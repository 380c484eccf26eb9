"""Encoders that ship whole: every weight of the backbone, a byte each.

A folder holds ``weights.safetensors`` (matrices as int8 rows with a float32 scale a row, the rest as float32),
``config.json`` (ours, with the backbone's own inside), the tokenizer's files and ``README.md``, the model card.  The fast
path multiplies in int8 with the same rows (:mod:`crisp_rag.models.acceleration`), so that it loses nothing by them.

    save_packed(encoder, folder); load_packed(folder)
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from crisp_rag.errors import EncoderError
from crisp_rag.models.encoder import Backend, CrispEncoder, build_encoder
from crisp_rag.models.masking import ContentMask
from crisp_rag.models.pooling import ClusterPooling
from crisp_rag.models.weighting import QueryTokenWeights

WEIGHTS = "weights.safetensors"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
_SCALE = ".scale"


def save_packed(encoder: CrispEncoder, folder: str | Path) -> None:
    """Write the encoder whole, its matrices rounded to a byte a weight.

    Raises:
        EncoderError: if its vectors are not pooled to clusters.
    """
    pooling = encoder.pooling_module
    if not isinstance(pooling, ClusterPooling):
        raise EncoderError(f"{encoder.name!r} is not pooled to clusters: {encoder.pooling}.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    backbone: Any = encoder.model[0].model
    tensors = packed(backbone.state_dict())
    weights = next((module for module in encoder.model if isinstance(module, QueryTokenWeights)), None)
    if weights is not None:
        tensors["query_weights"] = weights.weights.detach().half()
    (folder / WEIGHTS).write_bytes(save({name: tensor.contiguous() for name, tensor in tensors.items()}))
    with tempfile.TemporaryDirectory() as temporary:
        encoder.tokenizer.save_pretrained(temporary)
        for name in _TOKENIZER_FILES:
            shutil.copyfile(Path(temporary, name), folder / name)
    own = backbone.config.to_dict()
    config = {
        "name": encoder.name,
        "pooling": pooling.pooling_name,
        "pooling_options": pooling.options,
        "max_tokens": encoder.model.max_seq_length,
        "prompts": {task: prompt for task, prompt in encoder.model.prompts.items() if prompt},
        "content_only": any(isinstance(module, ContentMask) for module in encoder.model),
        "weights": checksum(folder / WEIGHTS),
        "backbone": {key: value for key, value in own.items() if not key.startswith("_")},
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1, default=str) + "\n", encoding="utf-8")


def load_packed(folder: str | Path, *, device: str | None = None, backend: Backend = "auto") -> CrispEncoder:
    """The encoder that :func:`save_packed` wrote.

    Raises:
        EncoderError: if a file is missing or damaged.
    """
    folder = Path(folder)
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        found = checksum(folder / WEIGHTS)
        if found != config["weights"]:
            raise EncoderError(f"{folder / WEIGHTS} is damaged: its checksum is {found}, not {config['weights']}.")
        tensors = load_file(folder / WEIGHTS)
        weights = tensors.pop("query_weights", None)
        # transformers loads from files alone: it gets the unpacked ones for as long as that takes.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
            save_file(unpacked(tensors), Path(temporary, "model.safetensors"), metadata={"format": "pt"})
            Path(temporary, "config.json").write_text(json.dumps(config["backbone"]), encoding="utf-8")
            for name in _TOKENIZER_FILES:
                shutil.copyfile(folder / name, Path(temporary, name))
            return build_encoder(
                temporary, pooling=config["pooling"], max_tokens=config["max_tokens"], name=config["name"],
                prompts=config["prompts"], content_only=config["content_only"], query_weights=weights, device=device,
                backend=backend, **config["pooling_options"],
            )  # fmt: skip
    except EncoderError:
        raise
    except Exception as error:  # safetensors and tokenizers raise error classes of their own
        raise EncoderError(f"The encoder in {folder} cannot be read: {error}") from error


def packed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Matrices as int8 rows and ``NAME.scale``, (rows, 1) float32; all else as float32."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in state.items():
        values = tensor.detach().cpu().float()
        if values.dim() == 2:
            scale = values.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / 127
            tensors[name] = (values / scale).round().to(torch.int8)
            tensors[name + _SCALE] = scale
        elif tensor.is_floating_point():
            tensors[name] = values
    return tensors


def unpacked(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The float32 tensors that :func:`packed` rounded."""
    return {
        name: tensor.float() * tensors[name + _SCALE] if name + _SCALE in tensors else tensor
        for name, tensor in tensors.items()
        if not name.endswith(_SCALE)
    }


def checksum(path: Path) -> str:
    """Of a file: blake2b, 8 bytes, in hexadecimal."""
    digest = hashlib.blake2b(digest_size=8)
    with path.open("rb") as file:
        while block := file.read(1 << 24):
            digest.update(block)
    return digest.hexdigest()
