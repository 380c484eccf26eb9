"""One folder in another one's place: in one step where the system can, and to be finished by anyone where it cannot.

Linux and macOS exchange two names at once.  Elsewhere there is a moment in which the older folder has been set aside and
the newer one has not got its name yet: who dies in it leaves nothing there, and the next one to look puts it back.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import sys
import uuid
from pathlib import Path

_LINUX_EXCHANGE, _LINUX_HERE = 2, -100
_MACOS_SWAP = 2
_ASIDE = ".old"


def beside(target: Path) -> Path:
    """A new name in the target's folder."""
    return target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}"


def take_place(newer: Path, target: Path) -> None:
    """Give a folder the name of another one, which is removed.

    Args:
        newer: A folder beside the target, named by :func:`beside`.
        target: The folder that goes.
    """
    if _exchanged(newer, target):
        shutil.rmtree(newer, ignore_errors=True)
        return
    aside = newer.with_name(newer.name + _ASIDE)
    target.rename(aside)
    try:
        newer.rename(target)
    except OSError:
        if not target.exists():
            aside.rename(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def put_back(target: Path) -> None:
    """Where nothing has the name, and a folder was set aside for one that never got it, give it back."""
    if os.path.lexists(target) or not target.name:
        return
    with contextlib.suppress(OSError):
        aside = sorted(
            target.parent.glob(f".{_plain(target.name)}.????????{_ASIDE}"), key=lambda path: path.stat().st_mtime_ns
        )
        if aside:
            aside[-1].rename(target)


def _plain(name: str) -> str:
    """A name for ``glob``, in which brackets and stars mean themselves."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _exchanged(one: Path, other: Path) -> bool:
    """Whether two names were exchanged in one step."""
    with contextlib.suppress(OSError, AttributeError, ValueError):
        first, second = os.fsencode(os.path.abspath(one)), os.fsencode(os.path.abspath(other))
        library = ctypes.CDLL(None, use_errno=True)
        if sys.platform.startswith("linux"):
            return bool(library.renameat2(_LINUX_HERE, first, _LINUX_HERE, second, _LINUX_EXCHANGE) == 0)
        if sys.platform == "darwin":
            return bool(library.renamex_np(first, second, _MACOS_SWAP) == 0)
    return False
