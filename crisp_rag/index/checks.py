"""What may go into an index, checked before anything is written.

Every check raises :class:`crisp_rag.errors.InvalidInputError` with the ids of what cannot be taken.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from crisp_rag.errors import InvalidInputError
from crisp_rag.index.filters import predicate
from crisp_rag.index.metadata import encode_metadata
from crisp_rag.index.segments import DTYPE
from crisp_rag.index.types import Passage, Where


def passages_from_texts(
    texts: Sequence[str],
    ids: Sequence[str] | None = None,
    metadatas: Sequence[Mapping[str, Any]] | None = None,
) -> list[Passage]:
    """A passage for each text; new random ids and empty metadata by default.

    Raises:
        InvalidInputError: if ``texts`` is one string, or the lists have different lengths.
    """
    if isinstance(texts, str):
        raise InvalidInputError("texts is a list of strings, got one string.")
    texts = list(texts)
    chosen = [uuid.uuid4().hex for _ in texts] if ids is None else list(ids)
    metadata: list[Mapping[str, Any]] = [{} for _ in texts] if metadatas is None else list(metadatas)
    for name, values in (("ids", chosen), ("metadatas", metadata)):
        if len(values) != len(texts):
            raise InvalidInputError(f"There are {len(texts)} texts and {len(values)} {name}.")
    return [Passage(id_, text, data) for id_, text, data in zip(chosen, texts, metadata, strict=True)]


def check_k(k: int) -> None:
    if not isinstance(k, int) or isinstance(k, bool) or k < 1:
        raise InvalidInputError(f"k is a whole number of at least 1, got {k!r}.")


def check_query(query: str) -> None:
    if not isinstance(query, str) or not query.strip():
        raise InvalidInputError("A query needs words: got an empty or blank one.")
    try:
        query.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"The query holds characters that are not Unicode: {error}.") from error


def check_ids(ids: Iterable[str]) -> list[str]:
    """The ids as a list.

    Raises:
        InvalidInputError: for one string, which would be taken apart, or an id that is no string.
    """
    if isinstance(ids, str):
        raise InvalidInputError("ids is a list of strings, got one string.")
    listed = list(ids)
    for id_ in listed:
        if not isinstance(id_, str):
            raise InvalidInputError(f"An id is a string, got {id_!r}.")
    return listed


def check_passages(passages: Sequence[Passage], *, repeats: bool = False) -> None:
    """Refuse what is no passage, has no text or cannot be stored, and, unless ``repeats``, ids given twice."""
    seen: set[str] = set()
    blank, twice = [], []
    for number, passage in enumerate(passages):
        if not isinstance(passage, Passage):
            raise InvalidInputError(f"Passage {number} is a {type(passage).__name__}, not a Passage.")
        if not isinstance(passage.id, str) or not passage.id:
            raise InvalidInputError(f"The id of passage {number} is a non-empty string, got {passage.id!r}.")
        if passage.id in seen and not repeats:
            twice.append(passage.id)
        seen.add(passage.id)
        if not isinstance(passage.text, str) or not passage.text.strip() or not isinstance(passage.context, str):
            blank.append(passage.id)
            continue
        if not isinstance(passage.metadata, Mapping):
            raise InvalidInputError(f"The metadata of passage {passage.id!r} is a dict, got {passage.metadata!r}.")
        try:
            (passage.id + passage.text + passage.context + encode_metadata(passage)).encode("utf-8")
        except UnicodeEncodeError as error:
            raise InvalidInputError(f"Passage {passage.id!r} holds characters that are not Unicode: {error}.") from error
    if twice:
        raise InvalidInputError(f"Ids given twice in one batch: {_some(twice)}.")
    if blank:
        raise InvalidInputError(f"Passages without text, or whose text is no string: {_some(blank)}. Nothing was added.")


def check_within(passages: Sequence[Passage], where: Where | None, *, there: bool = False) -> None:
    """Refuse passages that a writer's filter does not keep; ``there``: they are in the index, about to be replaced."""
    if where is None:
        return
    keeps = predicate(where)
    if outside := [passage.id for passage in passages if not keeps(dict(passage.metadata))]:
        if there:
            raise InvalidInputError(f"Ids that are taken by passages outside of the bound filter: {_some(outside)}.")
        raise InvalidInputError(f"Passages that the bound filter does not keep: {_some(outside)}. Nothing was added.")


def check_vectors(passages: Sequence[Passage], vectors: Sequence[np.ndarray], dim: int) -> list[np.ndarray]:
    if len(vectors) != len(passages):
        raise InvalidInputError(f"There are {len(passages)} passages and vectors for {len(vectors)}.")
    blocks, problems = [], []
    for passage, array in zip(passages, vectors, strict=True):
        block = np.asarray(array)
        problem = vector_problem(block, dim)
        if problem is None and float(np.abs(block).max()) > float(np.finfo(DTYPE).max):
            problem = "values beyond float16"
        if problem:
            problems.append(f"{passage.id!r}: {problem}")
        blocks.append(block)
    if problems:
        raise InvalidInputError(f"Vectors that cannot be stored: {'; '.join(problems[:5])}. Nothing was added.")
    return blocks


def vector_problem(array: np.ndarray, dim: int) -> str | None:
    if array.ndim != 2 or array.shape[1] != dim or len(array) == 0:
        return f"vectors of shape (n, {dim}) with n >= 1 are needed, got {array.shape}"
    if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        return "vectors hold NaN, infinity or no numbers"
    return None


def _some(values: Sequence[str]) -> str:
    return ", ".join(map(repr, values[:5])) + (f" and {len(values) - 5} more" if len(values) > 5 else "")
