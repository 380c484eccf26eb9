"""What is left out by patterns, runs that meet, runs that were interrupted, and a folder that is watched."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from crisp_rag.errors import IndexLockedError, InvalidInputError
from crisp_rag.index import CrispIndex
from crisp_rag.pipelines import ingest as ingest_module
from crisp_rag.pipelines.ingest import ingest
from crisp_rag.pipelines.loading import find_files, search_files


def write(folder: Path, *names: str, **texts: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"The words of {name}.")
    for name, text in texts.items():
        (folder / f".{name}").write_text(text)
    return folder


def found(*sources, exclude=()) -> list[str]:
    files, _ = find_files(sources, exclude)
    return [file.name for file in files]


def test_gitignore_and_crispignore_leave_out_what_they_name(tmp_path):
    write(
        tmp_path,
        "a.md",
        "drafts/b.md",
        "c.log",
        "deep/drafts/d.md",
        "deep/e.md",
        gitignore="drafts/\n*.log\n",
        crispignore="e.md\n",
    )
    assert found(tmp_path) == ["a.md"]
    result = search_files(tmp_path)
    assert sorted(path.name for path in result.ignored) == ["c.log", "drafts", "drafts", "e.md"]
    assert result.skipped == []


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["*.txt"], ["a.md", "b.md"]), (["/a.md"], ["b.md", "t.txt"]), (["sub/"], ["a.md", "t.txt"]), 
        (["*", "!a.md"], ["a.md"]),
        (["**/b.md"], ["a.md", "t.txt"]), (["# a.md", ""], ["a.md", "b.md", "t.txt"]),
    ],
)  # fmt: skip
def test_patterns_of_ones_own_are_read_as_git_reads_them(tmp_path, patterns, names):
    write(tmp_path, "a.md", "sub/b.md", "t.txt")
    assert sorted(found(tmp_path, exclude=patterns)) == names


def test_deeper_files_and_the_second_kind_decide(tmp_path):
    write(tmp_path, "sub/a.md", "sub/b.md", "c.md", gitignore="*.md\n", crispignore="!c.md\n")
    write(tmp_path / "sub", gitignore="!a.md\n")
    assert sorted(found(tmp_path)) == ["a.md", "c.md"]
    assert found(tmp_path, exclude=["c.md"]) == ["a.md"]


def test_the_patterns_of_a_repository_hold_for_its_folders_and_those_outside_do_not(tmp_path):
    write(tmp_path, "repo/docs/a.md", "repo/docs/b.md")
    (tmp_path / ".gitignore").write_text("*.md\n")
    assert found(tmp_path / "repo" / "docs") == ["a.md", "b.md"]
    (tmp_path / "repo" / ".git").mkdir()
    (tmp_path / "repo" / ".gitignore").write_text("b.md\n")
    assert found(tmp_path / "repo" / "docs") == ["a.md"]


def test_a_file_that_is_named_is_taken(tmp_path):
    write(tmp_path, "a.md", gitignore="*.md\n")
    assert found(tmp_path / "a.md", exclude=["*.md"]) == ["a.md"]


@pytest.mark.parametrize("data", [b"\xff\xfe*.md", b"[", b"!", b"\\", b"a/**b/[z-a]\n"])
def test_strange_ignore_files_do_no_harm(tmp_path, data):
    write(tmp_path, "a.txt")
    (tmp_path / ".gitignore").write_bytes(data)
    assert found(tmp_path) == ["a.txt"]


def test_a_pattern_that_is_none_is_refused(tmp_path):
    with pytest.raises(InvalidInputError, match="is no pattern"):
        find_files(tmp_path, exclude=["!"])


@pytest.fixture
def index(tmp_path, default_encoder):
    with CrispIndex.create(tmp_path / "index.crisp", default_encoder) as made:
        yield made


def test_what_is_left_out_now_leaves_the_index(tmp_path, index):
    docs = write(tmp_path / "docs", "a.md", "drafts/b.md")
    assert ingest(index, docs).files == 2
    report = ingest(index, docs, exclude=["drafts/"])
    assert (report.files, report.removed, report.skipped) == (1, 1, [])
    (docs / ".crispignore").write_text("a.md")
    assert ingest(index, docs).files == 1


def test_two_runs_do_not_meet(tmp_path, index):
    docs = write(tmp_path / "docs", "a.md")
    with ingest_module._alone(Path(index.path), 0.0):
        with pytest.raises(IndexLockedError, match="Another run is filling"):
            ingest(index, docs)
        began = time.monotonic()
        with pytest.raises(IndexLockedError):
            ingest(index, docs, wait=0.3)
        assert time.monotonic() - began >= 0.3
    assert ingest(index, docs).added == 1


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "crisp_rag", "index", *map(str, arguments)]


def test_a_run_that_is_killed_goes_on(tmp_path):
    docs = tmp_path / "docs"
    docs.mkdir()
    for number in range(60):
        (docs / f"{number}.txt").write_text(
            f"Fact {number}. " + "The office pays back what a guest has spent on trains. " * 200
        )
    run = subprocess.Popen(command(docs, "--index", tmp_path / "x"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 300
    segments = tmp_path / "x"
    while time.monotonic() < deadline and not list(segments.glob("**/*.seg*")) and run.poll() is None:
        time.sleep(0.05)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    done = subprocess.run(command(docs, "--index", tmp_path / "x", "--json"), capture_output=True, text=True)
    report = json.loads(done.stdout)
    assert report["files"] == 60 and report["added"] + report["unchanged"] == 60, done.stderr


@pytest.mark.slow
def test_a_watched_folder_is_followed(tmp_path):
    pytest.importorskip("watchfiles")
    docs = write(tmp_path / "docs", "a.md")
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    run = subprocess.Popen(
        command(docs, "--index", tmp_path / "x", "--watch"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    try:
        assert "1 files" in run.stdout.readline()
        assert any("Watching" in line for line in iter(run.stderr.readline, ""))
        time.sleep(2)
        (docs / "b.md").write_text("More words.")
        assert "2 files" in run.stdout.readline()
    finally:
        run.send_signal(signal.SIGINT)
        run.communicate(timeout=60)
    assert run.returncode == 0
