"""Names of filters, by which two that say the same are known to be the same, and no others.

A name is made of values and their types.  It is not made of ``repr``, which a class may define as it likes: one that
hides secrets shows all of them alike.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from crisp_rag.index.filters import Combination, Condition, Expression, parse_filter
from crisp_rag.index.types import Where


def key_of(where: Where | None) -> Hashable | None:
    """The same for filters that say the same in the same words; None for a function, which may change its mind."""
    return None if callable(where) else _key(parse_filter(where)) if where is not None else ("everything",)


def _key(expression: Expression) -> Hashable:
    if isinstance(expression, Combination):
        return (expression.operator, *(_key(part) for part in expression.parts))
    return (Condition, expression.field, expression.operator, _typed(expression.operand))


def _typed(operand: Any) -> Hashable:
    """1, 1.0 and true are equal in Python and different things to a filter."""
    if isinstance(operand, tuple):
        return tuple(_typed(value) for value in operand)
    return (type(operand), operand)
