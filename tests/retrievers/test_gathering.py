"""Searches that arrive together are encoded together, and nobody notices but the clock."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from crisp_rag.errors import IndexClosedError, InvalidInputError
from crisp_rag.index import CrispIndex, Hit, Hits
from crisp_rag.retrievers.gathering import Gatherer, gatherer
from crisp_rag.retrievers.scope import ScopedIndex

QUERIES = ["refunds in five days", "parcel shipping", "when does the shop open", "watch"]


def alike(hits: list[Hit]) -> list[Any]:
    return [(hit.id, pytest.approx(hit.score, rel=1e-5), hit.text, hit.metadata) for hit in hits]


def pairs(hits: list[Hit]) -> list[Any]:
    return [(hit.id, hit.score, hit.text, hit.metadata) for hit in hits]


@pytest.fixture
def counted(tmp_path: Path, fill: Any, counting_encoder: Any) -> Iterator[CrispIndex]:
    with fill(tmp_path / "counted", counting_encoder) as index:
        yield index


@pytest.fixture
def gated(tmp_path: Path, fill: Any, gate_encoder: Any) -> Iterator[CrispIndex]:
    with fill(tmp_path / "gated", gate_encoder) as index:
        yield index
        gate_encoder.gate.set()


async def until(true: Callable[[], bool]) -> None:
    for _ in range(20_000):
        if true():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it never came true")


def test_searches_of_one_moment_are_one_batch_with_the_answers_of_single_ones(counted: CrispIndex) -> None:
    async def ask() -> list[list[Hit]]:
        return await asyncio.gather(*(gatherer(counted).search(counted, query, 3, None) for query in QUERIES * 10))

    answers = asyncio.run(ask())
    assert counted.encoder.queries == [40]
    for query, answer in zip(QUERIES * 10, answers, strict=True):
        assert pairs(answer) == alike(counted.search(query, 3))


def test_a_search_alone_gives_exactly_what_a_plain_search_gives(counted: CrispIndex) -> None:
    hits = asyncio.run(gatherer(counted).search(counted, "parcel", 4, {"year": {"$gt": 2022}}))
    assert hits == counted.search("parcel", 4, {"year": {"$gt": 2022}})


def test_every_search_keeps_its_own_k_and_filter(counted: CrispIndex) -> None:
    calls = [
        ("parcel", 1, None),
        ("parcel", 3, None),
        ("parcel", 2, {"team": "shop"}),
        ("parcel", 2, {"team": "sales"}),
        ("days", 6, {"flag": 1}),
        ("days", 6, {"flag": True}),
        ("days", 2, lambda metadata: metadata.get("team") == "sales"),
    ]
    counted.add_texts(["days one", "days two"], ids=["one", "true"], metadatas=[{"flag": 1}, {"flag": True}])

    async def ask() -> list[list[Hit]]:
        return await asyncio.gather(*(gatherer(counted).search(counted, *call) for call in calls))

    answers = asyncio.run(ask())
    assert counted.encoder.queries == [len(calls)]
    assert [pairs(answer) for answer in answers] == [alike(counted.search(*call)) for call in calls]
    assert [[hit.id for hit in answer] for answer in answers[4:6]] == [["one"], ["true"]]


def test_an_error_is_the_error_of_its_own_query(tmp_path: Path, fill: Any, encoder: Any) -> None:
    class Picky(type(encoder)):
        def encode_query(self, texts: Any, **options: Any) -> Any:
            if "watch" in texts:
                raise RuntimeError("no watches")
            return super().encode_query(texts)

    def broken(metadata: dict[str, Any]) -> bool:
        raise KeyError("year")

    async def ask(index: CrispIndex) -> list[Any]:
        calls = [
            ("parcel", 2, None),
            ("watch", 2, None),
            ("days", 2, broken),
            ("days", 2, None),
            (" ", 2, None),
            ("a", 0, None),
        ]
        search = gatherer(index).search
        return await asyncio.gather(*(search(index, *call) for call in calls), return_exceptions=True)

    with fill(tmp_path / "i", Picky()) as index:
        parcel, watch, failed, days, blank, none = asyncio.run(ask(index))
        assert pairs(parcel) == alike(index.search("parcel", 2))
        assert pairs(days) == alike(index.search("days", 2))
    assert isinstance(watch, RuntimeError)
    assert isinstance(failed, KeyError)
    assert isinstance(blank, InvalidInputError) and isinstance(none, InvalidInputError)


def test_an_encoder_that_gives_too_few_arrays_leaves_nobody_waiting(tmp_path: Path, fill: Any, encoder: Any) -> None:
    class Short(type(encoder)):
        def encode_query(self, texts: Any, **options: Any) -> Any:
            return super().encode_query(texts)[:1]

    async def ask(index: CrispIndex) -> list[Any]:
        search = gatherer(index).search
        filters = (None, None, lambda metadata: True, lambda metadata: True)
        calls = (search(index, "parcel", 2, where) for where in filters)
        return await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 20)

    with fill(tmp_path / "i", Short()) as index:
        assert [type(answer) for answer in asyncio.run(ask(index))] == [Hits, Hits, IndexError, IndexError]
        assert len(asyncio.run(gatherer(index).search(index, "parcel", 2, None))) == 2


def test_searches_of_different_moments_run_side_by_side(gated: CrispIndex, gate_encoder: Any) -> None:
    async def ask() -> list[list[Hit]]:
        tasks = []
        for number in range(3):
            tasks.append(asyncio.create_task(gatherer(gated).search(gated, "parcel shipping", 2, None)))
            await until(lambda inside=number + 1: len(gate_encoder.queries) == inside)
        gate_encoder.gate.set()  # all three are inside the encoder
        return await asyncio.gather(*tasks)

    assert [[hit.id for hit in hits] for hits in asyncio.run(ask())] == [["ship", "abroad"]] * 3
    assert gate_encoder.queries == [1, 1, 1]


def test_what_waits_while_all_workers_are_busy_becomes_one_batch(gated: CrispIndex, gate_encoder: Any) -> None:
    async def ask() -> None:
        tasks = []
        for number in range(4):
            tasks.append(asyncio.create_task(gatherer(gated).search(gated, "parcel shipping", 2, None)))
            await until(lambda inside=number + 1: len(gate_encoder.queries) == inside)
        for _ in range(20):
            tasks.append(asyncio.create_task(gatherer(gated).search(gated, "watch", 2, None)))
            await asyncio.sleep(0)
        gate_encoder.gate.set()
        await asyncio.gather(*tasks)

    asyncio.run(ask())
    assert gate_encoder.queries == [1, 1, 1, 1, 20]


def test_a_cancelled_search_ends_at_once_and_harms_nobody(gated: CrispIndex, gate_encoder: Any) -> None:
    async def ask() -> list[Hit]:
        search = gatherer(gated).search
        first, second, third = (
            asyncio.create_task(search(gated, query, 2, None)) for query in ("a", "b", "parcel shipping")
        )
        second.cancel()  # before it began
        await until(lambda: bool(gate_encoder.queries))
        first.cancel()  # inside the encoder
        for task in (first, second):
            with pytest.raises(asyncio.CancelledError):
                await task
        gate_encoder.gate.set()
        with pytest.raises(asyncio.TimeoutError):
            gate_encoder.gate.clear()
            await asyncio.wait_for(search(gated, "c", 2, None), 0.01)
        gate_encoder.gate.set()
        return await third

    assert [hit.id for hit in asyncio.run(ask())] == ["ship", "abroad"]
    assert [hit.id for hit in asyncio.run(gatherer(gated).search(gated, "parcel shipping", 2, None))] == ["ship", "abroad"]


def test_several_event_loops_each_get_their_own_answers(counted: CrispIndex) -> None:
    found: dict[int, list[list[Hit]]] = {}
    ready = threading.Barrier(4)

    def loop(number: int) -> None:
        async def ask() -> list[list[Hit]]:
            ready.wait(20)
            return await asyncio.gather(*(gatherer(counted).search(counted, QUERIES[number], 2, None) for _ in range(5)))

        found[number] = asyncio.run(ask())

    threads = [threading.Thread(target=loop, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for number, query in enumerate(QUERIES):
        assert [pairs(hits) for hits in found[number]] == [alike(counted.search(query, 2))] * 5


def test_an_index_closed_meanwhile_is_an_error_and_not_a_wait(gated: CrispIndex, gate_encoder: Any) -> None:
    async def ask() -> list[Any]:
        tasks = [asyncio.create_task(gatherer(gated).search(gated, "parcel shipping", 2, None)) for _ in range(3)]
        await until(lambda: bool(gate_encoder.queries))
        gated.close()
        gate_encoder.gate.set()
        tasks.append(asyncio.create_task(gatherer(gated).search(gated, "parcel shipping", 2, None)))
        return await asyncio.gather(*tasks, return_exceptions=True)

    assert [type(answer) for answer in asyncio.run(ask())] == [IndexClosedError] * 4


def test_a_filter_function_sees_the_context_of_its_own_caller(counted: CrispIndex) -> None:
    asking: contextvars.ContextVar[str] = contextvars.ContextVar("asking")
    scope = ScopedIndex(counted, lambda metadata: metadata["team"] == asking.get())

    async def ask(team: str) -> set[str]:
        asking.set(team)
        return {hit.metadata["team"] for hit in await scope.asearch("days", 6)}

    async def all_teams() -> list[set[str]]:
        return await asyncio.gather(*(ask(team) for team in ("sales", "shop", "logistics")))

    assert asyncio.run(all_teams()) == [{"sales"}, {"shop"}, {"logistics"}]
    assert counted.encoder.queries == [3]


def test_an_empty_index_answers_without_its_encoder(tmp_path: Path, counting_encoder: Any) -> None:
    async def ask(index: CrispIndex) -> list[list[Hit]]:
        return await asyncio.gather(*(gatherer(index).search(index, query, 2, None) for query in QUERIES))

    with CrispIndex.create(tmp_path / "empty", counting_encoder) as index:
        assert asyncio.run(ask(index)) == [[], [], [], []]
    assert counting_encoder.queries == []


def test_the_threads_go_with_the_index(tmp_path: Path, fill: Any, encoder: Any) -> None:
    with fill(tmp_path / "i", encoder) as index:
        asyncio.run(gatherer(index).search(index, "parcel", 2, None))
        gone: weakref.ref[Gatherer] = weakref.ref(gatherer(index))
    del index
    for _ in range(50):  # a worker lets go of its last request a moment after the answer
        gc.collect()
        if gone() is None:
            break
        threading.Event().wait(0.05)
    assert gone() is None


def langchain(index: CrispIndex) -> Callable[[str], Awaitable[list[str]]]:
    adapter = pytest.importorskip("crisp_rag.retrievers.langchain", exc_type=ImportError)
    retriever = adapter.CrispRetriever(index=index, k=2)

    async def ask(query: str) -> list[str]:
        return [document.id for document in await retriever.ainvoke(query)]

    return ask


def langchain_store(index: CrispIndex) -> Callable[[str], Awaitable[list[str]]]:
    adapter = pytest.importorskip("crisp_rag.retrievers.langchain", exc_type=ImportError)
    retriever = adapter.CrispVectorStore(index=index).as_retriever(search_kwargs={"k": 2})

    async def ask(query: str) -> list[str]:
        return [document.id for document in await retriever.ainvoke(query)]

    return ask


def llama_index(index: CrispIndex) -> Callable[[str], Awaitable[list[str]]]:
    adapter = pytest.importorskip("crisp_rag.retrievers.llama_index", exc_type=ImportError)
    retriever = adapter.CrispRetriever(index, 2)

    async def ask(query: str) -> list[str]:
        return [node.node_id for node in await retriever.aretrieve(query)]

    return ask


def llama_index_store(index: CrispIndex) -> Callable[[str], Awaitable[list[str]]]:
    adapter = pytest.importorskip("crisp_rag.retrievers.llama_index", exc_type=ImportError)
    types = pytest.importorskip("llama_index.core.vector_stores.types")
    store = adapter.CrispVectorStore(index)

    async def ask(query: str) -> list[str]:
        return (await store.aquery(types.VectorStoreQuery(query_str=query, similarity_top_k=2))).ids

    return ask


@pytest.mark.parametrize("adapter", [langchain, langchain_store, llama_index, llama_index_store])
def test_concurrent_calls_of_an_adapter_reach_the_encoder_as_one_batch(adapter: Any, counted: CrispIndex) -> None:
    ask = adapter(counted)

    async def ask_all() -> list[list[str]]:
        return await asyncio.gather(*(ask(query) for query in QUERIES * 5))

    assert asyncio.run(ask_all()) == [[hit.id for hit in counted.search(query, 2)] for query in QUERIES * 5]
    assert counted.encoder.queries[0] == 20


@pytest.mark.parametrize("adapter", [langchain, langchain_store, llama_index, llama_index_store])
def test_a_slow_search_of_an_adapter_leaves_the_event_loop_free(adapter: Any, gated: CrispIndex, gate_encoder: Any) -> None:
    async def ask() -> list[str]:
        task = asyncio.create_task(adapter(gated)("parcel shipping"))
        await until(lambda: bool(gate_encoder.queries))
        gate_encoder.gate.set()  # only a loop that is free gets here
        return await task

    assert asyncio.run(ask()) == ["ship", "abroad"]


def stops(metadata: dict[str, Any]) -> bool:
    return next(iter(()))


@pytest.mark.parametrize("alone", [True, False])
def test_a_filter_that_raises_stop_iteration_is_an_error_and_no_endless_wait(index: CrispIndex, alone: bool) -> None:
    async def ask() -> list[Any]:
        search = gatherer(index).search
        calls = [search(index, "parcel", 2, stops)] + ([] if alone else [search(index, "parcel", 2, None)])
        return await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 20)

    failed, *others = asyncio.run(ask())
    assert isinstance(failed, RuntimeError) and isinstance(failed.__cause__, StopIteration)
    assert all(isinstance(hits, list) for hits in others)


def test_no_async_method_of_llama_index_waits_forever_for_a_filter(index: CrispIndex) -> None:
    adapter = pytest.importorskip("crisp_rag.retrievers.llama_index", exc_type=ImportError)
    store = adapter.CrispVectorStore(index, stops)
    chosen = adapter.CrispRetriever(index, where=stops, node_ids=["ship"])
    for call in (store.aclear, lambda: store.aget_nodes(["ship"]), lambda: chosen.aretrieve("parcel")):
        with pytest.raises(RuntimeError, match="StopIteration"):
            asyncio.run(asyncio.wait_for(call(), 20))


def test_callers_of_one_batch_share_nothing_that_they_may_change(counted: CrispIndex) -> None:
    async def ask() -> list[list[Hit]]:
        return await asyncio.gather(*(gatherer(counted).search(counted, "gift cards", 1, None) for _ in range(2)))

    (first,), (second,) = asyncio.run(ask())
    first.metadata["tags"].append("mine")
    assert second.metadata["tags"] == ["card", "cash"]
