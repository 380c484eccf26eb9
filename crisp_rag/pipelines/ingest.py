"""Put files into an index, and keep it in step with them.

    report = ingest(index, ["handbook/"])     # again after an edit: touches only what changed
    report.added, report.unchanged, report.removed, report.skipped

A file is known by its absolute path and by a digest of its bytes and of the settings that cut it.  A file that
vanished from a given folder leaves the index; one that can no longer be read stays as it was and is reported.  Files are
read in a process of their own, within limits: what exceeds them is skipped, and the rest goes on.
"""

from __future__ import annotations

import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from crisp_rag.errors import IndexLockedError, IngestError, InvalidInputError
from crisp_rag.index.types import Passage
from crisp_rag.pipelines.loading import (
    LOADER_VERSION,
    Found,
    Limits,
    LoadedDocument,
    Note,
    SafeReader,
    Skipped,
    bytes_digest,
    search_files,
)
from crisp_rag.pipelines.splitting import DEFAULT_MAX_TOKENS, SPLITTER_VERSION, PassageSplitter

if TYPE_CHECKING:
    from crisp_rag.index.crisp_index import CrispIndex

BATCH_PASSAGES = 256
"""Files are committed together once they have this many passages."""


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What an ingestion did.

    Args:
        files: Files from these sources that the index holds now.
        passages: Passages that the index holds now, of whatever source.
        added: Files that were new or had changed.
        unchanged: Files that were in the index already, byte for byte, and were left as they are.
        removed: Files that were dropped because they vanished or hold no text any more.
        skipped: Files that were passed over, and why.
        notes: What was lost or is doubtful in files that were read.
        seconds: How long it took.
    """

    files: int
    passages: int
    added: int
    unchanged: int
    removed: int
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """The same as a dict, ready for JSON."""
        return asdict(self)


@dataclass(slots=True)
class _Known:
    """What the index holds of a file."""

    ids: list[str] = field(default_factory=list)
    digests: set[str] = field(default_factory=set)


class _Batch:
    """Changes of whole files, committed together: a reader sees a file's old passages or its new ones."""

    def __init__(self, index: CrispIndex) -> None:
        self._index = index
        self._delete: list[str] = []
        self._add: list[Passage] = []

    def change(self, old: Iterable[str], new: Iterable[Passage] = ()) -> None:
        self._delete.extend(old)
        self._add.extend(new)
        if len(self._add) >= BATCH_PASSAGES:
            self.flush()

    def flush(self) -> None:
        if self._delete or self._add:
            self._index.replace(self._delete, self._add)
            self._delete, self._add = [], []


def ingest(
    index: CrispIndex,
    sources: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    max_tokens: int | None = None,
    limits: Limits | None = None,
    exclude: Sequence[str] = (),
    wait: float = 0.0,
    show_progress: bool = False,
) -> IngestReport:
    """Bring an index in step with files and folders.

    Args:
        index: The index to write to.
        sources: Files and folders; see :func:`crisp_rag.pipelines.loading.find_files`.  What the index holds from
            elsewhere is left alone.
        max_tokens: The most tokens of a passage; by default 200, or what the encoder reads if that is less.
        limits: What each file may take of size, time and memory.
        exclude: Patterns in the form of a .gitignore, of what below the sources is left out, beside what ``.gitignore``
            and ``.crispignore`` files name there.  What was indexed before and is left out now leaves the index.
        wait: Seconds to wait for another run that fills the same index.
        show_progress: Draw a progress bar on stderr.

    Returns:
        What was done.  Files are committed in batches: after a crash, run it again.

    Raises:
        IngestError: if a source does not exist; nothing was written.
        IndexLockedError: if another run fills the same index, for longer than ``wait``.
        InvalidInputError: if ``max_tokens`` is below 16 or beyond what the encoder reads.
        ImportError: naming the extra to install, if a library for a file is missing.
    """
    with _alone(Path(index.path), wait):
        return _ingested(index, sources, max_tokens, limits, exclude, show_progress)


def _ingested(
    index: CrispIndex,
    sources: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    max_tokens: int | None,
    limits: Limits | None,
    exclude: Sequence[str],
    show_progress: bool,
) -> IngestReport:
    began = time.perf_counter()
    given = [sources] if isinstance(sources, (str, os.PathLike)) else list(sources)
    found = search_files(given, exclude)
    files, skipped = found.files, found.skipped
    own_folder = Path(index.path).resolve()
    roots = [Path(source).resolve() for source in given]
    files = [file for file in files if not file.is_relative_to(own_folder)]
    skipped = [item for item in skipped if not Path(item.path).is_relative_to(own_folder)]

    splitter = _splitter(index, max_tokens)
    settings = f"{LOADER_VERSION}:{SPLITTER_VERSION}:{splitter.max_tokens}".encode()
    known = _known_files(index)
    batch = _Batch(index)
    removed = 0
    for source in _vanished(known, roots, found):
        batch.change(known.pop(source).ids)
        removed += 1

    added = unchanged = 0
    notes: list[Note] = []
    with _progress(len(files), show_progress) as advance, SafeReader(limits) as reader:
        for file in files:
            source = file.as_posix()
            old = known.get(source, _Known())
            try:
                data = reader.read(file)
                digest = bytes_digest(settings, b"\0", data)
                if old.digests == {digest}:
                    unchanged += 1
                    continue
                document = reader.parse(file, data)
            except IngestError as error:
                skipped.append(Skipped(str(file), str(error)))
                continue
            finally:
                advance()
            passages = _passages(splitter, document, source, digest)
            skipped += document.skipped
            notes += [Note(each.path, note) for each in (document, *document.members) for note in each.notes]
            if passages:
                added += 1
                known.setdefault(source, _Known())
            else:
                skipped.append(Skipped(str(file), "; ".join(["no text", *document.notes])))
                removed += known.pop(source, None) is not None
            batch.change(old.ids, passages)
        batch.flush()

    # Links may lead out of the given folders, so what was found counts too.
    present = {file.as_posix() for file in files}
    return IngestReport(
        files=sum(source in present or _is_below(Path(source), roots) for source in known),
        passages=len(index),
        added=added,
        unchanged=unchanged,
        removed=removed,
        skipped=skipped,
        notes=notes,
        seconds=time.perf_counter() - began,
    )


def _passages(splitter: PassageSplitter, document: LoadedDocument, source: str, digest: str) -> list[Passage]:
    """The passages of a document and of those inside it, which are known by the file that holds them."""
    passages = splitter.split(replace(document, digest=digest))
    for member in document.members:
        for passage in splitter.split(replace(member, digest=digest)):
            passages.append(replace(passage, metadata={**passage.metadata, "inside": source}))
    return passages


def _splitter(index: CrispIndex, max_tokens: int | None) -> PassageSplitter:
    encoder: Any = index.encoder
    limit = int(encoder.max_document_tokens)
    tokenizer = getattr(encoder, "tokenizer", None)
    if tokenizer is None:
        raise InvalidInputError(f"The encoder {encoder.name!r} has no tokenizer, which splitting files needs.")
    if max_tokens is not None and max_tokens > limit:
        raise InvalidInputError(f"max_tokens is {max_tokens}, and {encoder.name!r} reads only {limit} tokens.")
    return PassageSplitter(tokenizer, min(DEFAULT_MAX_TOKENS, limit) if max_tokens is None else max_tokens)


def _known_files(index: CrispIndex) -> dict[str, _Known]:
    """Source to what the index holds of it; passages that did not come from files are not among them."""
    known: dict[str, _Known] = {}
    for passage in index.passages():
        data = passage.metadata
        source, digest = data.get("inside") or data.get("source"), data.get("digest")
        if isinstance(source, str) and isinstance(digest, str) and "start" in data and "end" in data:
            entry = known.setdefault(source, _Known())
            entry.ids.append(passage.id)
            entry.digests.add(digest)
    return known


def _vanished(known: Iterable[str], roots: Sequence[Path], found: Found) -> list[str]:
    """Known sources below a given folder that are no files any more, or are ignored now; one that cannot be looked at has
    not vanished."""
    present = {file.as_posix() for file in found.files}
    closed = [Path(item.path) for item in found.skipped]
    return [
        source
        for source in known
        if source not in present
        and _is_below(Path(source), roots)
        and not _is_below(Path(source), closed)
        and (_is_gone(source) or _is_below(Path(source), found.ignored))
    ]


@contextmanager
def _alone(folder: Path, wait: float) -> Iterator[None]:
    """One run at a time fills an index: two would each do the work, and undo each other's where a file changes.

    The lock lies outside of the index, which holds its own files only; runs on several machines are not kept apart by it,
    but by the index's writer lock, commit by commit.
    """
    name = bytes_digest(str(folder.resolve()).encode("utf-8", "surrogatepass"))
    lock = FileLock(str(Path(tempfile.gettempdir()) / f"crisp-rag-{name}.lock"), mode=0o666)
    try:
        lock.acquire(timeout=wait, poll_interval=0.1)
    except Timeout:
        raise IndexLockedError(f"Another run is filling {folder}: try again when it is done, or wait for it.") from None
    try:
        yield
    finally:
        lock.release()


def _is_below(source: Path, roots: Iterable[Path]) -> bool:
    return any(source.is_relative_to(root) for root in roots)


def _is_gone(source: str) -> bool:
    try:
        return not stat.S_ISREG(os.stat(source).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False


@contextmanager
def _progress(total: int, shown: bool) -> Iterator[Callable[[], None]]:
    if not shown:
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("indexing"), BarColumn(), MofNCompleteColumn(), TextColumn("files"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("indexing", total=total)
        yield lambda: progress.advance(task)
