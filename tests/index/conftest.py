"""A cheap encoder, brute-force answers to compare with, and child processes for the tests of the index."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crisp_rag.index import CrispIndex, Passage
from crisp_rag.index.codecs import DEFAULT_CODEC, codec_at, codec_for

DIM = 16


class FakeEncoder:
    """One unit vector a word, drawn from the word's hash; at most 32 words.  No torch, the same everywhere."""

    source = None
    max_document_tokens = 32

    def __init__(self, name: str = "fake", fingerprint: str = "f0f0f0f0f0f0f0f0", dim: int = DIM) -> None:
        self.name = name
        self.fingerprint = fingerprint
        self.dim = dim
        self.pooling = "words"

    def encode_query(self, texts: Any, *, batch_size: int = 32, show_progress: bool = False) -> Any:
        if isinstance(texts, str):
            return self._one(texts)
        return [self._one(text) for text in texts]

    encode_document = encode_query

    def _one(self, text: str) -> np.ndarray:
        return np.stack([self._word(word) for word in text.lower().split()[: self.max_document_tokens]])

    def _word(self, word: str) -> np.ndarray:
        seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
        vector = np.random.default_rng(seed).normal(size=self.dim)
        return (vector / np.linalg.norm(vector)).astype(np.float32)


def brute_force(encoder: FakeEncoder, query: str, passages: Iterable[Passage]) -> list[tuple[str, float]]:
    """(id, MaxSim) of every passage, best first, ties in the given order, over what the default codec keeps of them."""
    codec = codec_for(codec_at(DEFAULT_CODEC, 0), encoder.dim)
    words = encoder.encode_query(query)
    scored = []
    for passage in passages:
        stored = codec.turn_back(codec.decode(codec.encode(encoder.encode_document(passage.encoded_text))))
        scored.append((passage.id, float((words @ stored.T).max(axis=1).sum())))
    return sorted(scored, key=lambda pair: -pair[1])


@pytest.fixture
def encoder() -> FakeEncoder:
    return FakeEncoder()


@pytest.fixture(scope="session")
def fresh_encoder() -> FakeEncoder:
    """The same for tests that hypothesis calls many times."""
    return FakeEncoder()


@pytest.fixture
def make_encoder() -> type[FakeEncoder]:
    return FakeEncoder


@pytest.fixture
def expected() -> Callable[..., list[tuple[str, float]]]:
    return brute_force


@pytest.fixture
def index(tmp_path: Path, encoder: FakeEncoder) -> Iterator[CrispIndex]:
    """An empty index."""
    with CrispIndex.create(tmp_path / "index.crisp", encoder) as made:
        yield made


@pytest.fixture
def bytes_a_vector() -> int:
    """What a vector takes in the file of an index of the default codec."""
    return sum(codec_for(codec_at(DEFAULT_CODEC, 0), DIM).planes)


@pytest.fixture
def float16_index(tmp_path: Path, encoder: FakeEncoder) -> Iterator[CrispIndex]:
    """An empty index that keeps vectors as they are, rounded."""
    with CrispIndex.create(tmp_path / "float16.crisp", encoder, codec="float16") as made:
        yield made


WORDS = [
    "alder",
    "birch",
    "cedar",
    "dogwood",
    "elm",
    "fir",
    "ginkgo",
    "hazel",
    "ivy",
    "juniper",
    "kapok",
    "larch",
    "maple",
    "oak",
    "pine",
    "rowan",
]


def make_passages(count: int, *, seed: int = 0, prefix: str = "p") -> list[Passage]:
    """Passages of 1 to 20 words, with metadata ``number`` and ``even``."""
    random = np.random.default_rng(seed)
    return [
        Passage(
            f"{prefix}{number}",
            " ".join(random.choice(WORDS, size=random.integers(1, 21))),
            {"number": number, "even": number % 2 == 0},
        )
        for number in range(count)
    ]


@pytest.fixture
def passages() -> Callable[..., list[Passage]]:
    return make_passages


_PRELUDE = f"""
import importlib.util, os, sys, time
spec = importlib.util.spec_from_file_location("index_helpers", {str(Path(__file__).resolve())!r})
helpers = importlib.util.module_from_spec(spec); spec.loader.exec_module(helpers)
from crisp_rag.index import CrispIndex, Passage
encoder = helpers.FakeEncoder()
path = sys.argv[1]
"""


class Children:
    """Starts Python programs that have ``CrispIndex``, ``Passage``, ``encoder``, ``helpers`` and ``path``."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[str]] = []

    def start(self, path: Path, program: str, options: Sequence[str] = ()) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "-c", _PRELUDE + textwrap.dedent(program), str(path), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).resolve().parents[2],
        )
        self._running.append(child)
        return child

    def run(self, path: Path, program: str) -> str:
        """Run to the end; returns what it printed."""
        child = self.start(path, program)
        out, err = child.communicate(timeout=60)
        assert child.returncode == 0, err
        return out.strip()

    def end(self) -> None:
        for child in self._running:
            if child.poll() is None:
                child.kill()
            child.communicate()


@pytest.fixture
def children() -> Iterator[Children]:
    made = Children()
    yield made
    made.end()


class Forked:
    """A copy of this process that runs a function and is killed at will; what it writes to its pipe is read here.

    Forking takes milliseconds where a new interpreter takes most of a second.  No index may be open here meanwhile.
    """

    def __init__(self, task: Callable[[Callable[[str], None]], None]) -> None:
        reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                os.close(reading)
                task(lambda line: os.write(writing, f"{line}\n".encode()) and None)
                code = 0
            except BaseException:
                os.write(writing, f"error {traceback.format_exc()}\n".encode())
            finally:
                os._exit(code)
        os.close(writing)
        self._pipe = os.fdopen(reading, encoding="utf-8")

    def readline(self) -> str:
        """The next line, waited for."""
        return self._pipe.readline().rstrip("\n")

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def wait(self, seconds: float = 1200) -> tuple[int, list[str]]:
        """Its exit code, negative for a signal, and the lines that are left to read; one that hangs is killed."""
        alarm = threading.Timer(seconds, self.kill)
        alarm.start()
        try:
            with self._pipe:
                lines = self._pipe.read().splitlines()
            return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]), lines
        finally:
            alarm.cancel()


@pytest.fixture
def forked() -> type[Forked]:
    if not hasattr(os, "fork"):
        pytest.skip("this platform cannot fork")
    return Forked


def contents(index: CrispIndex) -> dict[str, tuple[str, Mapping[str, Any], str]]:
    """Everything an index says about its passages, in insertion order."""
    return {passage.id: (passage.text, passage.metadata, passage.context) for passage in index.passages()}


@pytest.fixture
def everything() -> Callable[[CrispIndex], dict[str, tuple[str, Mapping[str, Any], str]]]:
    return contents
