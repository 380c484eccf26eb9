"""Searches that arrive together reach the encoder together.

    hits = await gatherer(index).search(index, "how do refunds work?", k=5, where=None)

An encoder takes fifty queries at once in little more than the time of one.  A web service gets them one by one, each
in a coroutine of its own, so they are gathered: whatever is waiting when a worker is free becomes its next batch.
Nobody waits for company; a query that is alone is answered alone.  Both adapters' async methods come through here.

* An error is the error of the query that caused it; its neighbours are answered.
* A cancelled call is taken out of its batch, or its answer is dropped.
* Calls may come from several event loops; each gets its answer on its own.
* A filter that is a function is called for its own query only, in the context of the caller, because it may look at
  context variables, such as who is asking.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from crisp_rag.forking import Lock, PerProcess
from crisp_rag.index import CrispIndex, Hit
from crisp_rag.index.checks import check_k, check_query
from crisp_rag.index.filter_keys import key_of
from crisp_rag.index.filters import check_filter
from crisp_rag.index.types import Where

WORKERS = 4
"""Batches at once: a slow one, such as a filter function over a large index, does not hold up the others."""

LARGEST_BATCH = 256
_T = TypeVar("_T")


@dataclass
class _Request:
    index: CrispIndex
    query: str
    k: int
    where: Where | None
    answer: Future[list[Hit]] = field(default_factory=Future)
    context: contextvars.Context = field(default_factory=contextvars.copy_context)

    def resolve(self, search: Callable[[], list[Hit]]) -> None:
        """Answer with what the search returns or raises."""
        try:
            hits = search()
        except BaseException as error:
            self.fail(error)
        else:
            self.answer.set_result(hits)

    def fail(self, error: BaseException) -> None:
        """Answer with an error."""
        self.answer.set_exception(awaitable(error))

    def resolve_alone(self) -> None:
        self.resolve(lambda: self.context.run(self.index.search, self.query, self.k, self.where))


class Gatherer:
    """Answers the async searches of one index, in batches, on threads of its own."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: list[_Request] = []
        self._busy = 0
        self._threads = ThreadPoolExecutor(WORKERS, thread_name_prefix="crisp-search")

    async def search(self, index: CrispIndex, query: str, k: int, where: Where | None) -> list[Hit]:
        """As :meth:`CrispIndex.search`, with the same answers and errors."""
        check_k(k)
        check_query(query)
        check_filter(where)
        request = _Request(index, query, k, where)
        with self._guard:
            self._waiting.append(request)
        # Behind every task that is ready to run now, so that their queries are in the same batch.
        asyncio.get_running_loop().call_soon(self._start_worker)
        return await asyncio.wrap_future(request.answer)

    def _start_worker(self) -> None:
        with self._guard:
            if not self._waiting or self._busy == WORKERS:
                return  # a busy worker looks again before it stops
            self._busy += 1
        try:
            self._threads.submit(self._work)
        except RuntimeError as error:  # the interpreter is shutting down
            with self._guard:
                self._busy -= 1
                left, self._waiting = self._waiting, []
            for request in left:
                if request.answer.set_running_or_notify_cancel():
                    request.fail(error)

    def _work(self) -> None:
        while True:
            with self._guard:
                batch, self._waiting = self._waiting[:LARGEST_BATCH], self._waiting[LARGEST_BATCH:]
                if not batch:
                    self._busy -= 1
                    return
            taken = [request for request in batch if request.answer.set_running_or_notify_cancel()]
            try:
                _answer(taken)
            except BaseException as error:  # an encoder that gives too few arrays, say: nobody is left waiting
                for request in taken:
                    if not request.answer.done():
                        request.fail(error)


def awaitable(error: BaseException) -> BaseException:
    """The error, or a RuntimeError for StopIteration, which asyncio cannot hand on: whoever awaits it would wait forever."""
    if not isinstance(error, StopIteration):
        return error
    told = RuntimeError("A filter function or the encoder raised StopIteration.")
    told.__cause__ = error
    return told


async def in_thread(function: Callable[..., _T], *args: Any, **kwargs: Any) -> _T:
    """As :func:`asyncio.to_thread`, with an error for StopIteration in place of an endless wait."""

    def call() -> _T:
        try:
            return function(*args, **kwargs)
        except StopIteration as error:
            raise awaitable(error) from error

    return await asyncio.to_thread(call)


def _answer(batch: Sequence[_Request]) -> None:
    if len(batch) < 2:
        for request in batch:
            request.resolve_alone()
        return
    index = batch[0].index
    try:
        encoder = index.encoder if len(index) else None  # an empty index is answered without loading it
    except Exception as error:  # the index is closed, or has no encoder: nobody's own fault
        for request in batch:
            request.fail(error)
        return
    if encoder is None:
        for request in batch:
            request.answer.set_result([])
        return
    try:
        vectors = encoder.encode_query([request.query for request in batch])
    except Exception:  # which of the queries was it?
        for request in batch:
            request.resolve_alone()
        return
    for group in _alike(batch):
        if callable(batch[group[0]].where):
            (number,) = group
            request = batch[number]
            request.resolve(_searching(request, [vectors[number]]))
            continue
        largest = max(batch[number].k for number in group)
        try:
            found = index.search_vectors([vectors[number] for number in group], largest, batch[group[0]].where)
        except Exception:
            for number in group:
                batch[number].resolve_alone()
            continue
        for number, hits in zip(group, found, strict=True):
            batch[number].answer.set_result(hits[: batch[number].k])


def _searching(request: _Request, vectors: Sequence[Any]) -> Callable[[], list[Hit]]:
    return lambda: request.context.run(request.index.search_vectors, vectors, request.k, request.where)[0]


def _alike(batch: Sequence[_Request]) -> list[list[int]]:
    """The numbers of requests with the same filter; a request whose filter is a function stays alone."""
    groups: dict[Any, list[int]] = {}
    for number, request in enumerate(batch):
        groups.setdefault(number if callable(request.where) else key_of(request.where), []).append(number)
    return list(groups.values())


_gatherers: weakref.WeakKeyDictionary[CrispIndex, PerProcess[Gatherer]] = weakref.WeakKeyDictionary()
_gatherers_guard = Lock()


def gatherer(index: CrispIndex) -> Gatherer:
    """The one gatherer of an index in this process; it and its threads go when the index is garbage.

    A forked process gets another one: of its parent's it has the queue, and not the threads that empty it.
    """
    with _gatherers_guard:
        found = _gatherers.get(index)
        if found is None:
            found = _gatherers[index] = PerProcess(Gatherer(), lambda _: Gatherer(), lambda _: None)
    return found.get()
