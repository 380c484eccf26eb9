"""The value objects that pass between the index, the adapters and the pipelines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from crisp_rag.index.planner import SearchInfo

Metadata = Mapping[str, Any]
Where = Mapping[str, Any] | Callable[[dict[str, Any]], bool]
"""A filter: the ``$``-operator dict of :mod:`crisp_rag.index.filters`, or a predicate over metadata."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of text that the index can return.

    Args:
        id: Unique in the index; adding an id that exists replaces it.
        text: What users see.
        metadata: JSON-serialisable values, for filters and for the reader of a hit.
        context: Words encoded in front of the text and never shown, such as a title or a heading path.
    """

    id: str
    text: str
    metadata: Metadata = field(default_factory=dict)
    context: str = ""

    @property
    def encoded_text(self) -> str:
        """The text that the encoder sees: the context, a line break, the text."""
        return f"{self.context}\n{self.text}" if self.context else self.text


def copied(metadata: Metadata) -> dict[str, Any]:
    """A copy of JSON-like metadata that shares no dict and no list with it."""
    return {key: _copied(value) for key, value in metadata.items()}


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(inner) for key, inner in value.items()}
    return [_copied(inner) for inner in value] if isinstance(value, list) else value


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage found by a search.

    Args:
        id: The passage's id.
        score: MaxSim: the sum over query vectors of their best inner product with a passage vector.
        text: The passage's text.
        metadata: The passage's metadata, a copy that the caller may change.
        relevance: The score divided by the largest one the query could get, the sum of the norms of
            its vectors; in [-1, 1] for encoders with unit document vectors, comparable across queries.
        context: The passage's context.
    """

    id: str
    score: float
    text: str
    metadata: dict[str, Any]
    relevance: float = 0.0
    context: str = ""


_NOTHING = SearchInfo("exact", 0, 0, 0)


class Hits(list[Hit]):
    """The hits of one query, best first: a list that also says how they were found.

    Attributes:
        search: Whether everything was scored or candidates only, and how many.
    """

    def __init__(self, hits: Iterable[Hit] = (), search: SearchInfo = _NOTHING) -> None:
        super().__init__(hits)
        self.search = search


@dataclass(frozen=True, slots=True)
class IndexStats:
    """Figures about an index.  Sizes are bytes; ``bytes_vectors`` is what the segment files take.

    ``codec`` is what was chosen, ``auto`` for a codec that goes by the size of the index; ``codecs`` are those that its
    vectors are stored with.

    ``search`` is how a search for ten hits goes about it, ``exact`` or ``approximate``; ``passages_in_lists`` how many
    passages an approximate search finds through its lists: the others are looked at one by one.
    """

    path: str
    passages: int
    vectors: int
    vectors_per_passage: float
    bytes_vectors: int
    bytes_on_disk: int
    encoder: str
    fingerprint: str
    dim: int
    pooling: str
    codec: str
    codecs: tuple[str, ...]
    search: str
    passages_in_lists: int
    format_version: int

    def to_dict(self) -> dict[str, Any]:
        """The same as a dict."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Compaction:
    """What compacting an index gave back: its bytes on disk before and after."""

    bytes_before: int
    bytes_after: int
