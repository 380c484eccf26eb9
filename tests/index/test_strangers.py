"""An index folder from a stranger: it holds our tables and plain files, or it is refused; it reaches nothing else."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crisp_rag.errors import CrispError, EncoderMismatchError, IndexCorruptError, IndexFormatError
from crisp_rag.index import CrispIndex, Passage, planner, verify_index
from crisp_rag.index.copying import copy_index

ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT CAST(x AS TEXT), 'v' FROM n"


@pytest.fixture
def folder(index: CrispIndex) -> Path:
    index.add([Passage(f"p{n}", "oak", {"n": n}) for n in range(5)])
    index.declare(["n"])
    index.close()
    return index.path


def asks(path: Path, encoder: Any) -> None:
    with CrispIndex.open(path, encoder) as index:
        index.search("oak", where={"n": 1})
        index.stats()
        index.add_texts(["oak"])


def in_time(task: Callable[[], Any]) -> BaseException | None:
    """The error of a task that must not hang."""
    caught: list[BaseException] = []

    def run() -> None:
        try:
            task()
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive(), "it hangs"
    return caught[0] if caught else None


SCHEMAS = {
    "a view in place of the settings": ["ALTER TABLE meta RENAME TO old", f"CREATE VIEW meta(key, value) AS {ENDLESS}"],
    "a view in place of the segments": [
        "DROP TRIGGER segment_added", "DROP TRIGGER segment_dropped", "PRAGMA legacy_alter_table=ON",
        "ALTER TABLE segments RENAME TO old",
        f"CREATE VIEW segments(id, file, vectors, checksum, codec) AS SELECT 1, key, 1, value, '7bit' FROM ({ENDLESS})"
        .replace("(SELECT", "(SELECT").replace("CAST(x AS TEXT), 'v'", "x AS key, 'v' AS value"),
    ],
    "a view more": [f"CREATE VIEW more AS {ENDLESS}"],
    "a table more": ["CREATE TABLE more (x)"],
    "a virtual table": ["CREATE VIRTUAL TABLE more USING fts5(x)"],
    "a trigger that writes": ["CREATE TRIGGER more AFTER INSERT ON passages BEGIN DELETE FROM passages; END"],
    "another trigger under our name": [
        "DROP TRIGGER passage_added", "CREATE TRIGGER passage_added AFTER INSERT ON passages BEGIN DELETE FROM meta; END",
    ],
    "an index over what costs": ["CREATE INDEX more ON passages (length(hex(zeroblob(1000))))"],
    "a column that is computed": ["ALTER TABLE passages ADD COLUMN more AS (length(text))"],
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_database_that_holds_more_than_our_tables_is_refused_at_once(folder: Path, encoder: Any, name: str) -> None:
    with sqlite3.connect(folder / "index.sqlite", isolation_level=None) as connection:
        for statement in SCHEMAS[name]:
            try:
                connection.execute(statement)
            except sqlite3.OperationalError as error:
                pytest.skip(f"this SQLite cannot do it: {error}")
    connection.close()
    error = in_time(lambda: asks(folder, encoder))
    assert isinstance(error, IndexCorruptError) and "not one that crisp-rag makes" in str(error), error
    report = verify_index(folder)
    assert not report.sound and "not one that crisp-rag makes" in report.damage[0].problem


def test_an_index_of_a_newer_version_may_hold_more_and_says_its_format(folder: Path, encoder: Any) -> None:
    with sqlite3.connect(folder / "index.sqlite") as connection:
        connection.execute("CREATE TABLE more (x)")
        connection.execute("UPDATE meta SET value = '9' WHERE key = 'format_version'")
    connection.close()
    with pytest.raises(IndexFormatError, match="format 9"):
        CrispIndex.open(folder, encoder)


@pytest.mark.parametrize("key", ["dim", "generation", "format_version"])
@pytest.mark.parametrize("value", ["²", "٣", "-1", "1e3", "9" * 5000, "9" * 17, "", "0x10", "16 "])
def test_a_number_that_is_none_is_an_error_of_ours(folder: Path, encoder: Any, key: str, value: str) -> None:
    with sqlite3.connect(folder / "index.sqlite") as connection:
        connection.execute("UPDATE meta SET value = ? WHERE key = ?", (value, key))
    connection.close()
    error = in_time(lambda: CrispIndex.open(folder, encoder).search("oak"))
    if (key, value) == ("generation", "9" * 17):
        assert error is None
    else:
        assert isinstance(error, CrispError), repr(error)


@pytest.mark.parametrize("kind", ["pipe", "device", "link", "folder"])
@pytest.mark.parametrize(
    "name", ["index.sqlite", "index.sqlite-wal", "segments/*.7bit", "acknowledged", "writer.json", "writer.lock", "segments"]
)
def test_what_is_no_plain_file_is_not_read(folder: Path, encoder: Any, tmp_path: Path, name: str, kind: str) -> None:
    (file,) = folder.glob(name) if "*" in name else [folder / name]
    outside = tmp_path / "outside"
    if file.is_dir():
        if kind == "folder":
            pytest.skip("it is one")
        shutil.copytree(file, outside)
        shutil.rmtree(file)
    else:
        outside.write_bytes(file.read_bytes() if file.exists() else b"mine")
        file.unlink(missing_ok=True)
    before = outside.read_bytes() if outside.is_file() else None
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "device":
        file.symlink_to("/dev/zero")
    elif kind == "link":
        file.symlink_to(outside)
    else:
        file.mkdir()
    error = in_time(lambda: asks(folder, encoder))
    assert error is None or isinstance(error, CrispError), repr(error)
    if name in ("index.sqlite", "segments/*.7bit", "segments"):
        assert isinstance(error, CrispError), "it was read"
    assert before is None or outside.read_bytes() == before, "it was written"
    error = in_time(lambda: verify_index(folder))
    assert error is None or isinstance(error, CrispError), repr(error)


@pytest.mark.parametrize("kind", ["pipe", "device", "outside"])
def test_lists_of_candidates_that_lead_elsewhere_are_left_aside(
    tmp_path: Path, encoder: Any, passages: Any, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    import json

    from crisp_rag.index.candidates import files

    monkeypatch.setattr(planner, "EXACT_VECTORS", 0)
    with CrispIndex.create(tmp_path / "index", encoder) as index:
        index.add(passages(200))
        index.prepare()
    current = tmp_path / "index" / "candidates" / files.CURRENT
    if kind == "pipe":
        current.unlink()
        os.mkfifo(current)
    else:
        said = json.loads(current.read_text())
        said.pop("checksum_of_this")
        outside = tmp_path / "outside.lists"
        (tmp_path / "index" / "candidates" / said["file"]).rename(outside)
        said["file"] = "/dev/zero" if kind == "device" else "../../outside.lists"
        said["checksum_of_this"] = files._digest(said)
        current.write_text(json.dumps(said))

    def figures() -> None:
        with CrispIndex.open(tmp_path / "index", encoder) as index:
            assert index.stats().passages_in_lists == 0
            assert len(index.search("oak", k=3)) == 3

    assert in_time(figures) is None


def test_a_segment_cannot_be_named_out_of_the_folder(folder: Path, encoder: Any, tmp_path: Path) -> None:
    (segment,) = (folder / "segments").iterdir()
    segment.rename(tmp_path / segment.name)
    for name in (f"../../{segment.name}", str(tmp_path / segment.name), "..", ".", f"..\\{segment.name}", "a\0b.7bit"):
        with sqlite3.connect(folder / "index.sqlite") as connection:
            connection.execute("UPDATE segments SET file = ?", (name,))
        connection.close()
        assert isinstance(in_time(lambda: CrispIndex.open(folder, encoder).search("oak")), IndexCorruptError)


@pytest.mark.parametrize("source", ["some-stranger/some-model", "https://example.org/model", "no-such-model", "a/b@8x16"])
def test_an_encoder_that_an_index_names_is_not_fetched(folder: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    import socket

    with sqlite3.connect(folder / "index.sqlite") as connection:
        connection.execute("UPDATE meta SET value = ? WHERE key = 'encoder_source'", (source,))
    connection.close()
    called: list[Any] = []

    def call(*arguments: Any, **_: Any) -> Any:
        called.append(arguments)
        raise OSError("nobody is called")

    monkeypatch.setattr(socket, "getaddrinfo", call)
    monkeypatch.setattr(socket.socket, "connect", call)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with CrispIndex.open(folder) as index:
        with pytest.raises(EncoderMismatchError, match="pass encoder="):
            index.search("oak")
        assert len(index) == 5
    assert not called


def test_a_stranger_at_the_target_of_a_copy_is_left_alone(
    index: CrispIndex, folder: Path, tmp_path: Path, encoder: Any
) -> None:
    target = tmp_path / "target"
    with sqlite3.connect(folder / "index.sqlite") as connection:
        connection.execute("DROP TABLE segment_places")
        connection.execute(f"CREATE VIEW segment_places AS {ENDLESS}")
    connection.close()
    shutil.copytree(folder, target)
    with CrispIndex.create(tmp_path / "own", encoder) as own:
        error = in_time(lambda: copy_index(own.path, own._store, target))
    assert isinstance(error, CrispError)
