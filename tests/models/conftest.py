"""The default encoder, loaded once, without the network."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import itertools
import re
from typing import Any

import pytest

SUBJECTS = [
    ("The lighthouse keeper", "lamp", "harbour"), ("A careful baker", "oven", "market"),
    ("The night train", "whistle", "valley"), ("An old orchard", "ladder", "wall"),
    ("The city library", "catalogue", "stairs"), ("A weather balloon", "radio", "cloud"),
    ("The chess club", "clock", "cellar"), ("A violin maker", "varnish", "workshop"),
    ("The river ferry", "engine", "island"), ("A young botanist", "notebook", "greenhouse"),
]  # fmt: skip
STORIES = [
    "{0} opened before dawn, and nobody in the {2} was surprised. For years the {1} had been repaired with wire and "
    "patience. When the invoice finally came, it listed 14 parts, two visits and a discount of 12.5 percent.",
    "Visitors ask whether {0} is still there. It is! Walk past the {2}, count three doors, and listen for the {1}. "
    "On Sundays children draw it in chalk; their drawings are better than the ones in the guidebook.",
    "In 1987 a storm damaged the {2}. {0} lost its {1}, its fence and most of its records. What remained was copied "
    "by hand into four ledgers, and those ledgers are the only source that historians quote today.",
    "The manual is short: clean the {1} weekly, close the {2} at night, and never leave {0} without a second person. "
    "Error code E42 means that a sensor is wet. Dry it, wait ten minutes, then restart. If it fails, call support.",
    "Compared with its neighbours, {0} uses little energy. Measurements near the {2} showed 3.1 kilowatt hours a day, "
    "a third of which went into the {1}. A better seal would save half of that, engineers estimate, at low cost.",
]


@pytest.fixture(scope="session")
def encoder() -> Any:
    from crisp_rag.models import load_encoder

    return load_encoder(device="cpu")


@pytest.fixture(scope="session")
def light() -> Any:
    """The encoder with half the layers, and a vector for the whole text."""
    from crisp_rag.models import load_encoder

    return load_encoder("crisp-minilm", device="cpu")


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Fifty short stories of several sentences, written for these tests."""
    written = [story.format(*subject) for story, subject in itertools.product(STORIES, SUBJECTS)]
    assert len(set(written)) == 50 and all(len(re.findall(r"[.!?]", text)) >= 3 for text in written)
    return written


@pytest.fixture(scope="session")
def token_matrices(encoder: Any, texts: list[str]) -> list[Any]:
    """Their unit token vectors, a (tokens, 384) array each."""
    return encoder.encode_tokens(texts)
