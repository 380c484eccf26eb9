"""Which folder an index was opened in: a path may lead to another one later.

Restoring a copy, ``mv`` and ``cp`` put another folder, or another database, under the path of an open index.  What is
written then would go half into the old files and half into the new ones.
"""

from __future__ import annotations

import os
from pathlib import Path

from crisp_rag.errors import IndexReplacedError
from crisp_rag.index.access import explained

_Identity = tuple[int, int, int, int]


class Place:
    """The folder and the database that were found under a path.

    Args:
        folder: The index folder, as a path that does not depend on the current directory.

    Raises:
        FileNotFoundError: if there is none.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._identity = self._now()

    def check(self) -> None:
        """See that they are still there.

        Raises:
            IndexReplacedError: if they are gone, or others are in their place.
            AccessError: if the system does not say.
        """
        try:
            now = self._now()
        except (FileNotFoundError, NotADirectoryError):
            raise IndexReplacedError(
                f"The index at {self._folder} was moved or removed while it was open: close it, and open it where it is now."
            ) from None
        if now != self._identity:
            raise IndexReplacedError(
                f"The index at {self._folder} was replaced by another one while it was open: close it and open it again."
            )

    def _now(self) -> _Identity:
        try:
            folder, database = os.stat(self._folder), os.lstat(self._folder / "index.sqlite")
        except (FileNotFoundError, NotADirectoryError):
            raise
        except OSError as error:
            with explained(self._folder):
                raise error
        return folder.st_dev, folder.st_ino, database.st_dev, database.st_ino
