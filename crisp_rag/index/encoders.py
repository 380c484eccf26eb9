"""The encoder that an index was built with: found again by what the index says, and told apart from others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from crisp_rag.errors import EncoderError, EncoderMismatchError

if TYPE_CHECKING:
    from crisp_rag.models.encoder import Encoder


def load_encoder(source: str | None) -> Encoder:
    """The encoder of that name that is on this machine, the default one without a name; nothing is fetched."""
    from crisp_rag.models.encoder import load_encoder as load

    return load(source, local=True)


def encoder_of(path: Path, meta: Mapping[str, str]) -> Encoder:
    """The encoder that an index names, from this machine: nobody is called because a file says so.

    Raises:
        EncoderMismatchError: if it is not here, or what is here is not what the index was built with.
    """
    source = meta["encoder_source"]
    if not source:
        raise EncoderMismatchError(
            f"{path} was built with {meta['encoder']!r}, which has no path to load it from: "
            "pass encoder= when you open the index."
        )
    try:
        encoder = load_encoder(source)
    except EncoderError as error:
        raise EncoderMismatchError(
            f"{path} was built with the encoder {source!r}, which is not on this machine or cannot be loaded ({error}): "
            "pass encoder= when you open the index."
        ) from error
    check_encoder(path, meta, encoder)
    return encoder


def check_encoder(path: Path, meta: Mapping[str, str], encoder: Encoder) -> None:
    """See that an encoder gives the vectors that an index was built with.

    Raises:
        EncoderMismatchError: naming both, if it does not.
    """
    made_with = meta["fingerprint"]
    if made_with == encoder.fingerprint or made_with in getattr(encoder, "former_fingerprints", ()):
        return
    raise EncoderMismatchError(
        f"{path} was built with {meta['encoder']!r} ({meta['pooling']}, {made_with[:12]}) and cannot be used with "
        f"{encoder.name!r} ({encoder.pooling}, {encoder.fingerprint[:12]}): "
        "pass the encoder it was built with, or index again."
    )
