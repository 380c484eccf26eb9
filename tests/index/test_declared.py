"""A declared field is looked up instead of searched for; what a filter means does not change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crisp_rag.errors import FilterError, InvalidInputError
from crisp_rag.index import CrispIndex, Passage
from crisp_rag.index.declared import lookup
from crisp_rag.index.filters import matches, parse_filter, to_sql
from crisp_rag.index.lookups import matching_rows


def plan(index: CrispIndex, where: dict[str, Any]) -> str:
    """How SQLite finds the passages of a filter."""
    expression = parse_filter(where)
    found = lookup(expression, index.indexed_fields)
    sql, parameters = to_sql(expression)
    if found is not None:
        sql, parameters = f"{found[0]} AND {sql}", [*found[1], *parameters]
    rows = index._store.connection.execute(f"EXPLAIN QUERY PLAN SELECT row FROM passages WHERE {sql}", parameters)
    return " ".join(row[-1] for row in rows)


FILTERS = [
    {"tenant": "t3"},
    {"tenant": {"$in": ["t1", "t2"]}},
    {"tenant": {"$gte": "t5"}},
    {"number": {"$lt": 7, "$gt": 2}},
    {"$and": [{"tenant": "t3"}, {"$or": [{"number": 3}, {"number": {"$gt": 20}}]}]},
    {"tenant": "t3", "number": {"$ne": 3}},
    {"$or": [{"tenant": "t3"}]},
]


@pytest.mark.parametrize("where", FILTERS, ids=str)
def test_a_filter_that_demands_a_declared_field_reads_no_other_passage(tmp_path: Path, encoder: Any, where: Any) -> None:
    passages = [Passage(str(n), "oak", {"tenant": f"t{n % 7}", "number": n}) for n in range(40)]
    with CrispIndex.create(tmp_path / "index", encoder) as index:
        index.add(passages)
        before = [hit.id for hit in index.search("oak", k=40, where=where)]
        assert before and plan(index, where).startswith("SCAN")
        index.declare(["tenant", "number"])
        assert plan(index, where).startswith("SEARCH passages USING INDEX passages_field_")
        assert [hit.id for hit in index.search("oak", k=40, where=where)] == before
        assert index.delete(where=where) == len(before)
        assert index.search("oak", k=40, where=where) == []


def test_fields_are_declared_when_an_index_is_made_or_later_and_stay_declared(tmp_path: Path, encoder: Any) -> None:
    with CrispIndex.create(tmp_path / "index", encoder, indexed_fields=["tenant", "tenant"]) as index:
        assert index.indexed_fields == ["tenant"]
        index.add([Passage("a", "oak", {"tenant": "x", "o'clock": 3})])
        index.declare(["o'clock", "tenant"])
        index.compact()
        index.copy_to(tmp_path / "copy")
    for path in (tmp_path / "index", tmp_path / "copy"):
        with CrispIndex.open(path, encoder) as index:
            assert index.indexed_fields == ["tenant", "o'clock"]
            assert [hit.id for hit in index.search("oak", where={"o'clock": 3})] == ["a"]
    with CrispIndex.create(tmp_path / "index", encoder, exist_ok=True, indexed_fields=["year"]) as index:
        assert index.indexed_fields == ["tenant", "o'clock", "year"]


@pytest.mark.parametrize("field", ["", "$eq", 'a"b', "a\0b", 5, None, "\ud800"])
def test_what_is_no_field_name_is_refused(index: CrispIndex, field: Any) -> None:
    with pytest.raises(InvalidInputError, match="indexed field"):
        index.declare([field])
    with pytest.raises(InvalidInputError, match="one string"):
        index.declare("tenant")
    assert index.indexed_fields == []


def test_a_malformed_filter_stays_an_error(index: CrispIndex) -> None:
    index.declare(["tenant"])
    index.add_texts(["oak"])
    with pytest.raises(FilterError, match="near"):
        index.search("oak", where={"tenant": {"$near": 1}})


values = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 2), st.sampled_from([0.0, 1.0, 1.5, 2**62, -0.0]),
    st.sampled_from(["", "a", "b", "a\0b", "a\0", "1", "true", "A", "ä"]),
    st.lists(st.sampled_from(["a", 1, None]), max_size=2),
)  # fmt: skip
scalars = values.filter(lambda value: not isinstance(value, list))
fields = st.sampled_from(["x", "y", "it's", "z\\z", "é\n"])
comparable = scalars.filter(lambda value: value is not None and not isinstance(value, bool))
comparisons = st.sampled_from(["$gt", "$gte", "$lt", "$lte"])
conditions = st.one_of(
    st.tuples(fields, st.fixed_dictionaries({"$eq": scalars})),
    st.tuples(fields, st.fixed_dictionaries({"$ne": scalars})),
    st.tuples(fields, st.builds(lambda many: {"$in": many}, st.lists(scalars, max_size=3))),
    st.tuples(fields, st.builds(lambda name, value: {name: value}, comparisons, comparable)),
).map(lambda pair: {pair[0]: pair[1]})
filters = st.recursive(
    conditions,
    lambda inner: st.one_of(
        st.builds(lambda parts: {"$and": parts}, st.lists(inner, max_size=3)),
        st.builds(lambda parts: {"$or": parts}, st.lists(inner, max_size=3)),
        st.builds(lambda part: {"$not": part}, inner),
    ),
    max_leaves=5,
)


def test_declared_or_not_a_filter_keeps_what_it_says(tmp_path: Path, fresh_encoder: Any) -> None:
    with CrispIndex.create(tmp_path / "index", fresh_encoder, indexed_fields=["x", "it's", "z\\z", "é\n"]) as index:

        @settings(max_examples=150, deadline=None)
        @given(st.lists(st.dictionaries(fields, values, max_size=4), max_size=8), st.lists(filters, min_size=1, max_size=4))
        def check(metadatas: list[dict[str, Any]], wheres: list[dict[str, Any]]) -> None:
            index.replace(
                [passage.id for passage in index.passages()],
                [Passage(f"n{number}", "oak", metadata) for number, metadata in enumerate(metadatas)],
            )
            there = list(index.passages())
            for where in wheres:
                rows = matching_rows(index._store, where)
                records = index._store.records(rows)
                kept = [passage for passage in there if matches(parse_filter(where), passage.metadata)]
                assert [records[row].passage for row in rows] == kept

        check()
