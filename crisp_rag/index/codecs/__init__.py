"""How vectors are stored.  An index has one codec, chosen when it is made; ``compact`` can change it.

| codec | bits a dimension | what it is for |
|---|---|---|
| ``5bit`` | 5 | the default: one bit to look at all candidates, four more for the best of them |
| ``4bit`` | 4 | the same with three more |
| ``7bit`` | 7 | the same with six more: hardly less than float16 finds, in half its space and time |
| ``float16`` | 16 | the vectors as the encoder gives them, rounded to half precision |
| ``int8`` | 8 | nearly the same in half the space |
| ``ternary`` | 1.6 | between the default and one bit |
| ``1bit`` | 1 | the smallest |
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from crisp_rag.errors import InvalidInputError
from crisp_rag.index.codecs.base import Codec
from crisp_rag.index.codecs.float16 import Float16Codec
from crisp_rag.index.codecs.int8 import Int8Codec
from crisp_rag.index.codecs.onebit import OneBitCodec
from crisp_rag.index.codecs.ternary import TernaryCodec
from crisp_rag.index.codecs.twolevel import FiveBitCodec, FourBitCodec, SevenBitCodec

_CODECS: dict[str, Callable[[int], Codec]] = {
    FiveBitCodec.name: FiveBitCodec,
    FourBitCodec.name: FourBitCodec,
    SevenBitCodec.name: SevenBitCodec,
    Float16Codec.name: Float16Codec,
    Int8Codec.name: Int8Codec,
    TernaryCodec.name: TernaryCodec,
    OneBitCodec.name: OneBitCodec,
}
CODECS = tuple(_CODECS)
DEFAULT_CODEC = FiveBitCodec.name
FORMAT_1_CODEC = Float16Codec.name

__all__ = ["CODECS", "DEFAULT_CODEC", "FORMAT_1_CODEC", "Codec", "check_codec", "codec_for"]


@lru_cache(maxsize=64)
def codec_for(name: str, dim: int) -> Codec:
    """The codec of that name for vectors of that width.

    Raises:
        InvalidInputError: if there is none; the message lists those that there are.
    """
    return _CODECS[check_codec(name)](dim)


def check_codec(name: str) -> str:
    """The name of a codec.

    Raises:
        InvalidInputError: if there is none of that name; the message lists those that there are.
    """
    if name not in CODECS:
        raise InvalidInputError(f"There is no codec {name!r}; there are {', '.join(CODECS)}.")
    return name
