"""Packing a prompt: what matches is kept, the budget holds, and the saving is what was left out."""

from __future__ import annotations

import pytest

from crisp_rag.errors import InvalidInputError
from crisp_rag.pipelines.extractive import ExtractiveReader
from crisp_rag.pipelines.packing import GAP, pack

TEXT = "Refunds take five days. Dogs are welcome. Cats stay outside. The cashier pays them in cash."


def count(text: str) -> int:
    return len(text.split())


@pytest.fixture
def examine(words, hit):
    def run(question: str, *texts: str):
        hits = [hit(text, f"p{number}") for number, text in enumerate(texts)]
        return ExtractiveReader(words).examine([question], [hits])[0]

    return run


def test_sentences_that_match_are_kept_in_order_with_a_gap_between_them(examine):
    packed = pack(examine("refunds five cashier cash", TEXT), count=count)
    assert packed.blocks[0].text == f"Refunds take five days.{GAP}The cashier pays them in cash."
    assert packed.blocks[0].sentences == (0, 3)
    assert packed.use.saved == pytest.approx(1 - 11 / 16)
    assert (packed.use.sentences, packed.use.full_sentences) == (2, 4)


def test_neighbours_keep_what_stands_between_them(examine):
    packed = pack(examine("refunds dogs", "Refunds take five days.\n\nDogs are welcome. Cats stay."), count=count)
    assert packed.blocks[0].text == "Refunds take five days.\n\nDogs are welcome."


def test_without_compression_passages_are_whole(examine):
    packed = pack(examine("refunds", TEXT, "Nothing here."), count=count, coverage=None)
    assert [block.text for block in packed.blocks] == [TEXT, "Nothing here."] and packed.use.saved == 0


@pytest.mark.parametrize("budget", [1, 4, 8, 12])
def test_the_budget_holds_and_the_best_sentence_is_always_there(examine, budget):
    packed = pack(examine("refunds take five days dogs cats", TEXT, TEXT), budget=budget, count=count, coverage=None)
    kept = sum(count(part) for block in packed.blocks for part in block.text.split(GAP))
    assert kept <= max(budget, 4)
    assert any("Refunds take five days." in block.text for block in packed.blocks)


def test_a_passage_that_holds_no_sentence_is_left_out(examine):
    assert [block.number for block in pack(examine("refunds", "# Heading", TEXT), count=count).blocks] == [1]


def test_nothing_found_packs_nothing(examine):
    packed = pack(examine("refunds"), count=count)
    assert packed.blocks == [] and packed.use.saved == 0


@pytest.mark.parametrize("options", [{"budget": 0}, {"coverage": 0}, {"coverage": 1.5}])
def test_senseless_limits_are_refused(examine, options):
    with pytest.raises(InvalidInputError):
        pack(examine("refunds", TEXT), count=count, **options)
