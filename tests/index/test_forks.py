"""A handle that finds itself in another process opens anew: right answers, and nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from crisp_rag.errors import ForkedError, IndexClosedError, IndexLockedError
from crisp_rag.index import CrispIndex, Passage, connections, file_lock, verify_index

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")


def in_child(forked: Any, task: Any) -> list[str]:
    """What a forked process tells; it has to end by itself, and soon."""
    code, lines = forked(task).wait(60)
    assert code == 0, f"{code}: {lines}"
    return lines


def ids(index: CrispIndex) -> str:
    return " ".join(sorted(hit.id for hit in index.search("oak", k=100)))


def test_a_reader_opened_before_a_fork_sees_what_happens_after_its_parent_has_closed(
    index: CrispIndex, encoder: Any, forked: Any, children: Any
) -> None:
    """gunicorn with preload: the master opens and searches, the workers answer."""
    index.add_texts(["oak", "oak pine"], ids=["a", "b"])
    assert ids(index) == "a b"
    reading, writing = os.pipe()

    def work(tell: Any) -> None:
        os.read(reading, 1)
        tell(ids(index))
        tell(" ".join(sorted(hit.id for hit in index.search("oak", where={"n": {"$exists": False}}))))

    child = forked(work)
    index.close()
    children.run(
        index.path,
        """
        with CrispIndex.open(path, encoder) as index:
            index.delete(ids=["a"])
            index.add_texts(["oak fir"], ids=["c"])
            index.compact()
        """,
    )
    os.write(writing, b"x")
    assert child.wait() == (0, ["b c", "b c"])
    os.close(reading), os.close(writing)


def test_what_a_forked_process_adds_is_there_and_its_parents_too(index: CrispIndex, encoder: Any, forked: Any) -> None:
    index.add_texts(["oak"], ids=["parent0"])
    for round_ in range(3):

        def work(tell: Any, round_: int = round_) -> None:
            for number in range(5):
                index.add_texts(["oak"], ids=[f"child{round_}-{number}"])
            index.close()

        in_child(forked, work)
        index.add_texts(["oak"], ids=[f"parent{round_ + 1}"])
        in_child(forked, lambda tell: index.compact())
    there = {f"child{round_}-{number}" for round_ in range(3) for number in range(5)} | {f"parent{n}" for n in range(4)}
    assert {passage.id for passage in index.passages()} == there
    index.close()
    assert verify_index(index.path).sound
    with CrispIndex.open(index.path, encoder) as again:
        assert {passage.id for passage in again.passages()} == there


def test_grandchildren_and_their_parents_write_by_turns(index: CrispIndex, forked: Any) -> None:
    def work(tell: Any) -> None:
        index.add_texts(["oak"], ids=["child"])
        in_child(forked, lambda tell: index.add_texts(["oak"], ids=["grandchild"]) and None)
        tell(ids(index))

    assert in_child(forked, work) == ["child grandchild"]
    assert ids(index) == "child grandchild"


def test_a_fork_inherits_no_lock_that_another_thread_holds(index: CrispIndex, passages: Any, forked: Any) -> None:
    index.add(passages(50))
    done = threading.Event()

    def search() -> None:
        while not done.is_set():
            index.search("oak pine", k=5, where={"even": True})

    def write() -> None:
        while not done.is_set():
            index.add_texts(["elm"], ids=["turning"])

    threads = [threading.Thread(target=task) for task in (search, search, write)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(15):
            assert in_child(forked, lambda tell: tell(str(len(index.search("oak", k=200)) >= 50))) == ["True"]
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert len(index) == 51


def test_async_searches_work_in_a_forked_process(index: CrispIndex, forked: Any) -> None:
    from crisp_rag.retrievers.gathering import gatherer

    index.add_texts(["oak", "pine"], ids=["a", "b"])

    def found() -> str:
        hits = asyncio.run(asyncio.wait_for(gatherer(index).search(index, "oak", 5, None), 30))
        return " ".join(hit.id for hit in hits)

    for _ in range(3):
        assert found() == "a b"
        time.sleep(0.1)  # until the thread that answered waits for more, as it does in a service
    assert in_child(forked, lambda tell: tell(found())) == ["a b"]
    assert found() == "a b"


def test_torch_and_faiss_compute_in_a_forked_process(children: Any, tmp_path: Path) -> None:
    """Both hang in OpenMP otherwise, where their parent has computed with several threads."""
    printed = children.run(
        tmp_path / "index",
        """
        import numpy, torch
        torch.set_num_threads(2)
        from crisp_rag.index import planner
        planner.EXACT_VECTORS = 0
        random = numpy.random.default_rng(0)
        index = CrispIndex.create(path, encoder)
        vectors = [random.normal(size=(8, 16)).astype("f4") for _ in range(3000)]
        index.add([Passage(f"p{n}", "oak") for n in range(3000)], vectors=vectors)
        index.prepare()
        torch.rand(700, 700) @ torch.rand(700, 700)
        index.search_vectors(vectors[:2], k=3)
        child = os.fork()
        if child == 0:
            found = index.search_vectors(vectors[:2], k=3)
            index.prepare()
            torch.rand(700, 700) @ torch.rand(700, 700)
            print([hits[0].id for hits in found], found[0].search.method, flush=True)
            os._exit(0)
        end = time.monotonic() + 40
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            if time.monotonic() > end:
                os.kill(child, 9)
                sys.exit("the child hangs")
            time.sleep(.05)
        """,
    )
    assert printed == "['p0', 'p1'] approximate"


def test_no_connection_is_open_at_a_fork_and_none_is_lost_to_it(index: CrispIndex, forked: Any) -> None:
    index.add_texts(["oak"], ids=["a"])
    assert len(index._store._connections) == 1

    def work(tell: Any) -> None:
        files = []
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):  # that of the list itself
                files.append(os.readlink(f"/proc/self/fd/{name}"))
        tell(" ".join(files))

    (files,) = in_child(forked, work)
    assert "index.sqlite" not in files and "writer.lock" not in files
    assert ids(index) == "a"


def test_a_copy_of_a_writer_neither_keeps_others_out_nor_writes_on(
    index: CrispIndex, encoder: Any, forked: Any, tmp_path: Path
) -> None:
    told: list[str] = []

    def stream(tell: Any = None) -> Any:
        for number in range(600):
            if number == 300:  # in the middle of writing a segment
                pid = os.fork()
                if pid == 0:
                    told.append("child")
                else:
                    os.waitpid(pid, 0)
            yield Passage(f"p{number}", "oak")

    try:
        index.add_stream(stream())
    except ForkedError:
        assert told == ["child"]
        os._exit(0)
    except BaseException:
        os._exit(1)
    if told:
        os._exit(2)
    assert len(index) == 600
    assert verify_index(index.path).sound

    def hold(tell: Any) -> None:
        with index._lock.held():
            sleeper = os.fork()
            if sleeper == 0:
                time.sleep(20)
                os._exit(0)
            tell(str(sleeper))
            os._exit(0)  # the writer dies, its copy lives on

    child = forked(hold)
    sleeper = int(child.readline())
    try:
        os.waitpid(child.pid, 0)
        index.add_texts(["oak"], ids=["after"])
        assert index.get(["after"])
    finally:
        os.kill(sleeper, 9)


def test_a_process_forked_inside_of_a_search_refuses_and_its_parent_goes_on(
    index: CrispIndex, forked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "PATIENCE_AT_FORK", 0.2)
    index.add_texts(["oak", "pine"], ids=["a", "b"])
    lines: list[str] = []

    def work(tell: Any) -> None:
        try:
            index.search("oak")
        except ForkedError as error:
            tell(str(error))

    def keeps(metadata: Any) -> bool:
        lines.extend(in_child(forked, work))
        return True

    assert len(index.search("oak", where=keeps)) == 2
    assert lines and all("forked while" in line and str(index.path) in line for line in lines)
    assert len(index.search("oak")) == 2
    index.add_texts(["oak"], ids=["c"])
    assert ids(index) == "a b c"


def test_closing_in_one_process_leaves_the_other_open(index: CrispIndex, forked: Any) -> None:
    index.add_texts(["oak"], ids=["a"])
    in_child(forked, lambda tell: index.close())
    assert ids(index) == "a"
    index.close()

    def work(tell: Any) -> None:
        with pytest.raises(IndexClosedError):
            index.search("oak")

    in_child(forked, work)


def test_parent_and_child_keep_each_other_out_while_one_writes(index: CrispIndex, forked: Any) -> None:
    def work(tell: Any) -> None:
        with pytest.raises(IndexLockedError, match="written by process"):
            index.add_texts(["oak"])
        tell(ids(index))

    index.add_texts(["oak"], ids=["a"])
    with index._lock.held():
        assert in_child(forked, work) == ["a"]


def test_a_file_lock_is_one_process_alone(tmp_path: Path, forked: Any) -> None:
    lock = file_lock.FileLock(tmp_path / "lock")
    assert lock.acquire()
    attempt = lambda tell: tell(str(file_lock.FileLock(tmp_path / "lock").acquire()))  # noqa: E731
    assert in_child(forked, attempt) == ["False"]
    in_child(forked, lambda tell: lock.release())
    assert in_child(forked, attempt) == ["False"], "a copy of the holder does not unlock"
    lock.release()
    assert in_child(forked, attempt) == ["True"]


def test_workers_of_a_pool_search_and_add(index: CrispIndex, children: Any) -> None:
    index.add_texts(["oak"], ids=["a"])
    index.close()
    printed = children.run(
        index.path,
        """
        import multiprocessing
        index = CrispIndex.open(path, encoder, wait=30)
        index.search("oak")
        def work(number):
            index.add_texts(["oak"], ids=[f"w{number}"])
            return len(index.search("oak", k=100)) >= 2
        with multiprocessing.get_context("fork").Pool(3) as pool:
            print(all(pool.map(work, range(12))), len(index))
        """,
    )
    assert printed == "True 13"
    assert verify_index(index.path).sound
