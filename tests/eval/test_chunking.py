"""Chunking figures: spans of characters, as the measures' authors count them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crisp_rag.errors import InvalidInputError
from crisp_rag.eval.chunking import ChunkingScores, chunking_scores, mean_scores


def scores(*arguments, **options):
    found = chunking_scores(*arguments, **options)
    return tuple(round(value, 4) for value in (found.recall, found.precision, found.iou))


def test_a_chunk_that_is_the_excerpt_is_perfect():
    assert scores([(10, 30)], [(10, 30)]) == (1, 1, 1)


def test_half_an_excerpt_in_a_chunk_twice_as_long():
    assert scores([(10, 30)], [(20, 40)]) == (0.5, 0.5, round(10 / 30, 4))


def test_what_overlapping_chunks_share_counts_once_above_and_twice_below():
    assert scores([(10, 30)], [(10, 30), (10, 30)]) == (1, 0.5, 0.5)


def test_chunks_of_other_texts_cost_precision_alone():
    assert scores([(10, 30)], [(10, 30)], elsewhere=60) == (1, 0.25, 0.25)


def test_nothing_found_and_touching_spans_are_zero():
    assert scores([(10, 30)], []) == (0, 0, 0)
    assert scores([(10, 30)], [(30, 50)]) == (0, 0, 0)


SPANS = st.lists(
    st.tuples(st.integers(0, 60), st.integers(1, 20)).map(lambda p: (p[0], p[0] + p[1])), min_size=1, max_size=5
)


def apart(spans):
    kept = []
    for start, end in sorted(spans):
        if not kept or start >= kept[-1][1]:
            kept.append((start, end))
    return kept


@given(references=SPANS.map(apart), retrieved=SPANS)
def test_figures_are_those_of_sets_of_characters(references, retrieved):
    wanted = {i for start, end in references for i in range(start, end)}
    held = {i for start, end in retrieved for i in range(start, end)}
    taken = sum(end - start for start, end in retrieved)
    found = chunking_scores(references, retrieved)
    assert found.recall == pytest.approx(len(wanted & held) / len(wanted))
    assert found.precision == pytest.approx(len(wanted & held) / taken)
    assert found.iou == pytest.approx(len(wanted & held) / (taken + len(wanted - held)))


@pytest.mark.parametrize("references", [[], [(5, 3)], [(-1, 3)], [(3, 3)]])
def test_senseless_excerpts_are_refused(references):
    with pytest.raises(InvalidInputError):
        chunking_scores(references, [(0, 5)])


def test_means_are_taken_figure_by_figure():
    assert mean_scores([ChunkingScores(1, 0.5, 0), ChunkingScores(0, 0.5, 1)]) == ChunkingScores(0.5, 0.5, 0.5)
    assert mean_scores([]) == ChunkingScores(0, 0, 0)
