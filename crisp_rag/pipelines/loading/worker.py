"""The other side of :class:`crisp_rag.pipelines.loading.SafeReader`: reads what comes on its standard input.

A request is the length of a name and of a file's bytes, then both; an answer is the length of a JSON object and of the
members' bytes, then both.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

from crisp_rag.errors import IngestError
from crisp_rag.pipelines.loading.registry import extract
from crisp_rag.pipelines.loading.safe import HEADER


def main(memory: int, seconds: float) -> None:
    """Answer until the input ends.

    Args:
        memory: Bytes that this process may take.
        seconds: Of processor time for one file; whoever started this stops it sooner, unless he is gone.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C is for who started this
    given, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    # What a library prints is no answer.
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    _limit_memory(memory)
    while len(header := given.read(HEADER.size)) == HEADER.size:
        name_size, data_size = HEADER.unpack(header)
        path = given.read(name_size).decode("utf-8", "surrogatepass")
        data = given.read(data_size)
        if len(data) < data_size:
            return
        _limit_time(seconds)
        answer, members = _answer(path, data, memory)
        said = json.dumps(answer).encode()
        answers.write(HEADER.pack(len(said), sum(map(len, members))))
        answers.write(said)
        for member in members:
            answers.write(member)
        answers.flush()


def _answer(path: str, data: bytes, memory: int) -> tuple[dict[str, Any], list[bytes]]:
    try:
        found = extract(path, data)
    except ImportError as error:
        return {"missing": str(error)}, []
    except IngestError as error:
        return {"error": str(error)}, []
    except MemoryError:
        return {"error": f"{path} takes more than {memory >> 20} MiB of memory to read."}, []
    answer = {
        "text": found.text,
        "format": found.format,
        "title": found.title,
        "places": [(place.start, dict(place.data)) for place in found.places],
        "notes": list(found.notes),
        "members": [(name, len(content)) for name, content in found.members],
        "skipped": [(item.path, item.reason) for item in found.skipped],
    }
    return answer, [content for _, content in found.members]


def _limit_memory(memory: int) -> None:
    try:
        import resource
    except ImportError:
        return  # Windows has no such limit for a process that is already running
    try:
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (memory if hard == resource.RLIM_INFINITY else min(memory, hard), hard))
        # No file of core is left where a parser breaks down.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ValueError, OSError):
        pass  # macOS refuses it


def _limit_time(seconds: float) -> None:
    """Whoever started this may have been killed meanwhile; then nobody stops a parser that runs for ever."""
    try:
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        allowed = int(used.ru_utime + used.ru_stime + seconds) + 5
        resource.setrlimit(resource.RLIMIT_CPU, (allowed if hard == resource.RLIM_INFINITY else min(allowed, hard), hard))
    except (ImportError, ValueError, OSError):
        pass
