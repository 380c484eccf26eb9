"""The reader that lets a language model write: every sentence is checked, and nothing unsupported is an answer."""

from __future__ import annotations

import pytest

from crisp_rag.errors import InvalidInputError, LLMError
from crisp_rag.pipelines.llm import DECLINES, LLMReader, cited_sentences
from crisp_rag.pipelines.reading import NOT_FOUND

PASSAGES = (
    "The canteen opens at eight. Refunds take five days. Dogs are welcome.",
    "Parcels abroad take nine days. The office lies in Oslo.",
)


class Said:
    """A model that says what it is told to, and remembers what it was asked."""

    name = "said"

    def __init__(self, text: str) -> None:
        self.text = text
        self.asked: list[str] = []

    def stream(self, system: str, user: str):
        self.asked.append(user)
        yield from (f"{word} " for word in self.text.split(" "))


@pytest.fixture
def read(words, hit):
    def run(text: str, question: str = "refunds take how many days?", **options):
        options = {"threshold": 0.2, **options}
        reader = LLMReader(Said(text), words, **options)
        hits = [hit(passage, f"p{number}", source=f"/{number}.md", start=10) for number, passage in enumerate(PASSAGES, 1)]
        return reader, reader.read(question, hits)

    return run


def test_a_sentence_carries_its_passage_a_quote_with_its_span_and_its_support(read):
    _, answer = read("Refunds take five days [1].")
    (statement,) = answer.statements
    assert answer.answered and answer.text == "Refunds take five days."
    assert statement.ids == ("p1",) and statement.supported and statement.support == pytest.approx(1, abs=0.01)
    (source,) = statement.sources
    assert (source.quote, source.path) == ("Refunds take five days.", "/1.md")
    assert PASSAGES[0][source.start - 10 : source.end - 10] == source.quote


def test_a_sentence_that_no_passage_supports_is_marked(read):
    _, answer = read("Refunds take five days [1]. Managers approve every single claim personally [1].")
    assert [statement.supported for statement in answer.statements] == [True, False]
    assert answer.statements[1].ids == () and answer.statements[1].support < 0.6
    assert answer.answered and {source.id for source in answer.sources} == {"p1"}


def test_where_nothing_is_supported_the_passages_are_quoted_instead(read):
    _, answer = read("Managers approve every single claim personally [1].")
    assert answer.answered and answer.text == "Refunds take five days." and answer.sources[0].id == "p1"
    assert "quoted instead" in answer.note and answer.to_dict()["note"] == answer.note
    assert [statement.supported for statement in answer.statements] == [False], "what it said is still there to look at"


def test_a_figure_that_the_passage_does_not_have_is_not_supported(words, hit):
    reader = LLMReader(Said("Refunds take 7 days at most here [1]."), words, threshold=0.1)
    answer = reader.read("refunds take days?", [hit("Refunds take 5 days at most here.")])
    assert not answer.statements[0].supported and answer.statements[0].support > 0.6
    assert "7" not in answer.text


@pytest.mark.parametrize(
    ("passage", "said"),
    [
        ("Members take 5 mg of it each day.", "Members take 5 g of it each day [1]."),
        ("Refunds take 5 days in all cases here.", "Refunds take 5 weeks in all cases here [1]."),
        ("The fee is 40 € for each member here.", "The fee is 40 $ for each member here [1]."),
        ("Dogs are not allowed in the reading room.", "Dogs are allowed in the reading room [1]."),
        ("Dogs are allowed in the reading room.", "Dogs are never allowed in the reading room [1]."),
    ],
)
def test_a_unit_or_a_negation_that_the_passage_does_not_have_is_not_supported(words, hit, passage, said):
    answer = LLMReader(Said(said), words, threshold=-1.0).read(passage.replace(".", "?"), [hit(passage)])
    assert [statement.supported for statement in answer.statements] == [False]
    right = LLMReader(Said(f"{passage} [1]"), words, threshold=-1.0).read(passage.replace(".", "?"), [hit(passage)])
    assert [statement.supported for statement in right.statements] == [True]


class Endless(Said):
    """A model that goes on until somebody closes it."""

    def __init__(self, first: str, more: str) -> None:
        super().__init__(first)
        self.more, self.said, self.closed = more, 0, False

    def stream(self, system: str, user: str):
        try:
            yield self.text.format(user=user)
            for number in range(100_000):
                self.said += 1
                yield self.more.format(n=number)
        finally:
            self.closed = True


@pytest.mark.parametrize(
    ("first", "more", "why"),
    [
        ("Refunds take five days [1]. ", "Fact {n} is invented line by line.\n", "more than 512 tokens"),
        ("Refunds take five days [1]. ", "Refunds take five days [1].\n", "repeated itself"),
        ("Refunds take five days [1]. ", "no no ", "repeated itself"),
        ("Refunds take five days [1].\n", "Question: refunds take how many days?\n", "echoed the prompt"),
        ("Refunds take five days [1].\n{user}", "x{n} ", "echoed the prompt"),
    ],
)
def test_a_model_without_end_is_cut_off_and_what_it_said_before_counts(words, hit, first, more, why):
    model, pieces = Endless(first, more), []
    reader = LLMReader(model, words, threshold=0.1, on_text=pieces.append)
    answer = reader.read("refunds take how many days?", [hit(PASSAGES[0])])
    assert model.closed and model.said < 2000
    assert why in answer.note and answer.answered and answer.text.startswith("Refunds take five days.")
    assert answer.text.count("Refunds take five days.") <= 2


@pytest.mark.parametrize(
    "said",
    ["How many days do refunds take?", "refunds take how many days?", "How many days refunds take [1].",
     "You answer questions from numbered passages and from nothing else. Write one to three plain sentences."],
)  # fmt: skip
def test_an_echo_is_never_counted_as_support(read, said):
    _, answer = read(said)
    assert not any(statement.supported for statement in answer.statements)
    assert answer.text == "Refunds take five days." and "quoted instead" in answer.note


def test_what_agrees_with_a_closed_question_is_no_echo(read):
    _, answer = read("Refunds take five days [1].", "do refunds take five days?")
    assert answer.statements[0].supported


@pytest.mark.parametrize("limit", [0, -1, True, 1.5])
def test_a_limit_of_tokens_that_makes_no_sense_is_refused(words, limit):
    with pytest.raises(InvalidInputError, match="max_tokens"):
        LLMReader(Said("x"), words, max_tokens=limit)


def test_an_endpoint_is_asked_for_so_many_tokens(endpoint, words, hit):
    pytest.importorskip("openai")
    LLMReader(endpoint.spec, words, threshold=0.1, max_tokens=77).read("refunds?", [hit("Refunds take five days.")])
    assert endpoint.requests[0]["max_tokens"] == 77


def test_a_wrong_citation_is_replaced_by_the_passage_that_says_it(read):
    _, answer = read("Refunds take five days [2].")
    assert answer.statements[0].ids == ("p1",)


def test_a_sentence_without_a_citation_gets_one(read):
    _, answer = read("Refunds take five days.")
    assert answer.statements[0].ids == ("p1",)


@pytest.mark.parametrize("text", [DECLINES, f"{DECLINES}.", "no answer", "", "  "])
def test_a_model_that_declines_is_no_answer(read, text):
    _, answer = read(text)
    assert (answer.answered, answer.text) == (False, NOT_FOUND)


def test_where_the_evidence_is_weak_the_model_is_not_even_asked(read):
    reader, answer = read("Refunds take five days [1].", "who won the championship?", threshold=0.99)
    assert not answer.answered and reader.chat.asked == []


def test_the_pieces_are_passed_on_as_they_come(read):
    pieces: list[str] = []
    read("Refunds take five days [1].", on_text=pieces.append)
    assert "".join(pieces).strip() == "Refunds take five days [1]." and len(pieces) == 5


def test_the_prompt_holds_numbered_passages_and_the_question(read):
    reader, answer = read("Refunds take five days [1].", coverage=None)
    (asked,) = reader.chat.asked
    assert f"[1] {PASSAGES[0]}" in asked and f"[2] {PASSAGES[1]}" in asked
    assert asked.endswith("Question: refunds take how many days?")
    assert answer.context.saved == 0


def test_compression_leaves_out_what_the_question_does_not_touch_and_says_how_much(read):
    reader, answer = read("Refunds take five days [1].")
    assert "Dogs" not in reader.chat.asked[0] and "Refunds take five days." in reader.chat.asked[0]
    assert 0 < answer.context.saved < 1 and answer.context.tokens < answer.context.full_tokens


def test_citations_count_prompt_passages_in_the_order_of_the_prompt(words, hit):
    hits = [hit("Dogs are welcome.", "p1"), hit("Refunds take five days.", "p2"), hit("Refunds need five days.", "p3")]
    answer = LLMReader(Said("Refunds take five days [3]."), words, threshold=0.1).read("refunds take five days", hits)
    assert answer.statements[0].ids == ("p3",) or answer.statements[0].ids == ("p2",)
    assert answer.statements[0].supported


def test_a_failing_model_is_an_error_and_not_an_answer(endpoint, words, hit):
    endpoint.respond = lambda handler, number: endpoint.status(handler, 401)
    with pytest.raises(LLMError, match="refuses the key"):
        LLMReader(endpoint.spec, words, threshold=0.1).read("refunds?", [hit("Refunds take five days.")])


def test_an_endpoint_answers_from_end_to_end(endpoint, words, hit):
    endpoint.respond = lambda handler, number: endpoint.says(handler, "Refunds take five days [1].")
    answer = LLMReader(endpoint.spec, words, threshold=0.1).read("refunds?", [hit("Refunds take five days.")])
    assert answer.answered and answer.statements[0].ids == ("p1",)


def test_both_frameworks_models_read(words, hit):
    langchain = pytest.importorskip("langchain_core.language_models")
    llama_index = pytest.importorskip("llama_index.core.llms")
    hits = [hit("Refunds take five days.")]
    fake = langchain.FakeListChatModel(responses=["Refunds take five days [1]."])
    assert LLMReader(fake, words, threshold=0.1).read("refunds?", hits).answered
    echo = LLMReader(llama_index.MockLLM(), words, threshold=0.1).read("refunds?", hits)
    assert echo.statements and not any(each.supported for each in echo.statements), "it repeats the instructions"
    assert "echoed the prompt" in echo.note and echo.text == "Refunds take five days."


def test_marks_belong_to_the_sentence_they_stand_in_or_behind():
    text = "A takes one [1, 2]. B takes two. [3] C takes three [4][5]. D takes four."
    assert cited_sentences(text) == [
        ("A takes one.", [1, 2]), ("B takes two.", [3]), ("C takes three.", [4, 5]), ("D takes four.", []),
    ]  # fmt: skip


def test_no_hits_ask_nothing(words):
    reader = LLMReader(Said("Anything."), words)
    assert not reader.read("anything?", []).answered and reader.chat.asked == []
