"""What readers and writers both ask of the store: the passages that a filter keeps, and those of given ids."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from crisp_rag.index.declared import declared_fields, lookup
from crisp_rag.index.filter_keys import key_of
from crisp_rag.index.filters import matches, parse_filter, predicate, to_sql
from crisp_rag.index.store import Store
from crisp_rag.index.types import Passage, Where, copied

_KEPT_ROWS = 1 << 22
"""Rows that are kept of all filters together: 32 MB."""


class FilteredRows:
    """The rows that filters kept, for as long as nobody changes the index: most searches repeat a filter, a tenant's say."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._generation = -1
        self._rows: OrderedDict[Hashable, np.ndarray] = OrderedDict()

    def of(self, generation: int, where: Where, look_up: Callable[[], np.ndarray | None]) -> np.ndarray | None:
        """The sorted int64 rows of a filter: those that are known, else what ``look_up`` finds, None where it finds none.

        Those that were used longest ago go.
        """
        name = key_of(where)
        with self._guard:
            if generation == self._generation and name in self._rows:
                self._rows.move_to_end(name)
                return self._rows[name]
        rows = look_up()
        if rows is None or name is None:
            return rows
        with self._guard:
            if generation != self._generation:
                self._generation = generation
                self._rows.clear()
            self._rows[name] = rows
            while len(self._rows) > 1 and sum(map(len, self._rows.values())) > _KEPT_ROWS:
                self._rows.popitem(last=False)
        return rows


def matching_rows(store: Store, where: Where) -> list[int]:
    """Rows that a filter keeps, in insertion order."""
    if callable(where):
        return [record.row for record in store.scan() if where(dict(record.passage.metadata))]
    expression = parse_filter(where)
    found = store.rows_where(*to_sql(expression), lookup(expression, declared_fields(store)))
    doubtful = store.records([row for row, has_nul in found if has_nul])
    return [row for row, has_nul in found if not has_nul or matches(expression, doubtful[row].passage.metadata)]


def passages_of(store: Store, ids: Sequence[str], where: Where | None = None) -> list[Passage]:
    """The passages with these ids, in the order asked for; missing ones, and those a filter drops, are left out."""
    found = store.by_id(ids)
    passages = [found[id_].passage for id_ in ids if id_ in found]
    if where is None:
        return passages
    keeps = predicate(where)
    return [passage for passage in passages if keeps(copied(passage.metadata))]
