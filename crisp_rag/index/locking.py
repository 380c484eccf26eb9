"""One writer at a time, and its name for everyone who has to wait."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

from filelock import FileLock, Timeout

from crisp_rag.errors import IndexLockedError


class WriterLock:
    """A lock over an index folder: threads of this process queue, other processes wait or are told who holds it.

    The operating system releases the lock when its holder dies, so a killed writer blocks nobody.

    Args:
        folder: The index folder.
        wait: Seconds to wait for another process, 0 to fail at once.
    """

    def __init__(self, folder: Path, wait: float = 0.0) -> None:
        self._folder = folder
        self._wait = wait
        self._threads = threading.RLock()
        self._lock = FileLock(str(folder / "writer.lock"), thread_local=False)
        self._depth = 0

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock for a write.

        Raises:
            IndexLockedError: if another process holds it longer than ``wait`` seconds.
        """
        with self._threads:
            if self._depth == 0:
                try:
                    self._lock.acquire(timeout=self._wait, poll_interval=0.02)
                except Timeout:
                    raise IndexLockedError(
                        f"{self._folder} is being written by {self._holder()}; try again later, or open it with "
                        "wait=SECONDS."
                    ) from None
                self._sign()
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                if self._depth == 0:
                    (self._folder / "writer.json").unlink(missing_ok=True)
                    self._lock.release()

    def _sign(self) -> None:
        holder = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "program": Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "python",
            "since": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        with contextlib.suppress(OSError):  # on a full disk a writer without a name may still delete
            (self._folder / "writer.json").write_text(json.dumps(holder), encoding="utf-8")

    def _holder(self) -> str:
        try:
            holder = json.loads((self._folder / "writer.json").read_text(encoding="utf-8"))
            return f"process {holder['pid']} ({holder['program']}) on {holder['host']} since {holder['since']}"
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"
