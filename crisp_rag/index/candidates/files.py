"""The lists in one file, with a header that says what is in it and a checksum over all of it.

The file is a cache: whoever finds it missing, damaged or of another kind makes a new one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from crisp_rag.errors import IndexCorruptError
from crisp_rag.index.candidates.lists import CandidateLists
from crisp_rag.index.plain_files import read_plain
from crisp_rag.index.segments import checksum_of

CURRENT = "current.json"
_KIND = 3
"""To be raised when the arrays change, or the efforts whose recalls are kept."""
_NAME = re.compile(r"[0-9a-f]{32}\.lists")
_ARRAYS = ("rows", "centroids", "steps", "borders", "passages", "numbers")


def save(folder: Path, lists: CandidateLists, generation: int) -> None:
    """Write the lists, and make them the current ones in one step."""
    folder.mkdir(exist_ok=True)
    name = f"{uuid.uuid4().hex}.lists"
    arrays: dict[str, Any] = {}
    try:
        with (folder / name).open("xb") as file:
            for key in _ARRAYS:
                array = np.ascontiguousarray(getattr(lists, key))
                array = array.astype(array.dtype.newbyteorder("<"), copy=False)
                file.write(b"\0" * (-file.tell() % 64))
                arrays[key] = {"offset": file.tell(), "dtype": array.dtype.str, "shape": array.shape}
                file.write(array.tobytes())
            file.flush()
            os.fsync(file.fileno())
        said = {
            "kind": _KIND, "file": name, "checksum": checksum_of(folder / name), "codec": lists.codec,
            "recalls": lists.recalls, "generation": generation, "arrays": arrays,
        }  # fmt: skip
        said["checksum_of_this"] = _digest(said)
        beside = folder / f"{name}.json"
        beside.write_text(json.dumps(said), encoding="utf-8")
        os.replace(beside, folder / CURRENT)
    except BaseException:
        (folder / name).unlink(missing_ok=True)
        (folder / f"{name}.json").unlink(missing_ok=True)
        raise
    sweep(folder, name)


def load(folder: Path, generation: int) -> CandidateLists | None:
    """The current lists, None where there are none that can be trusted.

    Args:
        folder: Where they lie.
        generation: That of the index; lists of a later one belong to another life of it.
    """
    try:
        said = json.loads(read_plain(folder / CURRENT))
        checksum = said.pop("checksum_of_this")
        if said["kind"] != _KIND or checksum != _digest(said) or said["generation"] > generation:
            return None
        if not _NAME.fullmatch(said["file"]):
            return None
        path = folder / said["file"]
        if checksum_of(path) != said["checksum"]:
            return None
        data = np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))
        rows, centroids, steps, borders, passages, numbers = (_array(data, **said["arrays"][key]) for key in _ARRAYS)
        # The centroids are read whole by every search: in memory rather than in the map, of which torch would warn.
        return CandidateLists(
            rows, centroids.copy(), steps.copy(), borders, passages, numbers, said["codec"], tuple(said["recalls"])
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError, IndexCorruptError):
        return None


def sweep(folder: Path, keep: str) -> None:
    """Remove older lists and what interrupted writes left; whoever reads them still has them mapped."""
    for path in folder.glob("*.lists*"):
        if path.name != keep:
            try:
                path.unlink(missing_ok=True)
            except OSError:  # in use, where the platform minds
                continue


def _array(data: np.ndarray, offset: int, dtype: str, shape: list[int]) -> np.ndarray:
    count = int(np.prod(shape))
    return data[offset : offset + count * np.dtype(dtype).itemsize].view(dtype).reshape(shape)


def _digest(said: dict[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(said, sort_keys=True).encode(), digest_size=16).hexdigest()
