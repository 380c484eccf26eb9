"""The extractive reader over real token vectors, short answers, and a passage encoded once for many questions."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from crisp_rag.errors import InvalidInputError
from crisp_rag.index.types import Hit
from crisp_rag.models.reading_model import Reading, ReadingModel
from crisp_rag.pipelines.abstention import Calibration
from crisp_rag.pipelines.evidence import PassageVectors
from crisp_rag.pipelines.extractive import ExtractiveReader
from crisp_rag.pipelines.features import NAMES, READ
from crisp_rag.pipelines.sentences import around, split_sentences
from crisp_rag.pipelines.spans import best_span, kind_of

TEXT = (
    "The mill at Dockside was built by Anna Gurney. It was finished in May 1806 and cost 1,200 pounds. "
    "Since the fire nobody has lived there. 日本語の文。"
)


@pytest.fixture
def vectors(default_encoder):
    return PassageVectors(default_encoder)


def passage_hit(text: str = TEXT, context: str = "Mills", **metadata) -> Hit:
    return Hit("p1", 5.0, text, metadata, 0.6, context)


def test_a_sentence_is_the_tokens_that_stand_in_it(vectors, default_encoder):
    (passage,) = vectors.passages([passage_hit()])
    whole = default_encoder.encode_tokens([f"Mills\n{TEXT}"])[0]
    assert np.allclose(passage.vectors, whole, atol=0.05), "the passage is encoded as a whole, with its context"
    (offsets,) = default_encoder.token_spans([f"Mills\n{TEXT}"])
    assert len(passage.sentences) == len(passage.bounds) > 1
    for sentence, (first, end) in zip(passage.sentences, passage.bounds):
        start, stop = offsets[first][0] - 6, offsets[end - 1][1] - 6
        assert TEXT[start:stop] == sentence.text.rstrip("."), "a full stop is no word and has no vector"


def test_what_the_encoders_limit_cuts_off_is_encoded_by_itself(vectors):
    text = "The mill grinds corn every day. " * 60 + "Refunds take five days."
    (passage,) = vectors.passages([passage_hit(text)])
    assert all(end > first for first, end in passage.bounds)
    question = vectors.question("How long do refunds take?")
    scores = passage.sentence_scores(passage.match(question), question)
    assert passage.sentences[int(scores.argmax())].text == "Refunds take five days."


def test_passages_are_encoded_once_and_the_oldest_forgotten(words, hit):
    calls: list[str] = []
    counting = copy.copy(words)
    counting.encode_document = lambda texts, **options: calls.extend(texts) or words.encode_document(texts)
    vectors = PassageVectors(counting, capacity=2)
    for text in ("Ann runs.", "Bob runs.", "Ann runs."):
        vectors.passages([hit(text)])
    assert calls == ["Ann runs.", "Bob runs."]
    vectors.passages([hit("Cy runs.")])
    vectors.passages([hit("Bob runs.")])
    assert calls == ["Ann runs.", "Bob runs.", "Cy runs.", "Bob runs."]


def test_figures_have_their_names_and_are_finite(default_encoder):
    reader = ExtractiveReader(default_encoder)
    for question in ("Who built the mill?", "?", "the of", "Was it never 1906?", "How much did it cost in 1806?", "誰が?"):
        (examined,) = reader.examine([question], [[passage_hit(), passage_hit("Dogs are welcome.")]])
        figures = reader.features(examined)
        assert tuple(figures) == (*NAMES, *READ) and np.isfinite(list(figures.values())).all()
        assert 0 < examined.evidence < 1


def test_what_the_passage_does_not_say_has_less_evidence(default_encoder):
    reader = ExtractiveReader(default_encoder)
    said = ["Who built the mill at Dockside?", "When was the mill at Dockside finished?"]
    unsaid = ["Who burnt the castle at Dockside?", "When was the mill at Dockside not finished?"]
    evidence = [answer.evidence for answer in reader.read_batch([*said, *unsaid], [[passage_hit()]] * 4)]
    assert min(evidence[:2]) > max(evidence[2:])


def test_a_batch_reads_as_one_by_one(default_encoder):
    reader = ExtractiveReader(default_encoder)
    questions = ["Who built the mill?", "When was it finished?"]
    together = reader.read_batch(questions, [[passage_hit()]] * 2)
    for question, answer in zip(questions, together):
        alone = reader.read(question, [passage_hit()])
        assert alone.evidence == pytest.approx(answer.evidence, abs=2e-3)
        assert [source.quote for source in alone.sources] == [source.quote for source in answer.sources]


def test_the_short_answer_stands_in_the_first_quote(default_encoder):
    answer = ExtractiveReader(default_encoder, threshold=0.0).read("Who built the mill?", [passage_hit(start=50)])
    assert answer.span.quote == "Anna Gurney"
    assert TEXT[answer.span.start - 50 : answer.span.end - 50] == "Anna Gurney"
    assert answer.to_dict()["span"]["quote"] == "Anna Gurney"


def test_the_sentence_that_holds_the_short_answer_is_quoted_too(default_encoder):
    text = "Anna Gurney was born in Dockside. She built the mill there in 1806. She sold bread to sailors."
    reader = ExtractiveReader(default_encoder, threshold=0.0)
    for question, expected in (
        ("When did Anna Gurney build the mill?", "1806"),
        ("Whom did Anna Gurney sell bread?", "sailors"),
    ):
        answer = reader.read(question, [passage_hit(text, context="")])
        assert answer.span.quote == expected
        assert any(source.start <= answer.span.start and answer.span.end <= source.end for source in answer.sources)
        assert len(answer.sources) <= 2


def test_without_the_reading_model_evidence_is_the_score_and_rules_find_the_short_answer(default_encoder):
    reader = ExtractiveReader(default_encoder, reading_model=False)
    (examined,) = reader.examine(["Who built the mill?"], [[passage_hit()]])
    assert examined.reading is None and examined.evidence == examined.candidates[0].score
    assert tuple(reader.features(examined)) == NAMES
    assert reader.read("Who built the mill?", [passage_hit()]).span.quote == "Anna Gurney"


def test_a_calibration_that_needs_the_reading_model_is_refused_without_it(default_encoder):
    with pytest.raises(InvalidInputError, match="reading model"):
        ExtractiveReader(default_encoder, calibration=Calibration.load(), reading_model=False)


class Spy(ReadingModel):
    """Sees an answer, the word "mill", where the window has a word."""

    def __init__(self, word):
        self.word = word
        self.asked = []

    def read(self, pairs):
        self.asked.extend(pairs)
        return [
            Reading(2.0 if self.word in window else -2.0, window.index("mill"), window.index("mill") + 4, "mill", 0.5, 0.0)
            for _, window in pairs
        ]


def test_a_reading_model_of_ones_own_is_asked_about_the_best_sentence_and_its_neighbours(default_encoder):
    spy = Spy("mill")
    reader = ExtractiveReader(default_encoder, reading_model=spy, threshold=0.0)
    answers = reader.read_batch(["Who built the mill?", "Who?"], [[passage_hit()], []])
    assert spy.asked == [("Who built the mill?", TEXT)]
    assert answers[0].span.quote == "mill" and not answers[1].answered


def test_the_window_that_answers_is_read_and_quoted_wherever_it_lies(default_encoder):
    other = "Somebody else built the other mill, of straw."
    hits = [passage_hit(), Hit("p2", 4.0, other, {}, 0.5, "")]
    for word, ids, windows in (("straw", ["p1", "p2"], 2), ("built", ["p1"], 2), ("straw", ["p1"], 1)):
        spy = Spy(word)
        reader = ExtractiveReader(default_encoder, reading_model=spy, threshold=0.0, keep=1.0, windows=windows)
        answer = reader.read("Who built the mill at Dockside?", hits)
        assert [window for _, window in spy.asked] == [TEXT, other][:windows]
        assert [source.id for source in answer.sources] == ids
        assert answer.span.id == ids[-1] and answer.span.quote == "mill"


def test_a_window_grows_to_both_sides_and_has_no_more_words_than_it_may():
    sentences = split_sentences("One two three. Four five six. Seven eight nine. Ten.")
    text = "One two three. Four five six. Seven eight nine. Ten."
    for number, words, expected in (
        (1, 3, "Four five six."),
        (1, 6, "One two three. Four five six."),
        (3, 4, text[30:]),
        (0, 99, text),
    ):
        start, end = around(sentences, number, words)
        assert text[start:end] == expected
    assert around(sentences, 2, 1) == (30, 47), "a long sentence stays whole"


def test_a_declined_answer_keeps_what_it_would_have_said_apart(default_encoder):
    answer = ExtractiveReader(default_encoder, threshold=1.0).read("Who built the mill?", [passage_hit()])
    assert not answer.answered and answer.sources == [] and answer.span is None and answer.statements == []
    assert answer.nearest[0].quote.startswith("The mill at Dockside") and answer.nearest_span.quote == "Anna Gurney"


def test_quotes_are_statements_that_support_themselves(default_encoder):
    answer = ExtractiveReader(default_encoder, threshold=0.0).read("Who built the mill?", [passage_hit()])
    assert [(statement.supported, statement.support, statement.ids) for statement in answer.statements] == [
        (True, 1.0, ("p1",)) for _ in answer.sources
    ]


@pytest.mark.parametrize(
    ("question", "sentence", "expected"),
    [
        ("When was the mill built?", "The mill was built on 3 May 1806 by Anna Gurney.", "3 May 1806"),
        ("Who built the mill?", "The mill was built on 3 May 1806 by Anna Gurney.", "Anna Gurney"),
        ("Where is the mill?", "The mill stands in New York.", "New York"),
        ("How many people work there?", "Some 1,200 people work there.", "1,200"),
        ("How long do refunds take?", "Refunds take five days.", "five days"),
        ("In what year did the 1806 mill burn?", "The 1806 mill burnt in 1911.", "1911"),
        ("What colour are the doors?", "The doors are dark green.", "dark green"),
        ("When was it?", "It was never.", "never"),
        ("What?", "", None),
    ],
)
def test_short_answers(question, sentence, expected):
    span = best_span(question, sentence)
    assert (sentence[slice(*span)] if span else None) == expected


def test_kinds_of_question():
    kinds = ["When?", "What year?", "How many?", "Whose is it?", "Which city?", "Why?"]
    assert [kind_of(text) for text in kinds] == ["when", "when", "number", "who", "where", "other"]
