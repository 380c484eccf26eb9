"""The filter language: SQL and Python agree on every value, and a filter narrows before the cut."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crisp_rag.errors import FilterError
from crisp_rag.index import CrispIndex, Passage
from crisp_rag.index.filters import COMBINATORS, FIELD_OPERATORS, lower, matches, parse_filter, to_sql

FIELDS = ["a", "b", "deep.er", "it's", "größe", "with space", "back\\slash", "line\nbreak", ""]
letters = st.characters(blacklist_categories=("Cs",), blacklist_characters="\x00")
words = st.sampled_from(["", "a", "A", "it's", '"', "Straße", "STRASSE", "İ", "ß", "%", "_", "null", "1", "[]", "\\"])
texts = st.one_of(words, st.text(letters, max_size=6))
integers = st.one_of(st.integers(-2, 2), st.integers(-(2**63), 2**63 - 1))
floats = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, 0.1, 0.1 + 0.2, 1e300]), st.floats(allow_nan=False, allow_infinity=False)
)
scalars = st.one_of(st.none(), st.booleans(), integers, floats, texts)
values = st.one_of(scalars, st.lists(scalars, max_size=4), st.dictionaries(texts, scalars, max_size=2))
fields = st.sampled_from(FIELDS)
metadata = st.dictionaries(fields, values, max_size=5)
comparable = st.one_of(integers, floats, texts)
operands = {
    "$eq": scalars,
    "$ne": scalars,
    "$contains": scalars,
    **dict.fromkeys(["$gt", "$gte", "$lt", "$lte"], comparable),
    **dict.fromkeys(["$in", "$nin", "$any", "$all"], st.lists(scalars, max_size=4)),
    **dict.fromkeys(["$exists", "$is_empty"], st.booleans()),
    **dict.fromkeys(["$text_match", "$text_match_insensitive"], texts),
}
operations = st.one_of(*(st.fixed_dictionaries({name: operand}) for name, operand in operands.items()))
conditions = st.dictionaries(fields, st.one_of(scalars, operations), max_size=3)
filters = st.recursive(
    conditions,
    lambda inner: st.one_of(
        st.fixed_dictionaries({"$and": st.lists(inner, max_size=3)}),
        st.fixed_dictionaries({"$or": st.lists(inner, max_size=3)}),
        st.fixed_dictionaries({"$not": inner}),
    ),
    max_leaves=6,
)
connection = sqlite3.connect(":memory:")
connection.create_function("crisp_lower", 1, lower, deterministic=True)


def sql_says(where: dict[str, Any], data: dict[str, Any]) -> bool:
    condition, parameters = to_sql(parse_filter(where))
    stored = json.dumps(data, ensure_ascii=False)
    (answer,) = connection.execute(f"SELECT {condition} FROM (SELECT ? AS metadata)", [*parameters, stored]).fetchone()
    assert answer in (0, 1), f"SQL says {answer!r}, which is neither true nor false"
    return bool(answer)


def test_every_operator_is_generated() -> None:
    assert set(operands) == set(FIELD_OPERATORS)


@settings(max_examples=1500, deadline=None)
@given(where=filters, data=metadata)
def test_sql_and_python_agree_on_any_filter_and_metadata(where: dict[str, Any], data: dict[str, Any]) -> None:
    assert sql_says(where, data) == matches(parse_filter(where), data)


@settings(max_examples=1000, deadline=None)
@given(operation=operations, value=values)
def test_sql_and_python_agree_on_a_field_that_is_there(operation: dict[str, Any], value: Any) -> None:
    where = {"a": operation}
    assert sql_says(where, {"a": value}) == matches(parse_filter(where), {"a": value})


@settings(max_examples=500, deadline=None)
@given(value=scalars.filter(lambda value: value is not None), others=st.lists(scalars, max_size=3))
def test_a_stored_value_is_found_by_equality_membership_and_containment(value: Any, others: list[Any]) -> None:
    for where, data in [
        ({"a": value}, {"a": value}),
        ({"a": {"$in": [*others, value]}}, {"a": value}),
        ({"a": {"$contains": value}}, {"a": [*others, value]}),
        ({"a": {"$any": [value]}}, {"a": [*others, value]}),
        ({"a": {"$all": [*others, value]}}, {"a": [*others, value]}),
    ]:
        assert sql_says(where, data) and matches(parse_filter(where), data)
        negated = {"$not": where}
        assert not sql_says(negated, data) and not matches(parse_filter(negated), data)


TABLE = [
    ({"a": 1}, {"a": 1}, True),
    ({"a": 1}, {"a": 1.0}, True),
    ({"a": 1}, {"a": True}, False),
    ({"a": True}, {"a": 1}, False),
    ({"a": "1"}, {"a": 1}, False),
    ({"a": None}, {}, True),
    ({"a": None}, {"a": None}, True),
    ({"a": None}, {"a": 0}, False),
    ({"a": {"$ne": 1}}, {}, True),
    ({"a": {"$nin": [1, 2]}}, {}, True),
    ({"a": {"$nin": [1, None]}}, {}, False),
    ({"a": {"$gt": 1}}, {}, False),
    ({"a": {"$gt": 1}}, {"a": "2"}, False),
    ({"a": {"$gte": 0}}, {"a": True}, False),
    ({"a": {"$gte": 2, "$lt": 4}}, {"a": 4}, False),
    ({"a": {"$gte": 2, "$lt": 4}}, {"a": 2}, True),
    ({"a": {"$lt": "b"}}, {"a": "a"}, True),
    ({"a": {"$in": []}}, {"a": 1}, False),
    ({"a": {"$all": []}}, {"a": []}, True),
    ({"a": {"$any": []}}, {"a": [1]}, False),
    ({"a": {"$contains": 1}}, {"a": [True]}, False),
    ({"a": {"$contains": "x"}}, {"a": "xyz"}, False),
    ({"a": {"$text_match": "b"}}, {"a": "ABC"}, False),
    ({"a": {"$text_match_insensitive": "É"}}, {"a": "café"}, True),
    ({"a": {"$is_empty": True}}, {}, True),
    ({"a": {"$is_empty": True}}, {"a": []}, True),
    ({"a": {"$is_empty": True}}, {"a": "[]"}, False),
    ({"a": {"$is_empty": True}}, {"a": {}}, False),
    ({"a": {"$exists": True}}, {"a": None}, True),
    ({"a": {"$exists": False}}, {}, True),
    ({"a": 1, "b": 2}, {"a": 1, "b": 3}, False),
    ({"$or": [{"a": 1}, {"b": 2}]}, {"b": 2}, True),
    ({"$or": []}, {"a": 1}, False),
    ({"$and": []}, {"a": 1}, True),
    ({}, {"a": 1}, True),
    ({"$not": {"a": 1}}, {"a": 2}, True),
    ({"a": {"$not": {"$gt": 3}}}, {"a": 2}, True),
    ({"a.b": 1}, {"a.b": 1}, True),
    ({"a.b": 1}, {"a": {"b": 1}}, False),
    ({"it's": "it's"}, {"it's": "it's"}, True),
]


@pytest.mark.parametrize(("where", "data", "answer"), TABLE)
def test_what_a_filter_means(where: dict[str, Any], data: dict[str, Any], answer: bool) -> None:
    assert matches(parse_filter(where), data) is answer
    assert sql_says(where, data) is answer


@pytest.mark.parametrize("where", [{"a": {"$near": 1}}, {"$nor": []}, {"a": {}}, {"$and": [{"a": {"$regex": "x"}}]}])
def test_an_unknown_operator_is_answered_with_the_list_of_allowed_ones(where: dict[str, Any], index: Any) -> None:
    index.add_texts(["oak"])
    for use in (lambda: index.search("oak", where=where), lambda: index.delete(where=where)):
        with pytest.raises(FilterError) as caught:
            use()
        assert all(operator in str(caught.value) for operator in (*FIELD_OPERATORS, *COMBINATORS))
    assert len(index) == 1


@pytest.mark.parametrize(
    "where",
    [
        ["a"],
        {1: 2},
        {"$and": {"a": 1}},
        {"$not": [{"a": 1}]},
        {'qu"ote': 1},
        {"a": {"$in": "text"}},
        {"a": {"$in": [[1]]}},
        {"a": [1, 2]},
        {"a": {"$gt": None}},
        {"a": {"$gt": True}},
        {"a": {"$exists": 1}},
        {"a": {"$text_match": 1}},
        {"a": float("nan")},
        {"a": float("inf")},
        {"a": 2**63},
    ],
)
def test_a_malformed_filter_is_an_error_even_where_nothing_is_stored(where: Any, index: Any) -> None:
    with pytest.raises(FilterError):
        index.search("oak", where=where)


def test_a_filter_may_name_thousands_of_values(index: Any) -> None:
    index.add_texts(
        [f"oak {number}" for number in range(30)], metadatas=[{"id": f"n{n}", "n": n, "all": [n]} for n in range(30)]
    )
    names, numbers = [f"n{number}" for number in range(20, 20_000)], list(range(20, 5_000))
    assert len(index.search("oak", k=30, where={"id": {"$in": names}})) == 10
    assert len(index.search("oak", k=30, where={"id": {"$nin": names}})) == 20
    assert len(index.search("oak", k=30, where={"n": {"$in": numbers}})) == 10
    assert len(index.search("oak", k=30, where={"all": {"$any": numbers}})) == 10
    assert len(index.search("oak", k=30, where={"all": {"$all": numbers[:1000]}})) == 0
    assert len(index.search("oak", k=30, where={"$or": [{"n": number} for number in numbers]})) == 10


def test_a_filter_that_is_too_large_is_called_so_and_not_a_damaged_file(index: Any) -> None:
    index.add_texts(["oak"])
    with pytest.raises(FilterError, match="too large"):
        index.search("oak", where={"n": {"$in": list(range(400_000))}})


def test_a_filter_narrows_before_the_cut(index: Any) -> None:
    texts = [f"oak oak{number}" if number < 90 else f"pine pine{number}" for number in range(100)]
    index.add_texts(texts, metadatas=[{"tree": text.split()[0]} for text in texts])
    assert all(hit.metadata["tree"] == "oak" for hit in index.search("oak", k=50))
    hits = index.search("oak", k=10, where={"tree": "pine"})
    assert len(hits) == 10
    assert all(hit.metadata["tree"] == "pine" for hit in hits)
    assert len(index.search("oak", k=20, where={"tree": "pine"})) == 10


def test_a_callable_filter_sees_the_metadata_and_narrows_before_the_cut(index: Any, passages: Any) -> None:
    index.add(passages(40))
    hits = index.search("oak pine", k=12, where=lambda data: data["number"] >= 28)
    assert sorted(hit.metadata["number"] for hit in hits) == list(range(28, 40))
    assert [passage.metadata["number"] for passage in index.passages(lambda data: data["number"] < 3)] == [0, 1, 2]
    assert index.delete(where=lambda data: data["number"] >= 28) == 12
    assert index.search("oak pine", where=lambda data: False) == []


@settings(max_examples=25, deadline=None)
@given(where=filters, stored=st.lists(metadata, min_size=1, max_size=6))
def test_search_passages_and_delete_keep_the_same_passages(
    tmp_path_factory: Any, fresh_encoder: Any, where: Any, stored: list[Any]
) -> None:
    wanted = {str(number) for number, data in enumerate(stored) if matches(parse_filter(where), data)}
    with CrispIndex.create(tmp_path_factory.mktemp("filter") / "index", fresh_encoder) as index:
        index.add([Passage(str(number), f"oak {number}", data) for number, data in enumerate(stored)])
        assert {hit.id for hit in index.search("oak", k=10, where=where)} == wanted
        assert {passage.id for passage in index.passages(where)} == wanted
        assert index.delete(where=where) == len(wanted)
        assert {passage.id for passage in index.passages()} == {str(n) for n in range(len(stored))} - wanted


def test_a_string_with_nul_in_it_is_compared_whole(index: CrispIndex) -> None:
    tenants = {"one": "a", "two": "a\x00b", "three": "a\x00c", "four": r"a\u0000b"}
    index.add(Passage(id_, "oak", {"tenant": tenant, "tags": [tenant]}) for id_, tenant in tenants.items())
    for operator in ("$eq", "$ne", "$gt", "$lte", "$text_match", "$contains"):
        field = "tags" if operator == "$contains" else "tenant"
        for operand in tenants.values():
            where = {field: {operator: operand}}
            kept = [
                id_ for id_, value in tenants.items() if matches(parse_filter(where), {"tenant": value, "tags": [value]})
            ]
            assert [passage.id for passage in index.passages(where)] == kept, where
    assert [hit.id for hit in index.search("oak", where={"tenant": "a"})] == ["one"]


def test_a_filter_that_is_asked_again_reads_no_metadata_until_the_index_changes(
    index: CrispIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    from crisp_rag.index import lookups, reading

    asked: list[Any] = []
    matching_rows = reading.matching_rows
    monkeypatch.setattr(reading, "matching_rows", lambda store, where: asked.append(where) or matching_rows(store, where))
    index.add_texts(["oak", "pine", "fir"], ids=["a", "b", "c"], metadatas=[{"n": 1}, {"n": 2}, {"n": True}])
    where = {"n": {"$in": [1]}}

    def found(where: Any) -> list[str]:
        return sorted(hit.id for hit in index.search("oak", where=where))

    assert found(where) == found({"n": {"$in": [1]}}) == ["a"] and len(asked) == 1
    where["n"]["$in"].append(2)
    assert found(where) == ["a", "b"] and len(asked) == 2
    assert found({"n": True}) == ["c"] and found({"n": 1}) == ["a"] and len(asked) == 4
    index.add_texts(["elm"], ids=["d"], metadatas=[{"n": 2}])
    assert found(where) == ["a", "b", "d"] and len(asked) == 5
    wanted = 2
    keeps = lambda metadata: metadata["n"] == wanted  # noqa: E731
    assert found(keeps) == ["b", "d"]
    wanted = 5
    assert found(keeps) == [], "a function is asked every time"
    monkeypatch.setattr(lookups, "_KEPT_ROWS", 2)
    assert found({"n": 2}) == ["b", "d"] and found({"n": {"$gte": 1}}) == ["a", "b", "d"] and found({"n": 2}) == ["b", "d"]
