"""Training examples, from judged collections, from JSONL, or from documents that nobody has asked about yet.

examples = examples_from_judgements(load_beir("data/scifact", split="train"))
examples = examples_from_jsonl("pairs.jsonl")              # {"query": ..., "positive": ..., "negatives": [...]}
examples = examples_from_sections([Section("Refunds", "Refunds take five days. ...", "refunds.md")], seed=0)
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from crisp_rag.errors import DatasetError
from crisp_rag.jsonlines import numbered_lines

MIN_SENTENCE_WORDS = 6
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9\"'(])|\n\s*\n")


@dataclass(frozen=True, slots=True)
class Example:
    """One thing to learn.

    Args:
        query: What is asked.
        positive: The text that answers it.
        negatives: Texts that look alike and do not answer it.
        group: Article or topic; examples of one group share a step, which makes in-batch negatives hard.
        source: The collection; a step holds examples of one source only.
    """

    query: str
    positive: str
    negatives: tuple[str, ...] = ()
    group: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """A piece of a document without queries: its title or heading, its text, and the document it is from."""

    heading: str
    text: str
    document: str


class Judged(Protocol):
    """What :func:`crisp_rag.eval.datasets.load_beir` returns, as far as training reads it."""

    @property
    def name(self) -> str: ...
    @property
    def corpus(self) -> Mapping[str, Any]: ...
    @property
    def queries(self) -> Mapping[str, str]: ...
    @property
    def qrels(self) -> Mapping[str, Mapping[str, int]]: ...
    @property
    def binary_threshold(self) -> int: ...


def examples_from_judgements(dataset: Judged, *, limit: int | None = None, seed: int = 0) -> list[Example]:
    """One example for each relevant (query, document) pair of a judged collection.

    Args:
        dataset: A collection; its documents' titles are the groups.  Judgements of documents that it lacks are left out.
        limit: Take a random sample of so many pairs; None for all.
        seed: For the sample.
    """
    pairs = [
        (query, document)
        for query, grades in dataset.qrels.items()
        for document, grade in grades.items()
        if grade >= dataset.binary_threshold and document in dataset.corpus and dataset.corpus[document].encoded_text
    ]
    if limit is not None and limit < len(pairs):
        pairs = random.Random(seed).sample(pairs, limit)
    return [
        Example(
            query=dataset.queries[query],
            positive=dataset.corpus[document].encoded_text,
            group=dataset.corpus[document].title or document,
            source=dataset.name,
        )
        for query, document in pairs
    ]


def examples_from_jsonl(path: str | Path) -> list[Example]:
    """Pairs and triplets: one object a line with ``query``, ``positive`` and, if there are any, ``negatives``.

    Raises:
        DatasetError: naming the file and the line, if one is not of that form.
    """
    path = Path(path)
    examples = []
    for number, line in numbered_lines(path):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DatasetError(f"{path}:{number} is not JSON: {error}") from error
        texts = [row.get("query"), row.get("positive")] if isinstance(row, dict) else []
        negatives = row.get("negatives", []) if isinstance(row, dict) else None
        if not texts or not isinstance(negatives, list) or not all(
            isinstance(text, str) and text.strip() for text in [*texts, *negatives]
        ):  # fmt: skip
            raise DatasetError(f"{path}:{number} needs query and positive, and may have negatives: texts, none blank.")
        examples.append(Example(row["query"], row["positive"], tuple(negatives), str(row.get("group", "")), path.stem))
    return examples


def examples_from_sections(
    sections: Sequence[Section], *, sentences_per_section: int = 2, seed: int = 0, source: str = "documents"
) -> list[Example]:
    """Examples from documents alone: a heading asks for its section, and a sentence for what stood around it.

    The second kind is the inverse cloze task (Lee, Chang and Toutanova 2019, arXiv 1906.00300): the sentence is
    taken out of the text that it asks for, so that matching words alone do not solve it; one in ten stays in.

    Args:
        sections: Pieces of documents.
        sentences_per_section: How many sentences of a section ask for it, at most.
        seed: Which sentences.
        source: The examples' source.
    """
    chooser = random.Random(seed)
    headings = _counted(section.heading.strip() for section in sections)
    examples = []
    for section in sections:
        whole = "\n".join(part for part in (section.heading, section.text) if part.strip())
        heading = section.heading.strip()
        if heading and headings[heading] == 1:  # a heading that stands above several sections asks for none of them
            examples.append(Example(heading, section.text, group=section.document, source=source))
        sentences = [part.strip() for part in _SENTENCE_END.split(section.text) if part.strip()]
        askable = [sentence for sentence in sentences if len(sentence.split()) >= MIN_SENTENCE_WORDS]
        if len(sentences) < 2:
            continue
        for sentence in chooser.sample(askable, min(sentences_per_section, len(askable))):
            rest = whole if chooser.random() < 0.1 else whole.replace(sentence, " ", 1)
            examples.append(Example(sentence, rest, group=section.document, source=source))
    return examples


def _counted(values: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return counts
