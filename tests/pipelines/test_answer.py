"""Answering: sentences and their spans, quotes, and saying that the documents do not hold the answer."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crisp_rag.index.types import Hit
from crisp_rag.pipelines.answer import NOT_FOUND, ExtractiveReader
from crisp_rag.pipelines.sentences import split_sentences


def test_sentences_are_spans_of_the_text_without_headings_and_list_markers():
    text = (
        "# Refunds\n\nDr. Smith pays. It takes 5 days.\n\n- First item\n- Second item. With more.\n\n"
        "| a | b |\n|---|---|\n| 1 | 2 |\n"
    )
    sentences = split_sentences(text)
    assert [sentence.text for sentence in sentences] == [
        "Dr. Smith pays.", "It takes 5 days.", "First item", "Second item.", "With more.", "| a | b |", "| 1 | 2 |",
    ]  # fmt: skip
    assert all(text[sentence.start : sentence.end] == sentence.text for sentence in sentences)


@given(st.text(alphabet="ab C.D?!\n-|#1é🚲 ", max_size=120))
def test_every_sentence_is_a_span_of_its_text_in_order(text):
    sentences = split_sentences(text)
    assert all(text[sentence.start : sentence.end] == sentence.text for sentence in sentences)
    assert all(first.end <= second.start for first, second in itertools.pairwise(sentences))


def hit(text: str, id_: str = "p1", relevance: float = 0.8, **metadata) -> Hit:
    return Hit(id_, 5.0, text, metadata, relevance)


def test_the_best_sentence_is_quoted_with_its_file_and_span(words):
    text = "The canteen opens at eight. Refunds take five days."
    answer = ExtractiveReader(words, threshold=0.3).read(
        "refunds take how many days?", [hit(text, source="/docs/refunds.md", start=100)]
    )
    assert answer.answered
    source = answer.sources[0]
    assert source.quote == "Refunds take five days."
    assert source.path == "/docs/refunds.md"
    assert (source.start, source.end) == (100 + text.index("Refunds"), 100 + len(text))


def test_weak_evidence_is_declined_and_quotes_nothing(words):
    answer = ExtractiveReader(words, threshold=0.5).read(
        "who won the championship?", [hit("Refunds take five days.", relevance=0.1)]
    )
    assert (answer.answered, answer.sources, answer.text) == (False, [], NOT_FOUND)


def test_no_hits_is_no_answer(words):
    assert not ExtractiveReader(words).read("anything?", []).answered


def test_the_same_sentence_in_two_passages_is_quoted_once(words):
    hits = [hit("Refunds take five days.", "p1"), hit("Refunds take five days.", "p2")]
    answer = ExtractiveReader(words, threshold=0.1).read("refunds take five days", hits)
    assert len(answer.sources) == 1


@pytest.mark.parametrize("maximum", [1, 2])
def test_never_more_sentences_than_asked_for(words, maximum):
    text = "Refunds take five days. Refunds take five days here. Refunds take five days there."
    answer = ExtractiveReader(words, threshold=0.1, max_sentences=maximum).read("refunds days", [hit(text)])
    assert len(answer.sources) <= maximum
