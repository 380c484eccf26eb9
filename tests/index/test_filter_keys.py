"""What is remembered for a filter belongs to that filter alone."""

from __future__ import annotations

import asyncio
import enum
from typing import Any

import numpy as np
import pytest

from crisp_rag.errors import FilterError
from crisp_rag.index import CrispIndex, Passage
from crisp_rag.index.filter_keys import key_of


class Secret(str):
    """As settings libraries have them: the value is not shown."""

    def __repr__(self) -> str:
        return "Secret('**********')"

    __str__ = __repr__


class Sly(str):
    """Equal to everything, with the hash of everything."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


class Team(enum.IntEnum):
    SALES = 1
    OTHER = 2


@pytest.fixture
def tenants(index: CrispIndex) -> CrispIndex:
    index.add([Passage(name, "oak", {"tenant": name, "team": number}) for number, name in enumerate("abc")])
    return index


def found(index: CrispIndex, where: Any) -> list[str]:
    return [hit.id for hit in index.search("oak", where=where)]


def test_values_that_hide_themselves_share_no_entry(tenants: CrispIndex) -> None:
    for name in "abcab":
        assert found(tenants, {"tenant": Secret(name)}) == [name]
        assert found(tenants, {"tenant": {"$in": [Secret(name)]}}) == [name]
        assert found(tenants, {"tenant": {"$text_match": Secret(name)}}) == [name]
    for name in "abc":
        assert found(tenants, {"tenant": Sly(name)}) == [name]
        assert found(tenants, {"tenant": {"$ne": Secret(name)}}) == sorted({*"abc"} - {name})


def test_searches_that_arrive_together_share_no_answer(tenants: CrispIndex) -> None:
    from crisp_rag.retrievers.gathering import gatherer

    async def together() -> list[list[str]]:
        searches = [gatherer(tenants).search(tenants, "oak", 5, {"tenant": Secret(name)}) for name in "abcab"]
        return [[hit.id for hit in hits] for hits in await asyncio.gather(*searches)]

    assert asyncio.run(together()) == [["a"], ["b"], ["c"], ["a"], ["b"]]


def test_numbers_of_other_types_are_what_they_say(tenants: CrispIndex) -> None:
    assert found(tenants, {"team": Team.SALES}) == ["b"] and found(tenants, {"team": Team.OTHER}) == ["c"]
    assert found(tenants, {"team": np.float64(2)}) == ["c"] and found(tenants, {"team": {"$gte": np.float64(1)}}) == [
        "b",
        "c",
    ]


def test_a_key_tells_types_apart_and_nothing_else() -> None:
    same = [{"a": 1}, {"a": {"$eq": 1}}, {"a": Team.SALES}]
    assert len({key_of(where) for where in same}) == 1
    others: list[Any] = [{"a": 1}, {"a": True}, {"a": 1.0}, {"a": "1"}, {"a": None}, {"a": {"$in": [1]}}, {"b": 1}, {}, None]
    others += [{"$or": [{"a": 1}, {"a": 2}]}, {"$and": [{"a": 1}, {"a": 2}]}, {"$not": {"a": 1}}, {"a": {"$in": [1, 1.0]}}]
    assert len({key_of(where) for where in others}) == len(others)
    assert key_of(lambda metadata: True) is None


def nested(depth: int, kind: str) -> Any:
    where: Any = {"n": 1}
    for _ in range(depth):
        where = {"$not": where} if kind == "$not" else {kind: [where]}
    return where


@pytest.mark.parametrize("kind", ["$not", "$and", "$or"])
def test_a_filter_that_is_nested_without_end_is_refused(index: CrispIndex, kind: str) -> None:
    index.add([Passage("a", "oak", {"n": 1})])
    assert found(index, nested(20, kind)) == ["a"]
    for depth in (65, 400, 900, 5000):
        for use in (lambda where: index.search("oak", where=where), lambda where: index.get(["a"], where)):
            with pytest.raises(FilterError, match="nested too deep"):
                use(nested(depth, kind))


def test_a_condition_that_is_nested_without_end_is_refused(index: CrispIndex) -> None:
    operand: Any = 1
    for _ in range(400):
        operand = {"$not": operand}
    with pytest.raises(FilterError, match="nested too deep"):
        index.search("oak", where={"n": operand})
