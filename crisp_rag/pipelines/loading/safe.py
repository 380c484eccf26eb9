"""Read files in a process that can be stopped, within limits of size, time and memory.

    with SafeReader(Limits(seconds=10)) as reader:
        document = reader.load("from-a-stranger.pdf")

A small file can keep a parser busy for ever or fill the memory.  So a process of its own does the reading: what exceeds
its limits ends that process, and the next file gets another.  One process reads many files, because starting it takes a
fifth of a second.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any

from crisp_rag.errors import IngestError, InvalidInputError
from crisp_rag.pipelines.loading.document import Extracted, LoadedDocument, Place, Skipped
from crisp_rag.pipelines.loading.reading import assembled, read_bytes

HEADER = struct.Struct("<QQ")
WHOLE = 20
"""Times the limit of seconds that a file takes together with all the files inside it."""
_START = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from crisp_rag.pipelines.loading.worker import main; main(int(sys.argv[2]), float(sys.argv[3]))"
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a source file may take.

    Args:
        megabytes: Size of the file, in MiB.
        seconds: Time to read it; each file inside it has as much, and all together twenty times that.
        memory: Memory of the reading process, in MiB.  Enforced where the system can (Linux).

    Raises:
        InvalidInputError: if one is not above 0.
    """

    megabytes: float = 100.0
    seconds: float = 30.0
    memory: float = 2048.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise InvalidInputError(f"The limit of {field.name} must be above 0, got {getattr(self, field.name)!r}.")


class SafeReader:
    """Reads files in a process of its own, which is started for the first one and used for all.

    Args:
        limits: What each file may take.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._process: subprocess.Popen[bytes] | None = None
        self._until = float("inf")

    def __enter__(self) -> SafeReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def load(self, path: str | os.PathLike[str]) -> LoadedDocument:
        """As :func:`crisp_rag.pipelines.loading.load_file`, within the limits."""
        return self.parse(path, self.read(path))

    def read(self, path: str | os.PathLike[str]) -> bytes:
        """The bytes of a file.

        Raises:
            IngestError: if it cannot be read, or is too long.
        """
        return read_bytes(path, int(self.limits.megabytes * 2**20))

    def parse(self, path: str | os.PathLike[str], data: bytes) -> LoadedDocument:
        """As :func:`crisp_rag.pipelines.loading.parse_file`, within the limits."""
        self._until = time.monotonic() + WHOLE * self.limits.seconds
        try:
            return assembled(Path(path).resolve().as_posix(), data, self.extract)
        finally:
            self._until = float("inf")

    def extract(self, path: str, data: bytes) -> Extracted:
        """Read one file's bytes.

        Raises:
            IngestError: if they cannot be read, or not within the limits.
            ImportError: naming the extra to install.
        """
        if len(data) > self.limits.megabytes * 2**20:
            raise IngestError(
                f"{path} has {len(data) / 2**20:.1f} MiB, more than the limit of {self.limits.megabytes:g} MiB."
            )
        if time.monotonic() > self._until:
            raise IngestError(f"{path} was not read: the files around it took {WHOLE} times the limit of a file.")
        process = self._running()
        late = threading.Event()

        def stop() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(self.limits.seconds, stop)
        timer.daemon = True
        timer.start()
        try:
            answer, rest = self._asked(process, path, data)
        except (OSError, EOFError, ValueError) as error:
            self.close()
            if late.is_set():
                said = f"took longer than the limit of {self.limits.seconds:g} s"
            else:
                said = f"broke its reader, which may take {self.limits.memory:g} MiB of memory: it is damaged or too large"
            raise IngestError(f"{path} {said}.") from error
        except BaseException:
            self.close()  # what was asked for is still to come, and would be taken for the next answer
            raise
        finally:
            timer.cancel()
        if late.is_set():
            self.close()  # it was stopped in the moment in which it was done
        if "missing" in answer:
            raise ImportError(answer["missing"])
        if "error" in answer:
            raise IngestError(answer["error"])
        return _extracted(answer, rest)

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    pass  # what it did not take any more
        process.wait()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.close()
        memory = int(self.limits.memory * 2**20)
        paths = json.dumps([os.path.abspath(path) for path in sys.path])
        # -I: nothing that lies in the current folder is taken for a module of ours.
        command = [sys.executable, "-I", "-c", _START, paths, str(memory), str(self.limits.seconds)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_environment()
        )
        return self._process

    @staticmethod
    def _asked(process: subprocess.Popen[bytes], path: str, data: bytes) -> tuple[dict[str, Any], bytes]:
        assert process.stdin is not None and process.stdout is not None
        name = path.encode("utf-8", "surrogatepass")
        process.stdin.write(HEADER.pack(len(name), len(data)))
        process.stdin.write(name)
        process.stdin.write(data)
        process.stdin.flush()
        sizes = HEADER.unpack(_exactly(process.stdout, HEADER.size))
        answer = json.loads(_exactly(process.stdout, sizes[0]))
        return answer, _exactly(process.stdout, sizes[1])


def _environment() -> dict[str, str]:
    """The environment without what is none of a parser's business, such as keys."""
    kept = {"PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"}
    # One thread is enough, and thread pools take address space, which counts as memory.
    return {key: value for key, value in os.environ.items() if key.upper() in kept} | {"OMP_NUM_THREADS": "1"}


def _exactly(pipe: Any, size: int) -> bytes:
    data = pipe.read(size)
    if len(data) < size:
        raise EOFError("the reading process ended")
    return bytes(data)


def _extracted(answer: dict[str, Any], rest: bytes) -> Extracted:
    members, position = [], 0
    for name, size in answer["members"]:
        members.append((name, rest[position : position + size]))
        position += size
    return Extracted(
        text=answer["text"],
        format=answer["format"],
        title=answer["title"],
        places=tuple(Place(start, data) for start, data in answer["places"]),
        notes=tuple(answer["notes"]),
        members=tuple(members),
        skipped=tuple(Skipped(path, reason) for path, reason in answer["skipped"]),
    )
