"""``verify`` reads everything, names what is damaged, and leaves the index as it is."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from crisp_rag.cli import app
from crisp_rag.errors import IndexFormatError, IndexNotFoundError
from crisp_rag.index import CrispIndex, verify_index


@pytest.fixture
def path(index: CrispIndex, passages: Any) -> Path:
    index.add(passages(30))
    index.add(passages(10, prefix="q"))
    index.close()
    return index.path


def altered(path: Path, sql: str) -> None:
    with sqlite3.connect(path / "index.sqlite") as connection:
        connection.execute(sql)
    connection.close()


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stdout


def test_a_sound_index_is_sound(path: Path) -> None:
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    report = verify_index(path)
    assert report.sound and (report.passages, report.segments) == (40, 2)
    assert report.bytes_checked >= sum(len(data) for file, data in before.items() if file.suffix in (".7bit", ".sqlite"))
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before
    code, printed = run("verify", "--index", str(path))
    assert code == 0 and printed.startswith("Sound: 40 passages in 2 segments")


def test_every_damaged_file_is_named(path: Path) -> None:
    first, second = sorted((path / "segments").iterdir())
    first.write_bytes(first.read_bytes()[:-1])
    second.unlink()
    report = verify_index(path)
    assert {damage.file for damage in report.damage} == {str(first), str(second)}
    code, printed = run("verify", "--index", str(path))
    assert code == 5 and first.name in printed and second.name in printed and "is missing" in printed
    code, printed = run("verify", "--index", str(path), "--json")
    assert code == 5 and json.loads(printed)["sound"] is False and len(json.loads(printed)["damage"]) == 2


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE passages SET text = 'other' WHERE id = 'p3'",
        "UPDATE passages SET start = 1 WHERE id = 'p3'",
        "DROP TRIGGER passage_moved",
        "UPDATE segment_places SET passages = passages + 1",
        "UPDATE segment_places SET checksum = checksum + 1",
        "DELETE FROM segment_places",
        "DROP TABLE segment_places",
        "DELETE FROM meta WHERE key = 'dim'",
        "DELETE FROM meta WHERE key = 'generation'",
    ],
)
def test_a_database_that_contradicts_itself_is_named(path: Path, sql: str) -> None:
    altered(path, sql)
    report = verify_index(path)
    assert [damage.file for damage in report.damage] == [str(path / "index.sqlite")], report


def test_a_passage_whose_place_was_altered_with_its_checks_is_still_found(path: Path) -> None:
    """The place is in the passage's own digest too."""
    altered(path, "UPDATE passages SET count = count + 1, start = start - 1 WHERE id = 'p9'")
    assert not verify_index(path).sound


def test_what_an_interrupted_write_left_is_no_damage(path: Path) -> None:
    orphan = path / "segments" / "0123.7bit"
    orphan.write_bytes(b"half")
    report = verify_index(path)
    assert report.sound and report.orphans == (str(orphan),)
    code, printed = run("verify", "--index", str(path))
    assert code == 0 and "left over" in printed and orphan.name in printed
    assert orphan.exists(), "looking changes nothing"


def test_no_index_and_a_newer_one_are_errors(path: Path, tmp_path: Path) -> None:
    with pytest.raises(IndexNotFoundError):
        verify_index(tmp_path / "nothing")
    altered(path, "UPDATE meta SET value = '99' WHERE key = 'format_version'")
    with pytest.raises(IndexFormatError, match="format 99"):
        verify_index(path)
    assert run("verify", "--index", str(path))[0] == 1
    (path / "index.sqlite").unlink()
    assert [damage.file for damage in verify_index(path).damage] == [str(path / "index.sqlite")]


def test_compact_says_what_it_gave_back(index: CrispIndex, passages: Any) -> None:
    index.add(passages(2000))
    index.delete(where={"number": {"$gte": 200}})
    index.close()
    size = sum(file.stat().st_size for file in index.path.rglob("*"))
    code, printed = run("compact", "--index", str(index.path), "--json")
    figures = json.loads(printed)
    assert code == 0 and figures["bytes_after"] < figures["bytes_before"] / 2
    assert abs(figures["bytes_before"] - size) < size / 2
    assert verify_index(index.path).sound and verify_index(index.path).passages == 200
    code, printed = run("compact", "--index", str(index.path))
    assert code == 0 and "bytes before" in printed
