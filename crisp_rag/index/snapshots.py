"""What a reader sees of an index: which passages are live, and where their vectors lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from crisp_rag.index.segments import SegmentInfo


@dataclass(frozen=True)
class SegmentView:
    """The live passages of one segment, by start: parallel int64 arrays (n,).

    ``changes`` tells two states of the same segment apart; -1 where that is not known.  ``vectors`` is how many are live.
    """

    info: SegmentInfo
    rows: np.ndarray
    starts: np.ndarray
    counts: np.ndarray
    changes: int = -1
    vectors: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "vectors", int(self.counts.sum()))


@dataclass(frozen=True)
class Flat:
    """The live passages of all segments in one line, by row: parallel arrays (n,).

    ``segments`` are numbers of views; ``rows`` rise.
    """

    rows: np.ndarray
    segments: np.ndarray
    starts: np.ndarray
    counts: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def positions_of(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n,) positions of rows in this line, and (n,) whether they are there; the others' positions mean nothing."""
        if not len(self.rows):
            return np.zeros(len(rows), dtype=np.int64), np.zeros(len(rows), dtype=bool)
        positions = np.minimum(np.searchsorted(self.rows, rows), len(self.rows) - 1)
        return positions, self.rows[positions] == rows


@dataclass(frozen=True)
class Snapshot:
    """What a reader sees: the live passages at one moment.  Never changes."""

    generation: int
    views: tuple[SegmentView, ...]

    @property
    def passages(self) -> int:
        return sum(len(view.rows) for view in self.views)

    @property
    def live_vectors(self) -> int:
        return sum(view.vectors for view in self.views)

    @property
    def stored_vectors(self) -> int:
        return sum(view.info.vectors for view in self.views)

    @property
    def flat(self) -> Flat:
        """All passages by row, made when it is first asked for: 28 bytes a passage."""
        # Without a lock, which a fork might find taken: who comes at the same time makes the same.
        kept: Flat | None = self.__dict__.get("_flat")
        if kept is None:
            kept = self.__dict__.setdefault("_flat", self._flattened())
        return kept

    def _flattened(self) -> Flat:
        rows = np.concatenate([np.empty(0, np.int64), *(view.rows for view in self.views)])
        order = np.argsort(rows, kind="stable")
        numbers = np.repeat(np.arange(len(self.views), dtype=np.int32), [len(view.rows) for view in self.views])
        starts = np.concatenate([np.empty(0, np.int64), *(view.starts for view in self.views)])
        counts = np.concatenate([np.empty(0, np.int64), *(view.counts for view in self.views)])
        return Flat(rows[order], numbers[order], starts[order], counts[order])


def starts_of(counts: Sequence[int] | np.ndarray) -> np.ndarray:
    """(n,) int64: where each of n runs begins, when runs of these lengths lie one behind the other."""
    ends = np.cumsum(counts, dtype=np.int64)
    return ends - np.asarray(counts, dtype=np.int64)


def runs(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The numbers of all members of some runs, one run behind the other.

    Args:
        starts: (n,) the number of each run's first member.
        counts: (n,) how many members each has.
    """
    return np.repeat(starts - starts_of(counts), counts) + np.arange(int(counts.sum()))
