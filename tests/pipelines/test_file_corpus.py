"""The corpus of small files: every expected string is found, in passages too, and nothing is lost beside damaged files."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from pathlib import Path

import pytest

from crisp_rag.pipelines.loading import parse_file
from crisp_rag.pipelines.splitting import PassageSplitter

SOURCE = Path(__file__).resolve().parents[2] / "benchmarks" / "file_corpus.py"


def load_corpus():
    spec = importlib.util.spec_from_file_location("file_corpus", SOURCE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["file_corpus"] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module.corpus()


CORPUS = load_corpus()


@pytest.fixture(scope="session")
def tokenizer():
    from transformers import AutoTokenizer

    from crisp_rag.models.encoder import default_backbone

    return AutoTokenizer.from_pretrained(str(default_backbone()))


def test_there_are_sixty_files_or_more_and_five_or_more_of_each_kind():
    assert len(CORPUS) >= 60 and min(Counter(file.kind for file in CORPUS).values()) >= 5


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: file.name)
def test_every_expected_string_is_found(file, tokenizer):
    document = parse_file(f"/docs/{file.name}", file.data)
    documents = (document, *document.members)
    text = " ".join(" ".join(each.text for each in documents).split())
    assert [string for string in file.expected if string not in text] == []
    assert [string for string in file.forbidden if string in text] == []
    passages = [passage for each in documents for passage in PassageSplitter(tokenizer).split(each)]
    found = " ".join(" ".join(passage.text for passage in passages).split())
    assert [string for string in file.expected if string not in found] == []
