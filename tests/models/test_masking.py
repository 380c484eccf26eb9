"""Documents that are represented by their words, queries whose empty tokens are left out, and where tokens stand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from crisp_rag.models import build_encoder, load_encoder

PROMPTS = {"query": "[unused0]", "document": "[unused1]"}


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A backbone with random weights whose tokenizer knows the markers."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    from crisp_rag.models.encoder import default_backbone

    folder = tmp_path_factory.mktemp("marked")
    tokenizer = AutoTokenizer.from_pretrained(str(default_backbone()))
    tokenizer.add_tokens(list(PROMPTS.values()), special_tokens=True)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    BertModel(config).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    weights = torch.ones(len(tokenizer))
    weights[tokenizer.convert_tokens_to_ids(["[CLS]", "[SEP]", PROMPTS["query"], "?"])] = 0.0
    return build_encoder(
        folder, pooling="100%x4", prompts=PROMPTS, content_only=True, query_weights=weights, query_centroid="sum",
        device="cpu", name="marked", max_tokens=32,
    )  # fmt: skip


def test_a_document_keeps_its_words_alone(marked: Any) -> None:
    whole = marked.with_pooling("none")
    assert len(whole.encode_document("Letters, within (five) days!")) == 4
    assert len(whole.encode_document("letters within five days")) == 4


def test_a_document_of_punctuation_alone_keeps_it(marked: Any) -> None:
    whole = marked.with_pooling("none")
    kept = whole.encode_document(["...", "letters"])
    assert [len(each) for each in kept] == [6, 1], "[CLS], the marker, three dots and [SEP]; a single word"


def test_a_query_leaves_out_what_weighs_nothing_unless_that_is_all(marked: Any) -> None:
    assert len(marked.encode_query("how long do letters take?")) == 5
    np.testing.assert_allclose(np.linalg.norm(marked.encode_query("how long do letters take?"), axis=1), 1.0, atol=1e-5)
    assert len(marked.encode_query("?")) == 4


def test_the_marker_is_read_and_users_never_type_it(marked: Any) -> None:
    query, document = (marked.model.preprocess(["letters"], prompt=PROMPTS[task], task=task) for task in PROMPTS)
    names = marked.tokenizer.convert_ids_to_tokens
    assert names(query["input_ids"][0].tolist()) == ["[CLS]", "[unused0]", "letters", "[SEP]"]
    assert names(document["input_ids"][0].tolist()) == ["[CLS]", "[unused1]", "letters", "[SEP]"]
    assert marked.count_tokens(["letters"]) == [4]
    assert not np.allclose(marked.encode_query("letters"), marked.encode_document("letters"), atol=1e-3)


@pytest.mark.parametrize("task", ["query", "document"])
def test_each_token_vector_has_its_place_in_the_text(marked: Any, task: str) -> None:
    texts = ["Letters, within (five) days?", "naïve café", "...", "word " * 100]
    spans = marked.token_spans(texts, task)
    vectors = marked.encode_tokens(texts, task)
    assert [len(each) for each in spans] == [len(each) for each in vectors]
    words = [texts[0][start:end] for start, end in spans[0] if end > start]
    assert [word for word in words if word.isalpha()] == ["Letters", "within", "five", "days"] and "?" not in words
    assert max(end for _, end in spans[3]) < len(texts[3]), "cut where the encoder cuts"


def test_markers_mask_and_weights_are_saved_with_the_encoder(marked: Any, tmp_path: Any) -> None:
    marked.save(tmp_path / "saved")
    again = load_encoder(tmp_path / "saved", device="cpu")
    assert again.fingerprint == marked.fingerprint and again.model.prompts["query"] == PROMPTS["query"]
    for task in ("encode_query", "encode_document"):
        np.testing.assert_array_equal(getattr(again, task)("Is it (open)?"), getattr(marked, task)("Is it (open)?"))


def test_the_fast_path_reads_markers_and_masks_as_the_other_does(marked: Any) -> None:
    pytest.importorskip("openvino")
    from crisp_rag.models.acceleration import accelerate
    from crisp_rag.models.encoder import CrispEncoder

    whole = marked.with_pooling("none")
    fast = accelerate(whole.model)
    assert fast is not None and type(fast).__name__ == "Accelerated", "the tokenizer's own path is taken"
    texts = ["Letters, within (five) days!", "The office is in Oslo."]
    for right, own in zip(whole.encode_document(texts), CrispEncoder(fast, name="fast").encode_document(texts)):
        assert right.shape == own.shape
        assert float((right * own).sum(axis=1).mean()) > 0.98
