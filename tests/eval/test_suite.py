"""Suites from files and from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from crisp_rag.errors import DatasetError, InvalidInputError
from crisp_rag.eval import DatasetSpec, Suite, load_suite
from crisp_rag.eval.console import DEFAULT_SYSTEMS, suite_of

FILE = """
datasets:
  - sets/one
  - {path: sets/two, split: dev, limit_queries: 50}
systems: [bm25, "crisp@8x16"]
readers: [extractive]
baseline: crisp@8x16
k: 50
seed: 3
"""


@pytest.fixture
def write(tmp_path):
    def write(text: str) -> Path:
        (tmp_path / "suite.yaml").write_text(text)
        return tmp_path / "suite.yaml"

    return write


def test_a_file_names_everything_and_its_paths_start_where_it_lies(write, tmp_path):
    assert load_suite(write(FILE)) == Suite(
        datasets=(DatasetSpec(tmp_path / "sets/one"), DatasetSpec(tmp_path / "sets/two", "dev", 50)),
        systems=("bm25", "crisp@8x16"),
        readers=("extractive",),
        baseline="crisp@8x16",
        k=50,
        seed=3,
    )


def test_the_first_system_is_the_baseline_where_none_is_named():
    assert Suite((DatasetSpec(Path("x")),), ("dense", "crisp")).baseline_name == "dense"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a list", "must be a mapping"),
        ("datasets: [a]\nsystem: [bm25]", "'system', which is none of datasets, systems"),
        ("datasets: a\nsystems: [bm25]", "datasets must be a list"),
        ("datasets: [a]\nsystems: bm25", "systems must be a list"),
        ("datasets: [{split: dev}]\nsystems: [bm25]", "a mapping with a path"),
        ("datasets: [{path: a, limit: 3}]\nsystems: [bm25]", "'limit', which is none of path, split, limit_queries"),
        ("datasets: [{path: a, limit_queries: many}]\nsystems: [bm25]", "whole number"),
        ("datasets: [a]\nsystems: [bm25]\nk: ten", "k must be a whole number"),
        ("datasets: [a]\nsystems: [bm25]\nk: 0", "k must be at least 1"),
        ("datasets: [a]\nsystems: [bm25, bm25]", "'bm25' is given twice"),
        ("datasets: [a]\nsystems: [bm25]\nbaseline: dense", "'dense' is none of the systems: bm25"),
        ("systems: [bm25]", "at least one data set"),
        ("datasets: [a]", "at least one data set and one system"),
    ],
)
def test_a_file_that_says_something_else_is_refused_with_what_it_may_say(write, text, message):
    with pytest.raises(InvalidInputError, match=message):
        load_suite(write(text))


@pytest.mark.parametrize("text", ["a: [", "\x00"])
def test_a_file_that_is_not_yaml_is_named(write, text):
    with pytest.raises(DatasetError, match=r"suite\.yaml cannot be read"):
        load_suite(write(text))


def test_options_change_what_the_file_says(write):
    suite = suite_of([write(FILE)], systems="dense, crisp", baseline="dense", limit_queries=5, seed=None)
    assert suite.systems == ("dense", "crisp") and suite.baseline == "dense" and suite.seed == 3
    assert [(spec.split, spec.limit_queries) for spec in suite.datasets] == [("test", 5), ("dev", 5)]
    with pytest.raises(InvalidInputError, match="stands alone"):
        suite_of([write(FILE), Path("more")])


def test_folders_are_measured_with_the_usual_systems():
    suite = suite_of([Path("a"), Path("b")], split="dev")
    assert suite.systems == DEFAULT_SYSTEMS
    assert suite.datasets == (DatasetSpec(Path("a"), "dev"), DatasetSpec(Path("b"), "dev"))
