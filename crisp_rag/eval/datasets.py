"""Reads a test collection in BEIR's form, and refuses one that would be measured wrongly.

A folder holds ``corpus.jsonl`` (``_id``, ``title``, ``text``), ``queries.jsonl`` (``_id``, ``text``, sometimes
``answers``) and ``qrels/<split>.tsv`` (a header, then query id, document id and grade, with tabs between).  Where there
is ``qrels/unanswerable.tsv``, its queries are those that no document answers: a reader should decline them, and no
retriever is measured on them.

    dataset = load_beir("data/scifact", split="test")
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crisp_rag.errors import DatasetError, InvalidInputError

_WHOLE_NUMBER = re.compile(r"[+-]?\d+")
TREC_HIGHEST_GRADE = 3
UNANSWERABLE = "unanswerable"


@dataclass(frozen=True, slots=True)
class Document:
    """A document of a collection; the title may be empty."""

    title: str
    text: str

    @property
    def encoded_text(self) -> str:
        """What every system reads: the title, a line break, the text; an empty part is left out."""
        return "\n".join(part for part in (self.title, self.text) if part.strip())


@dataclass(frozen=True, slots=True)
class Dataset:
    """A test collection.

    Args:
        name: The folder's name.
        corpus: Documents by id, in file order.
        queries: The split's queries by id, in the order of ``queries.jsonl``.
        qrels: The grade of each judged document by query; just the queries above.
        answers: Reference answers of the queries that have them.
        binary_threshold: The least grade that counts as relevant in metrics that know only yes and no: 1, and 2
            where the split's highest grade is 3, which is TREC's scale: there 1 means "on the topic, no answer".
        unanswerable: Queries by id that no document answers; none of the queries above.
    """

    name: str
    corpus: dict[str, Document]
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]
    answers: dict[str, list[str]] = field(default_factory=dict)
    binary_threshold: int = 1
    unanswerable: dict[str, str] = field(default_factory=dict)

    def texts(self) -> tuple[list[str], list[str]]:
        """Ids and encoded texts of the documents that have words; no system can find the others."""
        pairs = [(id_, document.encoded_text) for id_, document in self.corpus.items()]
        kept = [(id_, text) for id_, text in pairs if text]
        return [id_ for id_, _ in kept], [text for _, text in kept]


def load_beir(folder: str | Path, split: str = "test", limit_queries: int | None = None) -> Dataset:
    """Read a collection.

    Args:
        folder: Where it lies.
        split: Which ``qrels/<split>.tsv``; the queries are those that it judges.
        limit_queries: Take the first so many of them in the order of ``queries.jsonl``, and as many unanswerable
            ones; None for all.

    Raises:
        DatasetError: naming the file and the line, if a file is missing or malformed, an id is given twice, or the
            judgements name a query or a document that is not there.
        InvalidInputError: if ``limit_queries`` is below 1.
    """
    if limit_queries is not None and limit_queries < 1:
        raise InvalidInputError(f"limit_queries must be at least 1, got {limit_queries}.")
    folder = Path(folder)
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder: a data set is a folder with corpus.jsonl, queries.jsonl, qrels/.")
    corpus = read_corpus(folder / "corpus.jsonl")
    lines, queries, answers = _read_queries(folder / "queries.jsonl")
    qrels = _read_qrels(folder / "qrels" / f"{split}.tsv", corpus, queries)
    chosen = [id_ for id_ in queries if id_ in qrels][:limit_queries]
    for id_ in chosen:
        if not queries[id_].strip():
            raise DatasetError(f"{folder / 'queries.jsonl'}, line {lines[id_]}: the query {id_!r} has no words.")
    declined = folder / "qrels" / f"{UNANSWERABLE}.tsv"
    hopeless = _read_qrels(declined, corpus, queries) if declined.is_file() and split != UNANSWERABLE else {}
    unanswerable = [id_ for id_ in queries if id_ in hopeless and id_ not in qrels and queries[id_].strip()][:limit_queries]
    highest = max(grade for judged in qrels.values() for grade in judged.values())
    return Dataset(
        name=folder.resolve().name,
        corpus=corpus,
        queries={id_: queries[id_] for id_ in chosen},
        qrels={id_: qrels[id_] for id_ in chosen},
        answers={id_: answers[id_] for id_ in chosen if id_ in answers},
        binary_threshold=2 if highest == TREC_HIGHEST_GRADE else 1,
        unanswerable={id_: queries[id_] for id_ in unanswerable},
    )


def read_corpus(path: Path) -> dict[str, Document]:
    """The documents of a ``corpus.jsonl`` by id, in file order.

    Raises:
        DatasetError: naming the file and the line, if it is missing, malformed or without words.
    """
    corpus: dict[str, Document] = {}
    for line, id_, row in _rows(path):
        if id_ in corpus:
            raise DatasetError(f"{path}, line {line}: the id {id_!r} is there a second time.")
        corpus[id_] = Document(_string(path, line, row, "title", default=""), _string(path, line, row, "text"))
    if not any(document.encoded_text for document in corpus.values()):
        raise DatasetError(f"{path} has no document with words in it.")
    return corpus


def _read_queries(path: Path) -> tuple[dict[str, int], dict[str, str], dict[str, list[str]]]:
    """Line numbers, texts and answers by query id."""
    lines: dict[str, int] = {}
    queries: dict[str, str] = {}
    answers: dict[str, list[str]] = {}
    for line, id_, row in _rows(path):
        if id_ in queries:
            raise DatasetError(f"{path}, line {line}: the id {id_!r} is there a second time.")
        lines[id_] = line
        queries[id_] = _string(path, line, row, "text")
        given = row.get("answers")
        if given is None:
            continue
        if not isinstance(given, list) or not all(isinstance(answer, str) for answer in given):
            raise DatasetError(f"{path}, line {line}: 'answers' must be a list of strings.")
        answers[id_] = given
    return lines, queries, answers


def _read_qrels(path: Path, corpus: dict[str, Document], queries: dict[str, str]) -> dict[str, dict[str, int]]:
    qrels: dict[str, dict[str, int]] = {}
    for line, text in _lines(path):
        fields = [part.strip() for part in text.split("\t")]
        if len(fields) != 3:
            raise DatasetError(
                f"{path}, line {line}: expected query id, document id and grade with tabs between, got {text[:80]!r}."
            )
        query, document, grade = fields
        if not _WHOLE_NUMBER.fullmatch(grade):
            if line == 1:  # the header
                continue
            raise DatasetError(f"{path}, line {line}: a grade is a whole number, got {grade!r}.")
        if query not in queries:
            raise DatasetError(f"{path}, line {line}: there is no query {query!r} in queries.jsonl.")
        if document not in corpus:
            raise DatasetError(f"{path}, line {line}: there is no document {document!r} in corpus.jsonl.")
        if document in qrels.setdefault(query, {}):
            raise DatasetError(f"{path}, line {line}: query {query!r} and document {document!r} are judged twice.")
        qrels[query][document] = int(grade)
    if not qrels:
        raise DatasetError(f"{path} has no judgements.")
    return qrels


def _rows(path: Path) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Line number, id and object of each line of a JSON lines file."""
    for line, text in _lines(path):
        try:
            row = json.loads(text)
        except json.JSONDecodeError as error:
            raise DatasetError(f"{path}, line {line}: this is not JSON: {error}.") from error
        if not isinstance(row, dict):
            raise DatasetError(f"{path}, line {line}: expected a JSON object, got {text[:80]!r}.")
        id_ = row.get("_id")
        if isinstance(id_, bool) or not isinstance(id_, (str, int)) or not str(id_).strip():
            raise DatasetError(f"{path}, line {line}: '_id' must be a string that is not empty, got {id_!r}.")
        yield line, str(id_).strip(), row


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, without their ends, numbered from 1."""
    if not path.is_file():
        raise DatasetError(f"{path} is missing.")
    number = 0
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}, after line {number}: this is not UTF-8: {error}.") from error
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error}.") from error


def _string(path: Path, line: int, row: dict[str, Any], key: str, default: str | None = None) -> str:
    value = row.get(key)
    if value is None:
        value = default
    if not isinstance(value, str):
        raise DatasetError(f"{path}, line {line}: {key!r} must be a string, got {value!r}.")
    return value
