"""Questions on files as people have them: the quote holds what answers, whatever the text looks like to a parser."""

# ruff: noqa: E501  # texts in one line each

from __future__ import annotations

from pathlib import Path

import pytest

from crisp_rag import CrispIndex
from crisp_rag.pipelines.answer import ask
from crisp_rag.pipelines.ingest import ingest
from crisp_rag.pipelines.sentences import LONGEST, split_sentences

CASES = Path(__file__).parent / "cases"


@pytest.fixture
def answer_from(tmp_path, default_encoder):
    def answered(file: Path, question: str):
        with CrispIndex.create(tmp_path / "x.crisp", default_encoder, exist_ok=True) as index:
            assert ingest(index, [file]).skipped == []
            return ask(index, question)

    return answered


@pytest.mark.parametrize(
    ("name", "question", "expected"),
    [
        ("txt/mill.txt", "In what year was the mill founded by Anna Gurney?", "1806"),
        ("txt/gt.txt", "At what weight does a parcel count as heavy?", "31 kg"),
        ("txt/deg.txt", "At what temperature are archive rooms kept?", "18°C"),
        ("html/sup.html", "How many litres does the tank hold?", "10^6 litres"),
        ("html/sup.html", "How much is the late fee?", "40 euros"),
        ("html/rowspan.html", "In which region does Birch lie?", "| North | Birch |"),
        ("html/hidden.html", "What is the price?", "30 euros"),
        ("html/xhtml.html", "How many people does the lift carry?", "eight people"),
        ("docx/fields.docx", "What is the contract number?", "K-7781"),
        ("pdf/form.pdf", "What is the boat length?", "11.4 m"),
        ("md/fence.md", "Which port does the server listen on?", "8081"),
    ],
)
def test_the_quote_holds_what_answers(answer_from, name, question, expected):
    answer = answer_from(CASES / name, question)
    assert answer.answered and expected in answer.text


def test_a_token_without_end_is_never_quoted_whole(answer_from, tmp_path):
    file = tmp_path / "longtok.txt"
    file.write_text("The key is here. " + "A" * 200_000 + " and it opens the door.")
    for question in ("Where is the key?", "What does AAAAAAAA open?"):
        answer = answer_from(file, question)
        assert all(len(source.quote) <= LONGEST for source in [*answer.sources, *answer.nearest])


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("It was founded by Anna Gurney in the year\n1806. It burned down.", ["It was founded by Anna Gurney in the year\n1806.", "It burned down."]),
        ("The store room must be kept at a temperature of at most\n- 18 degrees, or the goods go bad.", ["The store room must be kept at a temperature of at most\n- 18 degrees, or the goods go bad."]),
        ("Parcels are heavy where their weight as measured is\n> 31 kg or more.", ["Parcels are heavy where their weight as measured is\n> 31 kg or more."]),
        ("The lowest bid that the committee took was the one of lot\n# 7 by the river.", ["The lowest bid that the committee took was the one of lot\n# 7 by the river."]),
        ("Tariff A costs as much as tariff B would with a factor of\n* 3 in winter.", ["Tariff A costs as much as tariff B would with a factor of\n* 3 in winter."]),
        ("The sum of both is at the end of the year exactly\n+ 4 percent higher.", ["The sum of both is at the end of the year exactly\n+ 4 percent higher."]),
        ("The rule is found in the statutes, paragraph\n3. The chair decides.", ["The rule is found in the statutes, paragraph\n3.", "The chair decides."]),
        ("- Rope\n- Helmet\n- Lamp", ["- Rope", "- Helmet", "- Lamp"]),
        ("1. Open the valve\n2. Wait an hour", ["1. Open the valve", "2. Wait an hour"]),
        ("Parking rules\nVisitors park in lot C and pay a fee of four euros a day there.", ["Parking rules", "Visitors park in lot C and pay a fee of four euros a day there."]),
    ],
)  # fmt: skip
def test_nothing_is_markup_in_plain_text(text, sentences):
    assert [sentence.text for sentence in split_sentences(text, "plain")] == sentences


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("It was founded in the year\n1806. It burned down.", ["It was founded in the year\n1806.", "It burned down."]),
        ("1806. It burned down.", ["1806.", "It burned down."]),
        ("- One\n- Two\n\n  More of two.", ["One", "Two", "More of two."]),
        ("1. One\n2. Two\n10. Ten", ["One", "Two", "Ten"]),
        ("Text that goes on\n1. as a list", ["Text that goes on", "as a list"]),
        ("> Said he.\n> Said she.", ["Said he.", "Said she."]),
        ("\\# of items: 5", ["# of items: 5"]),
        ("```sh\n# port 8081 by default\nrun --fast\n```\n\nStop it.", ["# port 8081 by default", "run --fast", "Stop it."]),
        ("~~~\n# first part\n# second part\nx = 1\n~~~", ["# first part\n# second part", "x = 1"]),
        ("````\n```\ninner = 2\n```\n````", ["inner = 2"]),
        ("- Item:\n\n  ```\n  # port 9\n  ```", ["Item:", "# port 9"]),
        ("```\nnever closed = 3", ["never closed = 3"]),
        ("# Heading\n\nText.", ["Text."]),
        ("| a | b |\n|---|---|\n| 1 | 2 |", ["| a | b |", "| 1 | 2 |"]),
    ],
)
def test_marks_count_where_commonmark_has_them(text, sentences):
    found = split_sentences(text)
    assert [sentence.text for sentence in found] == sentences
    assert all(text[sentence.start : sentence.end] == sentence.text for sentence in found)


@pytest.mark.parametrize("format", ["markdown", "plain", "code", "rows"])
@pytest.mark.parametrize(
    "text", ["x" * 5000, "word " * 900, "12 kg, " * 400, "| " + "cell | " * 300, "a" * 599 + " 5 kg " + "b" * 700]
)
def test_no_sentence_is_longer_than_a_quote_may_be(format, text):
    found = split_sentences(text, format)
    assert found and max(len(sentence.text) for sentence in found) <= LONGEST
    assert not any(sentence.text.endswith(" 12") or sentence.text.endswith(" 5") for sentence in found)
