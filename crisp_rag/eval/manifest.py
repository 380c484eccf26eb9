"""Everything that is needed to run an evaluation again: versions, machine, command, settings, checksums of the data."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from crisp_rag.eval.datasets import UNANSWERABLE
from crisp_rag.eval.suite import DatasetSpec, Suite

PACKAGES = (
    "bm25s", "faiss-cpu", "ir-measures", "numpy", "openvino", "PyStemmer", "scipy", "sentence-transformers", "tokenizers",
    "torch", "transformers",
)  # fmt: skip
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def make_manifest(suite: Suite, checksums: dict[str, dict[str, str]], command: Sequence[str] | None) -> dict[str, Any]:
    """What ``manifest.json`` holds, as far as it is known before anything runs.

    Args:
        suite: What is measured.
        checksums: By data set, see :func:`dataset_checksums`.
        command: The command line; None where Python called.
    """
    from crisp_rag import __version__

    packages = {"crisp-rag": __version__, **{name: found for name in PACKAGES if (found := _version(name))}}
    return {
        "command": list(command) if command is not None else None,
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "suite": suite.to_dict(),
        "checksums": checksums,
        "systems": {},
        "packages": packages,
        "python": platform.python_version(),
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "threads": {name: os.environ[name] for name in _THREADS if name in os.environ},
        },
    }


def dataset_checksums(spec: DatasetSpec) -> dict[str, str]:
    """SHA-256 of every file of a data set that a measurement reads, by its path in the folder."""
    names = ["corpus.jsonl", "queries.jsonl", f"qrels/{spec.split}.tsv", f"qrels/{UNANSWERABLE}.tsv"]
    paths = {file: spec.path / file for name in names for file in (name, f"{name}.gz")}
    return {file: _sha256(path) for file, path in paths.items() if path.is_file()}


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())
