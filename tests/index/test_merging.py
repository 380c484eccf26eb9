"""Segments of like size become one: few files, and few rewritings, however an index was filled."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from crisp_rag.index import CrispIndex, Passage, merging
from crisp_rag.index.segments import SegmentInfo
from crisp_rag.index.snapshots import SegmentView, Snapshot


def view(number: int, vectors: int, live: int | None = None) -> SegmentView:
    counts = np.array([vectors if live is None else live], dtype=np.int64)
    return SegmentView(SegmentInfo(number, f"{number}.7bit", vectors, ""), counts, counts, counts)


def grown(adds: int, vectors: int) -> tuple[int, int, int]:
    """Single adds, on paper: vectors rewritten in all, the most in the last thousand, and the most segments at a time."""
    views: list[SegmentView] = []
    rewritten = late = most = 0
    for number in range(adds):
        views.append(view(number, vectors))
        while chosen := merging.due(Snapshot(0, tuple(views))):
            size = sum(each.info.vectors for each in chosen)
            gone = {id(each) for each in chosen}
            views = [each for each in views if id(each) not in gone] + [view(number, size)]
            rewritten += size
            late += size if number >= adds - 1000 else 0
        most = max(most, len(views))
    return rewritten, late, most


@pytest.mark.parametrize(("adds", "vectors"), [(3_000, 1), (5_000, 32), (2_000, 700)])
def test_a_vector_is_rewritten_once_a_tier_and_files_stay_few(adds: int, vectors: int) -> None:
    rewritten, late, most = grown(adds, vectors)
    tiers = math.ceil(math.log(adds, merging.FAN_IN))
    assert rewritten <= tiers * adds * vectors
    assert late <= (tiers + 1) * 1000 * vectors + adds * vectors, "the last adds bear no more than their share"
    assert most <= merging.FAN_IN * (tiers + 1)


def test_what_is_mostly_dead_is_rewritten_whatever_its_size() -> None:
    views = (view(0, 4_000, live=1_000), view(1, 10))
    assert merging.due(Snapshot(0, views)) == views
    assert not merging.due(Snapshot(0, (view(0, 4_000, live=2_500), view(1, 10))))
    assert not merging.due(Snapshot(0, (view(0, 400, live=1),)))
    assert not merging.due(Snapshot(0, ()))


def test_tiers_are_sixteen_times_as_wide_as_the_one_before() -> None:
    assert [merging.tier(vectors) for vectors in (0, 1, 15, 16, 255, 256, 4095, 4096)] == [0, 0, 0, 1, 1, 2, 2, 3]


def test_merged_segments_answer_as_single_ones_did(index: CrispIndex, passages: Any, encoder: Any, expected: Any) -> None:
    added = passages(70)
    for passage in added:
        index.add([passage])
    assert len(index._current().views) < 25
    hits = [(hit.id, pytest.approx(hit.score, abs=1e-4)) for hit in index.search("oak pine fir", k=70)]
    right = dict(expected(encoder, "oak pine fir", added))
    assert len(hits) == 70 and all(right[id_] == score for id_, score in hits)


def test_adds_move_few_passages(index: CrispIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[int] = []
    store = type(index._store)
    move = store.move

    def counted(self: Any, moves: Any) -> None:
        listed = list(moves)
        moved.append(len(listed))
        move(self, listed)

    monkeypatch.setattr(store, "move", counted)
    for number in range(300):
        index.add([Passage(f"p{number}", "oak")])
    assert sum(moved) <= 2 * 300, "formerly every sixteenth add moved all of them"
    assert len(index._current().views) <= 2 * merging.FAN_IN + 1
