"""Runs systems over data sets and keeps every number, also when a later system fails.

    results = evaluate(["data/scifact", "data/nfcorpus"], ["bm25", "dense", "crisp"], out="results")
    results["scifact"]["crisp"]["nDCG@10"]

Under ``out`` it leaves ``results.json`` (what :func:`evaluate` returns), ``report.html``, ``manifest.json`` (what it
takes to run it again) and, see :mod:`crisp_rag.eval.records`, the runs and the values of every query.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crisp_rag.errors import DatasetError, InvalidInputError
from crisp_rag.eval import readers as reading
from crisp_rag.eval.comparisons import Cells, add_comparisons, add_intervals
from crisp_rag.eval.costs import MemoryWatch, latencies, percentiles
from crisp_rag.eval.datasets import Dataset, load_beir
from crisp_rag.eval.encodings import EncodingCache
from crisp_rag.eval.manifest import dataset_checksums, make_manifest
from crisp_rag.eval.metrics import METRICS, drop_own_id, means, require_ir_measures, score_queries
from crisp_rag.eval.records import Record, Records, Run, key_of, write_atomically
from crisp_rag.eval.suite import DEFAULT_K, DatasetSpec, Suite, check_distinct
from crisp_rag.eval.systems import System, create_system

Results = dict[str, dict[str, dict[str, Any]]]
TIMED_QUERIES = 100
_QUERIES_A_BATCH = 64


@dataclass(frozen=True, slots=True)
class Step:
    """How far a run is: ``stage`` (indexed, searched, read) of one system on one data set, ``done`` of ``total``."""

    dataset: str
    system: str
    stage: str
    done: int
    total: int


@dataclass(slots=True)
class Outcome:
    """A run as it is in memory: what a report is made of.

    Args:
        suite: What was measured.
        datasets: By name.
        systems: By name; their models are loaded, their indexes closed.
        cells: What was measured, by data set and system.
        manifest: See :mod:`crisp_rag.eval.manifest`.
        failures: What went wrong, by data set and system.
    """

    suite: Suite
    datasets: dict[str, Dataset]
    systems: dict[str, System]
    cells: Cells
    manifest: dict[str, Any]
    failures: dict[tuple[str, str], Exception]

    @property
    def results(self) -> Results:
        """The figures by data set and system."""
        return {
            name: {system: record.figures for (dataset, system), record in self.cells.items() if dataset == name}
            for name in self.datasets
        }


def evaluate(
    folders: Sequence[str | Path],
    systems: Sequence[str | System],
    *,
    out: str | Path | None = None,
    limit_queries: int | None = None,
    split: str = "test",
    k: int = DEFAULT_K,
    readers: Sequence[str] = (),
    baseline: str | None = None,
    seed: int = 0,
    cache: str | Path | None = None,
    resume: bool = False,
    on_progress: Callable[[str], None] | None = None,
) -> Results:
    """Measure systems on data sets.

    Args:
        folders: Data sets, see :func:`crisp_rag.eval.datasets.load_beir`.
        systems: Names, see :mod:`crisp_rag.eval.systems`, or objects that are systems.
        out: Where the results go, brought up to date after every system; None writes nothing.
        limit_queries: Take the first so many queries of each data set; None for all.
        split: Which judgements.
        k: Hits asked for a query.  Below 100, R@100 is that of a shorter list.
        readers: Names of :data:`crisp_rag.eval.readers.READERS`: each answers the questions from what each system finds.
        baseline: The system that the others are tested against; the first one by default.
        seed: For resampling.
        cache: A folder of encodings, which later runs find; None keeps none.
        resume: Take over from ``out`` what was measured there already with the same data, systems and settings.
        on_progress: Called with one line of text a step; nothing is printed.

    Returns:
        ``{data set: {system: {name: value}}}`` with the metrics of :mod:`crisp_rag.eval.metrics` and

        - ``vectors_per_document`` and ``bytes_per_document``, of what is searched, see
          :class:`crisp_rag.eval.systems.IndexCost`; missing where the system does not know;
        - ``encode_docs_per_second``, models loaded, storing not counted; ``index_seconds``, from texts to an index that
          can be searched, encoding included;
        - ``search_ms_p50``, ``search_ms_p90`` and ``search_ms_p99``, milliseconds a query: the first 100 queries (or all,
          if fewer) searched one at a time with this ``k``, the encoding of the query included, after one that is not timed;
        - ``peak_memory_mb`` of the process while it indexed and searched, and ``added_memory_mb`` above what it was with
          the model loaded, see :class:`crisp_rag.eval.costs.MemoryWatch`; ``queries``, their number;
        - ``intervals`` and ``versus``, see :mod:`crisp_rag.eval.comparisons`.

        A system with a reader is there as ``system+reader``, with the figures of
        :class:`crisp_rag.eval.answers.AnswerScores`.

    Raises:
        InvalidInputError: before anything runs, if a system, reader or baseline is unknown, a name is given twice, or
            ``k`` is below 1.
        DatasetError: before anything runs, if a data set is incomplete or malformed.
        ImportError: before anything runs, if a package of the ``eval`` extra is missing.
        Exception: the first error of a system, after all the others were measured and written.
    """
    if isinstance(folders, (str, Path)) or isinstance(systems, str):
        raise InvalidInputError("folders and systems are lists, got a single one.")
    specs = tuple(DatasetSpec(Path(folder), split, limit_queries) for folder in folders)
    suite = Suite(specs, tuple(systems), tuple(readers), baseline, k, seed)
    tell = on_progress if on_progress is not None else _silent
    outcome = run_suite(
        suite, out=out, cache=cache, resume=resume, on_step=lambda step: tell(sentence(step)), on_message=tell
    )
    for error in outcome.failures.values():
        raise error
    return outcome.results


def run_suite(
    suite: Suite,
    *,
    out: str | Path | None = None,
    cache: str | Path | None = None,
    resume: bool = False,
    command: Sequence[str] | None = None,
    on_step: Callable[[Step], None] | None = None,
    on_message: Callable[[str], None] | None = None,
) -> Outcome:
    """As :func:`evaluate`, of a :class:`Suite`; errors of systems are in the outcome and are not raised.

    Args:
        suite: What to measure.
        out, cache, resume: As for :func:`evaluate`.
        command: The command line, for the manifest.
        on_step: Called as work goes on.
        on_message: Called with a sentence when something is finished or has failed.
    """
    reading.check_readers(suite.readers)
    systems = {s if isinstance(s, str) else s.name: create_system(s) if isinstance(s, str) else s for s in suite.systems}
    require_ir_measures()
    datasets = [load_beir(spec.path, spec.split, spec.limit_queries) for spec in suite.datasets]
    check_distinct("data set", [dataset.name for dataset in datasets])
    for dataset in datasets:
        if suite.readers and not dataset.answers:
            raise DatasetError(f"{dataset.name} has no reference answers in queries.jsonl, which readers are measured by.")
    started = time.monotonic()
    checksums = {dataset.name: dataset_checksums(spec) for dataset, spec in zip(datasets, suite.datasets)}
    outcome = Outcome(
        suite, {dataset.name: dataset for dataset in datasets}, systems, {}, make_manifest(suite, checksums, command), {}
    )
    encodings = EncodingCache(cache)
    readers = reading.Reading(lambda: _reading_encoder(systems), encodings)
    run = _Run(outcome, Records(out), encodings, readers, resume, on_step or _silent, on_message or _silent)
    for dataset in datasets:
        for note in dataset.notes:
            run.tell(f"{dataset.name}: {note}")
    for dataset, spec in zip(datasets, suite.datasets):
        for name, system in systems.items():
            run.measure(dataset, spec, name, system)
            run.write(out)
    add_comparisons(outcome.cells, suite.baseline_name, suite.readers, suite.seed)
    outcome.manifest["seconds"] = round(time.monotonic() - started, 1)
    run.write(out)
    if out is not None:
        from crisp_rag.eval.html_report import write_report

        write_report(outcome, Path(out, "report.html"))
    return outcome


@dataclass(slots=True)
class _Run:
    outcome: Outcome
    records: Records
    cache: EncodingCache
    reading: reading.Reading
    resume: bool
    tell_step: Callable[[Step], None]
    tell: Callable[[str], None]

    def measure(self, dataset: Dataset, spec: DatasetSpec, name: str, system: System) -> None:
        """One system on one data set, and each reader on what it finds; an error ends this and nothing else."""
        place = f"{dataset.name}, {name}"
        try:
            record = self._retrieval(dataset, spec, name, system)
            self.outcome.cells[dataset.name, name] = record
            self.tell(f"{place}: nDCG@10 {record.figures['nDCG@10']:.4f}")
            for reader in self.outcome.suite.readers:
                place = f"{dataset.name}, {name}+{reader}"
                answers = self._answers(dataset, spec, name, reader, system, record)
                self.outcome.cells[dataset.name, f"{name}+{reader}"] = answers
                self.tell(f"{place}: token F1 {answers.figures.get('token_f1', 0.0):.4f}")
        except Exception as error:
            self.tell(f"{place}: failed: {error}")
            self.outcome.failures[dataset.name, place.partition(", ")[2]] = error
        finally:
            system.close()

    def write(self, out: str | Path | None) -> None:
        """Bring the files of results up to date."""
        if out is not None:
            write_atomically(Path(out, "results.json"), json.dumps(self.outcome.results, indent=2) + "\n")
            write_atomically(Path(out, "manifest.json"), json.dumps(self.outcome.manifest, indent=2) + "\n")

    def _retrieval(self, dataset: Dataset, spec: DatasetSpec, name: str, system: System) -> Record:
        if hasattr(system, "cache"):
            system.cache = self.cache
        key = self._key(dataset, spec, name, system)
        found = self.records.load(dataset.name, name, key) if self.resume else None
        if found is None:
            found = _measure(
                system, dataset, self.outcome.suite, lambda *how: self.tell_step(Step(dataset.name, name, *how))
            )
            self.records.save(dataset.name, name, key, found)
        return found

    def _answers(self, dataset: Dataset, spec: DatasetSpec, name: str, reader: str, system: System, found: Record) -> Record:
        key = key_of(
            retrieval=self._key(dataset, spec, name, system), reader=reader, depth=reading.READ_DEPTH,
            read_with=_read_with(self.outcome.systems),
        )  # fmt: skip
        label = f"{name}+{reader}"
        answers = self.records.load(dataset.name, label, key) if self.resume else None
        if answers is None:
            answers = self.reading.read(
                reader, dataset, found, lambda done, of: self.tell_step(Step(dataset.name, label, "read", done, of))
            )
            add_intervals(answers.figures, answers.per_query, reading.COMPARED, self.outcome.suite.seed)
            self.records.save(dataset.name, label, key, answers)
        return answers

    def _key(self, dataset: Dataset, spec: DatasetSpec, name: str, system: System) -> str:
        """What the figures of a system depend on; where nothing is kept, nobody asks."""
        if self.records.folder is None:
            return ""
        known = self.outcome.manifest["systems"]
        if name not in known:
            known[name] = system.fingerprint() if hasattr(system, "fingerprint") else name
        suite, manifest = self.outcome.suite, self.outcome.manifest
        return key_of(
            version=manifest["packages"]["crisp-rag"], checksums=manifest["checksums"][dataset.name], split=spec.split,
            limit=spec.limit_queries, k=suite.k, seed=suite.seed, system=known[name], readers=bool(suite.readers),
        )  # fmt: skip


def _measure(system: System, dataset: Dataset, suite: Suite, tell: Callable[[str, int, int], None]) -> Record:
    ids, texts = dataset.texts()
    if hasattr(system, "fingerprint"):
        system.fingerprint()  # loads the model, which is no cost of this data set
    with MemoryWatch() as memory:
        cost = system.index(ids, texts, lambda done, of: tell("indexed", done, of))
        run = _search(system, dataset.queries, suite.k, lambda done, of: tell("searched", done, of))
    unanswerable = _search(system, dataset.unanswerable, reading.READ_DEPTH) if suite.readers else {}
    milliseconds = latencies(lambda query: system.search([query], suite.k), list(dataset.queries.values())[:TIMED_QUERIES])
    per_query = score_queries(run, dataset.qrels, dataset.binary_threshold)
    figures: dict[str, Any] = means(per_query)
    if cost.vectors is not None:
        figures["vectors_per_document"] = cost.vectors / len(ids)
    if cost.bytes is not None:
        figures["bytes_per_document"] = cost.bytes / len(ids)
    figures |= {
        "encode_docs_per_second": len(ids) / max(cost.encode_seconds, 1e-9),
        "index_seconds": cost.encode_seconds + cost.build_seconds,
        **percentiles(milliseconds),
        "peak_memory_mb": memory.peak / 1e6,
        "added_memory_mb": memory.growth / 1e6,
        "queries": len(dataset.queries),
    }
    add_intervals(figures, per_query, METRICS, suite.seed)
    return Record(figures, per_query, run, unanswerable)


def _search(
    system: System, queries: dict[str, str], k: int, tell: Callable[[int, int], None] = lambda done, of: None
) -> Run:
    names, run = list(queries), Run()
    for first in range(0, len(names), _QUERIES_A_BATCH):
        part = names[first : first + _QUERIES_A_BATCH]
        # One hit more than k, so that k are left where BEIR's rule takes the query's own document out.
        found = system.search([queries[name] for name in part], k + 1)
        run.update({name: drop_own_id(name, hits)[:k] for name, hits in zip(part, found, strict=True)})
        tell(first + len(part), len(names))
    return run


def _read_with(systems: dict[str, System]) -> str | None:
    """The system whose encoder reads for all: crisp, else the first that has one; None for the default encoder."""
    names = [name for name, system in systems.items() if hasattr(system, "encoder")]
    return "crisp" if "crisp" in names else next(iter(names), None)


def _reading_encoder(systems: dict[str, System]) -> Any:
    from crisp_rag.models import load_encoder

    name = _read_with(systems)
    encoder = None if name is None else systems[name].encoder()  # type: ignore[attr-defined]
    return load_encoder() if encoder is None else encoder


def sentence(step: Step) -> str:
    """A step as a line of text."""
    what = {"indexed": "documents", "searched": "queries", "read": "questions"}[step.stage]
    return f"{step.dataset}, {step.system}: {step.stage} {step.done} of {step.total} {what}"


def _silent(what: Iterable[Any] | Step) -> None:
    """Nobody wants to hear of progress."""
