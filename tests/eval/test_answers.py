"""Answer metrics: SQuAD's own definitions, and reading and declining measured apart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crisp_rag.errors import InvalidInputError
from crisp_rag.eval.answers import auroc, contains, evaluate_reader, exact_match, normalise_answer, token_f1
from crisp_rag.eval.datasets import Dataset, Document
from crisp_rag.pipelines.reading import NOT_FOUND, Answer, ContextUse, Source, Statement

WORDS = st.sampled_from(["the", "a", "An", "mill", "Mill.", "1806", "Gurney's", "in", "(two)", "-", "é", "...", "theatre"])
TEXTS = st.one_of(st.lists(WORDS, max_size=7).map(" ".join), st.text(max_size=15))


@settings(max_examples=150, deadline=None)
@given(prediction=TEXTS, gold=st.lists(TEXTS, min_size=1, max_size=3))
def test_exact_match_and_f1_are_those_of_the_official_script(prediction, gold):
    squad = pytest.importorskip("torchmetrics.functional.text").squad
    official = squad(
        {"prediction_text": prediction, "id": "q"}, {"answers": {"answer_start": [0] * len(gold), "text": gold}, "id": "q"}
    )
    assert exact_match(prediction, gold) == pytest.approx(float(official["exact_match"]) / 100, abs=1e-4)
    assert token_f1(prediction, gold) == pytest.approx(float(official["f1"]) / 100, abs=1e-4)


def test_normalisation_drops_case_punctuation_articles_and_blanks():
    assert normalise_answer("  The  Mill's an “old” one. ") == "mills “old” one"


@pytest.mark.parametrize(
    ("text", "gold", "expected"),
    [
        ("The mill was built in 1806.", ["1806"], 1.0),
        ("The mill was built in 18067.", ["1806"], 0.0),
        ("It cost $1,200 a year", ["$1,200"], 1.0),
        ("anything", ["the"], 0.0),
    ],
)
def test_a_text_contains_an_answer_as_whole_words(text, gold, expected):
    assert contains(text, gold) == expected


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=30))
def test_auroc_is_scikit_learns(pairs):
    metrics = pytest.importorskip("sklearn.metrics")
    truth, values = np.array([truth for truth, _ in pairs]), np.array([float(value) for _, value in pairs])
    if truth.all() or not truth.any():
        assert auroc(truth, values) is None
    else:
        assert auroc(truth, values) == pytest.approx(metrics.roc_auc_score(truth, values), abs=1e-9)


DATASET = Dataset(
    "mill",
    {"d1": Document("Mill", "Built in 1806. By Gurney."), "d2": Document("", "Dogs are welcome.")},
    {"q1": "When?", "q2": "Who?", "q3": "How much?"},
    {"q1": {"d1": 1}, "q2": {"d1": 1}},
    {"q1": ["1806"], "q2": ["Gurney"]},
)
TEXTS_BY_ID = {id_: document.encoded_text for id_, document in DATASET.corpus.items()}
HITS = {id_: [("d1", 3.0, 0.6), ("d2", 2.0, 0.4)] for id_ in DATASET.queries}


def quote(text: str, id_: str = "d1") -> Source:
    return Source(id_, "", 0, len(text), text, 0.9)


class Scripted:
    """Says what it was given for each question."""

    def __init__(self, answers: dict[str, Answer | Exception]) -> None:
        self.answers = answers
        self.seen: dict[str, list] = {}

    def read(self, question, hits):
        self.seen[question] = list(hits)
        answer = self.answers[question]
        if isinstance(answer, Exception):
            raise answer
        return answer


def answers(**changed) -> dict[str, Answer]:
    first = quote("Built in 1806.")
    return {
        "When?": Answer("When?", "Built in 1806.", True, 0.9, [first], [Statement("Built in 1806.", (first,), 1.0, True)],
                        span=quote("1806"), context=ContextUse(40, 80, 1, 1, 2)),
        "Who?": Answer("Who?", NOT_FOUND, False, 0.4, nearest=[quote("By Gurney."), quote("Dogs are welcome.", "d2")]),
        "How much?": Answer("How much?", NOT_FOUND, False, 0.1),
        **changed,
    }  # fmt: skip


def test_reading_takes_what_a_reader_would_have_said_and_declining_its_evidence():
    scores = evaluate_reader(Scripted(answers()), DATASET, HITS, TEXTS_BY_ID, {"q3"})
    assert (scores.questions, scores.unanswerable) == (3, 1)
    assert scores.containment == 1.0 and scores.answered_containment == 0.5
    assert scores.exact_match == 0.5 and scores.token_f1 == pytest.approx((1 + 2 * 1 / (5 + 1)) / 2)
    assert scores.abstention_auroc == 1.0 and scores.abstention_accuracy == pytest.approx(2 / 3)
    assert scores.squad_exact == pytest.approx(2 / 3), "q1 is right, q2 wrongly declined, q3 rightly"
    assert scores.per_query["q2"]["answered"] is False


def test_citations_are_held_against_the_judged_passages():
    scores = evaluate_reader(Scripted(answers()), DATASET, HITS, TEXTS_BY_ID, {"q3"})
    assert scores.citation_precision == pytest.approx((1 + 0.5) / 2)
    assert scores.citation_recall == 1.0


def test_faithfulness_is_the_share_of_supported_statements_and_the_context_is_counted():
    said = [Statement("Built in 1806.", (quote("Built in 1806."),), 0.9, True), Statement("By elves.", (), 0.1, False)]
    first = Answer("When?", "Built in 1806. By elves.", True, 0.9, [quote("Built in 1806.")], said)
    scores = evaluate_reader(Scripted(answers(**{"When?": first})), DATASET, HITS, TEXTS_BY_ID, {"q3"})
    assert scores.faithfulness == 0.5 and scores.context_tokens is None
    whole = evaluate_reader(Scripted(answers()), DATASET, HITS, TEXTS_BY_ID, {"q3"})
    assert (whole.context_tokens, whole.context_saved) == (40, 0.5)


def test_a_failing_call_is_recorded_and_the_others_are_measured():
    reader = Scripted(answers(**{"Who?": RuntimeError("out of memory")}))
    scores = evaluate_reader(reader, DATASET, HITS, TEXTS_BY_ID, {"q3"})
    assert scores.failures == {"q2": "RuntimeError: out of memory"}
    assert scores.containment == 0.5 and scores.questions == 3


def test_a_batch_that_fails_is_read_question_by_question():
    class Batched(Scripted):
        def read_batch(self, questions, hits):
            raise RuntimeError("one of you is bad")

    scores = evaluate_reader(Batched(answers()), DATASET, HITS, TEXTS_BY_ID, {"q3"})
    assert scores.failures == {} and scores.containment == 1.0


def test_a_reader_gets_texts_without_their_titles_which_are_context():
    reader = Scripted(answers())
    evaluate_reader(reader, DATASET, HITS, TEXTS_BY_ID, {"q3"})
    first, second = reader.seen["When?"]
    assert (first.text, first.context, first.relevance) == ("Built in 1806. By Gurney.", "Mill", 0.6)
    assert (second.text, second.context) == ("Dogs are welcome.", "")


def test_a_question_without_hits_is_read_all_the_same():
    reader = Scripted(answers())
    evaluate_reader(reader, DATASET, {}, TEXTS_BY_ID, {"q3"})
    assert reader.seen["When?"] == []


def test_progress_counts_questions():
    calls: list[tuple[int, int]] = []
    evaluate_reader(Scripted(answers()), DATASET, HITS, TEXTS_BY_ID, {"q3"}, lambda *args: calls.append(args))
    assert calls == [(3, 3)]


@pytest.mark.parametrize(
    ("hits", "unanswerable", "said"),
    [
        (HITS, {"q9"}, "'q9' is among the unanswerable ids"),
        (HITS, set(), "'q3' of mill has no reference answer"),
        ({"q1": [("d7", 1.0, 0.1)]}, {"q3"}, "'d7' is among the hits and has no text"),
    ],
)
def test_what_would_be_measured_wrongly_is_refused(hits, unanswerable, said):
    with pytest.raises(InvalidInputError, match=said):
        evaluate_reader(Scripted(answers()), DATASET, hits, TEXTS_BY_ID, unanswerable)


def test_a_judge_is_asked_about_the_answers_given_and_its_failures_are_recorded():
    llms = pytest.importorskip("llama_index.core.llms")
    from crisp_rag.eval.judges import llama_index_judge

    class Yes(llms.MockLLM):
        def complete(self, prompt, formatted=False, **kwargs):
            return llms.CompletionResponse(text="YES")

    class No(llms.MockLLM):
        def complete(self, prompt, formatted=False, **kwargs):
            return llms.CompletionResponse(text="NO")

    for model, expected in ((Yes(), 1.0), (No(), 0.0)):
        judge = llama_index_judge(model)
        scores = evaluate_reader(Scripted(answers()), DATASET, HITS, TEXTS_BY_ID, {"q3"}, judge=judge)
        assert scores.judged_faithfulness == expected
        assert [id_ for id_, row in scores.per_query.items() if "judged_faithfulness" in row] == ["q1"]

    def broken(answer, hits):
        raise RuntimeError("no quota")

    scores = evaluate_reader(Scripted(answers()), DATASET, HITS, TEXTS_BY_ID, {"q3"}, judge=broken)
    assert scores.judged_faithfulness is None and scores.failures == {"q1": "judge: RuntimeError: no quota"}
