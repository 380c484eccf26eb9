"""Metadata as JSON: what can be stored, and is given back as it was."""

from __future__ import annotations

import json
from typing import Any

from crisp_rag.errors import InvalidInputError
from crisp_rag.index.types import Passage

MAX_DEPTH = 64
"""Lists and dicts inside of each other.  Readers walk down them, and Python has an end to that."""


def encode_metadata(passage: Passage) -> str:
    """A passage's metadata as JSON.

    Raises:
        InvalidInputError: if JSON cannot hold it and give it back; the message names the passage and the key.
    """
    try:
        metadata = dict(passage.metadata)
        if not all(isinstance(key, str) for key in metadata):
            raise TypeError("keys must be strings")
        for key, value in metadata.items():
            _check(key, value, 1)
        return json.dumps(metadata, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except InvalidInputError as error:
        raise InvalidInputError(f"The metadata of passage {passage.id!r} {error}") from None
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"The metadata of passage {passage.id!r} cannot be stored as JSON: {error}.") from error
    except RecursionError as error:
        raise InvalidInputError(f"The metadata of passage {passage.id!r} is nested too deep to be stored.") from error


def decode_metadata(id_: str, said: str) -> dict[str, Any]:
    """The metadata of a stored passage.

    Raises:
        InvalidInputError: if it is nested so deep that it cannot be read; former versions took that.
    """
    try:
        found: dict[str, Any] = json.loads(said)
    except RecursionError as error:
        raise InvalidInputError(f"The metadata of passage {id_!r} is nested too deep to be read: delete it.") from error
    return found


def _check(field: str, value: Any, depth: int) -> None:
    """Refuse what is nested too deep, and keys that are no strings: JSON would turn 1, True and None into strings in
    silence."""
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("keys must be strings")
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return
    if depth > MAX_DEPTH:
        raise InvalidInputError(f"is nested too deep to be stored under {field!r}: {MAX_DEPTH} levels at most.")
    for inner in value:
        if isinstance(inner, (dict, list, tuple)):
            _check(field, inner, depth + 1)
