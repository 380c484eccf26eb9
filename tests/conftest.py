"""What every room's tests share: nothing loads from a hub, and the real default encoder is loaded once."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest


@pytest.fixture(scope="session")
def default_encoder():
    from crisp_rag import load_encoder

    return load_encoder()
