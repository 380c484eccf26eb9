"""Threads: many search while one writes, several write, and nobody sees half a commit."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from crisp_rag.errors import IndexClosedError
from crisp_rag.index import CrispIndex, Passage


def run_threads(*tasks: Callable[[], None]) -> None:
    """Run tasks at the same time; the first error is raised here."""
    errors: list[BaseException] = []

    def guarded(task: Callable[[], None]) -> None:
        try:
            task()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    if errors:
        raise errors[0]


def test_six_threads_search_while_one_writes(index: CrispIndex, passages: Any) -> None:
    index.add(passages(40))
    done = threading.Event()
    searches: list[int] = []

    def write() -> None:
        try:
            end = time.monotonic() + 3
            number = 0
            while time.monotonic() < end:
                pair = [Passage(f"{half}{number}", "oak pine", {"pair": number}) for half in "xy"]
                index.add(pair)
                if number % 3 == 0:
                    index.delete(where={"pair": number})
                if number % 7 == 0:
                    index.compact()
                number += 1
        finally:
            done.set()

    def search() -> None:
        count = 0
        while not done.is_set():
            hits = index.search("oak pine", k=10_000)
            pairs = [hit.metadata["pair"] for hit in hits if "pair" in hit.metadata]
            assert len(hits) - len(pairs) == 40
            assert all(pairs.count(number) == 2 for number in set(pairs)), "half a commit was seen"
            assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
            assert len(index.search("fir", k=10, where={"even": True})) == 10
            count += 1
        searches.append(count)

    run_threads(write, *[search] * 6)
    assert len(searches) == 6 and min(searches) >= 1


def test_threads_that_write_queue_and_lose_nothing(index: CrispIndex) -> None:
    def write(name: str) -> Callable[[], None]:
        return lambda: [index.add_texts(["oak"], ids=[f"{name}{number}"]) for number in range(15)] and None

    run_threads(*(write(name) for name in "abcd"))
    assert {passage.id for passage in index.passages()} == {f"{name}{n}" for name in "abcd" for n in range(15)}
    assert len(index.search("oak", k=100)) == 60


def test_threads_may_replace_the_same_id(index: CrispIndex) -> None:
    def write(name: str) -> Callable[[], None]:
        return lambda: [index.add_texts([f"oak {name}{number}"], ids=["same"]) for number in range(10)] and None

    run_threads(*(write(name) for name in "abcd"))
    assert len(index) == 1
    assert index.search("oak")[0].text in {f"oak {name}9" for name in "abcd"}


def test_two_open_indexes_in_one_process_see_each_other(index: CrispIndex, encoder: Any) -> None:
    with CrispIndex.open(index.path, encoder, wait=30) as other:
        run_threads(
            lambda: [index.add_texts(["oak"], ids=[f"a{n}"]) for n in range(10)] and None,
            lambda: [other.search("oak") for _ in range(30)] and None,
        )
        other.add_texts(["pine"], ids=["b"])
        assert len(index) == len(other) == 11
        assert {hit.id for hit in index.search("pine", k=20)} == {hit.id for hit in other.search("pine", k=20)}


def test_passages_can_be_read_while_they_are_deleted(index: CrispIndex, passages: Any) -> None:
    index.add(passages(50))
    seen = []
    for passage in index.passages():
        seen.append(passage.id)
        index.delete(ids=[passage.id])
    assert seen == [f"p{number}" for number in range(50)]
    assert len(index) == 0


def test_closing_waits_for_a_reading_thread_and_ends_its_search_with_an_error(index, passages) -> None:
    index.add(passages(50))
    inside, go_on, outcome = threading.Event(), threading.Event(), []

    def slow(metadata: dict) -> bool:
        inside.set()
        return go_on.wait(20)

    def search() -> None:
        try:
            outcome.append(index.search("oak", where=slow))
        except IndexClosedError as error:
            outcome.append(error)

    reader, closer = threading.Thread(target=search), threading.Thread(target=index.close)
    reader.start()
    assert inside.wait(20)
    closer.start()
    closer.join(0.2)
    assert closer.is_alive(), "SQLite crashes where a connection is closed under its reader"
    go_on.set()
    reader.join(20)
    closer.join(20)
    assert not reader.is_alive() and not closer.is_alive()
    assert [type(result) for result in outcome] == [IndexClosedError]


def test_a_search_that_failed_in_its_filter_does_not_hold_up_closing(index, passages) -> None:
    index.add(passages(50))
    kept: list[BaseException] = []

    def search() -> None:
        try:
            index.search("oak", where=lambda metadata: metadata["missing"])
        except KeyError as error:
            kept.append(error)  # and with it the frames of the search

    thread = threading.Thread(target=search)
    thread.start()
    thread.join(20)
    closer = threading.Thread(target=index.close)
    closer.start()
    closer.join(20)
    assert kept and not closer.is_alive()


def test_threads_that_have_ended_leave_no_open_file(index: CrispIndex) -> None:
    index.add_texts(["oak"])
    for _ in range(40):  # one after the other, as a server does that answers each request on a new thread
        run_threads(lambda: index.search("oak"))
    assert len(index._store._connections) < 5


def test_what_a_replacement_deletes_is_looked_for_when_nobody_else_writes(index: CrispIndex) -> None:
    def update(number: int) -> None:
        passage = Passage(f"v{number}", "oak", {"document": 1})
        index.replace(lambda: [old.id for old in index.passages({"document": 1})], [passage])

    run_threads(*(lambda number=number: update(number) for number in range(8)))
    assert len(index) == 1
