"""Files and folders into an index, again and again: only what changed is encoded, what vanished is dropped.

    report = ingest(index, ["docs/"])

A file is known by its absolute path and by the digest of its bytes and of the way it was split.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crisp_rag.errors import IngestError
from crisp_rag.index.types import Passage
from crisp_rag.pipelines.loading import LoadedDocument, Skipped, file_digest, find_files, load_file
from crisp_rag.pipelines.splitting import split_document

if TYPE_CHECKING:
    from crisp_rag.index.crisp_index import CrispIndex

COMMIT_PASSAGES = 256
SPLITTER_VERSION = 1
DEFAULT_MAX_TOKENS = 200


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What an ingestion did.  ``files`` are those of the sources that are in the index now, ``passages`` all
    passages of the index; ``added``, ``unchanged`` and ``removed`` count files."""

    files: int
    passages: int
    added: int
    unchanged: int
    removed: int
    skipped: list[Skipped]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """The same as a dict, ready for JSON."""
        return asdict(self)


def ingest(
    index: CrispIndex,
    sources: Sequence[str | Path],
    *,
    max_tokens: int | None = None,
    show_progress: bool = False,
) -> IngestReport:
    """Bring the index up to date with files and folders.

    Files outside the sources stay as they are.  A file that has become unreadable keeps its passages and is listed
    as skipped.  Each commit replaces whole files, so an interruption leaves every file old or new, never half.

    Args:
        index: Where passages go.
        sources: Files and folders.
        max_tokens: Tokens a passage, 200 by default or what the encoder reads if that is less.
        show_progress: Draw a progress bar on stderr.

    Raises:
        IngestError: if a source does not exist.
    """
    began = time.perf_counter()
    encoder: Any = index.encoder
    limit = max_tokens or min(DEFAULT_MAX_TOKENS, encoder.max_document_tokens)
    if limit > encoder.max_document_tokens:
        raise IngestError(f"A passage of {limit} tokens is more than the encoder reads ({encoder.max_document_tokens}).")
    files, skipped = find_files(sources)
    known = _known(index)
    pending = _Pending(index)
    added, unchanged, blank = 0, 0, 0
    counter = _token_counter(encoder)
    for path in _progress(files, show_progress):
        source = path.as_posix()
        old = known.get(source)
        try:
            digest = _settings_digest(file_digest(path.read_bytes()), limit, encoder.fingerprint)
            if old and old.digest == digest:
                unchanged += 1
                continue
            document = load_file(path)
        except (OSError, IngestError) as error:
            reason = str(error).removeprefix(f"{path} ").removeprefix(f"{path}: ")
            skipped.append(Skipped(source, reason))
            continue
        document = LoadedDocument(document.path, document.title, document.text, document.format, digest)
        passages = split_document(document, counter, limit)
        if not passages:
            skipped.append(Skipped(source, "no text"))
            blank += bool(old)
        else:
            added += 1
        pending.put(old.ids if old else [], passages)
    vanished = [source for source in known if _below(source, sources) and not Path(source).is_file()]
    for source in vanished:
        pending.put(known[source].ids, [])
    pending.flush()
    kept = [source for source in _known(index) if _below(source, sources)]
    return IngestReport(
        len(kept), len(index), added, unchanged, len(vanished) + blank, skipped, time.perf_counter() - began
    )


@dataclass(slots=True)
class _Known:
    """What the index holds of a file."""

    digest: str
    ids: list[str]


class _Pending:
    """Gathers whole files until encoding them together pays."""

    def __init__(self, index: CrispIndex) -> None:
        self._index = index
        self._gone: list[str] = []
        self._new: list[Passage] = []

    def put(self, gone: list[str], new: list[Passage]) -> None:
        self._gone += gone
        self._new += new
        if len(self._new) >= COMMIT_PASSAGES:
            self.flush()

    def flush(self) -> None:
        if self._gone or self._new:
            self._index.replace(self._gone, self._new)
        self._gone, self._new = [], []


def _known(index: CrispIndex) -> dict[str, _Known]:
    known: dict[str, _Known] = {}
    for passage in index.passages({"$and": [{"source": {"$exists": True}}, {"digest": {"$exists": True}}]}):
        source = str(passage.metadata["source"])
        known.setdefault(source, _Known(str(passage.metadata["digest"]), [])).ids.append(passage.id)
    return known


def _settings_digest(digest: str, limit: int, fingerprint: str) -> str:
    said = f"{digest} {limit} {SPLITTER_VERSION} {fingerprint}"
    return hashlib.blake2b(said.encode(), digest_size=16).hexdigest()


def _below(source: str, roots: Sequence[str | Path]) -> bool:
    path = Path(source)
    return any(path == root or root in path.parents for root in (Path(root).resolve() for root in roots))


def _token_counter(encoder: Any) -> Callable[[str], int]:
    tokenizer = encoder.tokenizer

    def count(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"])

    return count


def _progress(files: list[Path], show: bool) -> Any:
    if not show:
        return files
    from rich.console import Console
    from rich.progress import track

    return track(files, "Indexing", console=Console(stderr=True))
