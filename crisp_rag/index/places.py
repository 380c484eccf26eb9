"""Where the vectors of every passage lie: read fast, and checked without reading the passages.

``segment_places`` holds one line a segment: how many live passages and vectors it has, a sum over a number that each
passage's place gives, and a count of its changes.  Triggers keep it, so that no writer can forget to.  A reader takes
the places from an index that covers them, without touching the passages' pages; compares them with the sum, so that
an altered page cannot send it to the wrong vectors; and reads again only the segments that have changed.

The number of a place is ``f(f(row, start, count))`` with f linear and then squared, modulo the prime 2^31 - 1: SQL
and numpy both compute it in 64 bits, and exchanging two places changes the sum.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from crisp_rag.errors import IndexCorruptError
from crisp_rag.index.schema import FACTORS, PLACES, PRIME, statements
from crisp_rag.index.segments import SegmentInfo
from crisp_rag.index.snapshots import SegmentView, Snapshot
from crisp_rag.index.store import Store

_PLACE = np.dtype([("row", np.int64), ("start", np.int64), ("count", np.int64)])
_BUILD = PLACES

_PARTS = (
    "segment_places", "passages_places",
    "segment_added", "segment_dropped", "passage_added", "passage_deleted", "passage_moved",
)  # fmt: skip


def built(store: Store) -> bool:
    """Whether the index has the table; one that no newer version has written to yet has not.

    Raises:
        IndexCorruptError: if it had one.
    """
    marks = ",".join("?" * len(_PARTS))
    with store.guarded():
        found = store.connection.execute(f"SELECT COUNT(*) FROM sqlite_master WHERE name IN ({marks})", _PARTS).fetchone()[0]
    if found != (0 if store.setting("places") is None else len(_PARTS)):
        raise IndexCorruptError(f"{store.path} was altered: it lost where its passages lie; restore it from a copy.")
    return bool(found)


def build(store: Store) -> None:
    """Make the table and what keeps it, where they are missing; called by a writer."""
    if not built(store):
        with store.transaction(write=True) as connection:
            for statement in statements(_BUILD):
                connection.execute(statement)
            store.set_meta({"places": "1"})


def load_snapshot(store: Store, before: Snapshot | None = None) -> Snapshot:
    """The live passages as of the newest commit.

    Args:
        before: An older snapshot, from which the views of unchanged segments are taken.

    Raises:
        IndexCorruptError: if a passage refers to a segment that the index does not list, or places were altered.
    """
    known = {view.info.id: view for view in before.views} if before is not None else {}
    with store.transaction() as connection:
        generation = store.generation()
        segments = store.segments()
        said = dict[int, tuple[int, int, int, int]]()
        if built(store):
            lines = connection.execute("SELECT segment, passages, vectors, checksum, changes FROM segment_places")
            said = {segment: tuple(rest) for segment, *rest in lines}
            if set(said) != {info.id for info in segments}:
                raise IndexCorruptError(f"{store.path} was altered: its segments differ from where its passages lie.")
        views = tuple(_view(store, info, said.get(info.id), known) for info in segments)
    return Snapshot(generation, views)


def _view(
    store: Store, info: SegmentInfo, said: tuple[int, int, int, int] | None, known: Mapping[int, SegmentView]
) -> SegmentView:
    old = known.get(info.id)
    if said is not None and old is not None and old.changes == said[-1]:
        return old
    cursor = store.connection.execute("SELECT row, start, count FROM passages WHERE segment = ? ORDER BY start", (info.id,))
    try:
        places = np.fromiter(cursor, dtype=_PLACE)
    except (TypeError, ValueError, OverflowError) as error:
        raise IndexCorruptError(f"{store.path} was altered: a place is no number; restore it from a copy.") from error
    view = SegmentView(info, places["row"].copy(), places["start"].copy(), places["count"].copy(), said[-1] if said else -1)
    if said is not None and said[:-1] != (len(places), view.vectors, checksum(view)):
        raise IndexCorruptError(
            f"{store.path} was altered: where its passages lie fails its checksum; restore it from a copy."
        )
    _check_bounds(store, view)
    return view


def _check_bounds(store: Store, view: SegmentView) -> None:
    if len(view.rows) and (
        int(view.starts.min()) < 0
        or int(view.counts.min()) < 1
        or bool((view.counts > view.info.vectors).any())
        or bool((view.starts > view.info.vectors - view.counts).any())
    ):
        raise IndexCorruptError(f"{store.path} was altered: passages point behind the end of {view.info.file}.")


def checksum(view: SegmentView) -> int:
    """The sum that ``segment_places`` should hold for these places."""
    linear = np.full(len(view.rows), 7, dtype=np.int64)
    for values, factor in zip((view.rows, view.starts, view.counts), FACTORS):
        linear += values % PRIME * factor % PRIME
    linear %= PRIME
    return int((linear * linear % PRIME).sum())
