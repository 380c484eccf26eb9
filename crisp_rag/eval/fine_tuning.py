"""Fine-tune an encoder on one's own documents, and measure what it brought on questions that were kept back.

    report = fine_tune(["handbook/"], "my-encoder", questions="questions.jsonl")
    report.before, report.after        # nDCG@10 of the questions that were not trained on

Documents ask for themselves (headings for their sections, sentences for the text around them); questions, where
there are any, have a first half that trains and a second that measures.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from crisp_rag.errors import DatasetError, IngestError, InvalidInputError
from crisp_rag.eval.datasets import load_beir
from crisp_rag.eval.metrics import score
from crisp_rag.jsonlines import numbered_lines
from crisp_rag.models.scoring import StackedVectors, ranking

if TYPE_CHECKING:
    from crisp_rag.index.types import Passage
    from crisp_rag.models.encoder import CrispEncoder
    from crisp_rag.training import Example, TrainingOptions

SOURCE = "documents"
QUESTION_WEIGHT = 8
"""A question that somebody asks says more than one made from a heading or a sentence, of which there are many."""
ENOUGH_MINED = 0.75
"""Share of examples with hard negatives below which all do without: dropping the others would lose too many."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question and the documents that answer it, as paths below the sources; and the words that answer, if known."""

    text: str
    documents: tuple[str, ...]
    answer: str = ""


@dataclass(slots=True)
class FineTuningReport:
    """What a run did.

    Args:
        encoder: Where the trained encoder lies.
        examples: Examples that were trained on, by source.
        steps: Optimiser steps.
        seconds: Wall clock of the training alone.
        documents_per_second: Documents that went through a step, a second.
        held_out: Questions that only measured.
        before: Their metrics with the encoder that the run started from; empty without questions.
        after: Their metrics with the trained one.
        skipped: Files that could not be read, with the reason.
    """

    encoder: str
    examples: dict[str, int]
    steps: int
    seconds: float
    documents_per_second: float
    held_out: int = 0
    before: dict[str, float] = field(default_factory=dict)
    after: dict[str, float] = field(default_factory=dict)
    skipped: list[dict[str, str]] = field(default_factory=list)


def fine_tune(
    sources: Sequence[str | Path],
    out: str | Path,
    *,
    questions: str | Path | None = None,
    encoder: CrispEncoder | None = None,
    options: TrainingOptions | None = None,
    hard_negatives: int = 1,
    question_weight: int = QUESTION_WEIGHT,
    resume: bool = False,
    on_step: Callable[[int, dict[str, float]], None] | None = None,
    on_message: Callable[[str], None] = lambda message: None,
) -> FineTuningReport:
    """Train on sources and save the encoder.

    Args:
        sources: Files and folders of documents, BEIR folders (their ``qrels/train.tsv``), JSONL files of pairs.
        out: Folder of the trained encoder.
        questions: JSONL with ``question`` and ``documents`` (path endings); needs documents among the sources.
        encoder: What to start from; the default encoder by default.
        options: See :class:`crisp_rag.training.TrainingOptions`.
        hard_negatives: Negatives mined for each example with the encoder before training; 0 for none.
        question_weight: How often a question takes part for each time that an example made from documents does.
        resume: Go on with an interrupted run in ``out``.
        on_step: Gets each step's number and losses.
        on_message: Gets a sentence when a stage begins.

    Raises:
        DatasetError, IngestError, InvalidInputError: if a source cannot be read or gives too few examples.
    """
    from crisp_rag.models import load_encoder
    from crisp_rag.training import TrainingOptions, mine_hard_negatives, train

    encoder = encoder or load_encoder()
    options = options or TrainingOptions()
    examples, passages, skipped = gather(sources, encoder, seed=options.seed)
    training, held_out = _halves(read_questions(questions), options.seed) if questions else ([], [])
    if questions and not passages:
        raise InvalidInputError("Questions are asked of documents, and there are none among the sources.")
    # Side by side: mining scores the corpus for a question once.
    examples += [example for example in asked(training, passages, encoder) for _ in range(question_weight)]
    counts: dict[str, int] = {}
    for example in examples:
        counts[example.source] = counts.get(example.source, 0) + 1
    on_message(f"{len(examples)} examples: " + ", ".join(f"{count} from {name}" for name, count in counts.items()))
    before = measure(encoder, passages, held_out)
    if hard_negatives and examples:
        on_message("Looking for hard negatives.")
        pool = [passage.encoded_text for passage in passages]
        examples = mine_hard_negatives(examples, pool, encoder, negatives=hard_negatives, seed=options.seed)
        complete = [example for example in examples if len(example.negatives) >= hard_negatives]
        if len(complete) < ENOUGH_MINED * len(examples):
            on_message(f"Only {len(complete)} have them: training with the negatives of each batch alone.")
            complete = [replace(example, negatives=()) for example in examples]
        examples = complete
    on_message(f"Training {options.steps} steps of {options.batch_size} examples.")
    trained = train(
        encoder, examples, out, options, resume=resume, on_step=on_step,
        evaluate=(lambda current: measure(current, passages, held_out)) if held_out else None,
    )  # fmt: skip
    report = FineTuningReport(
        encoder=str(out), examples=counts, steps=trained.steps, seconds=trained.seconds,
        documents_per_second=trained.documents_per_second, held_out=len(held_out), before=before,
        after=measure(load_encoder(out), passages, held_out), skipped=skipped,
    )  # fmt: skip
    return report


def gather(
    sources: Sequence[str | Path], encoder: CrispEncoder, *, seed: int = 0
) -> tuple[list[Example], list[Passage], list[dict[str, str]]]:
    """Examples of all sources, the passages of those that are documents, and the files that were skipped."""
    from crisp_rag.pipelines.loading import SafeReader, find_files
    from crisp_rag.pipelines.splitting import DEFAULT_MAX_TOKENS, PassageSplitter
    from crisp_rag.training import Section, examples_from_jsonl, examples_from_judgements, examples_from_sections

    examples: list[Example] = []
    documents = []
    for source in map(Path, sources):
        if (source / "corpus.jsonl").is_file():
            examples += examples_from_judgements(load_beir(source, split="train").without_missing(), seed=seed)
        elif source.suffix == ".jsonl":
            examples += examples_from_jsonl(source)
        else:
            documents.append(source)
    if not documents:
        return examples, [], []
    files, unread = find_files(documents)
    skipped = [{"path": str(item.path), "reason": item.reason} for item in unread]
    splitter = PassageSplitter(encoder.tokenizer, min(DEFAULT_MAX_TOKENS, encoder.max_document_tokens))
    passages: list[Passage] = []
    with SafeReader() as reader:
        for path in files:
            try:
                document = reader.load(path)
            except IngestError as error:  # one unreadable file does not stop the others
                skipped.append({"path": str(path), "reason": str(error)})
                continue
            for part in (document, *document.members):
                passages += splitter.split(part)
    sections = [Section(each.context, each.text, str(each.metadata["source"])) for each in passages]
    return examples + examples_from_sections(sections, seed=seed, source=SOURCE), passages, skipped


def read_questions(path: str | Path) -> list[Question]:
    """Questions of a JSONL file that name the documents that answer them; the others are left out.

    Raises:
        DatasetError: naming the line that has no ``question``, or the file if it cannot be read.
    """
    questions = []
    for number, line in numbered_lines(path):
        try:
            row = json.loads(line)
            answer = str(row.get("answer") or "")
            questions.append(Question(str(row["question"]), tuple(map(str, row.get("documents") or ())), answer))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DatasetError(f"{path}:{number} needs question and documents.") from error
    return [question for question in questions if question.documents and question.text.strip()]


def measure(encoder: CrispEncoder, passages: Sequence[Passage], questions: Sequence[Question]) -> dict[str, float]:
    """Metrics of questions over documents, each document as good as its best passage.

    In float32: what int8 rounds off may turn near ties of a small corpus, which would look like an effect of training.
    """
    from crisp_rag.models.encoder import CrispEncoder

    if not questions:
        return {}
    encoder = CrispEncoder(encoder.model, name=encoder.name, backend="torch")
    sources = [str(passage.metadata["source"]) for passage in passages]
    documents = StackedVectors(encoder.encode_document([passage.encoded_text for passage in passages]))
    run, qrels = {}, {}
    for number, (question, query) in enumerate(zip(questions, encoder.encode_query([q.text for q in questions]))):
        best: dict[str, float] = {}
        for row, value in ranking(documents.scores(query)):
            best.setdefault(sources[row], value)
        run[str(number)] = list(best.items())
        gold = {source: 1 for source in best if _is_named(source, question.documents)}
        if not gold:
            raise DatasetError(f"No source ends in {' or '.join(question.documents)}, which answers {question.text!r}.")
        qrels[str(number)] = gold
    return {name: round(value, 4) for name, value in score(run, qrels).items()}


def asked(questions: Sequence[Question], passages: Sequence[Passage], encoder: CrispEncoder) -> list[Example]:
    """An example a question: of the documents that answer it, the passage that the encoder likes best, among those that
    hold the words of the answer where any does."""
    from crisp_rag.training import Example

    examples = []
    for question in questions:
        own = [each for each in passages if _is_named(str(each.metadata["source"]), question.documents)]
        if not own:
            raise DatasetError(f"No source ends in {' or '.join(question.documents)}, which answers {question.text!r}.")
        own = [each for each in own if question.answer.casefold() in each.text.casefold()] or own
        documents = StackedVectors(encoder.encode_document([passage.encoded_text for passage in own]))
        best = own[int(documents.scores(encoder.encode_query(question.text)).argmax())]
        group = str(best.metadata["source"])
        examples.append(Example(question.text, best.encoded_text, group=group, source=SOURCE))
    return examples


def _halves(questions: list[Question], seed: int) -> tuple[list[Question], list[Question]]:
    shuffled = random.Random(seed).sample(questions, len(questions))
    return shuffled[: len(shuffled) // 2], shuffled[len(shuffled) // 2 :]


def _is_named(source: str, documents: Sequence[str]) -> bool:
    return any(source == document or source.endswith("/" + document) for document in documents)
