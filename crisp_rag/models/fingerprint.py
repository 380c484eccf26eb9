"""Fingerprints of encoders: equal ones give equal vectors, so an index can tell whether it was built with this encoder.

A fingerprint covers the weights, every setting of the pipeline, the backbone's configuration (its heads, activation,
epsilons) and the tokenizer: its vocabulary, its merges, and what it makes of texts that tell tokenizers apart.  What
only names the versions of libraries, or says how the same numbers are computed, is left out, so that an upgrade of a
library changes no fingerprint.

``former`` is the fingerprint that versions before 0.2 wrote into an index: weights and pipeline alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import torch
from sentence_transformers import MultiVectorEncoder

from crisp_rag.models import clustering
from crisp_rag.models.pooling import ClusterPooling

_IGNORED = frozenset((
    "architectures", "attn_implementation", "auto_map", "dtype", "finetuning_task", "gradient_checkpointing", "id2label",
    "label2id", "name_or_path", "num_labels", "output_attentions", "output_hidden_states", "problem_type", "return_dict",
    "tokenizer_class", "torch_dtype", "torchscript", "transformers_version", "use_cache",
))  # fmt: skip
"""Settings of a backbone that change no vector: names, versions, types of storage, and other heads than ours."""

_PROBES = (
    "The QUICK brown fox's 1,234.56 jumps -- over: it (won't) stop; e-mail a_b@c.org!",
    "  two  spaces\tand\na line ",
    "\u00c4rger na\u00efve \u0141\u00f3d\u017a \u0130stanbul \u03a3\u0399\u03a3 \ufb01ne \uff21\uff11 e\u0301",
    "\u6771\u4eac \u3072\u3089 \u30ab\u30bf \ud55c\uad6d \u0627\u0644 \u05e2\u05d1 \u0939\u093f \u0e44\u0e17\u0e22",
    "\U0001f642 \U0001f469\u200d\U0001f467 \u20ac \u00bd \u00b2 \u201cquoted\u201d \u2026 \u2014 \u00a0x\u200by\u00adz",
    "antidisestablishmentarianism supercalifragilisticexpialidocious " + "x" * 120,
    "http://example.org/a?b=c&d=%20 C:\\dir x=y+z*2 #tag @name <b>bold</b> [CLS] [SEP] [MASK] <s> </s>",
    "a",
    "A",
    ".",
    "",
)
"""Texts that tell tokenizers apart: letters' case, accents, joined and wide letters, scripts, signs, long words."""


def fingerprint(model: MultiVectorEncoder) -> str:
    """Hex digest of all that decides the vectors of a pipeline."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(former(model).encode())
    for said in (*_configurations(model), _tokenizer(model.tokenizer)):
        digest.update(json.dumps(said, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def former(model: MultiVectorEncoder) -> str:
    """Hex digest of the weights and of the settings of the pipeline's modules."""
    digest = hashlib.blake2b(digest_size=16)
    for key, tensor in sorted(model.state_dict().items()):
        digest.update(key.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    for module in model:
        settings = {key: getattr(module, key, None) for key in getattr(module, "config_keys", [])}
        if isinstance(module, ClusterPooling):
            settings["version"] = clustering.VERSION
        digest.update(json.dumps([type(module).__name__, settings], sort_keys=True, default=str).encode())
    digest.update(json.dumps([model.max_seq_length, model.prompts], sort_keys=True).encode())
    return digest.hexdigest()


def _configurations(model: MultiVectorEncoder) -> Iterator[Any]:
    """The settings of every backbone in the pipeline that differ from its kind's own, which an upgrade may add to."""
    for module in model:
        config: Any = getattr(getattr(module, "model", None), "config", None) or getattr(module, "config", None)
        if hasattr(config, "to_diff_dict"):
            yield [type(config).__name__, _without_ignored(config.to_diff_dict())]


def _without_ignored(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {
        str(key): _without_ignored(inner)
        for key, inner in value.items()
        if key not in _IGNORED and not str(key).startswith("_") and inner is not None
    }


def _tokenizer(tokenizer: Any) -> Any:
    """What a tokenizer does: its words, and the ids of texts.  How a library writes it down may change between versions."""
    if not hasattr(tokenizer, "get_vocab"):
        return type(tokenizer).__name__
    ids = [_ids(tokenizer, text) for text in _PROBES]
    special = [getattr(tokenizer, f"{name}_token_id", None) for name in ("pad", "unk", "cls", "sep", "mask", "bos", "eos")]
    return [
        sorted(tokenizer.get_vocab().items()),
        _merges(tokenizer),
        special,
        getattr(tokenizer, "padding_side", None),
        ids,
    ]


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=True, truncation=False, verbose=False)["input_ids"])


def _merges(tokenizer: Any) -> Any:
    """The merges of a byte-pair tokenizer, the scores of a unigram one."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    model = json.loads(backend.to_str())["model"]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model.get("merges") or ()]
    vocabulary = model.get("vocab")
    return [model.get("type"), merges, vocabulary if isinstance(vocabulary, list) else None]
