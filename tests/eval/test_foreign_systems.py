"""Fused rankings, retrievers of the frameworks, and models by name."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from crisp_rag.errors import EncoderError, InvalidInputError
from crisp_rag.eval import FusedSystem, RetrieverSystem, create_system, evaluate
from crisp_rag.eval.fusion import fuse


def test_fusing_adds_reciprocal_ranks_and_what_both_found_comes_first():
    fused = fuse([[("a", 9.0), ("b", 8.0)], [("c", 0.9), ("b", 0.8)]])
    assert fused == [("b", 2 / 62), ("a", 1 / 61), ("c", 1 / 61)]
    assert fuse([[], [("a", 1.0)]]) == [("a", 1 / 61)]


def test_a_fused_system_costs_what_its_parts_cost_and_keeps_to_k(make_folder, make_orderly):
    fused = FusedSystem("both", [make_orderly("x"), make_orderly("y", backwards=True)])
    steps: list[tuple[int, int]] = []
    cost = fused.index(["a", "b", "c"], ["1", "2", "3"], lambda done, of: steps.append((done, of)))
    assert (cost.vectors, cost.bytes, cost.encode_seconds) == (6, 600, 2.0)
    assert [id_ for id_, _ in fused.search(["q"], 2)[0]] == ["a", "c"]
    fused.close()
    assert fused.search(["q"], 2) == [[]]
    with pytest.raises(InvalidInputError, match="at least two"):
        FusedSystem("one", [make_orderly()])


def test_hybrid_finds_and_shares_the_cache_of_its_parts(tmp_path):
    from crisp_rag.eval.encodings import EncodingCache

    system = create_system("hybrid@4x8")
    system.cache = EncodingCache(tmp_path)  # type: ignore[attr-defined]
    cost = system.index(["a", "b"], ["A refund takes five working days in our shop.", "Parcels come from Rotterdam."])
    assert system.search(["how long does a refund take"], 2)[0][0][0] == "a"
    assert cost.vectors is not None and 2 < cost.vectors <= 16
    assert len(list(tmp_path.rglob("*.npz"))) == 1
    system.close()


class LangChainLike:
    def __init__(self, documents):
        self.documents = documents

    def invoke(self, query):
        return self.documents


class LlamaIndexLike(LangChainLike):
    def retrieve(self, query):
        return self.documents

    invoke = None


def found(*documents, like=LangChainLike, **options):
    system = RetrieverSystem("mine", lambda ids, texts: like(documents), **options)
    system.index(["a", "b"], ["1", "2"])
    return system.search(["q"], 5)[0]


def test_documents_are_known_by_their_metadata_or_their_id():
    assert found(SimpleNamespace(metadata={"id": "b"}, id="x"), SimpleNamespace(metadata={}, id="a")) == [
        ("b", 1.0),
        ("a", 0.5),
    ]
    assert found(SimpleNamespace(metadata={"doc": "b"}), id_key="doc") == [("b", 1.0)]


def test_of_several_chunks_of_a_document_the_first_counts():
    chunks = [SimpleNamespace(metadata={"id": id_}) for id_ in ("b", "b", "a")]
    assert [id_ for id_, _ in found(*chunks)] == ["b", "a"]


def test_nodes_are_known_by_their_source_and_have_scores():
    node = SimpleNamespace(metadata={}, node_id="n1", ref_doc_id="b")
    assert found(SimpleNamespace(node=node, score=0.7), like=LlamaIndexLike) == [("b", 0.7)]


def test_a_document_from_elsewhere_is_an_error_that_says_what_to_do():
    with pytest.raises(InvalidInputError, match="put its id into the metadata as 'id'"):
        found(SimpleNamespace(metadata={}, id="z"))
    with pytest.raises(InvalidInputError, match="neither invoke"):
        RetrieverSystem("mine", lambda ids, texts: object()).index(["a"], ["1"])


def test_costs_that_nobody_knows_are_left_out(make_folder):
    def build(ids, texts):
        return LangChainLike([SimpleNamespace(metadata={"id": id_}) for id_ in ids])

    figures = evaluate([make_folder()], [RetrieverSystem("mine", build)])["shop"]["mine"]
    assert figures["RR@10"] == pytest.approx((1 + 1 / 4 + 1 / 2) / 3)
    assert "bytes_per_document" not in figures and "vectors_per_document" not in figures
    assert figures["search_ms_p50"] >= 0


def test_a_retriever_of_langchain_is_measured(make_folder):
    documents = pytest.importorskip("langchain_core.documents")
    retrievers = pytest.importorskip("langchain_core.retrievers")

    class First(retrievers.BaseRetriever):
        docs: list

        def _get_relevant_documents(self, query, *, run_manager):
            return [doc for doc in self.docs if set(query.split()) & set(doc.page_content.split())]

    def build(ids, texts):
        return First(docs=[documents.Document(text, id=id_) for id_, text in zip(ids, texts)])

    assert evaluate([make_folder()], [RetrieverSystem("mine", build)])["shop"]["mine"]["R@10"] == 1.0


def test_a_retriever_of_llama_index_is_measured(make_folder):
    base = pytest.importorskip("llama_index.core.base.base_retriever")
    schema = pytest.importorskip("llama_index.core.schema")

    class First(base.BaseRetriever):
        def __init__(self, nodes):
            super().__init__()
            self.nodes = nodes

        def _retrieve(self, bundle):
            return [schema.NodeWithScore(node=node, score=1.0) for node in self.nodes]

    def build(ids, texts):
        return First([schema.TextNode(id_=id_, text=text) for id_, text in zip(ids, texts)])

    assert evaluate([make_folder()], [RetrieverSystem("mine", build)])["shop"]["mine"]["R@10"] == 1.0


def test_one_vector_models_are_measured_by_path_with_their_own_similarity(tmp_path):
    from sentence_transformers import SentenceTransformer

    from crisp_rag.models.encoder import default_backbone

    model = SentenceTransformer(str(default_backbone()), similarity_fn_name="dot")
    model.save(str(tmp_path / "mine"), create_model_card=False)
    system = create_system(f"dense:{tmp_path / 'mine'}")
    cost = system.index(["a", "b"], ["A refund takes five days.", "Parcels come from Rotterdam."])
    assert (cost.vectors, cost.bytes) == (2, 2 * 384 * 4)
    assert system.search(["refund"], 1)[0][0][0] == "a"
    with pytest.raises(EncoderError, match="one-vector model"):
        create_system(f"dense:{tmp_path / 'nowhere'}").index(["a"], ["x"])


@pytest.mark.parametrize("name", ["crisp@8", "hybrid@lots", "posthoc@0x8", "dense@8x16", "bm25@8x16", "multi:", "crisp@"])
def test_budgets_that_do_not_exist_are_refused_before_anything_runs(name):
    with pytest.raises(InvalidInputError):
        create_system(name)


def test_another_budget_keeps_fewer_vectors():
    sizes = {}
    for name in ("crisp", "crisp@4x8"):
        system = create_system(name)
        sizes[name] = system.index(
            ["a"], ["A long sentence with a good many different words to make clusters of. " * 3]
        ).vectors
        system.close()
    assert sizes["crisp@4x8"] == 8 < sizes["crisp"]
