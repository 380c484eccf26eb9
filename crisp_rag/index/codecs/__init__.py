"""How vectors are stored.  Chosen when an index is made; ``compact`` can change it.

By default, ``auto``, the size of an index decides: ``7bit`` up to :data:`WIDE_VECTORS` vectors and ``5bit`` beyond, where
bytes count more.  What was stored before an index grew beyond that is narrowed when it is compacted.

| codec | bits a dimension | what it is for |
|---|---|---|
| ``7bit`` | 7 | one bit to look at all candidates, six more for the best of them: as good as float16, half its size |
| ``5bit`` | 5 | the same with four more |
| ``4bit`` | 4 | the same with three more |
| ``float16`` | 16 | the vectors as the encoder gives them, rounded to half precision |
| ``int8`` | 8 | nearly the same in half the space |
| ``ternary`` | 1.6 | between four bits and one |
| ``1bit`` | 1 | the smallest |
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import lru_cache

from crisp_rag.errors import InvalidInputError
from crisp_rag.index.codecs.base import Codec
from crisp_rag.index.codecs.float16 import Float16Codec
from crisp_rag.index.codecs.int8 import Int8Codec
from crisp_rag.index.codecs.onebit import OneBitCodec
from crisp_rag.index.codecs.ternary import TernaryCodec
from crisp_rag.index.codecs.twolevel import FiveBitCodec, FourBitCodec, SevenBitCodec

_CODECS: dict[str, Callable[[int], Codec]] = {
    SevenBitCodec.name: SevenBitCodec,
    FiveBitCodec.name: FiveBitCodec,
    FourBitCodec.name: FourBitCodec,
    Float16Codec.name: Float16Codec,
    Int8Codec.name: Int8Codec,
    TernaryCodec.name: TernaryCodec,
    OneBitCodec.name: OneBitCodec,
}
CODECS = tuple(_CODECS)
DEFAULT_CODEC = "auto"
FORMAT_1_CODEC = Float16Codec.name

WIDE_VECTORS = 2**23
"""Vectors up to which ``auto`` stores 7 bits a dimension: 262,144 passages of 32, which take 2.9 GB at 384 dims."""

__all__ = [
    "CODECS", "DEFAULT_CODEC", "FORMAT_1_CODEC", "WIDE_VECTORS", "Codec", "check_codec", "codec_at", "codec_for",
]  # fmt: skip


@lru_cache(maxsize=64)
def codec_for(name: str, dim: int) -> Codec:
    """One of :data:`CODECS` for vectors of that width."""
    return _CODECS[name](dim)


def codec_at(choice: str, vectors: int, there: Collection[str] = ()) -> str:
    """Which of :data:`CODECS` to store vectors with, which is the choice itself unless that is ``auto``.

    Args:
        choice: What :func:`check_codec` lets pass.
        vectors: How many the index has.
        there: The codecs of what it has: what was narrowed gains nothing from being stored wider.
    """
    if choice != DEFAULT_CODEC:
        return choice
    wide = vectors <= WIDE_VECTORS and FiveBitCodec.name not in there
    return SevenBitCodec.name if wide else FiveBitCodec.name


def check_codec(choice: str) -> str:
    """``auto`` or the name of a codec.

    Raises:
        InvalidInputError: if there is none of that name; the message lists those that there are.
    """
    choices = (DEFAULT_CODEC, *CODECS)
    if choice not in choices:
        raise InvalidInputError(f"There is no codec {choice!r}; there are {', '.join(choices)}.")
    return choice
