"""LangChain's own standard tests for retrievers and vector stores, unmodified, over the default encoder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langchain_tests")

from langchain_tests.integration_tests import RetrieversIntegrationTests, VectorStoreIntegrationTests

from crisp_rag.index import CrispIndex
from crisp_rag.retrievers.langchain import CrispRetriever, CrispVectorStore

TEXTS = [
    "Refunds are paid within five days of the parcel's return.",
    "Parcels inside the country arrive after two days.",
    "Parcels abroad take nine days.",
    "The shop opens at nine in the morning.",
    "Gift cards never expire.",
]


class TestCrispRetriever(RetrieversIntegrationTests):
    index: CrispIndex

    @pytest.fixture(scope="class", autouse=True)
    def _filled_index(self, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        with CrispIndex.create(tmp_path_factory.mktemp("standard") / "index.crisp") as index:
            index.add_texts(TEXTS)
            request.cls.index = index
            yield

    @property
    def retriever_constructor(self) -> type[CrispRetriever]:
        return CrispRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"index": self.index, "k": 2}

    @property
    def retriever_query_example(self) -> str:
        return "When do I get my money back?"


class TestCrispVectorStore(VectorStoreIntegrationTests):
    """All of them, sync and async, over the default encoder."""

    @pytest.fixture
    def vectorstore(self, tmp_path: Path, default_encoder: Any) -> Iterator[CrispVectorStore]:
        with CrispIndex.create(tmp_path / "empty.crisp", default_encoder) as index:
            yield CrispVectorStore(index=index)
