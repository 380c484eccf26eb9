"""Runs systems over data sets and keeps every number, also when a later system fails.

    results = evaluate(["data/scifact", "data/nfcorpus"], ["bm25", "dense", "crisp"], out="results")
    results["scifact"]["crisp"]["nDCG@10"]

Under ``out`` it leaves ``results.json`` (what :func:`evaluate` returns) and ``runs/<dataset>.<system>.trec``, one
line a hit in trec_eval's form: query id, Q0, document id, rank, score, system.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np

from crisp_rag.errors import InvalidInputError
from crisp_rag.eval.datasets import Dataset, load_beir
from crisp_rag.eval.metrics import drop_own_id, require_ir_measures, score
from crisp_rag.eval.systems import System, create_system

Results = dict[str, dict[str, dict[str, float]]]
Run = dict[str, list[tuple[str, float]]]
TIMED_QUERIES = 100
_QUERIES_A_BATCH = 64


def evaluate(
    folders: Sequence[str | Path],
    systems: Sequence[str],
    *,
    out: str | Path | None = None,
    limit_queries: int | None = None,
    split: str = "test",
    k: int = 100,
    on_progress: Callable[[str], None] | None = None,
) -> Results:
    """Measure systems on data sets.

    Args:
        folders: Data sets, see :func:`crisp_rag.eval.datasets.load_beir`.
        systems: Names from :data:`crisp_rag.eval.systems.SYSTEMS`, or ``crisp:PATH``.
        out: Where ``results.json`` and the runs go, brought up to date after every system; None writes nothing.
        limit_queries: Take the first so many queries of each data set; None for all.
        split: Which judgements.
        k: Hits asked for a query.  Below 100, R@100 is that of a shorter list.
        on_progress: Called with one line of text a step; nothing is printed.

    Returns:
        ``{data set: {system: {name: value}}}`` with the metrics of :mod:`crisp_rag.eval.metrics` and

        - ``vectors_per_document`` and ``bytes_per_document``, of what is searched, see
          :class:`crisp_rag.eval.systems.IndexCost`;
        - ``encode_docs_per_second``, models loaded, storing not counted;
        - ``search_ms_p50`` and ``search_ms_p99``, milliseconds a query: the first 100 queries (or all, if fewer)
          searched one at a time with this ``k``, the encoding of the query included, after one that is not timed.

    Raises:
        InvalidInputError: before anything runs, if a system is unknown, a name is given twice, or ``k`` is below 1.
        DatasetError: before anything runs, if a data set is incomplete or malformed.
        ImportError: before anything runs, if a package of the ``eval`` extra is missing.
        Exception: the first error of a system, after all the others were measured and written.
    """
    if isinstance(folders, (str, Path)) or isinstance(systems, str):
        raise InvalidInputError("folders and systems are lists, got a single one.")
    if not folders or not systems:
        raise InvalidInputError("An evaluation needs at least one data set and one system.")
    if k < 1:
        raise InvalidInputError(f"k must be at least 1, got {k}.")
    _check_distinct("system", list(systems))
    tell = on_progress if on_progress is not None else _silent
    runners = {name: create_system(name) for name in systems}
    require_ir_measures()
    datasets = [load_beir(folder, split, limit_queries) for folder in folders]
    _check_distinct("data set", [dataset.name for dataset in datasets])

    results: Results = {dataset.name: {} for dataset in datasets}
    failure: Exception | None = None
    for dataset in datasets:
        for name, system in runners.items():
            step = f"{dataset.name}, {name}"
            try:
                run, figures = _measure(system, dataset, k, lambda text, step=step: tell(f"{step}: {text}"))  # type: ignore[misc]
            except Exception as error:
                tell(f"{step}: failed: {error}")
                failure = failure or error
            else:
                results[dataset.name][name] = figures
                tell(f"{step}: nDCG@10 {figures['nDCG@10']:.4f}")
                if out is not None:
                    path = Path(out, "runs", f"{dataset.name}.{quote(name, safe='')}.trec")
                    _write_atomically(path, _trec(run, quote(name, safe="")))
            finally:
                system.close()
            if out is not None:
                _write_atomically(Path(out, "results.json"), json.dumps(results, indent=2) + "\n")
    if failure is not None:
        raise failure
    return results


def _measure(system: System, dataset: Dataset, k: int, tell: Callable[[str], None]) -> tuple[Run, dict[str, float]]:
    ids, texts = dataset.texts()
    cost = system.index(ids, texts, lambda done, of: tell(f"indexed {done} of {of} documents"))
    names, queries = list(dataset.queries), list(dataset.queries.values())
    run: Run = {}
    for first in range(0, len(queries), _QUERIES_A_BATCH):
        part = names[first : first + _QUERIES_A_BATCH]
        # One hit more than k, so that k are left where BEIR's rule takes the query's own document out.
        found = system.search(queries[first : first + _QUERIES_A_BATCH], k + 1)
        run.update({name: drop_own_id(name, hits)[:k] for name, hits in zip(part, found, strict=True)})
        tell(f"searched {first + len(part)} of {len(queries)} queries")
    milliseconds = _latencies(system, queries[:TIMED_QUERIES], k)
    return run, {
        **score(run, dataset.qrels, dataset.binary_threshold),
        "vectors_per_document": cost.vectors / len(ids),
        "bytes_per_document": cost.bytes / len(ids),
        "encode_docs_per_second": len(ids) / max(cost.encode_seconds, 1e-9),
        "search_ms_p50": float(np.percentile(milliseconds, 50)),
        "search_ms_p99": float(np.percentile(milliseconds, 99)),
    }


def _latencies(system: System, queries: Sequence[str], k: int) -> list[float]:
    """Milliseconds a query, one at a time."""
    system.search(queries[:1], k)
    milliseconds = []
    for query in queries:
        started = time.perf_counter()
        system.search([query], k)
        milliseconds.append((time.perf_counter() - started) * 1000)
    return milliseconds


def _trec(run: Mapping[str, Sequence[tuple[str, float]]], tag: str) -> str:
    return "".join(
        f"{_token(query)} Q0 {_token(document)} {rank} {value!r} {tag}\n"
        for query, hits in run.items()
        for rank, (document, value) in enumerate(hits, start=1)
    )


def _token(id_: str) -> str:
    """The id without spaces, which end a column in this format: percent-encoded, so that ids stay distinct."""
    return re.sub(r"[\s%]", lambda match: quote(match.group()), id_)


def _write_atomically(path: Path, text: str) -> None:
    """A reader, or a crash, finds the old file or the new one and never a half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)  # mkstemp makes files that only their owner can read
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _check_distinct(what: str, names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidInputError(f"The {what} {twice[0]!r} is given twice: results are kept by name.")


def _silent(text: str) -> None:
    """Nobody wants to hear of progress."""
