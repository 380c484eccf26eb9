"""How many bytes files have, while others come and go."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterable
from pathlib import Path


def bytes_below(folder: Path) -> int:
    """Bytes of all plain files in a folder and those below it, 0 where it cannot be listed."""
    with contextlib.suppress(OSError):
        return bytes_of(folder.rglob("*"))
    return 0


def bytes_of(files: Iterable[Path]) -> int:
    """Bytes of all plain files among these; one that goes meanwhile, or cannot be asked, counts nothing."""
    total = 0
    for file in files:
        with contextlib.suppress(OSError):
            status = file.lstat()
            total += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return total
