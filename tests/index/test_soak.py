"""Forks, kills, restores, read-only mounts, writers and readers at random over one index: nothing wrong, nothing lost.

CRISP_RAG_SOAK_MINUTES says for how long, 3 by default; CRISP_RAG_SOAK_LOG names a file for what happened.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crisp_rag.errors import AccessError, CrispError, IndexLockedError, IndexReplacedError
from crisp_rag.index import CrispIndex, Passage, crisp_index, merging, verify_index

MINUTES = float(os.environ.get("CRISP_RAG_SOAK_MINUTES", "3"))
WRITERS = "ab"
WORDS = ["oak", "pine", "fir", "elm", "alder", "birch"]
State = dict[str, str]


def seen(index: CrispIndex) -> State:
    """What a reader is told, in two ways that must agree; passages come in pairs that no commit parts."""
    for _ in range(100):
        before = index.generation
        found = {hit.id: hit.text for hit in index.search("oak pine", k=10**6)}
        listed = {passage.id: passage.text for passage in index.passages({"soak": True})}
        if index.generation == before:
            assert found == listed
            break
    pairs = Counter(id_.rpartition("-")[0] for id_ in found)
    assert set(pairs.values()) <= {2}, f"half a commit: {pairs.most_common()[-3:]}"
    return found


def steps(random: np.random.Generator, name: str, own: State) -> tuple[str, list[str], dict[str, str]]:
    """A change of one writer: its kind, the ids that go, and the passages that come, by id."""
    pairs = sorted({id_.rpartition("-")[0] for id_ in own})
    kind = str(random.choice(["add", "add", "add", "replace", "delete", "compact"]))
    if len(pairs) > 60:
        kind = "delete"
    gone, come = [], []
    if kind in ("replace", "delete") and pairs:
        gone = random.choice(pairs, size=min(len(pairs), int(random.integers(1, 12))), replace=False).tolist()
    if kind in ("add", "replace"):
        come = [f"{name}{random.integers(0, 2**40):010x}" for _ in range(int(random.integers(1, 4)))]
        come += gone[:1] if kind == "replace" else []
    texts = {f"{pair}-{half}": " ".join(random.choice(WORDS, size=random.integers(1, 7))) for pair in come for half in "xy"}
    return kind, [f"{pair}-{half}" for pair in gone for half in "xy"], texts


def applied(state: State, gone: list[str], come: dict[str, str]) -> State:
    return {id_: text for id_, text in state.items() if id_ not in gone} | come


def write_on(index: CrispIndex, name: str, seed: int, own: State, until: float) -> Callable[[Callable[[str], None]], None]:
    """A process that changes what belongs to one writer, through a handle that it inherited, and tells of each commit."""

    def run(tell: Callable[[str], None]) -> None:
        random, now = np.random.default_rng(seed), own
        while time.monotonic() < until:
            kind, gone, come = steps(random, name, now)
            tell(json.dumps([gone, come]))
            try:
                if kind == "compact":
                    index.compact()
                elif kind == "delete":
                    index.delete(ids=gone)
                else:
                    index.replace(gone, [Passage(id_, text, {"soak": True}) for id_, text in come.items()])
            except IndexLockedError:
                tell("locked")
                continue
            now = applied(now, gone, come)
            tell("done")
        index.close()

    return run


def allowed(own: State, lines: list[str]) -> tuple[list[State], int]:
    """The state that a writer was told of and the one with the commit that was under way; and how many it was told of."""
    waiting: tuple[list[str], dict[str, str]] | None = None
    done = 0
    for line in lines:
        assert not line.startswith("error"), "\n".join(lines)
        if line == "done" and waiting is not None:
            own, waiting, done = applied(own, *waiting), None, done + 1
        elif line == "locked":
            waiting = None
        elif line.startswith("[") and line.endswith("]"):
            waiting = tuple(json.loads(line))  # type: ignore[assignment]
    return [own, *([applied(own, *waiting)] if waiting else [])], done


class Looker:
    """A process with a handle that it inherited; it lives on and says what it sees when it is asked."""

    def __init__(self, forked: Any, index: CrispIndex | None, path: Path, encoder: Any) -> None:
        reading, self._asking = os.pipe()

        def run(tell: Callable[[str], None]) -> None:
            opened = index
            with os.fdopen(reading) as asked:
                for line in asked:
                    if line == "end\n":
                        break
                    try:
                        if line == "open\n":
                            if opened is not None:
                                opened.close()
                            opened = CrispIndex.open(path, encoder)
                        assert opened is not None
                        if line == "write\n":
                            opened.add_texts(["oak"])
                        tell(json.dumps(seen(opened)))
                    except IndexReplacedError:
                        tell("replaced")
                    except AccessError:
                        tell("refused")
                    except IndexLockedError:
                        tell("busy")

        self._process = forked(run)
        os.close(reading)

    def ask(self, what: str = "look") -> Any:
        os.write(self._asking, f"{what}\n".encode())
        said = self._process.readline()
        return json.loads(said) if said.startswith("{") else said

    def end(self) -> None:
        os.write(self._asking, b"end\n")
        os.close(self._asking)
        code, lines = self._process.wait(60)
        assert code == 0, lines


class Soak:
    """One index, what it must hold, and what may happen to it."""

    def __init__(self, tmp_path: Path, encoder: Any, forked: Any, random: np.random.Generator) -> None:
        self.path, self.copy, self.read_only = tmp_path / "index", tmp_path / "copy", tmp_path / "read-only"
        self.encoder, self.forked, self.random = encoder, forked, random
        self.counts: Counter[str] = Counter()
        self.state: dict[str, State] = {name: {} for name in WRITERS}
        self.copied: list[State] = []
        self.index = CrispIndex.create(self.path, encoder, wait=60, indexed_fields=["soak"])
        self.looker = Looker(forked, self.index, self.path, encoder)

    @property
    def whole(self) -> State:
        return {id_: text for own in self.state.values() for id_, text in own.items()}

    def writers(self) -> None:
        """Two processes write, one or both are killed; threads of this process search meanwhile."""
        until = time.monotonic() + float(self.random.uniform(0.2, 2))
        with self._searching():
            started = {
                name: self.forked(write_on(self.index, name, int(self.random.integers(2**31)), self.state[name], until))
                for name in WRITERS
            }
            for name in WRITERS:
                if self.random.integers(0, 3):
                    time.sleep(float(self.random.uniform(0, 0.4)))
                    started[name].kill()
                    self.counts["kills of a writer"] += 1
            ended = {name: process.wait(120) for name, process in started.items()}
        there = seen(self.index)
        for name, (code, lines) in ended.items():
            assert code in (0, -signal.SIGKILL), lines
            own = {id_: text for id_, text in there.items() if id_.startswith(name)}
            states, done = allowed(self.state[name], lines)
            assert own in states, f"writer {name} lost what it was told of"
            self.counts["acknowledged commits"] += done
            self.counts["commits not yet acknowledged"] += own != states[0]
            self.state[name] = own
        self.counts["forks"] += 2

    def readers(self) -> None:
        """Processes forked from an open handle read while this one writes."""
        until = time.monotonic() + float(self.random.uniform(0.2, 1))

        def read(tell: Callable[[str], None]) -> None:
            looks = 0
            while time.monotonic() < until or not looks:
                seen(self.index)
                looks += 1
            tell(str(looks))

        processes = [self.forked(read) for _ in range(3)]
        while time.monotonic() < until:
            self.write_here()
        for process in processes:
            code, lines = process.wait(120)
            assert code == 0, lines
            self.counts["looks beside a writer"] += int(lines[-1])
        self.counts["forks"] += 3

    def write_here(self) -> None:
        name = str(self.random.choice(list(WRITERS)))
        _, gone, come = steps(self.random, name, self.state[name])
        self.index.replace(gone, [Passage(id_, text, {"soak": True}) for id_, text in come.items()])
        self.state[name] = applied(self.state[name], gone, come)
        self.counts["acknowledged commits"] += 1

    def copier(self) -> None:
        """A copy that is killed at some moment: the older or the newer one is there, whole."""
        process = self.forked(lambda tell: self.index.copy_to(self.copy) and None)
        if self.random.integers(0, 2) and self.copied:
            time.sleep(float(self.random.uniform(0, 0.1)))
            process.kill()
            self.counts["kills of a copier"] += 1
        code, lines = process.wait(120)
        assert code in (0, -signal.SIGKILL), lines
        with CrispIndex.open(self.copy, self.encoder) as opened:
            there = seen(opened)
        assert there in [*self.copied, self.whole], "a copy is of no state that was"
        self.copied = [there]
        self.counts["copies"] += 1
        for left in self.copy.parent.glob(f".{self.copy.name}.*"):
            shutil.rmtree(left)

    def restore(self) -> None:
        """The copy takes the index's place under two open handles; both refuse it until they are opened again."""
        if not self.copied:
            return
        old = self.path.with_name("old")
        self.path.rename(old)
        shutil.copytree(self.copy, self.path)
        for use in (lambda: self.index.add_texts(["oak"]), lambda: self.index.search("oak")):
            with pytest.raises(IndexReplacedError):
                use()
        assert self.looker.ask() == "replaced"
        shutil.rmtree(old)
        self.index.close()
        self.index = CrispIndex.open(self.path, self.encoder, wait=60)
        self.state = {name: {i: text for i, text in self.copied[0].items() if i.startswith(name)} for name in WRITERS}
        assert self.looker.ask("open") == self.whole
        self.counts["restores"] += 1

    def mount(self) -> None:
        """The folder on a read-only mount: it is searched there while it is written here."""
        self.read_only.mkdir(exist_ok=True)

        def system(*command: str) -> bool:
            return subprocess.run(command, capture_output=True).returncode == 0

        if not system("mount", "--bind", str(self.path), str(self.read_only)):
            return
        try:
            if not system("mount", "-o", "remount,bind,ro", str(self.read_only)):
                return
            if self.random.integers(0, 2):
                self.index.close()  # and with it, where nobody else reads, the log goes, and what SQLite shares
            reader = Looker(self.forked, None, self.read_only, self.encoder)
            assert reader.ask("open") == self.whole
            assert reader.ask("write") == "refused"
            if self.index_is_closed():
                self.index = CrispIndex.open(self.path, self.encoder, wait=60)
            self.write_here()
            assert self.whole in [reader.ask() for _ in range(3)], "what was written is not seen on the read-only mount"
            reader.end()
            self.counts["read-only mounts"] += 1
        finally:
            assert system("umount", "-l", str(self.read_only))
            if self.index_is_closed():
                self.index = CrispIndex.open(self.path, self.encoder, wait=60)

    def index_is_closed(self) -> bool:
        try:
            self.index.generation  # noqa: B018
        except CrispError:
            return True
        return False

    def check(self) -> None:
        """Everything is what it must be, for this handle, for the process that has its own, and byte by byte."""
        assert seen(self.index) == self.whole
        assert self.looker.ask() == self.whole
        report = verify_index(self.path)
        assert report.sound, report
        self.counts["checks"] += 1

    def renew(self) -> None:
        """Another process that inherits a handle, and this handle closed and opened."""
        self.looker.end()
        if self.random.integers(0, 2):
            self.index.close()
            self.index = CrispIndex.open(self.path, self.encoder, wait=60)
        self.looker = Looker(self.forked, self.index, self.path, self.encoder)
        self.counts["forks"] += 1

    @contextlib.contextmanager
    def _searching(self) -> Iterator[None]:
        done, errors = threading.Event(), []

        def search() -> None:
            try:
                while not done.is_set():
                    seen(self.index)
                    self.counts["looks beside a writer"] += 1
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=search)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
        assert not errors, errors


@pytest.mark.slow
def test_an_index_outlives_whatever_happens_to_it(
    tmp_path: Path, encoder: Any, forked: Any, monkeypatch: pytest.MonkeyPatch, record_property: Any
) -> None:
    seed = int(os.environ.get("CRISP_RAG_SOAK_SEED", time.time_ns() % 2**31))
    monkeypatch.setattr(merging, "FAN_IN", 4)
    monkeypatch.setattr(merging, "MIN_DEAD_VECTORS", 100)
    monkeypatch.setattr(crisp_index, "CHECKED_AT_OPEN", 60_000)  # some are checked whole when opened, others not
    random = np.random.default_rng(seed)
    soak = Soak(tmp_path, encoder, forked, random)
    log = Path(os.environ.get("CRISP_RAG_SOAK_LOG", tmp_path / "soak.log"))
    started = said = time.monotonic()
    events = [soak.writers, soak.writers, soak.readers, soak.copier, soak.restore, soak.mount, soak.renew]

    def note(what: str) -> None:
        figures = ", ".join(f"{count} {name}" for name, count in sorted(soak.counts.items()))
        line = f"{what} after {(time.monotonic() - started) / 60:.1f} minutes, seed {seed}: {figures}"
        print(line)
        with log.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    event = soak.check
    try:
        while time.monotonic() < started + 60 * MINUTES:
            event = events[int(random.integers(len(events)))]
            event()
            soak.counts[f"events of {event.__name__}"] += 1
            soak.check()
            if time.monotonic() > said + 60:
                said = time.monotonic()
                note("going on")
    except BaseException as error:
        note(f"failed in {event.__name__} ({type(error).__name__}: {str(error)[:300]})")
        raise
    soak.looker.end()
    soak.index.close()
    note("nothing wrong, nothing lost")
    record_property("figures", json.dumps(soak.counts))
    assert soak.counts["checks"]
