"""Quotes that do not hold together: what is superseded stands aside, what disagrees is told apart with its date."""

from __future__ import annotations

import pytest

from crisp_rag.pipelines.agreement import Standing, disagree, figures, standing_of
from crisp_rag.pipelines.extractive import ExtractiveReader

QUESTION = "How long do refunds take?"


@pytest.mark.parametrize(
    ("metadata", "context", "text"),
    [
        ({"title": "Refunds (superseded)"}, "", "Refunds were paid within ten days."),
        ({}, "Refunds and returns (2023 policy, superseded) > Refunds", "Paid within ten days."),
        ({"source": "/docs/old-rules.md"}, "", "Paid within ten days."),
        ({"status": "superseded"}, "", "Paid within ten days."),
        ({"title": "Terms (withdrawn)"}, "", "Paid within ten days."),
        ({}, "", "This page is no longer valid. Refunds were paid within ten days."),
    ],
)
def test_a_passage_that_says_so_is_superseded(hit, metadata, context, text):
    assert standing_of(hit(text, context=context, **metadata)).superseded


@pytest.mark.parametrize(
    ("metadata", "text"),
    [({"title": "Expired passports"}, "A new one costs 40 euros."), ({"title": "Archived mail"}, "It is kept."),
     ({}, "The new rules say which papers are outdated and must go."), ({"title": "Refunds"}, "Five days.")],
)  # fmt: skip
def test_a_passage_about_such_things_holds(hit, metadata, text):
    assert not standing_of(hit(text, **metadata)).superseded


@pytest.mark.parametrize(
    ("metadata", "text", "date"),
    [
        ({"date": "2024-05-03"}, "x", (2024, 5, 3)), ({"year": 2023}, "x", (2023, 0, 0)),
        ({"title": "Fees 2021"}, "x", (2021, 0, 0)),
        ({}, "Effective 1 March 2024 the fee rises.", (2024, 3, 1)), ({}, "Version of May 3, 2022.", (2022, 5, 3)),
        ({"source": "/a/fees-2020-02.md"}, "x", (2020, 2, 0)), ({}, "In 1806 the mill burned.", None), ({}, "x", None),
    ],
)  # fmt: skip
def test_a_passage_says_its_date(hit, metadata, text, date):
    assert standing_of(hit(text, **metadata)).date == date


def test_standing_in_words():
    assert Standing(True, (2023, 4, 0)).words == "2023-04, superseded"
    assert Standing(False, None).words == ""


@pytest.mark.parametrize(
    ("question", "one", "other"),
    [
        (QUESTION, "Refunds take five working days.", "Refunds were paid within ten."),
        (QUESTION, "Refunds take 5 days.", "Refunds take 7 days."),
        ("Are dogs allowed in the room?", "Dogs are allowed in the room.", "Dogs are not allowed in the room."),
        ("When does the library open?", "The library opens at 9.", "The library opens at 10."),
    ],
)
def test_quotes_that_answer_differently_disagree(question, one, other):
    assert disagree(question, one, other) and disagree(question, other, one)


@pytest.mark.parametrize(
    ("question", "one", "other"),
    [
        (QUESTION, "Refunds take five working days.", "Refunds take 5 days by card."),
        (QUESTION, "Refunds take five days.", "Parcels abroad take nine days."),
        ("Who pays refunds?", "Refunds are paid by office 3.", "Refunds are paid from account 7."),
        (QUESTION, "Refunds take five days.", "Refunds are paid to the card."),
    ],
)
def test_quotes_that_say_the_same_or_something_else_do_not(question, one, other):
    assert not disagree(question, one, other)


def test_number_words_are_figures():
    assert figures("five of 1,200 and twenty, -3") == {"5", "1200", "20", "-3"}


def ask(words, hits, question="refunds take how many days"):
    return ExtractiveReader(words, threshold=-1.0, keep=0.1).read(question, hits)


def test_a_superseded_quote_is_not_joined_to_the_current_one(words, hit):
    current = hit("Refunds take five working days.", "new", relevance=0.8, source="/refunds.md")
    old = hit(
        "Refunds take ten working days.", "old", relevance=0.8, source="/refunds-2023.md", title="Refunds (superseded)"
    )
    for hits in ([current, old], [old, current]):
        answer = ask(words, hits)
        assert answer.text == "Refunds take five working days." and [source.id for source in answer.sources] == ["new"]
        assert answer.span is None or answer.span.id == "new"


def test_a_question_for_the_past_gets_what_held_then(words, hit):
    current = hit("Refunds take five working days.", "new", relevance=0.3, source="/refunds.md")
    old = hit("Refunds take ten working days.", "old", relevance=0.9, source="/r.md", title="Refunds (2023, superseded)")
    answer = ask(words, [old, current], "refunds take how many days under the old rules")
    assert answer.sources[0].id == "old"


def test_what_is_superseded_alone_is_quoted_and_marked(words, hit):
    answer = ask(words, [hit("Refunds take ten days.", "old", title="Refunds (2023, superseded)")])
    assert answer.answered and answer.sources[0].standing == "2023, superseded"


def test_current_quotes_that_disagree_are_told_apart_the_newer_first(words, hit):
    older = hit("Refunds take ten days.", "older", relevance=0.9, source="/a.md", date="2021-01-01")
    newer = hit("Refunds take five days.", "newer", relevance=0.8, source="/b.md", date="2024-06-01")
    answer = ask(words, [older, newer])
    assert [source.id for source in answer.sources] == ["newer", "older"]
    assert answer.text == (
        "Refunds take five days. Another passage says otherwise (2021-01-01): Refunds take ten days."
    ) and "disagree" in answer.note  # fmt: skip
    assert [source.standing for source in answer.sources] == ["2024-06-01", "2021-01-01"]
    undated = [
        hit("Refunds take ten days.", "a", 0.9, source="/a.md"),
        hit("Refunds take five days.", "b", 0.8, source="/b.md"),
    ]
    assert [source.id for source in ask(words, undated).sources] == ["a", "b"]
