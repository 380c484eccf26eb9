"""LangChain's own conformance suite for retrievers, unmodified."""

from __future__ import annotations

import pytest
from langchain_tests.integration_tests import RetrieversIntegrationTests

from crisp_rag import CrispIndex
from crisp_rag.retrievers.langchain import CrispRetriever


class TestCrispRetriever(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _index(self, tmp_path, default_encoder):
        with CrispIndex.create(tmp_path / "x.crisp", default_encoder) as index:
            index.add_texts(
                ["Refunds take five days.", "The office is in Oslo.", "Cargo bikes carry 80 kg.", "Leave is 25 days."]
            )
            self._opened = index
            yield

    @property
    def retriever_constructor(self):
        return CrispRetriever

    @property
    def retriever_constructor_params(self):
        return {"index": self._opened}

    @property
    def retriever_query_example(self):
        return "how long do refunds take?"
