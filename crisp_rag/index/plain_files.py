"""Files of an index folder that a stranger may have made: only plain ones, that lie in the folder itself, are read.

A link would lead out of the folder, a pipe or a device would keep its reader waiting for ever.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import IO

from crisp_rag.errors import IndexCorruptError

NO_SURPRISES = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
"""Flags with which opening a file follows no link and waits for nobody, where the system has them."""
_MOST = 1 << 26
"""Bytes of the largest small file, ``candidates/current.json``, which has less than a thousand of them."""


def check_plain(path: Path) -> os.stat_result:
    """What the system says of a file that is no link, pipe, device or folder.

    Raises:
        FileNotFoundError: if there is none.
        IndexCorruptError: if it is something else.
    """
    status = os.lstat(path)
    if not stat.S_ISREG(status.st_mode):
        raise _no_file(path)
    return status


def check_folder(path: Path) -> None:
    """See that a folder below the index folder is one and no link; one that is missing is no error."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(status.st_mode):
        raise IndexCorruptError(f"{path} is no folder, and an index is read only below its own: restore it from a copy.")


def open_plain(path: Path) -> IO[bytes]:
    """The file, open for reading; it is looked at again once it is open, so that nobody can exchange it in between.

    Raises:
        FileNotFoundError: if there is none.
        IndexCorruptError: if it is a link, a pipe, a device or a folder.
    """
    check_plain(path)
    descriptor = os.open(path, os.O_RDONLY | NO_SURPRISES)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _no_file(path)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_plain(path: Path) -> str:
    """The text of a small file; errors as for :func:`open_plain`, and ValueError where it is no text or too large."""
    try:
        with open_plain(path) as file:
            said = file.read(_MOST + 1)
    except IndexCorruptError as error:
        raise ValueError(str(error)) from error
    if len(said) > _MOST:
        raise ValueError(f"{path} is too large")
    return said.decode("utf-8")


def _no_file(path: Path) -> IndexCorruptError:
    return IndexCorruptError(
        f"{path} is no plain file, and an index is read only below its own folder: copy what it leads to in its place."
    )
