"""What the database of an index consists of, and that it consists of nothing else.

An index may come from a stranger.  SQLite runs what the schema says: a view in a table's place may count for ever, and
a trigger may write what it likes.  So the words of every table, index and trigger are compared with those that this
package writes or has ever written, before anything else is asked.
"""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

from crisp_rag.errors import IndexCorruptError, IndexFormatError
from crisp_rag.index.codecs import FORMAT_1_CODEC
from crisp_rag.index.numbers import is_number

FORMAT_VERSION = 2
"""1: all vectors are float16.  2: segments name their codec."""

TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE segments (id INTEGER PRIMARY KEY AUTOINCREMENT, file TEXT NOT NULL, vectors INTEGER NOT NULL,
                       checksum TEXT NOT NULL, codec TEXT NOT NULL);
CREATE TABLE passages (row INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, text TEXT NOT NULL,
                       context TEXT NOT NULL, metadata TEXT NOT NULL, segment INTEGER NOT NULL REFERENCES segments,
                       start INTEGER NOT NULL, count INTEGER NOT NULL, digest TEXT NOT NULL);
"""
HAS_NUL = r"instr(metadata, '\u0000') > 0"
NUL_INDEX = f"CREATE INDEX IF NOT EXISTS passages_with_nul ON passages (row) WHERE {HAS_NUL}"
CODEC_COLUMN = f"ALTER TABLE segments ADD COLUMN codec TEXT NOT NULL DEFAULT '{FORMAT_1_CODEC}'"

PRIME = 2_147_483_647
FACTORS = (1_000_003, 998_244_353, 1_299_709)


def _number_sql(of: str) -> str:
    row, start, count = (f"{of}.{name} % {PRIME} * {factor}" for name, factor in zip(("row", "start", "count"), FACTORS))
    linear = f"(({row} % {PRIME} + {start} % {PRIME} + {count} % {PRIME} + 7) % {PRIME})"
    return f"({linear} * {linear} % {PRIME})"


def _change_sql(of: str, sign: str) -> str:
    return (
        f"UPDATE segment_places SET passages = passages {sign} 1, vectors = vectors {sign} {of}.count, "
        f"checksum = checksum {sign} {_number_sql(of)}, changes = changes + 1 WHERE segment = {of}.segment;"
    )


PLACES = f"""
DROP INDEX IF EXISTS passages_by_segment;
CREATE INDEX IF NOT EXISTS passages_places ON passages (segment, start, count);
CREATE TABLE segment_places (segment INTEGER PRIMARY KEY, passages INTEGER NOT NULL, vectors INTEGER NOT NULL,
                             checksum INTEGER NOT NULL, changes INTEGER NOT NULL);
INSERT INTO segment_places
    SELECT segments.id, COUNT(passages.row), COALESCE(SUM(passages.count), 0),
           COALESCE(SUM({_number_sql("passages")}), 0), 0
    FROM segments LEFT JOIN passages ON passages.segment = segments.id GROUP BY segments.id;
CREATE TRIGGER segment_added AFTER INSERT ON segments BEGIN
    INSERT INTO segment_places VALUES (NEW.id, 0, 0, 0, 0); END;
CREATE TRIGGER segment_dropped AFTER DELETE ON segments BEGIN
    DELETE FROM segment_places WHERE segment = OLD.id; END;
CREATE TRIGGER passage_added AFTER INSERT ON passages BEGIN {_change_sql("NEW", "+")} END;
CREATE TRIGGER passage_deleted AFTER DELETE ON passages BEGIN {_change_sql("OLD", "-")} END;
CREATE TRIGGER passage_moved AFTER UPDATE OF segment, start, count ON passages BEGIN
    {_change_sql("OLD", "-")} {_change_sql("NEW", "+")} END;
"""

_FORMER = """
CREATE TABLE segments (id INTEGER PRIMARY KEY AUTOINCREMENT, file TEXT NOT NULL, vectors INTEGER NOT NULL,
                       checksum TEXT NOT NULL);
CREATE INDEX passages_by_segment ON passages (segment, start);
CREATE TABLE sqlite_sequence(name,seq);
CREATE TABLE sqlite_stat1(tbl,idx,stat);
CREATE TABLE sqlite_stat4(tbl,idx,neq,nlt,ndlt,sample);
"""
"""What older versions made, and what SQLite makes by itself."""
_FIELD_INDEX = re.compile(
    r"CREATE INDEX passages_field_[0-9a-f]{16} ON passages \(json_extract\(metadata, '(?:[^']|'')*'\)\)", re.DOTALL
)


def statements(script: str) -> list[str]:
    """The statements of a script, for a connection whose transaction ``executescript`` would commit."""
    found, statement = [], ""
    for line in script.splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            found.append(statement)
            statement = ""
    return [statement for statement in found if statement.strip()]


def check_schema(connection: sqlite3.Connection, path: Path) -> None:
    """See that a database holds our tables only.

    Raises:
        IndexFormatError: if a newer version wrote it.
        IndexCorruptError: naming what is not ours.
    """
    found = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall()
    foreign = [(kind, name) for kind, name, table, sql in found if not _is_ours(kind, name, table, sql)]
    settings = [(kind, name) for kind, name, *_ in found if name == "meta"]
    if foreign and settings == [("table", "meta")] and settings[0] not in foreign:  # a newer version's may hold more
        said = connection.execute("SELECT value FROM meta WHERE key = 'format_version'").fetchone()
        check_version(path, str(said[0]) if said else "")
    if foreign:
        kind, name = foreign[0]
        raise IndexCorruptError(
            f"{path} was altered: its {kind} {name!r} is not one that crisp-rag makes; restore it from a copy."
        )


def check_version(path: Path, version: str) -> None:
    """Refuse an index of a newer version."""
    if is_number(version) and int(version) > FORMAT_VERSION:
        raise IndexFormatError(
            f"{path.parent} has format {version} and this crisp-rag reads up to {FORMAT_VERSION}: upgrade crisp-rag."
        )


def _is_ours(kind: object, name: object, table: object, sql: object) -> bool:
    if sql is None:  # an index that SQLite makes for a UNIQUE column
        return kind == "index" and isinstance(name, str) and name.startswith("sqlite_autoindex_")
    if not isinstance(sql, str):
        return False
    said = _normal(sql)
    return _OURS.get(said) == (kind, name) or (kind == "index" and _FIELD_INDEX.fullmatch(sql) is not None)


def _normal(sql: str) -> str:
    return " ".join(sql.split()).removesuffix(";").replace(" IF NOT EXISTS ", " ")


def _ours() -> dict[str, tuple[str, str]]:
    """Type and name of everything, by its words; those that SQLite keeps of an altered table among them."""
    found = {}
    for statement in statements(f"{TABLES}{PLACES}{_FORMER}{NUL_INDEX};"):
        said = _normal(statement)
        if match := re.match(r"CREATE (TABLE|INDEX|TRIGGER) (\w+)", said):
            found[said] = (match.group(1).lower(), match.group(2))
            if said.startswith("CREATE TABLE segments") and "codec" not in said:
                column = CODEC_COLUMN.partition(" ADD COLUMN ")[2]
                found[f"{said[:-1]}, {column})"] = found[said]
    return found


_OURS = _ours()
