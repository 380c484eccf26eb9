"""What one run measures: data sets, systems, readers, and how; in Python or as a file.

suite = load_suite("suite.yaml")

# suite.yaml; paths are relative to this file
datasets:
  - data/scifact
  - {path: data/squad2-dev, limit_queries: 500}
systems: [bm25, dense, crisp, crisp@8x16, hybrid]
readers: [extractive]
baseline: dense
seed: 0
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from crisp_rag.errors import DatasetError, InvalidInputError
from crisp_rag.eval.systems import System

DEFAULT_K = 100
_LISTS = ("datasets", "systems", "readers")


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """A data set to measure on.

    Args:
        path: Its folder.
        split: Which ``qrels/<split>.tsv``.
        limit_queries: The first so many queries; None for all.
    """

    path: Path
    split: str = "test"
    limit_queries: int | None = None


@dataclass(frozen=True, slots=True)
class Suite:
    """What one run measures.

    Args:
        datasets: At least one.
        systems: At least one: names, see :mod:`crisp_rag.eval.systems`, or objects that are systems.
        readers: Names of readers; each answers the questions from what each system finds.
        baseline: The system that the others are compared with; the first one by default.
        k: Hits asked for a query.  Below 100, R@100 is that of a shorter list.
        seed: For resampling.

    Raises:
        InvalidInputError: if something is missing, given twice or out of range, or the baseline is no system of the suite.
    """

    datasets: tuple[DatasetSpec, ...]
    systems: tuple[str | System, ...]
    readers: tuple[str, ...] = ()
    baseline: str | None = None
    k: int = DEFAULT_K
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.datasets or not self.systems:
            raise InvalidInputError("An evaluation needs at least one data set and one system.")
        if self.k < 1:
            raise InvalidInputError(f"k must be at least 1, got {self.k}.")
        check_distinct("system", self.system_names)
        check_distinct("reader", list(self.readers))
        if self.baseline is not None and self.baseline not in self.system_names:
            raise InvalidInputError(
                f"The baseline {self.baseline!r} is none of the systems: {', '.join(self.system_names)}."
            )

    @property
    def system_names(self) -> list[str]:
        return [system if isinstance(system, str) else system.name for system in self.systems]

    @property
    def baseline_name(self) -> str:
        return self.baseline or self.system_names[0]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON or YAML; a system that is an object shows as its name."""
        return {
            "datasets": [
                {"path": str(spec.path), "split": spec.split, "limit_queries": spec.limit_queries} for spec in self.datasets
            ],
            "systems": self.system_names,
            "readers": list(self.readers),
            "baseline": self.baseline_name,
            "k": self.k,
            "seed": self.seed,
        }


def load_suite(path: str | Path) -> Suite:
    """Read a suite file.

    Raises:
        DatasetError: if it cannot be read or is not YAML.
        InvalidInputError: if it says something that a suite does not have; the message lists what it may have.
    """
    path = Path(path)
    try:
        import yaml
    except ImportError as error:
        raise ImportError("Suite files need PyYAML: pip install 'crisp-rag[eval]'") from error
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DatasetError(f"The suite {path} cannot be read: {error}") from error
    if not isinstance(content, Mapping):
        raise InvalidInputError(f"The suite {path} must be a mapping with datasets and systems.")
    allowed = [field.name for field in fields(Suite)]
    _check_keys(path, content, allowed)
    for key in _LISTS:
        if not isinstance(content.get(key, []), list):
            raise InvalidInputError(f"{path}: {key} must be a list, got {content[key]!r}.")
    for key in ("k", "seed"):
        if not _is_whole(content.get(key, 0)):
            raise InvalidInputError(f"{path}: {key} must be a whole number, got {content[key]!r}.")
    values = {key: tuple(map(str, content[key])) for key in ("systems", "readers") if key in content}
    datasets = tuple(_dataset(path, entry) for entry in content.get("datasets", []))
    others = {key: content[key] for key in ("baseline", "k", "seed") if content.get(key) is not None}
    return Suite(**{"systems": (), **values, "datasets": datasets, **others})  # type: ignore[arg-type]


def check_distinct(what: str, names: Sequence[str]) -> None:
    """Raises InvalidInputError if a name is there twice."""
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise InvalidInputError(f"The {what} {twice[0]!r} is given twice: results are kept by name.")


def _dataset(suite: Path, entry: Any) -> DatasetSpec:
    if isinstance(entry, str):
        return DatasetSpec(suite.parent / entry)
    if not isinstance(entry, Mapping) or not isinstance(entry.get("path"), str):
        raise InvalidInputError(f"{suite}: a data set is a path, or a mapping with a path, got {entry!r}.")
    _check_keys(suite, entry, [field.name for field in fields(DatasetSpec)])
    limit = entry.get("limit_queries")
    if limit is not None and not _is_whole(limit):
        raise InvalidInputError(f"{suite}: limit_queries must be a whole number, got {limit!r}.")
    return DatasetSpec(suite.parent / entry["path"], str(entry.get("split", "test")), limit)


def _check_keys(path: Path, mapping: Mapping[Any, Any], allowed: Sequence[str]) -> None:
    unknown = sorted(str(key) for key in mapping if key not in allowed)
    if unknown:
        raise InvalidInputError(f"{path} has {unknown[0]!r}, which is none of {', '.join(allowed)}.")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
