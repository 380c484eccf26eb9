"""Ingestion: an index follows its files, touches only what changed, and says what it passed over."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from crisp_rag.errors import IngestError, InvalidInputError
from crisp_rag.index import CrispIndex
from crisp_rag.index.types import Passage
from crisp_rag.pipelines import ingest as ingest_module
from crisp_rag.pipelines.ingest import ingest


@pytest.fixture(scope="session")
def tokenizer():
    from transformers import AutoTokenizer

    from crisp_rag.models.encoder import default_backbone

    return AutoTokenizer.from_pretrained(str(default_backbone()))


class HashingEncoder:
    """One unit vector a word, drawn from its hash; remembers which texts it was asked to encode."""

    name, fingerprint, dim, pooling, source, max_document_tokens = "hashing", "ab" * 8, 16, "words", None, 64

    def __init__(self, tokenizer) -> None:
        self.tokenizer = tokenizer
        self.encoded: list[str] = []

    def encode_query(self, texts, **_):
        return self._vectors(texts) if isinstance(texts, str) else [self._vectors(text) for text in texts]

    def encode_document(self, texts, **_):
        self.encoded += [texts] if isinstance(texts, str) else texts
        return self.encode_query(texts)

    def _vectors(self, text: str) -> np.ndarray:
        seeds = [int.from_bytes(hashlib.blake2b(w.encode(), digest_size=8).digest(), "big") for w in text.split()]
        rows = np.stack([np.random.default_rng(seed).normal(size=self.dim) for seed in seeds])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def encoder(tokenizer):
    return HashingEncoder(tokenizer)


@pytest.fixture
def index(tmp_path, encoder):
    with CrispIndex.create(tmp_path / "index.crisp", encoder) as made:
        yield made


@pytest.fixture
def docs(tmp_path):
    folder = tmp_path / "docs"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.md").write_text("# Refunds\n\nRefunds take five days.\n\n## Fees\n\nNone.\n")
    (folder / "sub" / "b.txt").write_text("Trains are booked by the office.\n")
    return folder


def texts_of(index, path: Path) -> list[str]:
    return [p.text for p in index.passages({"source": path.resolve().as_posix()})]


def test_files_become_passages_that_searches_find(index, docs):
    report = ingest(index, [docs])
    assert (report.files, report.passages, report.added, report.unchanged, report.removed) == (2, 3, 2, 0, 0)
    assert report.skipped == [] and report.seconds > 0
    hit = index.search("Trains are booked", k=1)[0]
    text = (docs / "sub" / "b.txt").read_text()
    assert hit.text == text[hit.metadata["start"] : hit.metadata["end"]] == "Trains are booked by the office."
    assert hit.metadata["source"] == (docs / "sub" / "b.txt").resolve().as_posix()
    assert (hit.metadata["title"], hit.metadata["heading"]) == ("b", "")


def test_a_second_run_encodes_and_writes_nothing(index, docs, encoder, monkeypatch):
    ingest(index, docs)
    encoder.encoded.clear()
    monkeypatch.setattr(index, "replace", lambda *_: pytest.fail("wrote"))
    report = ingest(index, str(docs))
    assert (report.files, report.added, report.unchanged, report.removed) == (2, 0, 2, 0)
    assert encoder.encoded == []


def test_an_edited_file_alone_is_indexed_anew(index, docs, encoder):
    ingest(index, [docs])
    encoder.encoded.clear()
    (docs / "a.md").write_text("# Refunds\n\nRefunds take six days.\n")
    report = ingest(index, [docs])
    assert (report.files, report.passages, report.added, report.unchanged, report.removed) == (2, 2, 1, 1, 0)
    assert texts_of(index, docs / "a.md") == ["# Refunds\n\nRefunds take six days."]
    assert encoder.encoded == ["Refunds\n# Refunds\n\nRefunds take six days."]


def test_another_passage_size_indexes_files_anew(index, docs):
    ingest(index, [docs])
    assert ingest(index, [docs], max_tokens=20).added == 2
    assert ingest(index, [docs], max_tokens=20).unchanged == 2


def test_a_file_that_vanished_leaves_the_index(index, docs):
    ingest(index, [docs])
    (docs / "a.md").unlink()
    report = ingest(index, [docs])
    assert (report.files, report.passages, report.removed) == (1, 1, 1)
    assert texts_of(index, docs / "a.md") == []


def test_a_folder_that_vanished_below_a_given_one_leaves_the_index(index, docs):
    ingest(index, [docs])
    (docs / "sub" / "b.txt").unlink()
    (docs / "sub").rmdir()
    assert (ingest(index, [docs]).removed, len(index)) == (1, 2)


def test_a_renamed_file_is_found_under_its_new_name_only(index, docs):
    ingest(index, [docs])
    (docs / "a.md").rename(docs / "c.md")
    report = ingest(index, [docs])
    assert (report.added, report.removed, report.passages) == (1, 1, 3)
    assert texts_of(index, docs / "a.md") == [] and len(texts_of(index, docs / "c.md")) == 2


def test_sources_outside_the_given_folders_are_left_alone(index, docs, tmp_path):
    other = tmp_path / "docs2"
    other.mkdir()
    (other / "x.md").write_text("Elsewhere.")
    ingest(index, [docs, other])
    (other / "x.md").unlink()
    (docs / "a.md").unlink()
    report = ingest(index, [docs])
    assert (report.files, report.passages, report.removed) == (1, 2, 1)
    assert texts_of(index, other / "x.md") == ["Elsewhere."]


def test_passages_that_no_file_gave_are_left_alone(index, docs):
    mine = {"source": (docs / "gone.md").resolve().as_posix()}
    index.add([Passage("mine", "My own words.", mine)])
    report = ingest(index, [docs])
    assert (report.files, report.passages, report.removed) == (2, 4, 0)
    assert index.get(["mine"])[0].text == "My own words."


def test_a_file_that_turned_unreadable_keeps_its_passages_and_is_reported(index, docs):
    ingest(index, [docs])
    (docs / "a.md").write_bytes(b"\x00\x01\x02")
    report = ingest(index, [docs])
    assert (report.files, report.passages, report.added, report.removed) == (2, 3, 0, 0)
    assert [Path(item.path).name for item in report.skipped] == ["a.md"]
    assert "NUL" in report.skipped[0].reason
    assert len(texts_of(index, docs / "a.md")) == 2


def test_a_folder_that_turned_unreadable_keeps_its_passages_and_is_reported(index, docs, monkeypatch):
    ingest(index, [docs])
    genuine = os.listdir

    def refuse(path):
        if Path(path).name == "sub":
            raise PermissionError(13, "Permission denied")
        return genuine(path)

    monkeypatch.setattr(os, "listdir", refuse)
    report = ingest(index, [docs])
    assert (report.files, report.passages, report.removed) == (2, 3, 0)
    assert [(Path(item.path).name, item.reason) for item in report.skipped] == [("sub", "cannot be read: Permission denied")]


def test_a_file_that_turned_blank_loses_its_passages_and_is_reported(index, docs):
    ingest(index, [docs])
    (docs / "a.md").write_text(" \n\n")
    (docs / "new.txt").write_text("")
    report = ingest(index, [docs])
    assert (report.files, report.passages, report.removed) == (1, 1, 1)
    assert [(Path(item.path).name, item.reason) for item in report.skipped] == [
        ("a.md", "no text"),
        ("new.txt", "no text"),
    ]


def test_unsupported_and_broken_files_are_skipped_with_a_reason_and_the_rest_is_indexed(index, docs):
    (docs / "c.pdf").write_bytes(b"%PDF-1.7 broken")
    (docs / "d.png").write_bytes(b"\x89PNG")
    report = ingest(index, [docs])
    assert report.files == 2
    assert {Path(item.path).name for item in report.skipped} == {"c.pdf", "d.png"}
    assert all(item.reason for item in report.skipped)


def test_a_source_that_does_not_exist_is_an_error_before_anything_is_written(index, docs):
    with pytest.raises(IngestError, match="none"):
        ingest(index, [docs, docs / "none"])
    assert len(index) == 0


def test_the_index_own_folder_is_no_source(tmp_path, encoder, docs):
    with CrispIndex.create(docs / "own.crisp", encoder) as own:
        ingest(own, [docs])
        report = ingest(own, [docs])
    assert (report.files, report.unchanged, report.skipped) == (2, 2, [])


def test_overlapping_sources_and_links_count_a_file_once(index, docs, tmp_path):
    (tmp_path / "link").symlink_to(docs)
    report = ingest(index, [docs, docs / "a.md", docs / "sub", tmp_path / "link"])
    assert (report.files, report.passages, report.added) == (2, 3, 2)


def test_many_files_are_committed_in_few_batches_of_whole_files(index, docs, monkeypatch):
    monkeypatch.setattr(ingest_module, "BATCH_PASSAGES", 5)
    for number in range(10):
        (docs / f"n{number}.md").write_text(f"# A\n\nText {number}.\n\n# B\n\nMore {number}.\n")
    commits = []
    genuine = index.replace

    def counted(ids, passages):
        commits.append([p.metadata["source"] for p in passages])
        return genuine(ids, passages)

    monkeypatch.setattr(index, "replace", counted)
    report = ingest(index, [docs])
    assert report.passages == len(index) == 23
    assert len(commits) == 4
    assert sum(len(set(sources)) for sources in commits) == report.files == 12


def test_what_was_committed_before_a_crash_is_not_done_again(index, docs, monkeypatch):
    monkeypatch.setattr(ingest_module, "BATCH_PASSAGES", 1)
    genuine = index.replace

    def crash(ids, passages):
        if any("Trains" in p.text for p in passages):
            raise KeyboardInterrupt
        return genuine(ids, passages)

    with monkeypatch.context() as patched:
        patched.setattr(index, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            ingest(index, [docs])
    report = ingest(index, [docs])
    assert (report.files, report.added, report.unchanged) == (2, 1, 1)


def test_passages_fit_the_encoder_by_default(index, docs, tokenizer):
    (docs / "long.txt").write_text("A guest pays for trains and meals, then asks for the money. " * 40)
    ingest(index, [docs])
    assert max(len(tokenizer(p.encoded_text)["input_ids"]) for p in index.passages()) in range(40, 65)


@pytest.mark.parametrize("size", [8, 65])
def test_passage_sizes_that_the_encoder_cannot_read_are_refused(index, docs, size):
    with pytest.raises(InvalidInputError, match="max_tokens"):
        ingest(index, [docs], max_tokens=size)


def test_an_empty_folder_gives_an_empty_report(index, tmp_path):
    (tmp_path / "empty").mkdir()
    report = ingest(index, [tmp_path / "empty"])
    assert (report.files, report.passages, report.skipped) == (0, 0, [])


def test_the_report_is_ready_for_json(index, docs):
    (docs / "x.bin").write_bytes(b"x")
    said = json.loads(json.dumps(ingest(index, [docs]).to_dict()))
    assert set(said) == {"files", "passages", "added", "unchanged", "removed", "skipped", "notes", "seconds"}
    path = str((docs / "x.bin").resolve())
    assert said["skipped"] == [{"path": path, "reason": "unsupported extension '.bin'"}]


def test_progress_goes_to_stderr_and_only_when_asked_for(index, docs, capfd):
    ingest(index, [docs])
    assert capfd.readouterr() == ("", "")
    ingest(index, [docs], max_tokens=30, show_progress=True)
    assert capfd.readouterr().out == ""
