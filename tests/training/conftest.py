"""A backbone small enough to train in a test: two layers of 32 dims with the real tokenizer, random weights."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    from crisp_rag.models.encoder import default_backbone

    folder = tmp_path_factory.mktemp("backbone")
    tokenizer = AutoTokenizer.from_pretrained(str(default_backbone()))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=512,
    )  # fmt: skip
    BertModel(config).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


@pytest.fixture
def tiny(tiny_backbone: Path) -> Any:
    from crisp_rag.models import build_encoder

    return build_encoder(tiny_backbone, pooling="4x8", max_tokens=64, query_centroid="sum", device="cpu", name="tiny")


@pytest.fixture
def examples() -> list[Any]:
    from crisp_rag.training import Example

    things = ["lamp", "oven", "whistle", "ladder", "catalogue", "radio", "clock", "varnish", "engine", "notebook"]
    places = ["harbour", "market", "valley", "wall"]
    return [
        Example(
            query=f"Where is the {thing} of the {place}?",
            positive=f"The {thing} stands at the {place}, next to the gate, and is cleaned every week by hand.",
            negatives=(f"Nobody at the {place} has seen a key, a rope or a bucket for as long as records go.",),
            group=place,
            source="stories",
        )
        for thing in things
        for place in places
    ]
