"""Why a document got its score: the matches, and what words are behind them."""

from __future__ import annotations

import pytest

from crisp_rag.eval.explain import explain

QUERY = "How long does a refund for a damaged parcel take?"
DOCUMENT = (
    "Returns and refunds\nWe check every parcel that comes back. Refunds are paid within five working days. The shop is "
    "closed on Sundays and on public holidays, and there is nobody at the telephone then either; write to us instead."
)


def maxsim(encoder, query, document):
    return float((encoder.encode_query(query) @ encoder.encode_document(document).T).max(axis=1).sum())


@pytest.mark.parametrize("budget", ["8x32", "4x8", "none"])
def test_the_scores_add_up_to_maxsim_and_there_is_one_match_a_query_vector(default_encoder, budget):
    encoder = default_encoder.with_pooling(budget)
    matches = explain(encoder, QUERY, DOCUMENT)
    assert len(matches) == len(encoder.encode_query(QUERY))
    assert sum(match.score for match in matches) == pytest.approx(maxsim(encoder, QUERY, DOCUMENT), rel=1e-4)


def test_the_words_behind_a_vector_are_those_of_the_text(default_encoder):
    matches = explain(default_encoder, QUERY, DOCUMENT)
    met = {word: match.document for match in matches for word in match.query.words}
    assert met["parcel"].words == ("parcel",)
    assert all(word.strip("…") in QUERY for match in matches for word in match.query.words)
    assert all(word.strip("…") in DOCUMENT for match in matches for word in match.document.words)


def test_the_vectors_that_stand_for_whole_texts_say_so(default_encoder):
    encoder = default_encoder.with_pooling("8x32", query_text_vector=2.0, document_text_vector=True)
    matches = explain(encoder, QUERY, DOCUMENT)
    assert [match.query.whole for match in matches] == [False] * (len(matches) - 1) + [True]
    assert matches[-1].document.whole
    without = default_encoder.with_pooling("8x32", query_text_vector=0.0, document_text_vector=False)
    assert not any(match.query.whole or match.document.whole for match in explain(without, QUERY, DOCUMENT))


def test_every_token_stands_behind_one_vector(words):
    matches = explain(words, "red apples and apples", "green apples")
    assert [match.query.words for match in matches] == [("red",), ("apples",), ("and",), ("apples",)]
    assert matches[1].document.words == ("apples",) and matches[1].score == pytest.approx(1.0)


def test_a_word_that_goes_on_has_an_ellipsis(words):
    words.tokenizer = lambda text, **options: {"offset_mapping": [(0, 3), (3, 7)]}
    first, second = explain(words, "ref unds", "refunds")
    assert {first.document.words, second.document.words} <= {("ref…",), ("…unds",), ()}


def test_where_the_tokenizer_has_other_tokens_no_words_are_claimed(words):
    words.tokenizer = lambda text, **options: {"offset_mapping": [(0, 1)] * 40}
    assert all(match.query.words == match.document.words == () for match in explain(words, "red apples", "green apples"))
