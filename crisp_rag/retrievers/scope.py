"""An index seen through a filter that nobody who holds the view can widen.

    sales = ScopedIndex(index, {"team": "sales"})
    sales.search("refunds", 5, {"year": 2024})     # sales passages of 2024
    sales.delete(where={})                         # every sales passage, and no other
    sales.add([Passage("p1", "Refunds ...")])      # gets {"team": "sales"}

Everything that an adapter does to an index it does through one of these, so that several tenants can share an index:
what a caller gives for one call (filters, ids, options) is added to the bound filter and never takes its place.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crisp_rag.errors import InvalidInputError
from crisp_rag.index import CrispIndex, Hit, Passage
from crisp_rag.index.types import Where, copied
from crisp_rag.retrievers.gathering import gatherer
from crisp_rag.retrievers.shared import narrow

_Filters = tuple[Where | None, ...]


@dataclass(frozen=True)
class _Ahead:
    """The answers to a batch of queries, found at once, for the calls that will ask for them one by one."""

    index: CrispIndex
    bound: Where | None
    k: int
    filters: _Filters
    hits: Mapping[str, list[Hit]]

    def has(self, scope: ScopedIndex, query: str, k: int, filters: _Filters) -> bool:
        same = self.index is scope.index and self.bound is scope.where and self.k == k and query in self.hits
        return same and len(self.filters) == len(filters) and all(a is b for a, b in zip(self.filters, filters))


_ahead: ContextVar[_Ahead | None] = ContextVar("crisp_rag_searched_ahead", default=None)


class ScopedIndex:
    """What one caller may see and touch of an index.

    Args:
        index: The index.
        where: The bound filter, copied, so that changing the dict changes nothing here; None for the whole index.

    Raises:
        FilterError: if the filter is malformed.
    """

    def __init__(self, index: CrispIndex, where: Where | None = None) -> None:
        self.index = index
        self.where = narrow(where if callable(where) else copy.deepcopy(where))
        self._marks = {} if self.where is None or callable(self.where) else _equalities(self.where)

    def narrowed(self, *filters: Where | None) -> Where | None:
        """The bound filter and these; the bound one is asked first."""
        return narrow(self.where, *filters)

    def search(self, query: str, k: int, *filters: Where | None) -> list[Hit]:
        """As :meth:`CrispIndex.search`, within the bound filter and the given ones."""
        ahead = _ahead.get()
        if ahead is not None and ahead.has(self, query, k, filters):
            # Copies: two calls of a batch may ask the same, and each may change what it gets.
            return [replace(hit, metadata=copied(hit.metadata)) for hit in ahead.hits[query]]
        return self.index.search(query, k, self.narrowed(*filters))

    async def asearch(self, query: str, k: int, *filters: Where | None) -> list[Hit]:
        """As :meth:`search`; searches that run at the same time are encoded together."""
        return await gatherer(self.index).search(self.index, query, k, self.narrowed(*filters))

    @contextlib.contextmanager
    def searched_ahead(self, queries: Sequence[str], k: int, *filters: Where | None) -> Iterator[None]:
        """Search for all queries at once; :meth:`search` for one of them inside, with the same k and filters, has it.

        Where that fails, nothing is raised here: each search says what is wrong with its own query.
        """
        found: Sequence[list[Hit]] = []
        wanted: list[str] = []
        with contextlib.suppress(Exception):
            wanted = [query for query in dict.fromkeys(queries) if isinstance(query, str) and query.strip()]
            found = self.index.search_batch(wanted, k, self.narrowed(*filters))
        hits = dict(zip(wanted, found))
        token = _ahead.set(_Ahead(self.index, self.where, k, filters, hits))
        try:
            yield
        finally:
            _ahead.reset(token)

    def get(self, ids: Sequence[str]) -> list[Passage]:
        """The passages with these ids that the bound filter keeps, in the order asked for."""
        return self.index.get(ids, self.where)

    def passages(self, *filters: Where | None) -> Iterator[Passage]:
        """Every passage within the bound filter and the given ones, in insertion order."""
        return self.index.passages(self.narrowed(*filters))

    def add(
        self,
        passages: Iterable[Passage],
        *,
        delete_ids: Iterable[str] | Callable[[], Iterable[str]] = (),
        show_progress: bool = False,
    ) -> list[str]:
        """Add passages, and delete ids, as :meth:`CrispIndex.replace`; returns the ids of what was added.

        What the bound filter asks a field to be equal to is filled in where a passage lacks the field.

        Raises:
            InvalidInputError: for a passage that the bound filter does not keep, or whose id belongs to one that it
                does not keep; nothing was added.
        """
        marked = [self._marked(passage) for passage in passages]
        return self.index.replace(delete_ids, marked, show_progress=show_progress, where=self.where)

    def delete(self, ids: Iterable[str] | None = None, where: Where | None = None) -> int:
        """As :meth:`CrispIndex.delete`, within the bound filter; one of the two arguments is needed."""
        return self.index.delete(ids, where if ids is None and where is None else self.narrowed(where))

    def copy_to(self, path: str | Path) -> Path:
        """As :meth:`CrispIndex.copy_to`.

        Raises:
            InvalidInputError: within a bound filter, because a copy has the whole index.
        """
        if self.where is not None:
            raise InvalidInputError("What has a bound filter cannot be copied: the copy would hold the whole index.")
        return self.index.copy_to(path)

    def marked(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """Metadata with what the bound filter asks for where it has nothing."""
        return {**metadata, **self._marks, **metadata}

    def _marked(self, passage: Passage) -> Passage:
        if not isinstance(passage.metadata, Mapping) or self._marks.keys() <= passage.metadata.keys():
            return passage
        return replace(passage, metadata=self.marked(passage.metadata))


def _equalities(where: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that a filter asks to be equal to one value, and the values."""
    marks: dict[str, Any] = {}
    for key, value in where.items():
        if key == "$and":
            for part in value:
                marks.update(_equalities(part))
        elif not key.startswith("$"):
            wanted = value.get("$eq") if isinstance(value, Mapping) else value
            if wanted is not None:
                marks[key] = wanted
    return marks
