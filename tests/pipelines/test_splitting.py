"""Splitting: passages are exact spans of the text, cover all of it once, and fit the encoder."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crisp_rag.errors import InvalidInputError
from crisp_rag.pipelines.loading import LoadedDocument
from crisp_rag.pipelines.splitting import PassageSplitter, find_headings, split_document

SENTENCE = "The office pays back what a guest has spent on trains. "


@pytest.fixture(scope="session")
def tokenizer():
    from transformers import AutoTokenizer

    from crisp_rag.models.encoder import default_backbone

    return AutoTokenizer.from_pretrained(str(default_backbone()))


@pytest.fixture(scope="session")
def splitters(tokenizer):
    return {size: PassageSplitter(tokenizer, size) for size in (16, 40, 200)}


def document(text: str, format: str = "markdown", title: str = "Guide") -> LoadedDocument:
    return LoadedDocument("/docs/guide.md", title, text, format, "d1")


def count(tokenizer, text: str) -> int:
    return len(tokenizer(text, truncation=False, verbose=False)["input_ids"])


def check_spans(doc: LoadedDocument, passages) -> None:
    covered = set()
    for passage in passages:
        start, end = passage.metadata["start"], passage.metadata["end"]
        assert passage.text == doc.text[start:end]
        assert passage.text == passage.text.strip() != ""
        assert covered.isdisjoint(range(start, end))
        covered.update(range(start, end))
    assert {i for i, character in enumerate(doc.text) if not character.isspace()} <= covered
    assert [p.metadata["start"] for p in passages] == sorted(p.metadata["start"] for p in passages)
    assert len({passage.id for passage in passages}) == len(passages)


def test_a_short_section_is_one_passage_with_its_heading_path(tokenizer):
    doc = document("# Travel\n\nIntro.\n\n## Trains\n\n### First class\n\nBook early.\n\n## Meals\n\nEat.\n")
    passages = split_document(doc, tokenizer)
    assert [(p.text, p.context, p.metadata["heading"]) for p in passages] == [
        ("# Travel\n\nIntro.", "Guide > Travel", "Travel"),
        (
            "## Trains\n\n### First class\n\nBook early.",
            "Guide > Travel > Trains > First class",
            "Travel > Trains > First class",
        ),
        ("## Meals\n\nEat.", "Guide > Travel > Meals", "Travel > Meals"),
    ]


def test_metadata_says_where_a_passage_comes_from(tokenizer):
    (passage,) = split_document(document("  Words.\n"), tokenizer)
    assert passage.metadata == {
        "source": "/docs/guide.md", "title": "Guide", "heading": "", "start": 2, "end": 8, "digest": "d1",
    }  # fmt: skip
    assert re.fullmatch(r"[0-9a-f]{32}", passage.id)


def test_a_first_heading_that_repeats_the_title_is_said_once(tokenizer):
    passages = split_document(document("# guide\n\nA.\n\n## Part\n\nB.", title="Guide"), tokenizer)
    assert [p.context for p in passages] == ["guide", "guide > Part"]


def test_headings_that_are_underlined_count_and_those_in_code_quotes_and_lists_do_not(tokenizer):
    text = "One\n===\n\nA\n\nTwo *x*\n-------\n\n```\n# code\n```\n\n    # indented\n\n> # quoted\n\n- # item\n"
    assert [(heading.text, heading.level) for heading in find_headings(text)] == [("One", 1), ("Two x", 2)]
    assert len(split_document(document(text), tokenizer)) == 2


def test_headings_without_text_below_stay_with_what_follows(tokenizer):
    passages = split_document(document("# A\n\n## B\n\n# C\n\nText.\n\n# End\n"), tokenizer)
    assert [(p.text, p.metadata["heading"]) for p in passages] == [
        ("# A\n\n## B\n\n# C\n\nText.", "C"),
        ("# End", "End"),
    ]


def test_a_heading_is_never_alone_above_a_long_paragraph(tokenizer):
    doc = document("Short.\n\n# Pay\n\n" + SENTENCE * 40)
    passages = split_document(doc, tokenizer, max_tokens=60)
    check_spans(doc, passages)
    assert passages[1].text.startswith("# Pay\n\nThe office pays")
    assert all(p.text.endswith(".") for p in passages)


def test_front_matter_is_text_and_not_a_heading(tokenizer):
    doc = document("---\ntitle: Guide\ntags: [a]\n---\n# Real\n\nText.\n")
    assert [heading.text for heading in find_headings(doc.text)] == ["Real"]
    assert [p.metadata["heading"] for p in split_document(doc, tokenizer)] == ["", "Real"]


def test_plain_text_has_no_headings(tokenizer):
    passages = split_document(document("# One\n\ntext\n\n# Two\n\ntext", "plain"), tokenizer)
    assert [p.metadata["heading"] for p in passages] == [""]


@pytest.mark.parametrize("format", ["markdown", "plain"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_long_text_is_cut_between_sentences_even_where_lines_are_wrapped(tokenizer, format, newline):
    wrapped = newline.join(re.findall(r".{40,60}?(?:\s|$)", SENTENCE * 40))
    doc = document(wrapped, format)
    passages = split_document(doc, tokenizer, max_tokens=60)
    check_spans(doc, passages)
    assert len(passages) > 5
    assert all(p.text.endswith("trains.") and p.text.startswith("The") for p in passages)


def test_paragraphs_are_kept_whole_where_they_fit(tokenizer):
    doc = document("\n\n".join([SENTENCE * 3] * 8), "plain")
    passages = split_document(doc, tokenizer, max_tokens=60)
    assert [p.text for p in passages] == [(SENTENCE * 3).strip()] * 8


def test_tables_and_lists_are_cut_between_rows(tokenizer):
    rows = "| name | fee |\n|---|---|\n" + "".join(f"| thing number {n} | {n} |\n" for n in range(60))
    items = "".join(f"- Item number {n} is kept\n  on two lines\n" for n in range(40))
    for text, first in ((rows, "|"), (items, "-")):
        doc = document(text)
        passages = split_document(doc, tokenizer, max_tokens=60)
        check_spans(doc, passages)
        assert len(passages) > 3
        assert all(p.text.startswith(first) for p in passages)


def test_offsets_count_code_points(tokenizer):
    doc = document("# 😀 Ünï\n\n" + "Grüße 👩‍👩‍👧 aus Köln é und 東京都。 " * 30)
    check_spans(doc, split_document(doc, tokenizer, max_tokens=40))


def test_a_long_context_gives_way_to_the_text(tokenizer):
    doc = document(f"# {SENTENCE * 3}\n\n## Part\n\n{SENTENCE * 30}", title=SENTENCE * 9)
    passages = split_document(doc, tokenizer, max_tokens=60)
    check_spans(doc, passages)
    assert passages[-1].context == "Part"
    assert all(count(tokenizer, p.encoded_text) <= 60 for p in passages)
    assert len(passages) < 25


def test_text_that_the_splitter_library_cuts_too_long_is_cut_again(tokenizer):
    doc = document("x-" * 150, "plain")
    passages = split_document(doc, tokenizer, max_tokens=16)
    check_spans(doc, passages)
    assert all(count(tokenizer, p.encoded_text) <= 16 for p in passages)


def test_ids_depend_on_source_place_and_text_alone(tokenizer):
    ids = [p.id for p in split_document(document("A.\n\n# B\n\nC."), tokenizer)]
    again = [p.id for p in split_document(document("A.\n\n# B\n\nD.", title="Other"), tokenizer, max_tokens=90)]
    assert ids[0] == again[0] and ids[1] != again[1]
    moved = LoadedDocument("/docs/other.md", "Guide", "A.", "markdown", "d1")
    assert split_document(moved, tokenizer)[0].id != ids[0]


@pytest.mark.parametrize("text", ["", " \n\t\r\n", "\x1c\u2003"])
def test_blank_documents_have_no_passages(tokenizer, text):
    assert split_document(document(text), tokenizer) == split_document(document(text, "plain"), tokenizer) == []


def test_splitting_leaves_the_tokenizer_as_it_was(tokenizer):
    before = tokenizer.backend_tokenizer.to_str()
    split_document(document(SENTENCE * 60), tokenizer)
    assert tokenizer.backend_tokenizer.to_str() == before


@pytest.mark.parametrize("size", [0, 15, -1, True, 20.0, "20"])
def test_limits_that_make_no_sense_are_refused(tokenizer, size):
    with pytest.raises(InvalidInputError, match="max_tokens"):
        split_document(document("A."), tokenizer, max_tokens=size)


MARKUP = [
    "# One",
    "## Two two",
    "Three\n---",
    "####",
    "```\n# code\n\nx = 1\n```",
    "<div>\n# h\n</div>",
    "[x]: y",
    "---",
]
GROUPS = ["| a | b |\n|---|---|\n| 1 | 2 |", "- a\n- b\n  c", "> # q\n> r", "1. one\n\n   two", "line\n" * 30, "\\"]
WORDS = [
    SENTENCE * 2,
    SENTENCE * 9,
    "a" * 300,
    "x-" * 150,
    "e\u0301 😀👩‍👩‍👧 東京",
    "a\x0bb\x85c\u2028d",
    "\ufeff",
    "\r\n",
    " \t ",
]
BLOCKS = st.sampled_from([*MARKUP, *GROUPS, *WORDS])


@settings(max_examples=150, deadline=None)
@given(
    text=st.lists(st.one_of(BLOCKS, st.text(max_size=60)), max_size=8).flatmap(
        lambda blocks: st.sampled_from(["\n\n", "\n", "\r\n", "\r", ""]).map(lambda joint: joint.join(blocks))
    ),
    title=st.one_of(st.just("Three"), st.text(max_size=30)),
    format=st.sampled_from(["markdown", "plain"]),
    size=st.sampled_from([16, 40, 200]),
)
def test_whatever_the_text_spans_are_exact_cover_it_once_and_fit(tokenizer, splitters, text, title, format, size):
    doc = document(text, format, title)
    passages = splitters[size].split(doc)
    check_spans(doc, passages)
    assert all(count(tokenizer, passage.encoded_text) <= size for passage in passages)
