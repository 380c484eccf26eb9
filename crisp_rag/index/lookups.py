"""What readers and writers both ask of the store: the live passages, those that a filter keeps, those of given ids."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crisp_rag.errors import IndexCorruptError
from crisp_rag.index.backend import SegmentView, Snapshot
from crisp_rag.index.filters import matches, parse_filter, predicate, to_sql
from crisp_rag.index.store import Store
from crisp_rag.index.types import Passage, Where, copied


def load_snapshot(store: Store) -> Snapshot:
    """Where the vectors of every passage lie, as of the newest commit.

    Raises:
        IndexCorruptError: if a passage refers to a segment that the index does not list.
    """
    with store.transaction():
        generation = store.generation()
        segments = store.segments()
        places = np.asarray(store.places(), dtype=np.int64).reshape(-1, 4)
    known = {info.id for info in segments}
    if len(places) and not set(np.unique(places[:, 0]).tolist()) <= known:
        raise IndexCorruptError(f"{store.path} refers to segments that it does not list.")
    views = []
    for info in segments:
        _, rows, starts, counts = places[places[:, 0] == info.id].T
        views.append(SegmentView(info, rows.copy(), starts.copy(), counts.copy()))
    return Snapshot(generation, tuple(views))


def matching_rows(store: Store, where: Where) -> list[int]:
    """Rows that a filter keeps, in insertion order."""
    if callable(where):
        return [record.row for record in store.scan() if where(dict(record.passage.metadata))]
    expression = parse_filter(where)
    found = store.rows_where(*to_sql(expression))
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
