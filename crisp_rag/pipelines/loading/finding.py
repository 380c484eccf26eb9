"""Find source files below folders, without those that are to be ignored.

found = search_files(["handbook/"], exclude=["drafts/", "*.log"])
found.files, found.skipped, found.ignored
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crisp_rag.errors import IngestError, InvalidInputError
from crisp_rag.pipelines.loading.document import INSTALL, Skipped
from crisp_rag.pipelines.loading.registry import supports

IGNORE_FILES = (".gitignore", ".crispignore")
"""Files of patterns in git's form, for what lies below their folder; the second goes before the first."""


@dataclass(slots=True)
class Found:
    """What lies among sources and below folders among them.

    Args:
        files: Resolved paths of the supported files, each once.
        skipped: Unsupported, unreadable and no regular files, and why.
        ignored: Files and folders that a pattern left out; nobody needs to be told of them.
    """

    files: list[Path] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    ignored: list[Path] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Patterns:
    """Patterns for what lies below a folder; the last one that fits decides."""

    folder: Path
    spec: Any

    def ignores(self, path: Path, is_folder: bool) -> bool | None:
        """None where no pattern fits."""
        try:
            relative = path.relative_to(self.folder).as_posix()
        except ValueError:
            return None
        decided: bool | None = self.spec.check_file(f"{relative}/" if is_folder else relative).include
        return decided


def find_files(
    sources: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    exclude: Sequence[str] = (),
) -> tuple[list[Path], list[Skipped]]:
    """The supported files among sources and below folders among them; see :func:`search_files`.

    Returns:
        Resolved paths, each once, and what was skipped: unsupported, unreadable or no regular files.

    Raises:
        IngestError: if a source does not exist.
    """
    found = search_files(sources, exclude)
    return found.files, found.skipped


def search_files(
    sources: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    exclude: Sequence[str] = (),
) -> Found:
    """Search sources and the folders among them.

    Args:
        sources: Files and folders.  Folders are searched to the bottom, in order of name, links followed, each
            folder once; names that begin with a dot are passed over unless they were given themselves.
        exclude: Patterns in the form of a .gitignore, for what lies below the sources; they go before the patterns of
            ``.gitignore`` and ``.crispignore`` files.  A file that is itself a source is taken whatever they say.

    Raises:
        IngestError: if a source does not exist.
        InvalidInputError: for a pattern that is none.
        ImportError: naming the extra to install, where there are patterns.
    """
    given = [sources] if isinstance(sources, (str, os.PathLike)) else list(sources)
    found = Found()
    files: dict[Path, None] = {}
    skipped: dict[str, Skipped] = {}
    seen: set[Path] = set()
    for source in given:
        if not Path(source).exists():
            raise IngestError(f"{source} does not exist: name a file or a folder that does.")
    for source in given:
        root = Path(source).resolve()
        own = [_Patterns(root, _spec(exclude, "exclude"))] if exclude and root.is_dir() else []
        above = _patterns_above(root) if root.is_dir() else []
        for path, reason in _walk(root, seen, above, own, found.ignored):
            if reason:
                skipped.setdefault(str(path), Skipped(str(path), reason))
            else:
                files[path] = None
    found.files, found.skipped = list(files), list(skipped.values())
    return found


def _walk(
    path: Path, seen: set[Path], patterns: list[_Patterns], own: list[_Patterns], ignored: list[Path]
) -> Iterator[tuple[Path, str]]:
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
        patterns = patterns + _patterns_of(real, names)
        for name in names:
            if name.startswith("."):
                continue
            below = real / name
            if (patterns or own) and _is_ignored(below, [*patterns, *own]):
                ignored.append(below)
            else:
                yield from _walk(below, seen, patterns, own, ignored)


def _is_ignored(path: Path, patterns: Sequence[_Patterns]) -> bool:
    is_folder = path.is_dir()
    for each in reversed(patterns):
        if (decided := each.ignores(path, is_folder)) is not None:
            return decided
    return False


def _patterns_of(folder: Path, names: Iterable[str]) -> list[_Patterns]:
    """What the ignore files of a folder say; one that cannot be read says nothing."""
    there = set(names)
    found = []
    for name in IGNORE_FILES:
        if name in there:
            try:
                lines = (folder / name).read_text(encoding="utf-8", errors="replace").splitlines()
            except OSError:
                continue
            found.append(_Patterns(folder, _spec(lines, str(folder / name), strict=False)))
    return found


def _patterns_above(folder: Path) -> list[_Patterns]:
    """Those of the folders above, as far as the git repository goes that holds the folder; none outside of one."""
    above = [folder, *folder.parents]
    top = next((number for number, each in enumerate(above) if (each / ".git").exists()), 0)
    return [patterns for each in reversed(above[1 : top + 1]) for patterns in _patterns_of(each, IGNORE_FILES)]


def _spec(lines: Sequence[str], origin: str, strict: bool = True) -> Any:
    try:
        import pathspec
    except ImportError as error:
        raise ImportError(f"Leaving out files by patterns needs pathspec: {INSTALL}") from error
    kept = []
    for line in lines:
        try:
            pathspec.GitIgnoreSpec.from_lines([line])
            kept.append(line)
        except (ValueError, re.error) as error:
            if strict:
                raise InvalidInputError(f"{line!r} is no pattern of {origin}: {error}") from error
    return pathspec.GitIgnoreSpec.from_lines(kept)


def _unusable(path: Path) -> str:
    if not supports(path.name):
        return f"unsupported extension {path.suffix!r}" if path.suffix else "no extension"
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return "its name is not Unicode"
    return "" if os.access(path, os.R_OK) else "cannot be read: permission denied"
