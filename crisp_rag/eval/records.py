"""What is kept of every measurement, so that an interrupted run goes on and a report can show single queries.

Under the folder of a run lie ``runs/<dataset>.<system>.trec``, one line a hit in trec_eval's form (query id, Q0, document
id, rank, score, system), and ``details/<dataset>.<system>.json`` with the figures, the values of every query, and a key:
a checksum of all that the figures depend on.  A record with another key is measured again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from crisp_rag.atomic import replacing

Run = dict[str, list[tuple[str, float]]]
PerQuery = dict[str, dict[str, float]]


@dataclass(slots=True)
class Record:
    """What was measured of one system, or one system with a reader, on one data set.

    Args:
        figures: By name, as ``results.json`` has them.
        per_query: The value of each metric by query.
        run: (document id, score) pairs by query, best first.
        unanswerable: The same for the queries that no document answers; for readers.
    """

    figures: dict[str, Any]
    per_query: PerQuery
    run: Run = field(default_factory=dict)
    unanswerable: Run = field(default_factory=dict)


class Records:
    """The records of a run.

    Args:
        folder: None keeps nothing.
    """

    def __init__(self, folder: str | Path | None) -> None:
        self.folder = None if folder is None else Path(folder)

    def save(self, dataset: str, system: str, key: str, record: Record) -> None:
        """Write a record; its details come last and say that it is complete."""
        if self.folder is None:
            return
        tag = quote(system, safe="")
        for run, name in ((record.run, tag), (record.unanswerable, f"{tag}.unanswerable")):
            path = self._trec(dataset, name)
            if run:
                write_atomically(path, trec(run, tag))
            else:
                path.unlink(missing_ok=True)
        details = {"key": key, "figures": record.figures, "per_query": record.per_query}
        write_atomically(self._details(dataset, tag), json.dumps(details) + "\n")

    def load(self, dataset: str, system: str, key: str) -> Record | None:
        """The record of that key; None if there is none, or it is not whole."""
        if self.folder is None:
            return None
        tag = quote(system, safe="")
        try:
            details = json.loads(self._details(dataset, tag).read_text(encoding="utf-8"))
            if details["key"] != key:
                return None
            runs = [self._trec(dataset, name) for name in (tag, f"{tag}.unanswerable")]
            run, unanswerable = (read_trec(path) if path.is_file() else {} for path in runs)
            return Record(details["figures"], details["per_query"], run, unanswerable)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _trec(self, dataset: str, tag: str) -> Path:
        assert self.folder is not None
        return self.folder / "runs" / f"{dataset}.{tag}.trec"

    def _details(self, dataset: str, tag: str) -> Path:
        assert self.folder is not None
        return self.folder / "details" / f"{dataset}.{tag}.json"


def key_of(**parts: Any) -> str:
    """A checksum of everything that figures depend on."""
    return hashlib.blake2b(json.dumps(parts, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()


def trec(run: Mapping[str, Sequence[tuple[str, float]]], tag: str) -> str:
    """A run in trec_eval's form."""
    return "".join(
        f"{_token(query)} Q0 {_token(document)} {rank} {value!r} {tag}\n"
        for query, hits in run.items()
        for rank, (document, value) in enumerate(hits, start=1)
    )


def read_trec(path: Path) -> Run:
    """What :func:`trec` wrote; a query without results is not in it."""
    run: Run = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        query, _, document, _, value, _ = line.split(" ")
        run.setdefault(unquote(query), []).append((unquote(document), float(value)))
    return run


def write_atomically(path: Path, text: str) -> None:
    """A reader, or a crash, finds the old file or the new one and never a half."""
    with replacing(path) as file:
        file.write(text.encode("utf-8"))


def _token(id_: str) -> str:
    """The id without spaces, which end a column in this format: percent-encoded, so that ids stay distinct."""
    return re.sub(r"[\s%]", lambda match: quote(match.group()), id_)
