"""What a search costs in time and memory: latencies of queries one at a time, and the most memory a stretch of work held."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import numpy as np

PERCENTILES = (50, 90, 99)
_SECONDS_BETWEEN_LOOKS = 0.05


def latencies(search: Callable[[str], Any], queries: Sequence[str]) -> list[float]:
    """Milliseconds a query, one at a time, after one that is not timed."""
    for query in queries[:1]:
        search(query)
    milliseconds = []
    for query in queries:
        started = time.perf_counter()
        search(query)
        milliseconds.append((time.perf_counter() - started) * 1000)
    return milliseconds


def percentiles(milliseconds: Sequence[float]) -> dict[str, float]:
    """``search_ms_p50``, ``_p90`` and ``_p99``."""
    return {f"search_ms_p{share}": float(np.percentile(milliseconds, share)) for share in PERCENTILES}


class MemoryWatch:
    """The most resident memory of this process while a block of code runs, in bytes.

        with MemoryWatch() as memory:
            ...
        memory.peak, memory.growth       # growth: above what it was when the block began

    It looks twenty times a second, in a thread: a peak shorter than that can be missed.  Libraries keep memory that they
    no longer need, so what ran before in this process lowers the growth and raises the peak.
    """

    def __init__(self) -> None:
        self.start = 0
        self.peak = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    @property
    def growth(self) -> int:
        """Bytes that came on top while the block ran."""
        return self.peak - self.start

    def __enter__(self) -> MemoryWatch:
        gc.collect()
        self.start = self.peak = _resident()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()
        self.peak = max(self.peak, _resident())

    def _look(self) -> None:
        while not self._ended.wait(_SECONDS_BETWEEN_LOOKS):
            self.peak = max(self.peak, _resident())


def _resident() -> int:
    try:
        import psutil
    except ImportError as error:
        raise ImportError("Measuring memory needs psutil: pip install 'crisp-rag[eval]'") from error
    return int(psutil.Process().memory_info().rss)
