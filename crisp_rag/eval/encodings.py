"""Vectors that were made once need not be made again: a folder of them, by encoder and text.

    cache = EncodingCache("out/encodings")
    encoded = cache.encode(encoder.fingerprint, texts, encoder.encode_document)
    encoded.vectors, encoded.seconds         # the seconds that it took when it was really encoded

A file holds the vectors of one batch; its name is a checksum of the encoder's fingerprint and of every text, so that
neither another encoder nor a changed text can meet old vectors.
"""

from __future__ import annotations

import hashlib
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from crisp_rag.atomic import replacing


@dataclass(frozen=True, slots=True)
class Encoded:
    """Vectors of some texts.

    Args:
        vectors: A (vectors, dim) array a text.
        seconds: Wall clock of encoding them, also where that was in an earlier run.
        cached: Whether they were read and not made.
    """

    vectors: list[np.ndarray]
    seconds: float
    cached: bool


class EncodingCache:
    """Encodings in a folder.

    Args:
        folder: Made when the first batch is written; None keeps nothing.
    """

    def __init__(self, folder: str | Path | None) -> None:
        self.folder = None if folder is None else Path(folder)

    def encode(
        self, fingerprint: str, texts: Sequence[str], encode: Callable[[list[str]], Any], dtype: Any = np.float16
    ) -> Encoded:
        """The vectors of texts, read where they were encoded before.

        Args:
            fingerprint: Equal for encoders that give equal vectors.
            texts: A batch; the same one, in the same order, finds its vectors again.
            encode: Gives a (vectors, dim) or (dim,) array a text.
            dtype: What they are kept as; an index that keeps float16 needs no more of them.
        """
        path = None if self.folder is None else self._path(fingerprint, texts, dtype)
        found = None if path is None else _read(path)
        if found is not None:
            return found
        started = time.perf_counter()
        vectors = [np.atleast_2d(np.asarray(each)) for each in encode(list(texts))]
        encoded = Encoded(vectors, time.perf_counter() - started, cached=False)
        if path is not None and vectors:
            _write(path, encoded, dtype)
        return encoded

    def _path(self, fingerprint: str, texts: Sequence[str], dtype: Any) -> Path:
        assert self.folder is not None
        digest = hashlib.blake2b(f"{fingerprint}\0{np.dtype(dtype).name}\0".encode(), digest_size=16)
        for text in texts:
            digest.update(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest())
        owner = hashlib.blake2b(fingerprint.encode(), digest_size=8).hexdigest()
        return self.folder / owner / f"{digest.hexdigest()}.npz"


def _read(path: Path) -> Encoded | None:
    """None where there is no such file, or a damaged one, which is then made anew."""
    try:
        with np.load(path, allow_pickle=False) as held:
            vectors, counts, seconds = held["vectors"], held["counts"], float(held["seconds"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return Encoded(np.split(vectors, counts.cumsum()[:-1]), seconds, cached=True)


def _write(path: Path, encoded: Encoded, dtype: Any) -> None:
    counts = np.array([len(each) for each in encoded.vectors], dtype=np.int64)
    with replacing(path) as file:
        np.savez(file, vectors=np.concatenate(encoded.vectors).astype(dtype), counts=counts, seconds=encoded.seconds)
