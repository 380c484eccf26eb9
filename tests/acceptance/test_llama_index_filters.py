"""LlamaIndex filters over generated metadata: what SimpleVectorStore keeps is what we keep, case by case."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
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

from crisp_rag import CrispIndex
from crisp_rag.retrievers.llama_index import CrispRetriever, CrispVectorStore

KEYS = ["a", "b", "long key.with [signs]", "é"]
strings = st.text("aAbBéÉ %_'\"\\", max_size=4)
numbers = st.integers(-3, 3) | st.integers(-(2**53), 2**53) | st.sampled_from([-1.5, 0.0, -0.0, 0.5, 1.0, 2.0, 1e300])
members = strings | numbers | st.booleans() | st.none()
metadatas = st.dictionaries(st.sampled_from(KEYS), members | st.lists(members, max_size=4), max_size=4)

LISTS = {FilterOperator.IN, FilterOperator.NIN, FilterOperator.ANY, FilterOperator.ALL}
TEXTS = {FilterOperator.TEXT_MATCH, FilterOperator.TEXT_MATCH_INSENSITIVE}
ORDERINGS = {FilterOperator.GT, FilterOperator.GTE, FilterOperator.LT, FilterOperator.LTE}


def operands(operator: FilterOperator) -> st.SearchStrategy[Any]:
    if operator in LISTS:
        return st.lists(strings, max_size=4) | st.lists(st.integers(-3, 3), max_size=4)
    if operator in TEXTS:
        return strings
    return strings | numbers if operator in ORDERINGS else strings | numbers | st.none()


leaves = st.sampled_from(list(FilterOperator)).flatmap(
    lambda operator: st.builds(
        MetadataFilter, key=st.sampled_from(KEYS), value=operands(operator), operator=st.just(operator)
    )
)
conditions = st.sampled_from(list(FilterCondition))
groups = st.recursive(
    st.builds(MetadataFilters, filters=st.lists(leaves, max_size=3), condition=conditions),
    lambda inner: st.builds(MetadataFilters, filters=st.lists(leaves | inner, min_size=1, max_size=3), condition=conditions),
    max_leaves=5,
)


def simple_store_keeps(filters: MetadataFilters, metadata: dict[str, Any]) -> bool:
    """What SimpleVectorStore itself says.

    It has no groups inside groups, so those are put together from its verdicts on their parts.  For a value that an
    operator cannot take it raises, for the whole query; alone, that is a value that the operator does not match.
    """
    if len(filters.filters) > 1 or any(isinstance(part, MetadataFilters) for part in filters.filters):
        verdicts = [
            simple_store_keeps(part if isinstance(part, MetadataFilters) else MetadataFilters(filters=[part]), metadata)
            for part in filters.filters
        ]
        if filters.condition == FilterCondition.NOT:
            return not any(verdicts)
        return all(verdicts) if filters.condition == FilterCondition.AND else any(verdicts)
    store = SimpleVectorStore()
    store.add([TextNode(id_="n", text="t", metadata=metadata, embedding=[1.0])])
    try:
        return store.query(VectorStoreQuery(query_embedding=[1.0], similarity_top_k=1, filters=filters)).ids == ["n"]
    except TypeError:
        return filters.condition == FilterCondition.NOT


class OneVector:
    """One and the same vector for every text: filters decide alone."""

    name, source, fingerprint, dim, pooling, max_document_tokens = "one", None, "1" * 16, 2, "one", 9

    def encode_query(self, texts: Any, **options: Any) -> Any:
        return [np.ones((1, 2), dtype=np.float32) for _ in texts]

    encode_document = encode_query


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CrispIndex]:
    with CrispIndex.create(tmp_path_factory.mktemp("filters") / "i", OneVector()) as made:
        yield made


@given(st.lists(metadatas, min_size=1, max_size=6), st.lists(groups, min_size=1, max_size=6))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_filters_keep_what_simple_vector_store_keeps(
    index: CrispIndex, data: list[dict[str, Any]], asked: list[MetadataFilters]
) -> None:
    store = CrispVectorStore(index)
    store.clear()
    store.add([TextNode(id_=str(number), text="t", metadata=metadata) for number, metadata in enumerate(data)])
    for filters in asked:
        wanted = {str(number) for number, metadata in enumerate(data) if simple_store_keeps(filters, metadata)}
        assert {node.node_id for node in CrispRetriever(index, 99, filters=filters).retrieve("t")} == wanted
        assert set(store.query(VectorStoreQuery(query_str="t", similarity_top_k=99, filters=filters)).ids) == wanted
        assert {node.node_id for node in store.get_nodes(filters=filters)} == wanted
    store.delete_nodes(filters=asked[0])
    kept = {str(number) for number, metadata in enumerate(data) if not simple_store_keeps(asked[0], metadata)}
    assert {node.node_id for node in store.get_nodes()} == kept


@given(metadatas, st.lists(leaves, min_size=2, max_size=4), conditions)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_whole_group_is_what_simple_vector_store_makes_of_it(
    metadata: dict[str, Any], parts: list[MetadataFilter], condition: FilterCondition
) -> None:
    """The way in which the verdicts are put together above is SimpleVectorStore's own."""
    store = SimpleVectorStore()
    store.add([TextNode(id_="n", text="t", metadata=metadata, embedding=[1.0])])
    group = MetadataFilters(filters=list(parts), condition=condition)
    try:
        found = store.query(VectorStoreQuery(query_embedding=[1.0], similarity_top_k=1, filters=group)).ids == ["n"]
    except TypeError:
        return  # one of its parts cannot take the value
    assert simple_store_keeps(group, metadata) == found
