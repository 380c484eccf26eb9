"""Which change was acknowledged last, kept beside the database so that losing it is noticed.

SQLite ends its log at the first frame that is damaged: the changes behind it vanish, and what is left is a sound
older state that nothing in the database tells from the newest one.  So the number of every change is also written
here, after its commit and before the caller hears of it.  An index that is older than this file has lost something.

The file carries a checksum and is not synced: where it is damaged or missing, it says nothing.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from crisp_rag.errors import IndexCorruptError
from crisp_rag.index.access import explained
from crisp_rag.index.numbers import is_number
from crisp_rag.index.plain_files import NO_SURPRISES, read_plain

NAME = "acknowledged"


def acknowledge(folder: Path, generation: int) -> None:
    """Note that a change is about to be acknowledged; a disk too full for the note changes nothing else."""
    said = f"{generation} {_checksum(generation)}\n".encode()
    try:
        descriptor = os.open(folder / NAME, os.O_WRONLY | os.O_CREAT | NO_SURPRISES, 0o666)
        try:
            os.pwrite(descriptor, said, 0)  # numbers only grow, so that a longer line never leaves a rest behind
        finally:
            os.close(descriptor)
    except OSError:
        pass


def acknowledged(folder: Path) -> int:
    """The number of the last acknowledged change, 0 where the file does not say.

    Raises:
        AccessError: if the system refuses the file, which says nothing about what was acknowledged.
    """
    try:
        with explained(folder / NAME):
            number, checksum = read_plain(folder / NAME).split()
        return int(number) if is_number(number) and checksum == _checksum(int(number)) else 0
    except (FileNotFoundError, ValueError):
        return 0


def check_acknowledged(path: Path, newest: int, generation: int) -> None:
    """Compare what a database says with what was acknowledged before it was read.

    Raises:
        IndexCorruptError: if changes are missing.
    """
    if generation < newest:
        raise IndexCorruptError(
            f"{path}-wal was truncated or altered, or {path} is an older copy: the last {newest - generation} acknowledged "
            f"changes are missing; restore the folder from a copy, or remove {path.parent / NAME} to go on without them."
        )


def _checksum(generation: int) -> str:
    return hashlib.blake2b(str(generation).encode(), digest_size=8).hexdigest()
