"""Fine-tuning on documents, by the command, on a backbone small enough for a test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from crisp_rag.cli import app
from crisp_rag.errors import DatasetError
from crisp_rag.eval.fine_tuning import Question, asked, gather, measure, read_questions
from crisp_rag.models import build_encoder, load_encoder

ROOT = Path(__file__).resolve().parents[2]
HANDBOOK = ROOT / "examples" / "corpus" / "handbook"


@pytest.fixture(scope="module")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    from crisp_rag.models.encoder import default_backbone

    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = AutoTokenizer.from_pretrained(str(default_backbone()))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    BertModel(config).save_pretrained(str(folder / "backbone"))
    tokenizer.save_pretrained(str(folder / "backbone"))
    build_encoder(folder / "backbone", max_tokens=128, query_centroid="sum", device="cpu").save(folder / "encoder")
    return folder / "encoder"


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    rows = [json.loads(line) for line in (ROOT / "examples" / "questions.jsonl").read_text().splitlines()]
    for row in rows:
        row["documents"] = [each for each in row["documents"] if each.startswith("handbook/")]
    path = tmp_path / "questions.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_the_command_trains_measures_and_saves(tiny_encoder: Path, questions: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    arguments = ["train", str(HANDBOOK), "--out", str(out), "--questions", str(questions), "--from", str(tiny_encoder),
                 "--steps", "6", "--batch-size", "8", "--layers", "1", "--lr", "1e-3", "--json"]  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["steps"] == 6 and report["examples"]["documents"] > 50
    assert report["held_out"] == len(read_questions(questions)) - len(read_questions(questions)) // 2
    assert set(report["before"]) == set(report["after"]) and report["before"] != report["after"]
    assert load_encoder(out).pooling == "8x32"
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 1 and "another folder" in again.output.replace("\n", " ")


def test_the_variant_decides_the_pooling(tiny_encoder: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(
        "\n".join(json.dumps({"query": f"which is {n}", "positive": f"It is {n}, of course."}) for n in range(8))
    )
    result = CliRunner().invoke(
        app, ["train", str(pairs), "--out", str(tmp_path / "o"), "--from", str(tiny_encoder), "--variant", "c4x8",
              "--steps", "1", "--batch-size", "4"],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert load_encoder(tmp_path / "o").pooling == "4x8"


def test_held_out_documents_are_ranked_by_their_best_passage(tiny_encoder: Path) -> None:
    encoder = load_encoder(tiny_encoder)
    _, passages, _ = gather([HANDBOOK], encoder)
    some = passages[3]
    source = str(some.metadata["source"])
    figures = measure(encoder, passages, [Question(some.encoded_text, (Path(source).name,))])
    assert figures["RR@10"] == 1.0  # a passage asked for by itself puts its document first


def test_a_question_trains_on_the_passage_that_holds_its_answer(tiny_encoder: Path) -> None:
    encoder = load_encoder(tiny_encoder)
    _, passages, _ = gather([HANDBOOK], encoder)
    sources = [str(passage.metadata["source"]) for passage in passages]
    source = max(set(sources), key=sources.count)
    own = [passage for passage in passages if passage.metadata["source"] == source]
    assert len(own) > 2
    questions = [Question("What?", (Path(source).name,), answer=passage.text[-40:].upper()) for passage in own]
    assert [example.positive for example in asked(questions, passages, encoder)] == [each.encoded_text for each in own]
    nowhere = Question("What?", (Path(source).name,), answer="words that no passage has")
    assert asked([nowhere], passages, encoder)[0].positive in {each.encoded_text for each in own}


def test_a_question_of_a_document_that_is_not_there_is_an_error(tiny_encoder: Path) -> None:
    encoder: Any = load_encoder(tiny_encoder)
    _, passages, _ = gather([HANDBOOK], encoder)
    with pytest.raises(DatasetError, match=r"nowhere\.md"):
        measure(encoder, passages, [Question("Where?", ("nowhere.md",))])


def test_a_question_file_names_its_bad_line(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"question": "a", "documents": ["x.md"]}\n{"text": "b"}\n')
    with pytest.raises(DatasetError, match=r"q\.jsonl:2"):
        read_questions(path)
