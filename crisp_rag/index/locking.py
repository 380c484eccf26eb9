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

from crisp_rag.errors import ForkedError, IndexLockedError
from crisp_rag.index.file_lock import FileLock
from crisp_rag.index.plain_files import NO_SURPRISES, read_plain


class WriterLock:
    """A lock over an index folder: threads of this process queue, other processes wait or are told who holds it.

    The operating system releases the lock when its holder dies, so a killed writer blocks nobody.  A lock belongs to
    the process that made it; a forked one makes its own.

    Args:
        folder: The index folder.
        wait: Seconds to wait for another process, 0 to fail at once.
    """

    def __init__(self, folder: Path, wait: float = 0.0) -> None:
        self._folder = folder
        self._wait = wait
        self._threads = threading.RLock()
        self._lock = FileLock(folder / "writer.lock")
        self._depth = 0
        self._process = os.getpid()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock for a write.

        Raises:
            IndexLockedError: if another process holds it longer than ``wait`` seconds.
            AccessError: if this process may not write to the folder.
            ForkedError: in a process that was forked in the middle of a write.
        """
        self.check_process()
        with self._threads:
            if self._depth == 0:
                if not self._lock.acquire(self._wait):
                    raise IndexLockedError(
                        f"{self._folder} is being written by {self._holder()}; try again later, or open it with "
                        "wait=SECONDS."
                    )
                self._sign()
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                if self._depth == 0 and self._process == os.getpid():
                    with contextlib.suppress(OSError):
                        (self._folder / "writer.json").unlink(missing_ok=True)
                    self._lock.release()

    def check_process(self) -> None:
        """See that this is the process that the lock belongs to.

        Raises:
            ForkedError: if it is not: what goes on here is a copy of what its parent goes on with.
        """
        if self._process != os.getpid():
            raise ForkedError(
                f"This process was forked in the middle of a write to {self._folder}, which its parent goes on with: "
                "fork before or after a write."
            )

    def _sign(self) -> None:
        holder = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "program": Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "python",
            "since": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        with contextlib.suppress(OSError):  # on a full disk a writer without a name may still delete
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | NO_SURPRISES
            with os.fdopen(os.open(self._folder / "writer.json", flags, 0o666), "w", encoding="utf-8") as file:
                json.dump(holder, file)

    def _holder(self) -> str:
        try:
            holder = json.loads(read_plain(self._folder / "writer.json"))
            return f"process {holder['pid']} ({holder['program']}) on {holder['host']} since {holder['since']}"
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return "another process"
