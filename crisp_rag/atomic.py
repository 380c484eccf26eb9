"""Files that a reader, or a crash, finds old or new and never half; and with the rights that the user's umask gives."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A new file that takes the place of ``path`` once the block has ended, and goes where the block raises.

    Its rights are those of any file that the process makes: a temporary file of Python's would have its own.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.parent / f".{path.name[:40]}.{uuid.uuid4().hex[:12]}"
    try:
        with name.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        name.unlink(missing_ok=True)
        raise
