"""LlamaIndex filters mean here what they mean to SimpleVectorStore, case by case."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("llama_index.core")
pytest.importorskip("hypothesis")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import SimpleVectorStore
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
)

from crisp_rag.errors import FilterError
from crisp_rag.index import CrispIndex
from crisp_rag.retrievers.llama_index import CrispRetriever, where_from_filters

STRINGS = ["", "a", "A", "ab", "b", "red", "Red apple", "Éclair", "éclair", "%", "1"]
NUMBERS = [-1, 0, 1, 2, 2024, -0.5, 0.0, 1.0, 1.5, 2024.0]
LISTS: list[Any] = [[], ["a"], ["a", "ab"], ["A", "red", "1"], [1], [0, 2], [1.0, 2024], [True], [False, "a"], [None]]
VALUES: list[Any] = [*STRINGS, *NUMBERS, *LISTS, True, False, None]
METADATAS: list[dict[str, Any]] = [
    {},
    *({"x": value} for value in VALUES),
    *({"x": VALUES[i], "y": VALUES[-i]} for i in range(1, len(VALUES))),
]
LIST_OPERATORS = {FilterOperator.IN, FilterOperator.NIN, FilterOperator.ANY, FilterOperator.ALL}
TEXT_OPERATORS = {FilterOperator.TEXT_MATCH, FilterOperator.TEXT_MATCH_INSENSITIVE}
ORDERINGS = {FilterOperator.GT, FilterOperator.GTE, FilterOperator.LT, FilterOperator.LTE}


def operands(operator: FilterOperator) -> st.SearchStrategy[Any]:
    """Every operand that suits an operator."""
    strings, numbers = st.sampled_from(STRINGS), st.sampled_from(NUMBERS)
    if operator in LIST_OPERATORS:
        return st.lists(strings, max_size=3) | st.lists(st.sampled_from([-1, 0, 1, 2, 2024]), max_size=3)
    if operator in TEXT_OPERATORS:
        return strings
    if operator in ORDERINGS:
        return strings | numbers
    return strings | numbers | st.none()


leaves = st.sampled_from(list(FilterOperator)).flatmap(
    lambda operator: st.builds(
        MetadataFilter, key=st.sampled_from(["x", "y", "z"]), value=operands(operator), operator=st.just(operator)
    )
)
conditions = st.sampled_from([*FilterCondition, None])
flat_groups = st.builds(MetadataFilters, filters=st.lists(leaves, max_size=4), condition=conditions)
nested_groups = st.recursive(
    flat_groups,
    lambda groups: st.builds(
        MetadataFilters, filters=st.lists(leaves | groups, min_size=1, max_size=3), condition=conditions
    ),
    max_leaves=6,
)


def simple_store_keeps(filters: MetadataFilters, metadata: dict[str, Any]) -> bool:
    """What SimpleVectorStore says about one node."""
    store = SimpleVectorStore()
    store.add([TextNode(id_="n", text="t", metadata=metadata, embedding=[1.0])])
    return store.query(VectorStoreQuery(query_embedding=[1.0], similarity_top_k=1, filters=filters)).ids == ["n"]


def expected(filters: MetadataFilters, metadata: dict[str, Any]) -> bool:
    """SimpleVectorStore's verdict, with what it lacks put around it.

    It raises TypeError where a value does not suit an operator, and that counts as no match; it refuses nested
    groups, and those are taken apart here.
    """
    nested = any(isinstance(part, MetadataFilters) for part in filters.filters)
    if not nested:
        try:
            return simple_store_keeps(filters, metadata)
        except TypeError:
            if len(filters.filters) == 1:
                return filters.condition == FilterCondition.NOT
    verdicts = [
        expected(part if isinstance(part, MetadataFilters) else MetadataFilters(filters=[part]), metadata)
        for part in filters.filters
    ]
    if filters.condition == FilterCondition.OR:
        return any(verdicts)
    return not any(verdicts) if filters.condition == FilterCondition.NOT else all(verdicts)


@pytest.fixture(scope="module")
def varied(tmp_path_factory: pytest.TempPathFactory, encoder: Any) -> Iterator[CrispIndex]:
    """One passage for each metadata; its id is the number of the metadata."""
    with CrispIndex.create(tmp_path_factory.mktemp("filters") / "i", encoder) as index:
        index.add_texts(["word"] * len(METADATAS), [str(n) for n in range(len(METADATAS))], METADATAS)
        yield index


def kept(index: CrispIndex, filters: MetadataFilters) -> list[int]:
    """The numbers of the metadata that a retrieval with these filters returns."""
    nodes = CrispRetriever(index, len(METADATAS), filters=filters).retrieve("word")
    return sorted(int(node.node_id) for node in nodes)


def agrees(index: CrispIndex, filters: MetadataFilters) -> None:
    found = kept(index, filters)
    wanted = [n for n, metadata in enumerate(METADATAS) if expected(filters, metadata)]
    assert [METADATAS[n] for n in found] == [METADATAS[n] for n in wanted]


@pytest.mark.parametrize("operator", list(FilterOperator))
def test_each_operator_keeps_what_simple_vector_store_keeps(varied: CrispIndex, operator: FilterOperator) -> None:
    @settings(max_examples=25, deadline=None, derandomize=True)
    @given(operands(operator))
    def check(value: Any) -> None:
        agrees(varied, MetadataFilters(filters=[MetadataFilter(key="x", value=value, operator=operator)]))

    check()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(filters=flat_groups)
def test_and_or_not_keep_what_simple_vector_store_keeps(varied: CrispIndex, filters: MetadataFilters) -> None:
    agrees(varied, filters)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(filters=nested_groups)
def test_nested_groups_mean_their_parts_put_together(varied: CrispIndex, filters: MetadataFilters) -> None:
    agrees(varied, filters)


def leaf(operator: FilterOperator, value: Any, key: str = "x") -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key=key, value=value, operator=operator)])


@pytest.mark.parametrize("operator", list(FilterOperator))
def test_a_missing_field_satisfies_only_ne_nin_and_is_empty(varied: CrispIndex, operator: FilterOperator) -> None:
    value = ["a"] if operator in LIST_OPERATORS else "a"
    lenient = {FilterOperator.NE, FilterOperator.NIN, FilterOperator.IS_EMPTY}
    assert len(kept(varied, leaf(operator, value, "z"))) == (len(METADATAS) if operator in lenient else 0)


def test_a_boolean_is_asked_for_with_one_or_zero(varied: CrispIndex) -> None:
    found = [METADATAS[n]["x"] for n in kept(varied, leaf(FilterOperator.EQ, 1))]
    assert True in [value for value in found if isinstance(value, bool)]
    assert all(value == 1 for value in found)


def test_a_value_of_another_type_does_not_match_where_simple_vector_store_raises(varied: CrispIndex) -> None:
    filters = leaf(FilterOperator.GT, 1)
    with pytest.raises(TypeError):
        simple_store_keeps(filters, {"x": "a"})
    values = [METADATAS[n]["x"] for n in kept(varied, filters)]
    assert sorted(set(values)) == [1.5, 2, 2024]


@pytest.mark.parametrize(
    ("operator", "value", "takes"),
    [
        *((operator, "abc", "a list") for operator in sorted(LIST_OPERATORS)),
        *((operator, 5, "a list") for operator in sorted(LIST_OPERATORS)),
        *((operator, None, "a list") for operator in sorted(LIST_OPERATORS)),
        *((operator, 5, "a string") for operator in sorted(TEXT_OPERATORS)),
        *((operator, None, "a string or a number") for operator in sorted(ORDERINGS)),
        *((operator, ["a"], "a string or a number") for operator in sorted(ORDERINGS)),
        (FilterOperator.EQ, ["a"], "a string or a number"),
        (FilterOperator.NE, ["a"], "a string or a number"),
        (FilterOperator.CONTAINS, ["a"], "a string or a number"),
    ],
)
def test_an_operand_of_a_wrong_type_is_refused(operator: FilterOperator, value: Any, takes: str) -> None:
    with pytest.raises(FilterError, match=f"takes {takes}"):
        where_from_filters(leaf(operator, value))
    with pytest.raises(FilterError, match=f"takes {takes}"):
        where_from_filters(MetadataFilters(filters=[leaf(operator, value)], condition=FilterCondition.NOT))


@pytest.mark.parametrize("condition", [*FilterCondition, None])
def test_no_filters_at_all_keep_everything(varied: CrispIndex, condition: FilterCondition | None) -> None:
    assert len(kept(varied, MetadataFilters(filters=[], condition=condition))) == len(METADATAS)
