"""What readers and writers both ask of the store: the passages that a filter keeps, and those of given ids."""

from __future__ import annotations

from collections.abc import Sequence

from crisp_rag.index.declared import declared_fields, lookup
from crisp_rag.index.filters import matches, parse_filter, predicate, to_sql
from crisp_rag.index.store import Store
from crisp_rag.index.types import Passage, Where, copied


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
