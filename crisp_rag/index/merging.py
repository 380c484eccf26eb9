"""Which segments to rewrite into one: those of like size, once there are many, as log-structured merge trees do.

A segment's tier is the number of fours of bits of its vectors' count, so that the largest of a tier has less than 16
times the vectors of the smallest, and 16 of one tier make one of the next.  A vector is rewritten once a tier: four
times until there are a million passages of 32 vectors, however few of them each add brings.
"""

from __future__ import annotations

from collections.abc import Sequence

from crisp_rag.index.snapshots import SegmentView, Snapshot

FAN_IN = 16
"""Segments of a tier that become one."""
TIER_BITS = 4
MIN_DEAD_VECTORS = 1_024
"""Vectors of deleted passages below which nothing is rewritten for their sake."""


def due(snapshot: Snapshot) -> Sequence[SegmentView]:
    """The segments that should become one now: none, those of a tier, or all, where most of what they hold is dead."""
    dead = snapshot.stored_vectors - snapshot.live_vectors
    if dead >= MIN_DEAD_VECTORS and dead > snapshot.stored_vectors / 2:
        return snapshot.views
    tiers: dict[int, list[SegmentView]] = {}
    for view in snapshot.views:
        tiers.setdefault(tier(view.info.vectors), []).append(view)
    for number in sorted(tiers):
        if len(tiers[number]) >= FAN_IN:
            return tiers[number]
    return ()


def tier(vectors: int) -> int:
    """The tier of a segment of so many vectors."""
    return (vectors.bit_length() - 1) // TIER_BITS if vectors else 0
