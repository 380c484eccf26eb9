"""Where training examples come from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from crisp_rag.errors import DatasetError
from crisp_rag.eval.datasets import load_beir
from crisp_rag.training import Section, examples_from_jsonl, examples_from_judgements, examples_from_sections


@pytest.fixture
def judged(tmp_path: Path) -> Path:
    rows = [{"_id": str(n), "title": f"T{n}", "text": f"Text {n}."} for n in range(6)]
    (tmp_path / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "queries.jsonl").write_text("\n".join(json.dumps({"_id": f"q{n}", "text": f"ask {n}"}) for n in range(3)))
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq0\t0\t1\nq0\t1\t1\nq1\t2\t0\nq2\t3\t1\n")
    return tmp_path


def test_every_relevant_judgement_is_an_example_and_grade_0_is_none(judged: Path) -> None:
    examples = examples_from_judgements(load_beir(judged, split="train"))
    assert [(example.query, example.positive) for example in examples] == [
        ("ask 0", "T0\nText 0."), ("ask 0", "T1\nText 1."), ("ask 2", "T3\nText 3."),
    ]  # fmt: skip
    assert [example.group for example in examples] == ["T0", "T1", "T3"]


def test_judgements_of_documents_that_the_corpus_lacks_are_left_out(judged: Path) -> None:
    with (judged / "qrels" / "train.tsv").open("a") as file:
        file.write("q1\tnowhere\t1\n")
    assert "ask 1" not in {example.query for example in examples_from_judgements(load_beir(judged, split="train"))}


def test_a_limit_draws_the_same_sample_for_the_same_seed(judged: Path) -> None:
    dataset = load_beir(judged, split="train")
    draws = {seed: examples_from_judgements(dataset, limit=2, seed=seed) for seed in range(8)}
    assert all(len(draw) == 2 for draw in draws.values())
    assert draws[3] == examples_from_judgements(dataset, limit=2, seed=3)
    assert len({tuple(draw) for draw in draws.values()}) > 1


def test_jsonl_gives_pairs_and_triplets(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"query": "a", "positive": "b"}\n\n{"query": "c", "positive": "d", "negatives": ["e"], "group": "g"}\n')
    first, second = examples_from_jsonl(path)
    assert (first.query, first.positive, first.negatives, first.source) == ("a", "b", (), "mine")
    assert (second.negatives, second.group) == (("e",), "g")


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"query": "a"}', '{"query": " ", "positive": "b"}',
             '{"query": "a", "positive": "b", "negatives": "c"}', '{"query": "a", "positive": "b", "negatives": [""]}'],
)  # fmt: skip
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"query": "a", "positive": "b"}\n' + line + "\n")
    with pytest.raises(DatasetError, match=r"bad\.jsonl:2"):
        examples_from_jsonl(path)


LONG = "The frame of the bike carries a warranty of ten years. Forks and wheels are covered for two years only."


def test_a_heading_asks_for_its_section_unless_several_sections_share_it() -> None:
    sections = [Section("Warranty", LONG, "a.md"), Section("Notes", LONG, "a.md"), Section("Notes", LONG, "b.md")]
    asked = [example.query for example in examples_from_sections(sections, sentences_per_section=0)]
    assert asked == ["Warranty"]


def test_a_sentence_asks_for_the_text_around_it_without_it() -> None:
    examples = examples_from_sections([Section("Warranty", LONG, f"{n}.md") for n in range(40)], seed=1)
    cloze = [example for example in examples if example.query != "Warranty"]
    assert len(cloze) == 80
    kept = sum(example.query in example.positive for example in cloze)
    assert 0 < kept < 24  # one in ten stays in, so that matching words is learnt too
    assert all(example.positive.strip().startswith("Warranty") for example in cloze)


def test_a_section_of_one_sentence_is_not_asked_for_by_it() -> None:
    assert examples_from_sections([Section("", "There is only this one single sentence here.", "a.md")]) == []


def test_a_line_separator_inside_a_string_does_not_end_the_line(tmp_path: Path) -> None:
    text = "Up to here.\u2028And\x85from\x1chere."
    row = json.dumps({"query": "Where?", "positive": text}, ensure_ascii=False)
    (tmp_path / "pairs.jsonl").write_text(f"{row}\r\n\n{row}\n", encoding="utf-8", newline="")
    assert [example.positive for example in examples_from_jsonl(tmp_path / "pairs.jsonl")] == [text, text]
