"""Find source files below folders."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from crisp_rag.errors import IngestError
from crisp_rag.pipelines.loading.document import Skipped
from crisp_rag.pipelines.loading.registry import supports


def find_files(
    sources: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
) -> tuple[list[Path], list[Skipped]]:
    """The supported files among sources and below folders among them.

    Args:
        sources: Files and folders.  Folders are searched to the bottom, in order of name, links followed, each
            folder once; names that begin with a dot are passed over unless they were given themselves.

    Returns:
        Resolved paths, each once, and what was skipped: unsupported, unreadable or no regular files.

    Raises:
        IngestError: if a source does not exist.
    """
    given = [sources] if isinstance(sources, (str, os.PathLike)) else list(sources)
    files: dict[Path, None] = {}
    skipped: dict[str, Skipped] = {}
    seen: set[Path] = set()
    for source in given:
        if not Path(source).exists():
            raise IngestError(f"{source} does not exist: name a file or a folder that does.")
    for source in given:
        for path, reason in _walk(Path(source).resolve(), seen):
            if reason:
                skipped.setdefault(str(path), Skipped(str(path), reason))
            else:
                files[path] = None
    return list(files), list(skipped.values())


def _walk(path: Path, seen: set[Path]) -> Iterator[tuple[Path, str]]:
    """Files at or below a path, each with why it cannot be used, or with ''."""
    try:
        real = path.resolve(strict=True)
        kind = real.stat().st_mode
    except (OSError, RuntimeError) as error:
        yield path, f"a link that leads nowhere ({getattr(error, 'strerror', None) or error})"
        return
    if stat.S_ISREG(kind):
        yield (real if (reason := _unusable(real)) == "" else path), reason
    elif not stat.S_ISDIR(kind):
        yield path, "not a regular file"
    elif real not in seen:
        seen.add(real)
        try:
            names = sorted(os.listdir(real))
        except OSError as error:
            yield path, f"cannot be read: {error.strerror or error}"
            return
        for name in names:
            if not name.startswith("."):
                yield from _walk(real / name, seen)


def _unusable(path: Path) -> str:
    if not supports(path.name):
        return f"unsupported extension {path.suffix!r}" if path.suffix else "no extension"
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return "its name is not Unicode"
    return "" if os.access(path, os.R_OK) else "cannot be read: permission denied"
