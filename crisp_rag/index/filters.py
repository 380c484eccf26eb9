"""One filter language: a ``$``-operator dict over metadata, checked once and compiled to SQL.

    {"year": {"$gte": 2024}, "$or": [{"team": "sales"}, {"tags": {"$contains": "urgent"}}]}

Several keys mean AND.  ``{"field": value}`` is short for ``{"field": {"$eq": value}}``.  What the operators mean
where a field is missing or of another type:

* ``$eq None`` matches a missing or null field; ``$ne``, ``$nin`` and ``$not`` are true negations, so they match a
  missing field too.
* ``$gt $gte $lt $lte`` compare numbers with numbers and strings with strings; anything else does not match.
* true and false are no numbers: ``{"$eq": 1}`` does not match ``true``.
* ``$contains``: the field is a list that holds the value; ``$any`` and ``$all``: it holds any, or all, of them.
* ``$text_match`` and ``$text_match_insensitive``: the field is a string that contains the operand.
* ``$is_empty``: missing, null, ``""`` or ``[]``.  ``$exists``: present, null included.

:func:`matches` evaluates the same tree in Python.  It defines the meaning; the SQL is tested against it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from crisp_rag.errors import FilterError

COMPARISONS = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
LIST_OPERANDS = ("$in", "$nin", "$any", "$all")
TEXT_OPERATORS = ("$text_match", "$text_match_insensitive")
FIELD_OPERATORS = (
    "$eq", "$ne", *COMPARISONS, "$in", "$nin", "$exists", "$contains", "$any", "$all", *TEXT_OPERATORS, "$is_empty",
)  # fmt: skip
COMBINATORS = ("$and", "$or", "$not")
MAX_DEPTH = 64
"""Combinations inside of each other.  SQLite may refuse fewer, and says so; Python's own end is never met."""
_ALLOWED = f"Allowed: {' '.join(FIELD_OPERATORS)} on a field, {' '.join(COMBINATORS)} around filters."


@dataclass(frozen=True, slots=True)
class Condition:
    """One operator on one field."""

    field: str
    operator: str
    operand: Any


@dataclass(frozen=True, slots=True)
class Combination:
    """``and``, ``or`` over any number of parts, ``not`` over one."""

    operator: str
    parts: tuple[Condition | Combination, ...]


Expression = Condition | Combination


def check_filter(where: Any) -> None:
    """Say now rather than at the first search what is wrong with a filter.

    Raises:
        FilterError: if it is neither None, a function nor a well-formed filter dict.
    """
    if where is None or callable(where):
        return
    if not isinstance(where, Mapping):
        raise FilterError(f"A filter is a dict or a function of the metadata, got {type(where).__name__}.")
    parse_filter(where)


def parse_filter(where: Mapping[str, Any]) -> Expression:
    """Check a filter dict and turn it into a tree.

    Raises:
        FilterError: for an unknown operator or a malformed operand; the message lists what is allowed.
    """
    return _parsed(where, 1)


def _parsed(where: Any, depth: int) -> Expression:
    if not isinstance(where, Mapping):
        raise FilterError(f"A filter is a dict, got {type(where).__name__}.")
    if depth > MAX_DEPTH:
        raise FilterError(f"The filter is nested too deep: {MAX_DEPTH} levels of $and, $or and $not at most.")
    parts: list[Expression] = []
    for key, value in where.items():
        if not isinstance(key, str):
            raise FilterError(f"A field name is a string, got {key!r}.")
        key = str.__str__(key)
        if key in ("$and", "$or"):
            if not isinstance(value, (list, tuple)):
                raise FilterError(f"{key} takes a list of filters, got {value!r}.")
            parts.append(Combination(key[1:], tuple(_parsed(part, depth + 1) for part in value)))
        elif key == "$not":
            parts.append(Combination("not", (_parsed(value, depth + 1),)))
        elif key.startswith("$"):
            raise FilterError(f"Unknown operator {key!r}. {_ALLOWED}")
        elif '"' in key or "\x00" in key:
            raise FilterError(f"A field name in a filter may not contain quotes or NUL: {key!r}.")
        elif isinstance(value, Mapping):
            if not value:
                raise FilterError(f"The filter on {key!r} is an empty dict. {_ALLOWED}")
            parts.extend(_condition(key, operator, operand, depth) for operator, operand in value.items())
        else:
            parts.append(_condition(key, "$eq", value, depth))
    return parts[0] if len(parts) == 1 else Combination("and", tuple(parts))


def predicate(where: Mapping[str, Any] | Callable[[dict[str, Any]], bool]) -> Callable[[dict[str, Any]], bool]:
    """A filter as a function of the metadata: itself where it is one, else what :func:`matches` says.

    Raises:
        FilterError: if a filter dict is malformed.
    """
    if callable(where):
        return where
    expression = parse_filter(where)
    return lambda metadata: matches(expression, metadata)


def _condition(field: str, operator: Any, operand: Any, depth: int) -> Expression:
    if operator == "$not":
        inner = operand if isinstance(operand, Mapping) else {"$eq": operand}
        return Combination("not", (_parsed({field: inner}, depth + 1),))
    if operator not in FIELD_OPERATORS:
        raise FilterError(f"Unknown operator {operator!r} on {field!r}. {_ALLOWED}")
    if operator in LIST_OPERANDS:
        if not isinstance(operand, (list, tuple, set, frozenset)):
            raise FilterError(f"{operator} on {field!r} takes a list, got {operand!r}.")
        operand = tuple(_scalar(field, operator, value) for value in operand)
    elif operator in ("$exists", "$is_empty"):
        if not isinstance(operand, bool):
            raise FilterError(f"{operator} on {field!r} takes true or false, got {operand!r}.")
    elif operator in TEXT_OPERATORS:
        if not isinstance(operand, str):
            raise FilterError(f"{operator} on {field!r} takes a string, got {operand!r}.")
        operand = str.__str__(operand)
    elif operator in COMPARISONS:
        operand = _scalar(field, operator, operand)
        if operand is None or isinstance(operand, bool):
            raise FilterError(f"{operator} on {field!r} takes a number or a string, got {operand!r}.")
    else:
        operand = _scalar(field, operator, operand)
    return Condition(field, operator, operand)


def _scalar(field: str, operator: str, value: Any) -> Any:
    """A value of a plain type: what a subclass says of itself, of its equality or its hash, decides nothing here."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int) and -(2**63) <= (plain := int.__int__(value)) < 2**63:
        return plain
    if isinstance(value, float) and math.isfinite(number := float.__float__(value)):
        return number
    raise FilterError(
        f"{operator} on {field!r} takes strings, finite numbers (64 bits), true, false or null, got {value!r}. "
        "For lists use $contains, $any or $all."
    )


def to_sql(expression: Expression, column: str = "metadata") -> tuple[str, list[Any]]:
    """A SQL condition over a JSON text column and its bound parameters.  Never NULL; values are never spliced in.

    The connection needs the function ``crisp_lower`` (:func:`lower`) for ``$text_match_insensitive``.
    """
    if isinstance(expression, Combination):
        if expression.operator == "not":
            sql, parameters = to_sql(expression.parts[0], column)
            return f"NOT {sql}", parameters
        if not expression.parts:
            return ("1", []) if expression.operator == "and" else ("0", [])
        compiled = [to_sql(part, column) for part in expression.parts]
        parameters = [value for _, values in compiled for value in values]
        return _joined([sql for sql, _ in compiled], expression.operator.upper()), parameters
    return _condition_sql(expression, column)


def _joined(conditions: list[str], operator: str) -> str:
    """Join by AND or OR as a balanced tree: SQLite refuses trees deeper than 1000."""
    if len(conditions) == 1:
        return f"({conditions[0]})"
    middle = len(conditions) // 2
    return f"({_joined(conditions[:middle], operator)} {operator} {_joined(conditions[middle:], operator)})"


def _condition_sql(condition: Condition, column: str) -> tuple[str, list[Any]]:
    path = "$." + json.dumps(condition.field, ensure_ascii=False)  # escaped as in the stored JSON
    kind, value = f"json_type({column}, ?)", f"json_extract({column}, ?)"
    operator, operand = condition.operator, condition.operand
    if operator in ("$ne", "$nin"):
        positive = Condition(condition.field, {"$ne": "$eq", "$nin": "$in"}[operator], operand)
        sql, parameters = _condition_sql(positive, column)
        return f"NOT {sql}", parameters
    if operator == "$in":
        checks, parameters = _one_of(operand, kind, value, path)
        if None in operand:
            checks.append(f"{kind} IS NULL")
            parameters.append(path)
        return (f"COALESCE({_joined(checks, 'OR')}, 0)" if checks else "0"), parameters
    if operator == "$eq":
        if operand is None:
            return f"(COALESCE({kind}, 'null') = 'null')", [path]
        if isinstance(operand, bool):
            return f"COALESCE({kind} = ?, 0)", [path, "true" if operand else "false"]
        return f"COALESCE({kind} {_kinds(operand)} AND {value} = ?, 0)", [path, path, operand]
    if operator in COMPARISONS:
        comparison = f"{value} {COMPARISONS[operator]} ?"
        return f"COALESCE({kind} {_kinds(operand)} AND {comparison}, 0)", [path, path, operand]
    if operator in TEXT_OPERATORS:
        folded = operator == "$text_match_insensitive"
        haystack = f"crisp_lower({value})" if folded else value
        needle = lower(operand) if folded else operand
        return f"COALESCE({kind} = 'text' AND instr({haystack}, ?) > 0, 0)", [path, path, needle]
    if operator == "$exists":
        return f"({kind} IS {'NOT ' if operand else ''}NULL)", [path]
    if operator == "$is_empty":
        sql = f"(COALESCE({kind}, 'null') = 'null' OR {value} = '' OR {value} = '[]' AND {kind} = 'array')"
        return (sql if operand else f"NOT {sql}"), [path] * 4
    groups = [(operand,)] if operator == "$contains" else [operand] if operator == "$any" else [(o,) for o in operand]
    members, parameters = [], [path]
    for group in groups:
        checks, values = _one_of(group, "item.type", "item.value")
        members.append(f"EXISTS (SELECT 1 FROM json_each({column}, ?) AS item WHERE {_joined(checks or ['0'], 'OR')})")
        parameters += [path, *values]
    return f"COALESCE({kind} = 'array' AND {_joined(members, 'AND') if members else '1'}, 0)", parameters


def _one_of(options: Iterable[Any], kind: str, value: str, *path: str) -> tuple[list[str], list[Any]]:
    """Conditions, to be joined by OR, that say that a JSON value is one of the options; and their parameters.

    ``path`` is the parameter of ``kind`` and of ``value``, where they take one.
    """
    kinds = {None: "null", True: "true", False: "false"}
    options = list(options)
    texts = [option for option in options if isinstance(option, str)]
    numbers = [option for option in options if isinstance(option, (int, float)) and not isinstance(option, bool)]
    literals = [kinds[option] for option in options if option is None or isinstance(option, bool)]
    checks: list[str] = []
    parameters: list[Any] = []
    for found, of_kind in ((texts, "= 'text'"), (numbers, "IN ('integer', 'real')")):
        if found:
            checks.append(f"({kind} {of_kind} AND {value} IN ({','.join('?' * len(found))}))")
            parameters += [*path, *path, *found]
    if literals:
        checks.append(f"{kind} IN ({','.join('?' * len(literals))})")
        parameters += [*path, *literals]
    return checks, parameters


def _kinds(value: Any) -> str:
    return "= 'text'" if isinstance(value, str) else "IN ('integer', 'real')"


def lower(text: str | None) -> str | None:
    """Lower case as Python has it; SQLite's own ``lower`` knows ASCII only."""
    return text.lower() if isinstance(text, str) else None


def matches(expression: Expression, metadata: Mapping[str, Any]) -> bool:
    """Whether metadata satisfies the filter."""
    if isinstance(expression, Combination):
        results = (matches(part, metadata) for part in expression.parts)
        if expression.operator == "not":
            return not next(results)
        return all(results) if expression.operator == "and" else any(results)
    present = expression.field in metadata
    value = metadata.get(expression.field)
    operator, operand = expression.operator, expression.operand
    if operator == "$eq":
        return _same(value, operand)
    if operator == "$ne":
        return not _same(value, operand)
    if operator == "$in":
        return any(_same(value, option) for option in operand)
    if operator == "$nin":
        return not any(_same(value, option) for option in operand)
    if operator == "$exists":
        return present == operand
    if operator == "$is_empty":
        return (value is None or value == "" or value == []) == operand
    if operator in TEXT_OPERATORS:
        if not isinstance(value, str):
            return False
        return operand in value if operator == "$text_match" else operand.lower() in value.lower()
    if operator in COMPARISONS:
        return _compares(operator, value, operand)
    if not isinstance(value, (list, tuple)):
        return False
    options = (operand,) if operator == "$contains" else operand
    found = (any(_same(item, option) for item in value) for option in options)
    return any(found) if operator == "$any" else all(found)


def _same(value: Any, operand: Any) -> bool:
    if isinstance(value, bool) or isinstance(operand, bool):
        return value is operand
    return value == operand


def _compares(operator: str, value: Any, operand: Any) -> bool:
    numbers = (int, float)
    comparable = (isinstance(value, str) and isinstance(operand, str)) or (
        isinstance(value, numbers) and not isinstance(value, bool) and isinstance(operand, numbers)
    )
    if not comparable:
        return False
    return {
        "$gt": value > operand,
        "$gte": value >= operand,
        "$lt": value < operand,
        "$lte": value <= operand,
    }[operator]
