"""Metadata fields that the index is told about, so that a filter on one of them need not read every passage.

A declared field has an SQLite index over its value.  A filter that demands something of it, alone or joined to others
by AND, first looks the value up there and then judges what it finds as a whole, so that a declaration changes how
long an answer takes and never what it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

from crisp_rag.errors import IndexCorruptError, InvalidInputError
from crisp_rag.index.filters import COMPARISONS, Condition, Expression
from crisp_rag.index.schema import NUL_INDEX
from crisp_rag.index.store import Store

MAX_OPTIONS = 500
"""Values of one ``$in`` that are looked up one by one; beyond, reading every passage is no slower."""


def check_fields(fields: Iterable[str]) -> list[str]:
    """The fields as a list without repetitions.

    Raises:
        InvalidInputError: if one is no name that a filter could use.
    """
    if isinstance(fields, str):
        raise InvalidInputError("indexed fields are a list of strings, got one string.")
    listed = list(dict.fromkeys(fields))
    for field in listed:
        if not isinstance(field, str) or not field or field.startswith("$") or '"' in field or "\x00" in field:
            raise InvalidInputError(f"An indexed field is the name of a metadata field, without quotes, got {field!r}.")
        try:
            field.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InvalidInputError(f"An indexed field holds characters that are not Unicode: {error}.") from error
    return listed


def declared_fields(store: Store) -> list[str]:
    """The fields declared so far."""
    said = store.setting("indexed_fields")
    try:
        return [str(field) for field in json.loads(said or "[]")]
    except ValueError as error:
        raise IndexCorruptError(
            f"{store.path} was altered: its indexed fields are no JSON; restore it from a copy."
        ) from error


def declare(store: Store, fields: Iterable[str]) -> None:
    """Index fields, in the caller's transaction; what is declared already stays."""
    there = declared_fields(store)
    connection = store.connection
    connection.execute(NUL_INDEX)
    for field in fields:
        if field not in there:
            name = hashlib.blake2b(field.encode(), digest_size=8).hexdigest()
            connection.execute(f"CREATE INDEX IF NOT EXISTS passages_field_{name} ON passages ({_value(field)})")
            there.append(field)
    store.set_meta({"indexed_fields": json.dumps(there)})


def lookup(expression: Expression, fields: Iterable[str]) -> tuple[str, list[Any]] | None:
    """A condition on declared fields that everything which satisfies the filter satisfies too, None where there is none.

    Returns:
        A SQL condition that SQLite answers from its indexes, and its bound parameters.
    """
    declared = set(fields)
    demanded = [_condition(part) for part in _demands(expression) if part.field in declared]
    found = [condition for condition in demanded if condition is not None]
    if not found:
        return None
    return " AND ".join(sql for sql, _ in found), [value for _, values in found for value in values]


def _demands(expression: Expression) -> Iterator[Condition]:
    """The conditions that all have to hold."""
    if isinstance(expression, Condition):
        yield expression
    elif expression.operator == "and" or (len(expression.parts) == 1 and expression.operator == "or"):
        for part in expression.parts:
            yield from _demands(part)


def _condition(condition: Condition) -> tuple[str, list[Any]] | None:
    value, operand = _value(condition.field), condition.operand
    if condition.operator == "$eq" and operand is not None:
        return f"{value} = ?", [_bound(operand)]
    if condition.operator == "$in" and None not in operand and 0 < len(operand) <= MAX_OPTIONS:
        return f"{value} IN ({','.join('?' * len(operand))})", [_bound(option) for option in operand]
    if condition.operator in COMPARISONS:
        return f"{value} {COMPARISONS[condition.operator]} ?", [operand]
    return None


def _value(field: str) -> str:
    """The indexed expression: SQLite recognises it only where it is written out, so the name is quoted twice, as a
    JSON key (as the stored JSON has it) and as an SQL string."""
    path = "$." + json.dumps(field, ensure_ascii=False)
    quoted = path.replace("'", "''")
    return f"json_extract(metadata, '{quoted}')"


def _bound(value: Any) -> Any:
    return int(value) if isinstance(value, bool) else value
