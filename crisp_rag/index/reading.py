"""Everything that reads an index: searches, look-ups, and all of its passages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from crisp_rag.errors import IndexCorruptError, InvalidInputError
from crisp_rag.index.checks import check_ids, check_k, check_query, vector_problem
from crisp_rag.index.filters import check_filter
from crisp_rag.index.lookups import matching_rows, passages_of
from crisp_rag.index.planner import check_recall
from crisp_rag.index.snapshots import Snapshot
from crisp_rag.index.types import Hit, Hits, Passage, Where, copied

if TYPE_CHECKING:
    from crisp_rag.index.handle import Handle
    from crisp_rag.index.store import Record
    from crisp_rag.models.encoder import Encoder

_READ_AT_ONCE = 1_000


class Readable(ABC):
    """The reading half of :class:`CrispIndex`."""

    @property
    @abstractmethod
    def encoder(self) -> Encoder:
        """What turns queries into vectors."""

    @abstractmethod
    def _handle(self) -> Handle:
        """What this process holds of the index, checked."""

    def get(self, ids: Sequence[str], where: Where | None = None) -> list[Passage]:
        """The passages with these ids, in the order asked for; missing ones, and those a filter drops, are left out."""
        return passages_of(self._handle().store, check_ids(ids), where)

    def passages(self, where: Where | None = None) -> Iterator[Passage]:
        """Every passage, or every one that a filter keeps, in insertion order."""
        yield from _passages(self._handle(), where)

    def search(
        self,
        query: str,
        k: int = 10,
        where: Where | None = None,
        *,
        exact: bool = False,
        target_recall: float | None = None,
    ) -> Hits:
        """The passages that answer a query best.

        Args:
            query: Plain words.
            k: How many hits at most; k matching passages give k hits.
            where: A filter, applied before the cut; see :mod:`crisp_rag.index.filters`.
            exact: Score every passage that the filter keeps, however many there are.
            target_recall: The share of the true best ten to find, .99 by default.  A small index is searched exactly
                in any case.

        Returns:
            Hits, best first, ties in insertion order; empty for an empty index.  Their ``search`` says how they were
            found.

        Raises:
            InvalidInputError: for a blank query, k below 1 or a target that is no share.
            FilterError: for a malformed filter.
        """
        return self.search_batch([query], k, where, exact=exact, target_recall=target_recall)[0]

    def search_batch(
        self,
        queries: Sequence[str],
        k: int = 10,
        where: Where | None = None,
        *,
        exact: bool = False,
        target_recall: float | None = None,
    ) -> list[Hits]:
        """As :meth:`search` for several queries at once, which is faster than one by one."""
        handle = self._handle()
        if isinstance(queries, str):
            raise InvalidInputError("queries is a list of strings, got one string.")
        check_k(k)
        for query in queries:
            check_query(query)
        check_filter(where)
        check_recall(target_recall)
        if not queries or not handle.current().passages:
            return [Hits() for _ in queries]
        vectors = self.encoder.encode_query(list(queries))
        return self.search_vectors(vectors, k, where, exact=exact, target_recall=target_recall)

    def search_vectors(
        self,
        queries: Sequence[np.ndarray],
        k: int = 10,
        where: Where | None = None,
        *,
        exact: bool = False,
        target_recall: float | None = None,
    ) -> list[Hits]:
        """As :meth:`search_batch` for queries that are encoded already, a (vectors, dim) array each."""
        handle = self._handle()
        check_k(k)
        arrays = [np.asarray(query, dtype=np.float32) for query in queries]
        for number, array in enumerate(arrays):
            if problem := vector_problem(array, int(handle.meta["dim"])):
                raise InvalidInputError(f"Query {number}: {problem}.")
        check_filter(where)
        recall = check_recall(target_recall)
        if not arrays:
            return []
        return _search(handle, arrays, k, where, exact=exact, recall=recall)


def _search(
    handle: Handle, queries: Sequence[np.ndarray], k: int, where: Where | None, *, exact: bool, recall: float
) -> list[Hits]:
    """The hits of checked queries; see :meth:`CrispIndex.search_vectors`.

    Args:
        handle: The index.
        queries: (vectors, dim) float32 arrays.
        k: How many hits at most.
        where: A checked filter.
        exact: Score everything.
        recall: The share of the true best ten to find.
    """
    store = handle.store

    def attempt(snapshot: Snapshot) -> list[Hits] | None:
        def look_up() -> np.ndarray | None:
            assert where is not None
            with store.transaction():
                if store.generation() != snapshot.generation:
                    return None
                return np.asarray(sorted(matching_rows(store, where)), dtype=np.int64)

        allowed = None
        if where is not None and (allowed := handle.filtered.of(snapshot.generation, where, look_up)) is None:
            return None
        found = handle.backend.search(snapshot, queries, k, allowed, exact=exact, target_recall=recall)
        records = store.records(sorted({row for hits, _ in found for row, _ in hits}))
        if any(row not in records for hits, _ in found for row, _ in hits):
            if store.generation() == snapshot.generation:
                raise IndexCorruptError(f"{store.path} lacks passages that it lists; restore it from a copy.")
            return None
        bounds = [float(np.linalg.norm(query, axis=1).sum()) or 1.0 for query in queries]
        return [
            Hits([_hit(records[row], score, bound) for row, score in hits], info)
            for (hits, info), bound in zip(found, bounds, strict=True)
        ]

    return handle.retrying(attempt)


def _passages(handle: Handle, where: Where | None) -> Iterator[Passage]:
    """Every passage that a filter keeps, in insertion order; those that go meanwhile are left out."""
    with handle.store.transaction():
        rows = matching_rows(handle.store, where if where is not None else {})
    for first in range(0, len(rows), _READ_AT_ONCE):
        part = rows[first : first + _READ_AT_ONCE]
        records = handle.store.records(part)
        yield from (records[row].passage for row in part if row in records)


def _hit(record: Record, score: float, bound: float) -> Hit:
    passage = record.passage
    return Hit(passage.id, score, passage.text, copied(passage.metadata), score / bound, passage.context)
