"""LlamaIndex's metadata filters in the index's own filter language."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)

from crisp_rag.errors import FilterError

_EVERYTHING: dict[str, Any] = {"$and": []}
_NOTHING: dict[str, Any] = {"$or": []}


def where_from_filters(filters: MetadataFilters) -> dict[str, Any]:
    """Translate LlamaIndex filters to the language of :mod:`crisp_rag.index.filters`.

    The result keeps what ``SimpleVectorStore`` keeps, and groups may be nested, which it does not allow.  As there:

    * A missing or null field satisfies ``!=``, ``nin`` and ``is_empty`` only.
    * ``contains``, ``any`` and ``all`` look into a list for members and into a string for substrings.
    * True equals 1 and False equals 0.  A filter cannot name a boolean, so that is how to ask for one.
    * NOT keeps what satisfies none of its filters.  No filters at all keep everything.

    Unlike there, a field whose type does not suit the operator does not match, where ``SimpleVectorStore`` raises
    TypeError for the whole query; and an operand that does not suit it is refused whatever the data.

    Raises:
        FilterError: for an operand of a wrong type; the message says what the operator takes.
    """
    if not filters.filters:
        return _EVERYTHING
    parts = [where_from_filters(part) if isinstance(part, MetadataFilters) else _translate(part) for part in filters.filters]
    condition = filters.condition or FilterCondition.AND
    if condition == FilterCondition.AND:
        return {"$and": parts}
    if condition == FilterCondition.OR:
        return {"$or": parts}
    return {"$not": {"$or": parts}}


_ORDERINGS: dict[FilterOperator, tuple[str, Callable[[Any, Any], bool]]] = {
    FilterOperator.GT: ("$gt", operator.gt),
    FilterOperator.GTE: ("$gte", operator.ge),
    FilterOperator.LT: ("$lt", operator.lt),
    FilterOperator.LTE: ("$lte", operator.le),
}
_TEXT_MATCHES = {
    FilterOperator.TEXT_MATCH: "$text_match",
    FilterOperator.TEXT_MATCH_INSENSITIVE: "$text_match_insensitive",
}


def _translate(part: MetadataFilter) -> dict[str, Any]:
    kind, key, value = part.operator, part.key, part.value
    if kind == FilterOperator.IS_EMPTY:
        return {key: {"$is_empty": True}}
    if kind in (FilterOperator.EQ, FilterOperator.NE):
        negated = kind == FilterOperator.NE
        if isinstance(value, list):
            raise _refused(part, "a string or a number; for lists use in, any, all or contains")
        if value is None:  # nothing equals null, not even null
            return _EVERYTHING if negated else _NOTHING
        return {key: {"$nin" if negated else "$in": _with_booleans([value])}}
    if kind in _ORDERINGS:
        if value is None or isinstance(value, list):
            raise _refused(part, "a string or a number")
        name, compare = _ORDERINGS[kind]
        booleans = [] if isinstance(value, str) else [flag for flag in (False, True) if compare(flag, value)]
        return {"$or": [{key: {name: value}}, {key: {"$in": booleans}}]} if booleans else {key: {name: value}}
    if kind in _TEXT_MATCHES:
        if not isinstance(value, str):
            raise _refused(part, "a string")
        return {key: {_TEXT_MATCHES[kind]: value}}
    if kind == FilterOperator.CONTAINS:
        if isinstance(value, list):
            raise _refused(part, "a string or a number; for lists use any or all")
        return _holds(key, value)
    if not isinstance(value, list):
        raise _refused(part, "a list")
    if kind in (FilterOperator.IN, FilterOperator.NIN):
        return {key: {"$in" if kind == FilterOperator.IN else "$nin": _with_booleans(value)}}
    if kind == FilterOperator.ANY:
        return {"$or": [_holds(key, item) for item in value]}
    if kind == FilterOperator.ALL:
        if not value:
            return {key: {"$ne": None}}  # any value at all holds all of nothing
        return {"$and": [_holds(key, item) for item in value]}
    raise FilterError(f"Unknown filter operator {kind!r}.")


def _holds(key: str, value: Any) -> dict[str, Any]:
    """The field is a list with the value in it, or a string with the string in it."""
    member = {key: {"$any": _with_booleans([value])}}
    return {"$or": [member, {key: {"$text_match": value}}]} if isinstance(value, str) else member


def _with_booleans(values: Sequence[Any]) -> list[Any]:
    """The values, and with a 1 or a 0 among them the boolean that Python holds for equal."""
    return [*values, *(flag for flag in (False, True) if flag in values)]


def _refused(part: MetadataFilter, takes: str) -> FilterError:
    return FilterError(f"The filter {part.operator.value!r} on {part.key!r} takes {takes}, got {part.value!r}.")
