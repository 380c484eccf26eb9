"""kill -9 at any moment: what was acknowledged is there, the index verifies, and every answer is right."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crisp_rag.index import CrispIndex, Passage, crisp_index, merging, segments, store, verify_index, writing
from crisp_rag.index.backend import LocalBackend

WORDS = ["oak", "pine", "fir", "elm", "alder", "birch", "cedar", "hazel"]
State = dict[str, Passage]


@dataclass
class Step:
    """One commit: ids that go and passages that come.  ``put`` holds (id, text, n)."""

    gone: list[str] = field(default_factory=list)
    put: list[tuple[str, str, int]] = field(default_factory=list)

    def applied(self, state: State) -> State:
        after = {id_: passage for id_, passage in state.items() if id_ not in {*self.gone, *(p[0] for p in self.put)}}
        return after | {passage.id: passage for passage in self.passages}

    @property
    def passages(self) -> list[Passage]:
        return [Passage(id_, text, {"n": n}) for id_, text, n in self.put]


def random_change(random: np.random.Generator, state: State) -> tuple[str, list[Step]]:
    """A kind of change and the commits that it makes."""
    there = list(state)

    def some(most: int) -> list[str]:
        return (
            random.choice(there, size=min(len(there), int(random.integers(1, most))), replace=False).tolist()
            if there
            else []
        )

    def put(ids: list[str]) -> list[tuple[str, str, int]]:
        return [(id_, " ".join(random.choice(WORDS, size=random.integers(1, 9))), int(random.integers(0, 4))) for id_ in ids]

    def fresh(count: int) -> list[str]:
        return [f"{random.integers(0, 2**60):015x}" for _ in range(count)]

    kind = str(random.choice(["add", "upsert", "replace", "delete", "delete where", "stream", "compact"]))
    if len(there) > 200:
        kind = "delete where"
    if kind == "add":
        return kind, [Step(put=put(fresh(int(random.integers(1, 25)))))]
    if kind == "upsert":
        return kind, [Step(put=put([*some(10), *fresh(2)]))]
    if kind == "replace":
        return kind, [Step(some(10), put(fresh(5)))]
    if kind == "delete":
        return kind, [Step(some(20))]
    if kind == "delete where":
        n = int(random.integers(0, 4))
        return kind, [Step([id_ for id_, passage in state.items() if passage.metadata["n"] == n])]
    if kind == "stream":
        ids = fresh(12)
        return kind, [Step(put=put(ids[first : first + 4])) for first in range(0, 12, 4)]
    return kind, []


def change(index: CrispIndex, kind: str, steps: list[Step], tell: Callable[[str], None]) -> None:
    """Do it, and tell of each commit as soon as it is acknowledged."""
    if kind == "stream":
        passages = [passage for step in steps for passage in step.passages]
        index.add_stream(passages, commit_every=4, on_commit=lambda _: tell("done"))
    elif kind == "compact":
        index.compact()
    else:
        (step,) = steps
        if kind == "delete where":
            index.delete(ids=step.gone, where={"n": {"$in": [0, 1, 2, 3]}})
        elif kind == "delete":
            index.delete(ids=step.gone)
        else:
            index.replace(step.gone, step.passages)
        tell("done")


def write_forever(path: Path, encoder: Any, seed: int, state: State) -> Callable[[Callable[[str], None]], None]:
    def run(tell: Callable[[str], None]) -> None:
        random = np.random.default_rng(seed)
        now = state
        merging.MIN_DEAD_VECTORS, merging.FAN_IN, merging.TIER_BITS = 60, 3, 1
        with CrispIndex.open(path, encoder) as index:
            while True:
                kind, steps = random_change(random, now)
                tell(json.dumps([kind, [[step.gone, step.put] for step in steps]]))
                change(index, kind, steps, tell)
                for step in steps:
                    now = step.applied(now)

    return run


def possible_states(state: State, lines: list[str]) -> list[State]:
    """The state that was acknowledged, and the one with the commit that was under way."""
    waiting: list[Step] = []
    for line in lines:
        assert not line.startswith("error"), "\n".join(lines)
        if line == "done":
            state = waiting.pop(0).applied(state)
        elif line.startswith("["):
            waiting = [Step(gone, put) for gone, put in json.loads(line)[1]]
    return [state, *(step.applied(state) for step in waiting[:1])]


def check(path: Path, encoder: Any, expected: Any, allowed: list[State], random: np.random.Generator) -> State:
    """The index is sound and holds one of these states, all of it; returns which."""
    report = verify_index(path)
    assert report.sound, report
    with CrispIndex.open(path, encoder) as index:
        there = list(index.passages())
        (state, *_) = [state for state in allowed if list(state.values()) == there] or pytest.fail("no state that may be")
        assert len(index) == len(state)
        query = " ".join(random.choice(WORDS, size=3))
        for where in (None, {"n": 1}):
            kept = [passage for passage in there if where is None or passage.metadata["n"] == 1]
            hits = [(hit.id, hit.score) for hit in index.search(query, k=10**6, where=where)]
            right = expected(encoder, query, kept)
            assert sorted(id_ for id_, _ in hits) == sorted(id_ for id_, _ in right)
            assert [score for _, score in hits] == pytest.approx([score for _, score in right], abs=1e-4)
    return state


def kill_again_and_again(path: Path, encoder: Any, expected: Any, forked: Any, rounds: int) -> tuple[int, int]:
    random = np.random.default_rng(rounds)
    state: State = {}
    commits = unacknowledged = 0
    for round_ in range(rounds):
        child = forked(write_forever(path, encoder, round_, state))
        lines = [child.readline() for _ in range(int(random.integers(1, 10)))]
        time.sleep(float(random.uniform(0, 0.05)))
        child.kill()
        code, rest = child.wait()
        lines += rest
        assert code == -signal.SIGKILL, lines
        allowed = possible_states(state, lines)
        state = check(path, encoder, expected, allowed, random)
        commits += lines.count("done")
        unacknowledged += len(allowed) > 1 and state is allowed[1]
    return commits, unacknowledged


@pytest.mark.parametrize("rounds", [8, pytest.param(200, marks=pytest.mark.slow)])
def test_a_writer_killed_at_random_moments_loses_nothing_that_it_acknowledged(
    tmp_path: Path, encoder: Any, expected: Any, forked: Any, rounds: int, record_property: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(crisp_index, "CHECKED_AT_OPEN", 40_000)  # some rounds open it checked whole, others not
    CrispIndex.create(tmp_path / "index", encoder, indexed_fields=["n"]).close()
    started = time.monotonic()
    commits, unacknowledged = kill_again_and_again(tmp_path / "index", encoder, expected, forked, rounds)
    record_property("figures", f"{rounds} kills, {commits} acknowledged commits, {unacknowledged} more that were not yet")
    print(f"{rounds} kills, {commits} commits, {unacknowledged} unacknowledged, {time.monotonic() - started:.0f} s")
    assert commits > rounds


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


POINTS = {
    "before the segment is synced": (segments.os, "fsync", "before"),
    "before the folder of the segment is synced": (segments, "sync_folder", "before"),
    "before the commit": (store.Store, "advance", "before"),
    "after the commit, before it is acknowledged": (writing, "acknowledge", "after"),
    "before tidying up": (writing.Writer, "_tidy", "after"),
}
MERGE_POINTS = {
    "before the merged segment is synced": (segments.os, "fsync"),
    "in the middle of moving passages": (store.Store, "move"),
    "before the old segments are dropped": (store.Store, "drop_segments"),
    "before the commit": (store.Store, "advance"),
    "after the commit": (writing, "acknowledge"),
    "before the old files go": (LocalBackend, "delete"),
    "before the database shrinks": (store.Store, "shrink"),
}


@pytest.fixture
def three_commits(tmp_path: Path, encoder: Any) -> Iterator[tuple[Path, State]]:
    path, state = tmp_path / "index", {}
    with CrispIndex.create(path, encoder) as index:
        for number in range(3):
            step = Step(put=[(f"{number}-{i}", f"{WORDS[i]} {WORDS[number]}", i % 4) for i in range(8)])
            index.add(step.passages)
            state = step.applied(state)
        step = Step(["0-1", "2-2"])
        index.delete(ids=step.gone)
    yield path, step.applied(state)


@pytest.mark.parametrize("point", POINTS)
def test_a_writer_killed_at_a_point_of_an_upsert(
    three_commits: tuple[Path, State], encoder: Any, expected: Any, forked: Any, point: str
) -> None:
    path, state = three_commits
    target, name, outcome = POINTS[point]
    step = Step(["1-1"], [("1-2", "hazel", 1), ("new", "hazel elm", 2)])

    def write(tell: Any) -> None:
        with CrispIndex.open(path, encoder) as index:
            setattr(target, name, die)
            index.replace(step.gone, step.passages)

    assert forked(write).wait()[0] == -signal.SIGKILL
    random = np.random.default_rng(0)
    state = check(path, encoder, expected, [state if outcome == "before" else step.applied(state)], random)
    with CrispIndex.open(path, encoder) as index:
        index.add([Passage("later", "oak", {"n": 1})])
        assert len(list((path / "segments").iterdir())) == len(index._store.segments()), "what was left over is gone"
    check(path, encoder, expected, [Step(put=[("later", "oak", 1)]).applied(state)], random)


@pytest.mark.parametrize("point", MERGE_POINTS)
def test_a_writer_killed_at_a_point_of_a_compaction(
    three_commits: tuple[Path, State], encoder: Any, expected: Any, forked: Any, point: str
) -> None:
    path, state = three_commits
    target, name = MERGE_POINTS[point]

    def compact(tell: Any) -> None:
        with CrispIndex.open(path, encoder) as index:
            index.delete(ids=["missing"])  # sweeps, so that only the compaction's own deletion comes to the point
            setattr(target, name, die)
            index.compact()

    assert forked(compact).wait()[0] == -signal.SIGKILL
    random = np.random.default_rng(0)
    check(path, encoder, expected, [state], random)
    with CrispIndex.open(path, encoder) as index:
        index.compact()
        assert len(list((path / "segments").iterdir())) == 1
    check(path, encoder, expected, [state], random)


def test_a_segment_and_its_folder_are_synced_before_the_commit_that_refers_to_it(
    tmp_path: Path, encoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, unlink = os.fsync, Path.unlink

    def recorded(descriptor: int) -> None:
        fsync(descriptor)
        events.append(f"fsync {Path(os.readlink(f'/proc/self/fd/{descriptor}')).suffix or 'folder'}")

    def unlinked(path: Path, missing_ok: bool = False) -> None:
        unlink(path, missing_ok)
        events.append(f"unlink {path.suffix}")

    def statement(sql: str) -> None:
        if sql.startswith(("COMMIT", "INSERT INTO segments")):
            events.append(sql.split()[0])

    with CrispIndex.create(tmp_path / "index", encoder) as index:
        index.add_texts(["oak", "pine"], ids=["a", "b"])
        monkeypatch.setattr(os, "fsync", recorded)
        monkeypatch.setattr(writing, "acknowledge", lambda *_: events.append("acknowledged"))
        unlink = Path.unlink
        monkeypatch.setattr(
            Path, "unlink", lambda self, **options: events.append(f"unlink {self.suffix}") or unlink(self, **options)
        )
        index._store.connection.set_trace_callback(statement)
        index.add_texts(["fir"], ids=["a"])
        added, events[:] = list(events), []
        index.compact()
    written = ["fsync .7bit", "fsync folder", "INSERT", "COMMIT", "acknowledged"]
    assert in_order(added, written)
    assert in_order(events, [*written, "unlink .7bit"]), "old files go last"


def in_order(events: list[str], wanted: list[str]) -> bool:
    """Whether the wanted events occur, in this order."""
    left = iter(events)
    return all(event in left for event in wanted)
